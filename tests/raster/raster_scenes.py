"""Small clouds that meet every branch of a rasteriser, and a way to differentiate pictures."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from npga.core.cameras import Cameras, look_at
from npga.core.gaussians import Gaussians
from npga.raster import Backend, RenderedImages, rasterize

FIELDS = ("means", "quats", "log_scales", "logit_opacities", "colors")


def cloud(count: int = 300, channels: int = 3, seed: int = 0, dtype=torch.float64) -> Gaussians:
    """A ball of Gaussians of 0.1 m, of all shapes; every 7th is opaque, every 11th is faint."""
    gen = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    logits = 0.5 + 1.5 * normal(count)
    logits[::7], logits[::11] = 9.0, -6.0
    means = 0.06 * normal(count, 3)
    means[3::29] += torch.tensor([0.0, 0.07, 0.45])  # near the eye, out of the frustum, yet seen
    means[5::31] += torch.tensor([0.0, 0.0, 3.0])  # behind the eye
    fields = (
        means,
        normal(count, 4) * 3,
        math.log(0.012) + 0.7 * normal(count, 3),
        logits,
        torch.rand(count, channels, generator=gen, dtype=torch.float64),
    )
    return Gaussians(*(f.to(dtype).requires_grad_() for f in fields))


def cameras(count: int = 2, width: int = 45, height: int = 37, dtype=torch.float64) -> Cameras:
    """Cameras around the ball, 0.6..0.8 m away, with principal points off the middle."""
    poses, intrinsics = [], []
    for i in range(count):
        angle = 0.9 * i
        eye = torch.tensor([math.sin(angle), 0.15 * i, math.cos(angle)], dtype=torch.float64) * (
            0.6 + 0.1 * i
        )
        poses.append(look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 1.0, 0.0]).to(eye)))
        focal = 1.9 * height * (1 + 0.1 * i)
        intrinsics.append(
            torch.tensor(
                [[focal, 0, 0.5 * width + 3 * i - 2], [0, 1.1 * focal, 0.5 * height + 4], [0, 0, 1]]
            )
        )
    ids = tuple(str(i) for i in range(count))
    return Cameras(
        torch.stack(intrinsics).to(dtype), torch.stack(poses).to(dtype), width, height, ids
    )


@dataclass(frozen=True)
class Differentiated:
    images: RenderedImages
    loss: Tensor
    gradients: dict[str, Tensor]


def loss_of(images: RenderedImages, seed: int = 1) -> Tensor:
    """A fixed random weighting of every number of the pictures (weights drawn in double)."""
    gen = torch.Generator().manual_seed(seed)
    parts = []
    for picture in (images.image, images.alpha, images.depth):
        weights = torch.randn(picture.shape, generator=gen, dtype=torch.float64)
        parts.append((picture * weights.to(picture)).sum())
    return sum(parts)


def differentiate(
    gaussians: Gaussians, rig: Cameras, backend: Backend, background=None, **options
) -> Differentiated:
    """Draw, weigh, and differentiate by all five fields, the background and means2d."""
    leaves = {name: getattr(gaussians, name).detach().requires_grad_() for name in FIELDS}
    if background is not None:
        background = leaves["background"] = background.detach().requires_grad_()
    drawn = Gaussians(*(leaves[name] for name in FIELDS))
    images = rasterize(drawn, rig, background=background, backend=backend, **options)
    loss = loss_of(images)
    loss.backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items()}
    return Differentiated(images, loss.detach(), gradients | {"means2d": images.means2d.grad})
