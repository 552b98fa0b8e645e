"""A head model's surface as a triangle mesh (marching cubes in the model's box)."""

import numpy as np
import torch

from npga.core.errors import ConfigError
from npga.core.mesh import Mesh
from nphm_tracking.model.head_model import Codes, HeadModel

CHUNK = 8192
"""Queries per evaluation; bounds memory, does not change the result."""
COARSEST = 4
"""Stride of the first grid; halved until 1."""
REFINE_REACH = 1.0
"""Grid points are evaluated where the coarser grid has the surface within so many cells."""


@torch.no_grad()
def head_mesh(model: HeadModel, codes: Codes, resolution: int, canonical: bool) -> Mesh:
    """The zero level set, vertices in head space, with colours in 0..1.

    ``resolution`` cells along the box's longest side. ``canonical`` meshes the canonical field at
    omega = 0 instead of the posed head. Raises ConfigError where the box holds no surface.
    """
    from skimage.measure import marching_cubes

    low, high = model.bounds[0], model.bounds[1]
    step = (high - low).max() / resolution
    cells = torch.ceil((high - low) / (step * COARSEST)).long()
    volume = _refined_volume(model, codes, canonical, low, step, cells).float().cpu().numpy()
    if not volume.min() < 0 < volume.max():
        raise ConfigError(
            f"No surface crosses the model's box (SDF {volume.min():.3f}..{volume.max():.3f}).",
            "The codes are far outside the model's range, or the model is untrained.",
        )
    vertices, faces, _, _ = marching_cubes(volume, level=0.0)
    points = low + step * torch.from_numpy(np.ascontiguousarray(vertices)).to(low)
    colors = torch.cat([_color(model, part, codes, canonical) for part in points.split(CHUNK)])
    order = torch.from_numpy(np.ascontiguousarray(faces, dtype=np.int64)).to(points.device)
    return Mesh(points, order, ((colors + 1) / 2).clamp(0, 1))


def _refined_volume(
    model: HeadModel,
    codes: Codes,
    canonical: bool,
    low: torch.Tensor,
    step: torch.Tensor,
    cells: torch.Tensor,
) -> torch.Tensor:
    """SDF on the finest grid: evaluated near the surface, interpolated elsewhere."""
    stride, volume = COARSEST, low.new_zeros(0)
    while stride >= 1:
        counts = [int(c) * (COARSEST // stride) + 1 for c in cells]
        index = torch.stack(
            torch.meshgrid(*[torch.arange(n, device=low.device) for n in counts], indexing="ij"), -1
        )
        if stride == COARSEST:
            volume = low.new_zeros(counts)
            active = torch.ones(counts, dtype=torch.bool, device=low.device)
        else:
            volume = torch.nn.functional.interpolate(
                volume[None, None], size=counts, mode="trilinear", align_corners=True
            )[0, 0]
            active = volume.abs() < REFINE_REACH * 2 * stride * step
        points = low + index[active].to(low.dtype) * (step * stride)
        parts = [_sdf(model, part, codes, canonical) for part in points.split(CHUNK)]
        volume[active] = torch.cat(parts) if parts else volume[active]
        stride //= 2
    return volume


def _canonical(
    model: HeadModel, points: torch.Tensor, codes: Codes, canonical: bool
) -> torch.Tensor:
    if canonical:
        return torch.cat([points, points.new_zeros(len(points), model.hyper_size)], dim=-1)
    offsets, hyper = model.backward_field(points, model.compress(codes.z_geo), codes.z_exp)
    return torch.cat([points + offsets, hyper], dim=-1)


def _sdf(model: HeadModel, points: torch.Tensor, codes: Codes, canonical: bool) -> torch.Tensor:
    return model.sdf(_canonical(model, points, codes, canonical), codes.z_geo)


def _color(model: HeadModel, points: torch.Tensor, codes: Codes, canonical: bool) -> torch.Tensor:
    return model.color(_canonical(model, points, codes, canonical), codes.z_geo, codes.z_app)
