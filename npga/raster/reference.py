"""The slow twin: the same picture in pure torch, in any precision; gradients come from autograd.

Letters: c cameras, n Gaussians, v the visible ones in depth order, m those that touch a tile, p the
pixels of a tile, k channels. One tile at a time, so that memory stays with the hits, not with
Gaussians x pixels. The symbols of a footprint are those of ``semantics.py``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.gaussians import Gaussians
from npga.core.rotations import matrix_from_quat
from npga.raster.semantics import (
    ALPHA_MAX,
    ALPHA_MIN,
    BLUR,
    EXTENT_MAX,
    FRUSTUM_MARGIN,
    T_MIN,
)
from npga.raster.types import RenderedImages

_TILE = 16


@dataclass(frozen=True)
class Footprints:
    """The Gaussians as one camera sees them."""

    means2d: Float[Tensor, "n 2"]
    """Pixels; 0 for the culled."""
    conics: Float[Tensor, "n 2 2"]
    """Inverse covariances, per square pixel."""
    opacities: Float[Tensor, "n"]
    """With the antialias factor, where asked for."""
    depths: Float[Tensor, "n"]
    """Camera z, metres."""
    radii: Int[Tensor, "n 2"]
    """Half sides of the box in pixels; 0 for the culled."""


def rasterize_reference(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: Float[Tensor, "k"] | None,
    antialias: bool,
    near: float,
) -> RenderedImages:
    """Draw in pure torch, on any device."""
    cameras = cameras.to(gaussians.means.dtype)
    footprints = [
        project(gaussians, K, pose, (cameras.width, cameras.height), near, antialias)
        for K, pose in zip(cameras.K, cameras.cam_from_world, strict=True)
    ]
    means2d = torch.stack([f.means2d for f in footprints])
    if means2d.requires_grad:
        means2d.retain_grad()
    pictures = [
        _draw(f, pixels, gaussians.colors, (cameras.width, cameras.height))
        for f, pixels in zip(footprints, means2d, strict=True)
    ]
    image, alpha, depth = (torch.stack(parts) for parts in zip(*pictures, strict=True))
    if background is not None:
        image = image + (1 - alpha)[..., None] * background.to(image)
    radii = torch.stack([f.radii.amax(-1) for f in footprints])
    return RenderedImages(image, alpha, depth, means2d, radii)


def project(
    gaussians: Gaussians,
    K: Float[Tensor, "3 3"],
    cam_from_world: Float[Tensor, "4 4"],
    size: tuple[int, int],
    near: float,
    antialias: bool,
) -> Footprints:
    """Footprints in one camera of ``size`` (width, height), and who is culled."""
    rotation = cam_from_world[:3, :3]
    camera_means = gaussians.means @ rotation.T + cam_from_world[:3, 3]
    depths = camera_means[:, 2]
    visible = (depths > near) & (gaussians.quats.norm(dim=1) > 0)
    safe = Gaussians(  # stand-ins for the culled, so that their gradients are 0 and not NaN
        torch.where(visible[:, None], camera_means, torch.ones_like(camera_means)),
        torch.where(visible[:, None], gaussians.quats, torch.ones_like(gaussians.quats)),
        gaussians.log_scales,
        gaussians.logit_opacities,
        gaussians.colors,
    )
    covariances, pixels = _linearise(safe, rotation, K, size)
    xx, xy, yy = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    det_sharp, det = xx * yy - xy**2, (xx + BLUR) * (yy + BLUR) - xy**2
    opacities = gaussians.logit_opacities.sigmoid()
    if antialias:
        ratio = det_sharp / det
        # below this the opacity is below ALPHA_MIN and the Gaussian is culled
        opacities = opacities * ratio.clamp(min=1e-6).sqrt()
    conics = torch.stack([yy + BLUR, -xy, -xy, xx + BLUR], -1).view(-1, 2, 2) / det[:, None, None]
    variances = torch.stack([xx, yy], -1).detach() + BLUR
    seen = opacities.detach()
    extent = (2 * (seen / ALPHA_MIN).clamp(min=1).log()).sqrt().clamp(max=EXTENT_MAX)
    radii = (extent[:, None] * variances.sqrt()).ceil()
    outside = (pixels + radii <= 0) | (pixels - radii >= pixels.new_tensor(size))
    visible = visible & (det > 0) & det.isfinite() & (seen >= ALPHA_MIN) & ~outside.any(-1)
    pixels = torch.where(visible[:, None], pixels, torch.zeros_like(pixels))
    radii = torch.where(visible[:, None], radii.clamp(max=1e9), torch.zeros_like(radii)).int()
    return Footprints(pixels, conics, opacities, depths, radii)


def _linearise(
    gaussians: Gaussians, rotation: Float[Tensor, "3 3"], K: Tensor, size: tuple[int, int]
) -> tuple[Float[Tensor, "n 2 2"], Float[Tensor, "n 2"]]:
    """Covariances in pixels (before the blur) and centres; ``means`` are in camera space."""
    focal = torch.stack([K[0, 0], K[1, 1]])
    centre = torch.stack([K[0, 2], K[1, 2]])
    extent = focal.new_tensor(size)
    z = gaussians.means[:, 2:]
    slopes = gaussians.means[:, :2] / z
    margin = FRUSTUM_MARGIN * 0.5 * extent / focal
    clamped = slopes.clamp(-(centre / focal + margin), (extent - centre) / focal + margin)
    jacobian = torch.cat([torch.diag_embed((focal / z)), -(focal * clamped / z)[..., None]], -1)
    spread = matrix_from_quat(gaussians.quats) * gaussians.log_scales.exp()[:, None, :]
    root = jacobian @ rotation @ spread
    return root @ root.transpose(1, 2), slopes * focal + centre


def _draw(
    footprints: Footprints, means2d: Float[Tensor, "n 2"], colors: Tensor, size: tuple[int, int]
) -> tuple[Float[Tensor, "h w k"], Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Colours (no background), alpha and depth of one camera."""
    width, height = size
    visible = footprints.radii.amin(-1).nonzero()[:, 0]
    order = visible[footprints.depths[visible].argsort(stable=True)]
    low = (means2d - footprints.radii)[order].detach()
    high = (means2d + footprints.radii)[order].detach()
    channels = torch.cat([colors, footprints.depths[:, None]], -1)
    rows = []
    for top in range(0, height, _TILE):
        row = []
        for left in range(0, width, _TILE):
            corner = low.new_tensor([left, top])
            end = low.new_tensor([min(left + _TILE, width), min(top + _TILE, height)])
            touched = order[((high > corner) & (low < end)).all(-1)]
            row.append(_draw_tile(footprints, means2d, channels, touched, corner, end))
        rows.append(torch.cat(row, 1))
    picture = torch.cat(rows, 0)
    return picture[..., :-2], picture[..., -1], picture[..., -2]


