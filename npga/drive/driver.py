"""A person before one camera: from pictures to codes and head poses.

t frames, l used landmarks. The camera stands in the origin of its world: x right, y up, looking
along -z, so that a face that looks into it faces +z, as in NeRSemble. A head unit is 0.25 m, since
one camera does not see how large a head is, unless the driver is known.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.cameras import Cameras
from npga.distill.landmarks import ForwardLandmarks, forward_landmarks
from npga.drive.faces import ChosenFace, Points
from nphm_tracking import HeadModel, Track, load_head_model, load_track
from nphm_tracking.align import METRES_PER_UNIT
from nphm_tracking.config import TrackConfig
from nphm_tracking.detectors import open_detector
from nphm_tracking.follow import FaceFollower, calibrate, known_person
from nphm_tracking.frames import Person
from nphm_tracking.observe import MeanHead, Observed, landmark_weights, observed_rays
from nphm_tracking.run import mean_head

FOCAL_SHARE = 1.2
"""Guessed focal length over the longer side of the picture: 45 degrees, between phone and webcam."""
DETAIL_WEIGHT = TrackConfig.__dataclass_fields__["detail_weight"].default
FACES_MAX = 4
"""Faces that are looked for where the second or third may drive."""


def single_camera(width: int, height: int, focal: float | None = None) -> Cameras:
    """The driver's camera; `focal` in pixels, guessed where it is not given."""
    focal = FOCAL_SHARE * max(width, height) if focal is None else focal
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
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

    def used(self, points: Points) -> Float[Tensor, "l 2"]:
        """The used ones of a detector's landmarks."""
        return torch.from_numpy(points[list(self.mean.landmark_ids)])

    def follower(self, person: Person, camera: Cameras) -> FaceFollower:
        """Follows a calibrated person."""
        return FaceFollower(person, camera, self.importance)


@dataclass(frozen=True)
class Seen:
    """A take as the detector saw it."""

    points: list[Points | None]
    """Pixels of every frame's chosen face."""
    seconds: list[float]
    width: int
    height: int

    @property
    def share(self) -> float:
        """Of frames with a face."""
        return float(np.mean([points is not None for points in self.points]))

    def observed(
        self,
        equipment: Equipment,
        camera: Cameras,
        fps: float,
        metres_per_unit: float = METRES_PER_UNIT,
    ) -> Observed:
        """Rays and first poses; raises TrackError where there is no face at all."""
        count = len(equipment.mean.landmark_ids)
        blank = torch.zeros(count, 2)
        pixels = [blank if p is None else equipment.used(p) for p in self.points]
        found = torch.tensor([p is not None for p in self.points])
        return observed_rays(
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


def face_chooser(landmarker: str | None, rank: int) -> ChosenFace:
    """Finds the driver's face; raises TrackError without MediaPipe."""
    return ChosenFace(open_detector(landmarker, faces_max=max(rank, FACES_MAX)), rank)


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


def person_of(equipment: Equipment, observed: Observed, known: KnownDriver | None) -> Person:
    """The driver: as known, else calibrated on what was observed."""
    if known is not None:
        return known_person(equipment.model, equipment.motion, known.track)
    return calibrate(equipment.model, equipment.motion, observed)

