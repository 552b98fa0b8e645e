"""What the tracker asks of a head model; any class with these members can be tracked.

g geometry size, e expression size, i identity size, l landmarks. All positions in head space.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nphm_tracking.landmarks import used_landmarks

STD_MIN = 0.02
"""Codes that the population hardly uses still move a little."""


@dataclass(frozen=True)
class CodePrior:
    """What is known of a code: a Gaussian around a centre, inside bounds."""

    mean: Float[Tensor, "d"]
    std: Float[Tensor, "d"]
    lower: Float[Tensor, "d"]
    upper: Float[Tensor, "d"]


@runtime_checkable
class TrackableHead(Protocol):
    """The members of `HeadModel` that tracking uses (tests bring an analytic head)."""

    @property
    def geo_size(self) -> int:
        """Length of z_geo."""
        ...

    @property
    def app_size(self) -> int:
        """Length of z_app."""
        ...

    @property
    def exp_size(self) -> int:
        """Length of z_exp."""
        ...

    @property
    def landmark_count(self) -> int:
        """Landmarks whose canonical place is known; 0 for none."""
        ...

    @property
    def expression_names(self) -> tuple[str, ...]:
        """What each dimension of z_exp does; empty where that is not known."""
        ...

    @property
    def exp_stats(self) -> Any:  # noqa: ANN401
        """mean, std, lower, upper of expression codes."""
        ...

    @property
    def geo_stats(self) -> Any:  # noqa: ANN401
        """The same of geometry codes."""
        ...

    def compress(self, z_geo: Tensor) -> Tensor:
        """[b g] -> [b i]: the identity condition of the backward field."""
        ...

    def backward_field(
        self, points: Tensor, identity: Tensor, z_exp: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[b n 3], [b i], [b e] -> canonical offsets [b n 3] and hyper coordinates [b n h]."""
        ...

    def sdf(self, canonical: Tensor, z_geo: Tensor) -> Tensor:
        """[n k], [g] -> [n]: signed distance of canonical points, positive outside."""
        ...

    def landmarks(self, z_geo: Tensor) -> Tensor:
        """[g] -> [l 3]: canonical places of the detector's landmarks, in its order."""
        ...

    def mesh(self, codes: Any, resolution: int = 128, canonical: bool = False) -> Any:  # noqa: ANN401
        """The posed surface as a Mesh in head space."""
        ...

    @property
    def landmark_slopes(self) -> Tensor | None:
        """[l 3 e]: motion of the landmarks per unit code, or None where only B knows it."""
        ...

    def checksum(self) -> str:
        """Names the weights."""
        ...


def canonical_landmarks(model: TrackableHead, z_geo: Float[Tensor, "g"]) -> Float[Tensor, "l 3"]:
    """The identity's landmarks that are used, differentiable in `z_geo`; empty if it knows none."""
    if not model.landmark_count:
        return z_geo.new_zeros(0, 3)
    return model.landmarks(z_geo)[list(used_landmarks(model.landmark_count))]


def landmark_slopes(model: TrackableHead) -> Float[Tensor, "l 3 e"] | None:
    """The used landmarks' motion per unit code, where the model knows it."""
    slopes = model.landmark_slopes
    if slopes is None or not model.landmark_count:
        return None
    return slopes[list(used_landmarks(model.landmark_count))]


def expression_prior(model: TrackableHead) -> CodePrior:
    """Expression codes: neutral (code 0, or the nearest allowed) and the population's spread."""
    stats = model.exp_stats
    centre = neutral_code(stats.lower, stats.upper)
    spread = (stats.std.square() + (stats.mean - centre).square()).sqrt()
    return CodePrior(centre, spread.clamp_min(STD_MIN), stats.lower, stats.upper)


def geometry_prior(model: TrackableHead) -> CodePrior:
    """Geometry codes of the population."""
    stats = model.geo_stats
    return CodePrior(stats.mean, stats.std.clamp_min(1e-4), stats.lower, stats.upper)


def neutral_code(lower: Float[Tensor, "e"], upper: Float[Tensor, "e"]) -> Float[Tensor, "e"]:
    """Code 0, or the nearest allowed one."""
    return torch.minimum(torch.maximum(torch.zeros_like(lower), lower), upper)