def _draw_tile(
    footprints: Footprints,
    means2d: Float[Tensor, "n 2"],
    channels: Float[Tensor, "n k1"],
    touched: Int[Tensor, "m"],
    corner: Float[Tensor, "2"],
    end: Float[Tensor, "2"],
) -> Float[Tensor, "th tw k2"]:
    """Channels and alpha of one tile; ``touched`` goes from near to far."""
    columns, rows = (
        torch.arange(int(corner[i]), int(end[i])).to(means2d) + 0.5 for i in range(2)
    )
    pixels = torch.cartesian_prod(rows, columns).flip(-1)
    offset = pixels - means2d[touched][:, None]
    sigma = 0.5 * ((offset @ footprints.conics[touched]) * offset).sum(-1)
    fall = footprints.opacities[touched][:, None] * torch.exp(-sigma)
    alphas = fall.clamp(max=ALPHA_MAX)
    alphas = torch.where((sigma >= 0) & (fall >= ALPHA_MIN), alphas, torch.zeros_like(alphas))
    alphas = torch.where(_painted(alphas), alphas, torch.zeros_like(alphas))
    clear = torch.cat([torch.ones_like(alphas[:1]), (1 - alphas).cumprod(0)])
    values = (alphas * clear[:-1]).T @ channels[touched]
    picture = torch.cat([values, (1 - clear[-1])[:, None]], -1)
    return picture.view(len(rows), len(columns), -1)


@torch.no_grad()
def _painted(alphas: Float[Tensor, "m p"]) -> Bool[Tensor, "m p"]:
    """False from the Gaussian on that would bring the transmittance to T_MIN or below."""
    return (1 - alphas).cumprod(0) > T_MIN
