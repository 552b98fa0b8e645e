"""What a rasteriser returns, and which rasterisers there are.

Letters: c cameras, h w pixels, n Gaussians, k channels of ``Gaussians.colors``.
"""

from dataclasses import dataclass
from enum import Enum

from jaxtyping import Float, Int
from torch import Tensor


class Backend(str, Enum):
    """Who draws the picture; all of them mean the same picture."""

    auto = "auto"
    """triton (else gsplat) for tensors on a GPU, cpu for tensors on the CPU."""
    reference = "reference"
    """Pure torch, any device and precision, slow: the twin that the others are tested against."""
    cpu = "cpu"
    """Compiled kernels of this package (numba), for tensors on the CPU."""
    triton = "triton"
    """Kernels of this package for CUDA GPUs (Triton, which comes with torch), float32."""
    gsplat = "gsplat"
    """CUDA kernels of the gsplat package, for tensors on a GPU."""


@dataclass(frozen=True)
class RenderedImages:
    """Pictures of one cloud of Gaussians from ``c`` cameras."""

    image: Float[Tensor, "c h w k"]
    """sum_i w_i colors_i, plus (1 - alpha) background where one was given."""
    alpha: Float[Tensor, "c h w"]
    """sum_i w_i: how much of the pixel is covered, 0..1."""
    depth: Float[Tensor, "c h w"]
    """sum_i w_i z_i: accumulated camera z (not divided by alpha; 0 where nothing is)."""
    means2d: Float[Tensor, "c n 2"]
    """Projected centres in pixels, 0 for the culled; its ``.grad`` is retained (in pixels)."""
    radii: Int[Tensor, "c n"]
    """Half the longer side of the footprint's box in whole pixels; 0 for the culled."""
