"""Metrics on pictures [h w 3] in 0..1; ``mask`` [h w] in 0..1 weighs pixels.

PSNR = -10 log10(sum m |x - y|^2 / (3 sum m)).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.losses import ssim_map


def masked_mean(
    values: Float[Tensor, "h w"], mask: Float[Tensor, "h w"] | None
) -> Float[Tensor, ""]:
    """The mean over pixels, weighted by the mask where there is one."""
    if mask is None:
        return values.mean()
    return (values * mask).sum() / mask.sum().clamp_min(1e-9)


def error_map(
    image: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"]
) -> Float[Tensor, "h w"]:
    """Squared error of every pixel, mean over the channels."""
    return (image.clamp(0, 1) - target).square().mean(-1)


def similarity_map(
    image: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"]
) -> Float[Tensor, "h w"]:
    """SSIM of every pixel (11x11 Gaussian window), mean over the channels."""
    return ssim_map(image.clamp(0, 1)[None], target[None])[0].mean(-1)


def decibel(error: Float[Tensor, ""]) -> float:
    """PSNR of a mean squared error, data range 1; inf for 0."""
    return float(-10 * torch.log10(error))


def psnr(
    image: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    mask: Float[Tensor, "h w"] | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB, data range 1; inf for equal pictures."""
    return decibel(masked_mean(error_map(image, target), mask))


def ssim(
    image: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    mask: Float[Tensor, "h w"] | None = None,
) -> float:
    """Mean structural similarity (11x11 Gaussian window), over ``mask`` where given."""
    return float(masked_mean(similarity_map(image, target), mask))


def flicker(
    images: Float[Tensor, "3 h w 3"],
    targets: Float[Tensor, "3 h w 3"],
    mask: Float[Tensor, "h w"] | None = None,
) -> float:
    """How much more three pictures in a row jump than the true ones, in levels of 1/255; ours.

    The mean of |x(t-1) - 2 x(t) + x(t+1)| over pixels and channels, minus that of the truth:
    0 moves as the truth does, above 0 it jitters, below 0 it is too smooth. Noise of the true
    pictures counts as their motion.
    """
    jumps = [255 * (p[0] - 2 * p[1] + p[2]).abs().mean(-1) for p in (images.clamp(0, 1), targets)]
    return float(masked_mean(jumps[0], mask) - masked_mean(jumps[1], mask))
