"""Gaussians + cameras -> pictures. Knows nothing of avatars.

``rasterize`` is the one door; behind it stand four back-ends with one meaning (``semantics.py``):

    reference   pure torch, any precision and device; slow, readable, the twin of the tests
    cpu         compiled (numba) kernels, any number of channels, bitwise repeatable
    triton      kernels for CUDA GPUs, any number of channels, bitwise repeatable
    gsplat      CUDA kernels of the gsplat package (optional extra)

Numba, triton and gsplat are imported by the first picture that needs them. Numba's kernels are
cached beside the source, or in the user's cache folder where the installation cannot be written
to; Triton's in the user's home.
"""

from npga.raster.rasterize import contributions, rasterize
from npga.raster.types import Backend, RenderedImages

__all__ = ["Backend", "RenderedImages", "contributions", "rasterize"]
