"""Metrics on pictures [h w 3] in 0..1; ``mask`` [h w] in 0..1 weighs pixels.

PSNR = -10 log10(sum m |x - y|^2 / (3 sum m)).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.losses import ssim_map


def psnr(
    image: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    mask: Float[Tensor, "h w"] | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB, data range 1; inf for equal pictures."""
    error = (image.clamp(0, 1) - target).square().mean(-1)
    if mask is None:
        mean = error.mean()
    else:
        mean = (error * mask).sum() / mask.sum().clamp_min(1e-9)
    return float(-10 * torch.log10(mean))


def ssim(
    image: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    mask: Float[Tensor, "h w"] | None = None,
) -> float:
    """Mean structural similarity (11x11 Gaussian window), over ``mask`` where given."""
    values = ssim_map(image.clamp(0, 1)[None], target[None])[0].mean(-1)
    if mask is None:
        return float(values.mean())
    return float((values * mask).sum() / mask.sum().clamp_min(1e-9))
