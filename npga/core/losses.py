"""Pure loss functions on pictures; every one returns a scalar mean.

Pictures are [b h w 3] in 0..1.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_C1, _C2 = 0.01**2, 0.03**2


def l1(
    image: Float[Tensor, "b h w k"],
    target: Float[Tensor, "b h w k"],
    weight: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean absolute difference, each pixel's times its weight where given (not divided by it)."""
    error = (image - target).abs()
    return error.mean() if weight is None else (error * weight[..., None]).mean()


def gaussian_window(size: int, sigma: float, like: Tensor) -> Float[Tensor, "s"]:
    """A normalised 1-D Gaussian."""
    x = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    w = torch.exp(-(x**2) / (2 * sigma**2))
    return w / w.sum()


def ssim_map(
    image: Float[Tensor, "b h w 3"], target: Float[Tensor, "b h w 3"]
) -> Float[Tensor, "b h w 3"]:
    """SSIM per pixel and channel (Wang et al. 2004: 11x11 Gaussian, sigma 1.5, zero padding).

    The five local means go through one separable grouped convolution.
    """
    x, y = image.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2)
    maps = torch.cat([x, y, x * x, y * y, x * y], 1)
    window = gaussian_window(11, 1.5, maps)
    channels = maps.shape[1]
    column = window.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    row = window.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    maps = torch.nn.functional.conv2d(maps, column, padding=(5, 0), groups=channels)
    maps = torch.nn.functional.conv2d(maps, row, padding=(0, 5), groups=channels)
    mx, my, xx, yy, xy = maps.chunk(5, 1)
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    top = (2 * mx * my + _C1) * (2 * cov + _C2)
    return (top / ((mx * mx + my * my + _C1) * (vx + vy + _C2))).permute(0, 2, 3, 1)


def ssim_loss(
    image: Float[Tensor, "b h w 3"], target: Float[Tensor, "b h w 3"]
) -> Float[Tensor, ""]:
    """1 - mean SSIM."""
    return 1 - ssim_map(image, target).mean()
