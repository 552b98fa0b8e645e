"""What the tracker knows and seeks of frames: observations, unknowns, and the person behind them.

t frames, n points, l landmarks, d = e + 6 unknowns of a frame (expression code, rotation,
translation of a small motion in head space).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from nphm_tracking.energies import PosedLandmarks, carried_landmarks, follow_landmarks
from nphm_tracking.head import CodePrior, TrackableHead


@dataclass(frozen=True)
class FrameState:
    """Unknowns of `t` frames."""

    z_exp: Float[Tensor, "t e"]
    rotation: Float[Tensor, "t 3 3"]
    """Of world_from_head."""
    translation: Float[Tensor, "t 3"]
    """Of world_from_head, metres."""
    marks: Float[Tensor, "t l 3"]
    """Where the landmarks of this expression are, head units."""

    def __getitem__(self, index: slice | Tensor) -> "FrameState":
        return FrameState(
            self.z_exp[index], self.rotation[index], self.translation[index], self.marks[index]
        )

    def pose(self, scale: Tensor) -> Similarity:
        """world_from_head of every frame."""
        return Similarity(scale.expand(len(self.z_exp)), self.rotation, self.translation)

    def moved(self, step: Float[Tensor, "t d"], scale: Tensor, prior: CodePrior) -> "FrameState":
        """After a step of the unknowns; codes are clipped to their bounds, marks stay."""
        size = self.z_exp.shape[1]
        z_exp = torch.minimum(torch.maximum(self.z_exp + step[:, :size], prior.lower), prior.upper)
        turn = matrix_from_rotvec(step[:, size : size + 3]).transpose(1, 2)
        rotation = self.rotation @ turn
        shift = (rotation @ step[:, size + 3 :, None]).squeeze(-1)
        return FrameState(z_exp, rotation, self.translation - scale * shift, self.marks)


@dataclass(frozen=True)
class FrameData:
    """What was observed in `t` frames of one sequence, world metres; weight 0 = absent."""

    points: Float[Tensor, "t n 3"]
    normals: Float[Tensor, "t n 3"]
    point_weight: Float[Tensor, "t n"]
    landmarks: Float[Tensor, "t l 3"]
    landmark_weight: Float[Tensor, "t l"]
    linked: Float[Tensor, "u"]
    """[t - 1] Coupling of neighbours: 1 / frames between them; 0 = none (a frame without data)."""
    code_weight: Float[Tensor, "t"]
    """Factor on the code term: large where a frame is known to be at rest."""
    landmark_ray: Float[Tensor, "t l 3"] | None = None
    """World directions along which a landmark is not known (one camera); None = all is known."""
    scores: Float[Tensor, "t e"] | None = None
    """Where a detector sees the codes; NaN where it does not know one."""

    def __getitem__(self, index: slice | Tensor) -> "FrameData":
        """Some frames; they keep no links."""
        count = len(self.points[index])
        return FrameData(
            self.points[index],
            self.normals[index],
            self.point_weight[index],
            self.landmarks[index],
            self.landmark_weight[index],
            self.points.new_zeros(max(count - 1, 0)),
            self.code_weight[index],
            None if self.landmark_ray is None else self.landmark_ray[index],
            None if self.scores is None else self.scores[index],
        )


@dataclass(frozen=True)
class LandmarkMiss:
    """Posed minus observed landmarks, head units; across the rays where only those are known.

    The observation is then the ray's point nearest to the posed landmark, so that to first order
    the derivative of the distance is the derivative of the difference, projected across the ray.
    """

    error: Float[Tensor, "t l 3"]
    observed: Float[Tensor, "t l 3"]
    ray: Float[Tensor, "t l 3"] | None

    @staticmethod
    def of(
        data: FrameData, state: "FrameState", marks: Float[Tensor, "t l 3"], scale: Tensor
    ) -> "LandmarkMiss":
        """The miss of posed landmarks."""
        observed = to_head(data.landmarks, state, scale)
        error = marks - observed
        if data.landmark_ray is None:
            return LandmarkMiss(error, observed, None)
        ray = data.landmark_ray @ state.rotation
        along = (error * ray).sum(-1, keepdim=True) * ray
        return LandmarkMiss(error - along, observed + along, ray)

    def across(self, rows: Float[Tensor, "t l 3 k"]) -> Float[Tensor, "t l 3 k"]:
        """Derivatives of the difference -> derivatives of the error."""
        if self.ray is None:
            return rows
        return rows - self.ray[..., None] * (self.ray[..., None, :] @ rows)


@runtime_checkable
class LandmarkMotion(Protocol):
    """Carries canonical landmarks to their posed places without inverting B (a distilled F)."""

    def __call__(self, canonical: Tensor, z_geo: Tensor, z_exp: Tensor) -> PosedLandmarks:
        """[l 3], [g], [t e] -> the landmarks of t frames and their slopes, head units."""
        ...


@dataclass(frozen=True)
class Person:
    """What all frames share."""

    model: TrackableHead
    z_geo: Float[Tensor, "g"]
    scale: Float[Tensor, ""]
    """Metres in one head unit."""
    landmarks: Float[Tensor, "l 3"]
    """Canonical positions, personal bias included."""
    prior: CodePrior
    slopes: Float[Tensor, "l 3 e"] | None = None
    """Motion of the landmarks per unit code, where the head model knows it."""
    motion: LandmarkMotion | None = None
    """Asked before slopes and B where it is given."""

    @property
    def carries(self) -> bool:
        """Whether landmarks are carried forward, with no need to invert B."""
        return self.motion is not None or self.slopes is not None

    def carried(
        self, canonical: Float[Tensor, "l 3"], z_exp: Float[Tensor, "t e"]
    ) -> PosedLandmarks:
        """Canonical landmarks carried forward by the motion, or else by the slopes."""
        if self.motion is not None:
            return self.motion(canonical, self.z_geo, z_exp)
        assert self.slopes is not None
        return carried_landmarks(canonical, self.slopes, z_exp)

    def posed_landmarks(self, state: FrameState, rounds: int = 2) -> PosedLandmarks:
        """The landmarks under the state's codes: carried forward, else by inverting B."""
        if self.carries:
            return self.carried(self.landmarks, state.z_exp)
        return follow_landmarks(
            self.model, state.marks, self.landmarks, self.z_geo, state.z_exp, rounds
        )


def to_head(
    points: Float[Tensor, "t n 3"], state: FrameState, scale: Tensor
) -> Float[Tensor, "t n 3"]:
    """World metres to head units."""
    return ((points - state.translation[:, None]) @ state.rotation) / scale
