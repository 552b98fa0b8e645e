"""The slow twin: the same picture in pure torch, in any precision; gradients come from autograd.

Letters: c cameras, n Gaussians, v the visible ones from near to far, m those that touch a tile,
p the pixels of a tile, k channels. One tile at a time, so that memory grows with the Gaussians that
touch a tile, not with Gaussians x pixels. The meaning of a footprint stands in ``semantics.py``.
"""

from dataclasses import dataclass, replace

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
    RADIUS_MAX,
    T_MIN,
)
from npga.raster.types import RenderedImages

_TILE = 16


@dataclass(frozen=True)
class Footprints:
    """The visible Gaussians as one camera sees them, from near to far."""

    index: Int[Tensor, "v"]
    """Which Gaussian each is."""
    means2d: Float[Tensor, "v 2"]
    """Pixels."""
    covariances: Float[Tensor, "v 2 2"]
    """Square pixels, with the blur."""
    opacities: Float[Tensor, "v"]
    """With the antialias factor, where asked for."""
    depths: Float[Tensor, "v"]
    """Camera z, metres."""
    radii: Float[Tensor, "v 2"]
    """Half sides of the box in pixels."""


@dataclass(frozen=True)
class View:
    """One camera and how it is to be drawn."""

    K: Float[Tensor, "3 3"]
    cam_from_world: Float[Tensor, "4 4"]
    size: tuple[int, int]
    """Width, height."""
    near: float
    antialias: bool


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
    size = (cameras.width, cameras.height)
    footprints = [
        visible_footprints(gaussians, View(K, pose, size, near, antialias))
        for K, pose in zip(cameras.K, cameras.cam_from_world, strict=True)
    ]
    blank = gaussians.means.new_zeros(len(gaussians), 2)
    means2d = torch.stack([blank.index_copy(0, f.index, f.means2d) for f in footprints])
    radii = torch.stack([blank.index_copy(0, f.index, f.radii).amax(-1) for f in footprints])
    if means2d.requires_grad:
        means2d.retain_grad()
    pictures = [
        _draw(replace(f, means2d=pixels[f.index]), gaussians.colors, size)
        for f, pixels in zip(footprints, means2d, strict=True)
    ]
    image, alpha, depth = (torch.stack(parts) for parts in zip(*pictures, strict=True))
    if background is not None:
        image = image + (1 - alpha)[..., None] * background.to(image)
    return RenderedImages(image, alpha, depth, means2d, radii.int())


def visible_footprints(gaussians: Gaussians, view: View) -> Footprints:
    """The footprints that are not culled; what is culled has no part in any gradient."""
    with torch.no_grad():
        index = torch.arange(len(gaussians), device=gaussians.means.device)
        everyone = _footprints(gaussians, index, view)
        low, high = everyone.means2d - everyone.radii, everyone.means2d + everyone.radii
        det = _det(everyone.covariances)
        visible = (
            (everyone.depths > view.near)
            & (gaussians.quats.norm(dim=1) > 0)
            & (det > 0)
            & det.isfinite()
            & (everyone.opacities >= ALPHA_MIN)
            & (everyone.radii <= RADIUS_MAX).all(-1)
            & (high > 0).all(-1)
            & (low < low.new_tensor(view.size)).all(-1)
        )
        index = visible.nonzero()[:, 0]
        index = index[everyone.depths[index].argsort(stable=True)]
    return _footprints(gaussians.select(index), index, view)


