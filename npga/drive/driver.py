"""A person before one camera: from pictures to codes and head poses.

t frames, l used landmarks. The camera stands in the origin of its world: x right, y up, looking
along -z, so that a face that looks into it faces +z, as in NeRSemble. A head unit is 0.25 m, since
one camera does not see how large a head is, unless the driver is known.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.distill.landmarks import ForwardLandmarks, forward_landmarks
from npga.drive.faces import ChosenFace
from nphm_tracking import HeadModel, Track, load_head_model, load_track
from nphm_tracking.align import METRES_PER_UNIT
from nphm_tracking.config import TrackConfig
from nphm_tracking.detectors import SCORE_NAMES, FoundFace, open_detector
from nphm_tracking.follow import Calibration, FaceFollower, Followed, calibrate, known_person
from nphm_tracking.observe import MeanHead, Observed, landmark_weights, observed_rays
from nphm_tracking.run import mean_head

FOCAL_SHARE = 1.2
"""Guessed focal length over the picture's longer side: 45 degrees, between phone and webcam."""
DETAIL_WEIGHT = TrackConfig.__dataclass_fields__["detail_weight"].default
FACES_MAX = 4
"""Faces that are looked for where the second or third may drive."""


def single_camera(
    width: int, height: int, focal: float | None = None, centre: list[float] | None = None
) -> Cameras:
    """The driver's camera; focal length and principal point in pixels, guessed if not given."""
    focal = FOCAL_SHARE * max(width, height) if focal is None else focal
    column, row = (width / 2, height / 2) if centre is None else centre
    intrinsics = torch.tensor([[focal, 0, column], [0, focal, row], [0, 0, 1.0]])
    cam_from_world = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    return Cameras(intrinsics[None], cam_from_world[None], width, height, ("camera",))


@dataclass(frozen=True)
class Equipment:
    """What every driver is tracked with."""

    model: HeadModel
    motion: ForwardLandmarks
    mean: MeanHead

    @staticmethod
    def open(head_model: str | None = None, prior: str | None = None) -> "Equipment":
        """A head model and its F; raises CheckpointError, or ConfigError without landmarks."""
        model = load_head_model(head_model)
        return Equipment(model, forward_landmarks(model, prior), mean_head(model, True))

    @property
    def importance(self) -> Float[Tensor, "l"]:
        """Weight of every used landmark."""
        return landmark_weights(self.mean.landmark_ids, DETAIL_WEIGHT)

    def used(self, face: FoundFace) -> Float[Tensor, "l 2"]:
        """The used ones of a detector's landmarks."""
        return torch.from_numpy(face.points[list(self.mean.landmark_ids)])

    def scores(self, face: FoundFace) -> Float[Tensor, " e"] | None:
        """A detector's scores in the order of the head model's codes, NaN where one has no score.

        None where the detector gives none, or knows no code by name.
        """
        names = self.model.expression_names
        if face.scores is None or not set(names) & set(SCORE_NAMES):
            return None
        places = [SCORE_NAMES.index(name) if name in SCORE_NAMES else -1 for name in names]
        known = np.append(face.scores, np.nan).astype(np.float32)
        return torch.from_numpy(known[places])

    def follower(self, calibration: Calibration, camera: Cameras) -> FaceFollower:
        """Follows a calibrated person."""
        return FaceFollower(calibration, camera, self.importance)

    def follow(self, follower: FaceFollower, face: FoundFace | None) -> Followed:
        """The next frame of a follower; None where no face was found."""
        if face is None:
            return follower.follow(None)
        return follower.follow(self.used(face), self.scores(face))


@dataclass(frozen=True)
class Seen:
    """A take as the detector saw it."""

    faces: list[FoundFace | None]
    """The chosen face of every frame."""
    seconds: list[float]
    width: int
    height: int
    shrunk: float = 1.0
    """Size of the pictures over the video's."""

    def camera(self, focal: float | None, centre: list[float] | None) -> Cameras:
        """The camera of these pictures; what is given is in pixels of the video."""
        if focal is not None:
            focal = focal * self.shrunk
        if centre is not None:
            centre = [value * self.shrunk for value in centre]
        return single_camera(self.width, self.height, focal, centre)

    def observed(
        self,
        equipment: Equipment,
        camera: Cameras,
        fps: float,
        metres_per_unit: float = METRES_PER_UNIT,
    ) -> Observed:
        """Rays, first poses and scores; raises TrackError where there is no face at all."""
        count, size = len(equipment.mean.landmark_ids), equipment.model.exp_size
        blank, unknown = torch.zeros(count, 2), torch.full((size,), torch.nan)
        pixels = [blank if face is None else equipment.used(face) for face in self.faces]
        found = torch.tensor([face is not None for face in self.faces])
        observed = observed_rays(
            "video",
            fps,
            torch.arange(len(pixels)),
            torch.stack(pixels),
            found[:, None].float().expand(-1, count),
            camera,
            equipment.mean,
            DETAIL_WEIGHT,
            metres_per_unit,
        )
        scores = [None if face is None else equipment.scores(face) for face in self.faces]
        if all(one is None for one in scores):
            return observed
        known = torch.stack([unknown if one is None else one for one in scores])
        return replace(observed, data=replace(observed.data, scores=known))


def face_chooser(landmarker: str | None, rank: int) -> ChosenFace:
    """Finds the driver's face; raises TrackError without MediaPipe."""
    finder = open_detector(landmarker, faces_max=max(rank, FACES_MAX), scores=True)
    return ChosenFace(finder, rank)


@dataclass(frozen=True)
class KnownDriver:
    """A driver whose multi-view track is there."""

    track: Track

    @staticmethod
    def load(path: str | None, equipment: Equipment) -> "KnownDriver | None":
        """None where no path is given; raises TrackError for another head model's."""
        if path is None:
            return None
        track = load_track(path)
        track.require_model(equipment.model.checksum())
        return KnownDriver(track)

    @property
    def metres_per_unit(self) -> float:
        """The head's size."""
        return float(next(iter(self.track.sequences.values())).world_from_head.scale[0])


def calibration_of(
    equipment: Equipment, observed: Observed, known: KnownDriver | None
) -> Calibration:
    """The driver: as known, else calibrated on what was observed."""
    if known is not None:
        return known_person(equipment.model, equipment.motion, observed, known.track)
    return calibrate(equipment.model, equipment.motion, observed)


def straight_pose(poses: Similarity) -> Similarity:
    """The driver's head when it looks straight into the camera, from all poses [t] of a take.

    At the median place, turned and tilted towards the camera, which stands in the origin; the nod
    stays at the take's median, since cameras stand above or below the eyes and detectors are
    biased there. A mean over the take would call a driver who looks aside straight. Ours.
    """
    place = poses.translation.median(0).values
    forward = torch.nn.functional.normalize(-place, dim=0)
    up = place.new_tensor([0.0, 1.0, 0.0])
    right = torch.nn.functional.normalize(torch.linalg.cross(up, forward), dim=0)
    facing = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    turns = facing.T @ poses.rotation
    ahead = turns[:, :, 2]
    nod = torch.atan2(-ahead[:, 1], ahead[:, ::2].norm(dim=1)).median()
    tilted = matrix_from_rotvec(place.new_tensor([1.0, 0.0, 0.0]) * nod)
    return Similarity(poses.scale[0], facing @ tilted, place)
