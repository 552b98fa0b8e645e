"""Live: a driver is calibrated on seconds of a face at rest, then followed picture by picture.

t frames, e expression size.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.device import torch_threads
from npga.core.errors import TrackError
from npga.core.similarity import Similarity
from npga.drive.driver import Equipment, KnownDriver, Seen, calibration_of
from npga.drive.faces import ChosenFace
from npga.drive.puppet import Driven, Puppet
from npga.drive.source import Frame
from npga.drive.stage import Stage
from npga.drive.track import FACES_MIN
from npga.reenact.openings import Gaps, Openings
from npga.reenact.retarget import Face
from nphm_tracking.detectors import FoundFace
from nphm_tracking.follow import FaceFollower

STEP_MAX_S = 0.2
"""Of the seconds between two faces, no more than so many count towards the calibration."""


@dataclass(frozen=True)
class Actor:
    """A calibrated driver and the avatar that he moves."""

    equipment: Equipment
    follower: FaceFollower
    puppet: Puppet

    def __call__(self, face: FoundFace | None, seconds: float) -> Driven:
        """What the avatar does as this face, or its absence, is seen."""
        return self.puppet(self.equipment.follow(self.follower, face), seconds)


def rehearse(stage: Stage, seen: Seen, known: KnownDriver | None = None) -> Actor:
    """The actor of a face at rest, which takes seconds; raises TrackError where it shows none."""
    torch.set_num_threads(1)  # of this thread: small solves are slower with more
    equipment = stage.equipment
    camera = seen.camera(stage.config.focal, stage.config.centre)
    size = {} if known is None else {"metres_per_unit": known.metres_per_unit}
    span = max(seen.seconds[-1] - seen.seconds[0], 1e-3)
    observed = seen.observed(equipment, camera, (len(seen.faces) - 1) / span, **size)
    calibration = calibration_of(equipment, observed, known)
    codes, rest = at_rest(equipment, equipment.follower(calibration, camera), seen)
    face = resting_face(codes, calibration.person.z_geo, equipment)
    return Actor(equipment, equipment.follower(calibration, camera), stage.puppet(face, rest))


def at_rest(
    equipment: Equipment, follower: FaceFollower, seen: Seen
) -> tuple[Float[Tensor, "t e"], Similarity]:
    """The codes of the frames with a face, and their mean pose; raises TrackError for none."""
    followed = [equipment.follow(follower, face) for face in seen.faces if face is not None]
    good = [one for one in followed if one.found]
    if len(good) < FACES_MIN:
        raise TrackError(
            f"The calibration followed the face in {len(good)} of {len(seen.faces)} pictures; "
            f"{FACES_MIN} are needed.",
            "Look into the camera with the whole face in the picture, and with more light.",
        )
    poses = Similarity.stack([one.world_from_head for one in good])
    return torch.stack([one.z_exp for one in good]), poses.mean()


def resting_face(codes: Float[Tensor, "t e"], z_geo: Tensor, equipment: Equipment) -> Face:
    """A driver's calibration from codes that are all of a face at rest: their median.

    ``Face.of_codes`` takes a low quantile instead, since a take is mostly no rest.
    """
    neutral = codes.median(0).values
    gaps = Gaps.of(equipment.model, z_geo)
    return Face(neutral, None if gaps is None else Openings.calibrated(gaps, neutral, codes))


@dataclass(frozen=True)
class Shot:
    """One picture of the driver and what the avatar does, on the way to being drawn."""

    frame: Frame
    driven: Driven
    found: bool
    """Whether the driver's face is in the picture."""
    message: str | None
    """What the driver is to do; None while the avatar is driven."""
    began: float
    """``time.perf_counter`` when the tracker took the picture."""
    detected: float
    solved: float


@dataclass
class Gathering:
    """The faces of a calibration, as they come."""

    faces: list[FoundFace] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    """With a face so far."""

    def add(self, face: FoundFace, at: float) -> None:
        """One more."""
        if self.times:
            self.seconds += min(at - self.times[-1], STEP_MAX_S)
        self.faces.append(face)
        self.times.append(at)


class LiveTracker:
    """Pictures -> shots: gathers a face at rest, calibrates aside, then follows.

    While it calibrates, at first or again, the avatar is or goes to rest.
    """

    def __init__(
        self,
        stage: Stage,
        chooser: ChosenFace,
        known: KnownDriver | None = None,
    ) -> None:
        self.stage, self.chooser, self.known = stage, chooser, known
        self.calibrated_in: float | None = None
        """Seconds that the last calibration took."""
        self.at_rest = Driven(stage.face.neutral, stage.rest, stage.rest, 0.0, False)
        self._actor: Actor | None = None
        self._gathering: Gathering | None = Gathering()
        self._pending: Future[Actor] | None = None
        self._asked = self._seconds = 0.0
        self._advice = ""
        self._aside = ThreadPoolExecutor(1, "calibration")

    def calibrate_again(self) -> None:
        """From the next picture on; one that is being computed goes on instead."""
        if self._pending is None:
            self._gathering, self._advice = Gathering(), ""

    @property
    def driving(self) -> bool:
        """Whether pictures move the avatar."""
        return self._gathering is None and self._pending is None

    @property
    def pending(self) -> "Future[Actor] | None":
        """The calibration that is being computed."""
        return self._pending

    def close(self) -> None:
        """Waits for a calibration that is being computed, since it cannot be cut short."""
        self._aside.shutdown(cancel_futures=True)

    def __call__(self, frame: Frame) -> Shot:
        """The next picture; a calibration's TrackError is told, what else it raised is raised."""
        with torch_threads(1):
            return self._shot(frame)

    def _shot(self, frame: Frame) -> Shot:
        began = time.perf_counter()
        self._collect()
        face = None if self._pending is not None else self.chooser(frame.image)
        detected = time.perf_counter()
        message = None if self.driving else self._prepare(frame, face)
        if self._actor is None:
            driven = self.at_rest
        else:
            driven = self._actor(face if message is None else None, frame.seconds)
        self._seconds = frame.seconds
        found = face is not None or self._pending is not None
        return Shot(frame, driven, found, message, began, detected, time.perf_counter())

    def _prepare(self, frame: Frame, face: FoundFace | None) -> str:
        """One more picture of the calibration; what is told of it."""
        gathering = self._gathering
        if gathering is None:
            return "calibrating, a moment ..."
        if face is not None:
            gathering.add(face, frame.seconds)
        left = max(0.0, self.stage.config.calibrate_s - gathering.seconds)
        if left < 1e-6 and len(gathering.faces) >= FACES_MIN:
            height, width, _ = frame.image.shape
            seen = Seen(list(gathering.faces), gathering.times, width, height, frame.shrunk)
            self._gathering, self._asked = None, time.perf_counter()
            self._pending = self._aside.submit(rehearse, self.stage, seen, self.known)
            return "calibrating, a moment ..."
        if face is None:
            return f"{self._advice}no face: look at the camera"
        return f"{self._advice}look at the camera, face at rest: {left:.1f} s"

    def _collect(self) -> None:
        """Take over a calibration that is complete."""
        if self._pending is None or not self._pending.done():
            return
        done, self._pending = self._pending, None
        try:
            self._actor = done.result()
            self._actor(None, self._seconds)  # at rest so far: it comes from there without a jump
        except TrackError as error:
            self._gathering, self._advice = Gathering(), f"{error.todo} "
            return
        self._advice = ""
        self.calibrated_in = time.perf_counter() - self._asked