def _footprints(gaussians: Gaussians, index: Int[Tensor, "v"], view: View) -> Footprints:
    """Footprints of these Gaussians, meaningless for those that are to be culled."""
    rotation = view.cam_from_world[:3, :3]
    camera_means = gaussians.means @ rotation.T + view.cam_from_world[:3, 3]
    focal = torch.stack([view.K[0, 0], view.K[1, 1]])
    centre = torch.stack([view.K[0, 2], view.K[1, 2]])
    size = focal.new_tensor(view.size)
    z = camera_means[:, 2:]
    slopes = camera_means[:, :2] / z
    margin = FRUSTUM_MARGIN * 0.5 * size / focal
    clamped = slopes.clamp(-(centre / focal + margin), (size - centre) / focal + margin)
    jacobian = torch.cat([torch.diag_embed(focal / z), -(focal * clamped / z)[..., None]], -1)
    spread = matrix_from_quat(gaussians.quats) * gaussians.log_scales.exp()[:, None, :]
    root = jacobian @ rotation @ spread
    sharp = root @ root.transpose(1, 2)
    covariances = sharp + BLUR * torch.eye(2).to(sharp)
    opacities = gaussians.logit_opacities.sigmoid()
    if view.antialias:
        # below the least ratio the opacity is below ALPHA_MIN, and the Gaussian is culled
        opacities = opacities * (_det(sharp) / _det(covariances)).clamp(min=1e-6).sqrt()
    extent = (2 * (opacities.detach() / ALPHA_MIN).clamp(min=1).log()).sqrt().clamp(max=EXTENT_MAX)
    variances = covariances.detach().diagonal(dim1=1, dim2=2)
    radii = (extent[:, None] * variances.sqrt()).ceil()
    pixels = slopes * focal + centre
    return Footprints(index, pixels, covariances, opacities, camera_means[:, 2], radii)


def _det(matrices: Float[Tensor, "v 2 2"]) -> Float[Tensor, "v"]:
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def _inverse(matrices: Float[Tensor, "v 2 2"]) -> Float[Tensor, "v 2 2"]:
    a, b, c, d = matrices.flatten(1).unbind(1)
    return torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / _det(matrices)[:, None, None]


def _draw(
    footprints: Footprints, colors: Float[Tensor, "n k"], size: tuple[int, int]
) -> tuple[Float[Tensor, "h w k"], Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Colours (no background), alpha and depth of one camera."""
    width, height = size
    low = (footprints.means2d - footprints.radii).detach()
    high = (footprints.means2d + footprints.radii).detach()
    channels = torch.cat([colors[footprints.index], footprints.depths[:, None]], -1)
    conics = _inverse(footprints.covariances)
    rows = []
    for top in range(0, height, _TILE):
        row = []
        for left in range(0, width, _TILE):
            corner = low.new_tensor([left, top])
            end = low.new_tensor([min(left + _TILE, width), min(top + _TILE, height)])
            touched = ((high > corner) & (low < end)).all(-1).nonzero()[:, 0]
            row.append(_draw_tile(footprints, conics, channels, touched, corner, end))
        rows.append(torch.cat(row, 1))
    picture = torch.cat(rows, 0)
    return picture[..., :-2], picture[..., -1], picture[..., -2]


def _draw_tile(
    footprints: Footprints,
    conics: Float[Tensor, "v 2 2"],
    channels: Float[Tensor, "v k1"],
    touched: Int[Tensor, "m"],
    corner: Float[Tensor, "2"],
    end: Float[Tensor, "2"],
) -> Float[Tensor, "th tw k2"]:
    """Channels, then alpha, of the tile from pixel ``corner`` to before pixel ``end``."""
    columns, rows = (torch.arange(int(corner[i]), int(end[i])).to(corner) + 0.5 for i in range(2))
    pixels = torch.cartesian_prod(rows, columns).flip(-1)
    dx, dy = (pixels[:, i] - footprints.means2d[touched, i, None] for i in range(2))
    (a, b), (_, c) = conics[touched].permute(1, 2, 0)[..., None]
    sigma = 0.5 * (a * dx**2 + c * dy**2) + b * dx * dy
    fall = footprints.opacities[touched][:, None] * torch.exp(-sigma)
    alphas = fall.clamp(max=ALPHA_MAX)
    alphas = torch.where((sigma >= 0) & (fall >= ALPHA_MIN), alphas, torch.zeros_like(alphas))
    alphas = torch.where(_painted(alphas), alphas, torch.zeros_like(alphas))
    clear = torch.cat([alphas.new_ones(1, len(pixels)), (1 - alphas).cumprod(0)])
    values = (alphas * clear[:-1]).T @ channels[touched]
    picture = torch.cat([values, (1 - clear[-1])[:, None]], -1)
    return picture.view(len(rows), len(columns), -1)


@torch.no_grad()
def _painted(alphas: Float[Tensor, "m p"]) -> Bool[Tensor, "m p"]:
    """False from the Gaussian on that would bring the transmittance to T_MIN or below."""
    return (1 - alphas).cumprod(0) > T_MIN
