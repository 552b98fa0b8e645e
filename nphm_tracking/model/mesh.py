"""A head model's surface as a triangle mesh (marching cubes in the model's box)."""

import numpy as np
import torch

from npga.core.errors import ConfigError
from npga.core.mesh import Mesh
from nphm_tracking.model.head_model import Codes, HeadModel

CHUNK = 32768
"""Queries per evaluation; bounds memory, does not change the result."""


@torch.no_grad()
def head_mesh(model: HeadModel, codes: Codes, resolution: int, canonical: bool) -> Mesh:
    """The zero level set, vertices in head space, with colours in 0..1.

    ``resolution`` cells along the box's longest side. ``canonical`` meshes the canonical field at
    omega = 0 instead of the posed head. Raises ConfigError where the box holds no surface.
    """
    from skimage.measure import marching_cubes

    low, high = model.bounds[0], model.bounds[1]
    step = (high - low).max() / resolution
    counts = [int(n) for n in torch.ceil((high - low) / step).long() + 1]
    axes = [low[i] + step * torch.arange(n, device=low.device) for i, n in enumerate(counts)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    values = torch.cat([_sdf(model, part, codes, canonical) for part in grid.split(CHUNK)])
    volume = values.reshape(counts).float().cpu().numpy()
    if not volume.min() < 0 < volume.max():
        raise ConfigError(
            f"No surface crosses the head model's box (SDF {volume.min():.3f}..{volume.max():.3f}).",
            "The codes are far outside the model's range, or the model is untrained.",
        )
    vertices, faces, _, _ = marching_cubes(volume, level=0.0)
    points = low + step * torch.from_numpy(np.ascontiguousarray(vertices)).to(low)
    colors = torch.cat([_color(model, part, codes, canonical) for part in points.split(CHUNK)])
    order = torch.from_numpy(faces.astype(np.int64)).flip(-1).to(points.device)
    return Mesh(points, order, ((colors + 1) / 2).clamp(0, 1))


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
