"""What goes into an avatar and what comes out of it.

Letters: `n` Gaussians, `t` frames, `e` expression size, `h` hyper coordinates omega.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from npga.avatar.detail import Residuals
from npga.core.gaussians import Gaussians


@dataclass(frozen=True)
class AvatarSizes:
    """What must be known to build an avatar's networks."""

    features: int = 32
    """Latent numbers per Gaussian, the input of G."""
    screen_features: int = 8
    """How many of them are also drawn for the refiner."""
    detail_width: int = 96
    detail_depth: int = 2
    detail_bands: int = 4
    refiner_width: int = 24
    neck: bool = True
    """Whether G sees the head's rotation against the torso."""
    shares: bool = True
    """Whether G sees only what of a code moves a place; else whole codes everywhere."""


@dataclass(frozen=True)
class CanonicalPoints:
    """Where an avatar's Gaussians start; see `initial.py`."""

    points: Float[Tensor, "n 3"]
    """Canonical, head units."""
    colors: Float[Tensor, "n 3"]
    """sRGB."""
    log_scales: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    """Outward from the nearest surface; of any length."""
    omega: Float[Tensor, "n h"]
    reach: Float[Tensor, " n"]
    attachment: Float[Tensor, " n"]
    opacity: float = 0.3


@dataclass(frozen=True)
class ExpressionStats:
    """The expressions that an avatar was trained on."""

    mean: Float[Tensor, " e"]
    lower: Float[Tensor, " e"]
    upper: Float[Tensor, " e"]
    neutral: Float[Tensor, " e"]

    @staticmethod
    def of(codes: Float[Tensor, "t e"], neutral: Float[Tensor, " e"]) -> "ExpressionStats":
        """Mean and hull of the training codes."""
        return ExpressionStats(codes.mean(0), codes.amin(0), codes.amax(0), neutral)


@dataclass(frozen=True)
class Posed:
    """One decoded frame: the Gaussians in the world and what moved them."""

    gaussians: Gaussians
    """World space; colours are [rgb, screen features]."""
    prior_offset: Float[Tensor, "n 3"]
    """a * reach * F in head units."""
    residuals: Residuals
    """G."""
