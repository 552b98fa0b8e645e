"""A face of the open prior, acted before one camera: known codes and poses become landmarks."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from npga.core.cameras import Cameras
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.drive.driver import Equipment, single_camera
from nphm_tracking.detectors import MEDIAPIPE_COUNT, SCORE_NAMES, FoundFace
from nphm_tracking.frames import Person
from nphm_tracking.head import (
    canonical_landmarks,
    expression_prior,
    geometry_prior,
    landmark_slopes,
)
from nphm_tracking.observe import Observed, observed_rays

SCALE = 0.25
WIDTH, HEIGHT = 640, 480
PLACE = (0.0, 0.0, -0.6)


@cache
def equipment() -> Equipment:
    """The open prior and its F."""
    return Equipment.open()


def named(**codes: float) -> torch.Tensor:
    """One code by the names of its controls."""
    names = equipment().model.expression_names
    code = torch.zeros(len(names))
    for name, value in codes.items():
        for full in (name, f"{name}Left", f"{name}Right"):
            if full in names:
                code[names.index(full)] = value
    return code


def poses(
    turns: torch.Tensor, places: torch.Tensor | None = None, scale: float = SCALE
) -> Similarity:
    """Heads turned by these rotation vectors, at PLACE or places."""
    places = torch.tensor(PLACE).expand(len(turns), 3) if places is None else places
    return Similarity(torch.full((len(turns),), scale), matrix_from_rotvec(turns), places)


def swinging(count: int, size: float = 0.35) -> Similarity:
    """A head that turns, nods, leans and drifts."""
    t = torch.linspace(0, 6.0, count)
    turns = size * torch.stack([0.6 * (1.3 * t).sin(), t.sin(), 0.5 * (0.7 * t).cos()], 1)
    away = 0.05 * torch.stack([(0.9 * t).sin(), (1.7 * t).cos(), 1.5 * (0.6 * t).sin()], 1)
    return poses(turns, torch.tensor(PLACE) + away)


def talking(count: int) -> torch.Tensor:
    """Codes [count e] of a face that talks, blinks and smiles, in slow turns."""
    t = torch.linspace(0, 6.0, count)[:, None]
    return (
        0.5 * (2.1 * t).sin().clamp_min(0) * named(jawOpen=1.0)
        + 0.6 * (1.3 * t + 1).sin().clamp_min(0) * named(mouthSmile=1.0)
        + 0.8 * (4 * (2.9 * t).sin() - 3).clamp(0, 1) * named(eyeBlink=1.0)
        + 0.5 * (0.8 * t + 2).sin().clamp_min(0) * named(browInnerUp=1.0, browOuterUp=0.6)
    )


def another_identity(seed: int = 3, amount: float = 0.6) -> torch.Tensor:
    """Somebody of the population."""
    geometry = geometry_prior(equipment().model)
    draw = torch.randn(len(geometry.mean), generator=torch.Generator().manual_seed(seed))
    return geometry.mean + amount * geometry.std * draw


@dataclass(frozen=True)
class ActedFace:
    """Somebody with an identity; the mean head if none is given."""

    z_geo: torch.Tensor
    width: int = WIDTH
    height: int = HEIGHT

    @staticmethod
    def mean(width: int = WIDTH, height: int = HEIGHT) -> "ActedFace":
        return ActedFace(geometry_prior(equipment().model).mean, width, height)

    @property
    def camera(self) -> Cameras:
        return single_camera(self.width, self.height)

    def person(self) -> Person:
        """As if known exactly."""
        model = equipment().model
        with torch.no_grad():
            marks = canonical_landmarks(model, self.z_geo)
        slopes, prior = landmark_slopes(model), expression_prior(model)
        scale = torch.tensor(SCALE)
        return Person(model, self.z_geo, scale, marks, prior, slopes, equipment().motion)

    def pixels(self, z_exp: torch.Tensor, world_from_head: Similarity) -> torch.Tensor:
        """[t l 2] of the used landmarks."""
        person = self.person()
        marks = equipment().motion(person.landmarks, self.z_geo, z_exp).marks
        world = world_from_head.apply(marks)
        return self.camera.project(world.flatten(0, 1))[0][0].unflatten(0, marks.shape[:2])

    def faces(
        self, z_exp: torch.Tensor, world_from_head: Similarity, scores: torch.Tensor | None = None
    ) -> list[FoundFace]:
        """As a detector would find it; unused landmarks lie on the face's middle."""
        found = []
        for n, pixels in enumerate(self.pixels(z_exp, world_from_head)):
            points = pixels.mean(0).repeat(MEDIAPIPE_COUNT, 1)
            points[list(equipment().mean.landmark_ids)] = pixels
            found.append(
                FoundFace(points.numpy(), None if scores is None else as_scores(scores[n]))
            )
        return found

    def observed(
        self,
        z_exp: torch.Tensor,
        world_from_head: Similarity,
        found: torch.Tensor | None = None,
    ) -> Observed:
        """What `calibrate` and the batch solver take."""
        mean = equipment().mean
        pixels = self.pixels(z_exp, world_from_head)
        seen = torch.ones(len(pixels)) if found is None else found.float()
        confidence = seen[:, None].expand(-1, pixels.shape[1])
        return observed_rays(
            "acted", 25.0, torch.arange(len(pixels)), pixels, confidence, self.camera, mean, 2.0
        )


def as_scores(code: torch.Tensor) -> np.ndarray:
    """A code in the order of a detector's scores."""
    names = equipment().model.expression_names
    return np.array([float(code[names.index(name)]) for name in SCORE_NAMES], np.float32)
