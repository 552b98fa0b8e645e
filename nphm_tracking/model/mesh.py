"""The zero level set of a field as a triangle mesh (marching cubes in a box), coarse to fine.

Letters: n points.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.errors import ConfigError
from npga.core.mesh import Mesh

CHUNK = 8192
"""Queries per evaluation; bounds memory, does not change the result."""
COARSEST = 4
"""Stride of the first grid; halved until 1."""
REFINE_REACH = 1.0
"""Grid points are evaluated where the coarser grid has the surface within so many cells."""

Distance = Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]]
Color = Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]]


@torch.no_grad()
def level_set(sdf: Distance, color: Color, bounds: Float[Tensor, "2 3"], resolution: int) -> Mesh:
    """Where ``sdf`` is zero inside the box, with ``color``'s -1..1 as 0..1 at the vertices.

    ``resolution`` cells along the box's longest side. Raises ConfigError where the box holds no
    surface.
    """
    from skimage.measure import marching_cubes

    low, high = bounds[0], bounds[1]
    step = (high - low).max() / resolution
    cells = torch.ceil((high - low) / (step * COARSEST)).long()
    volume = _refined_volume(sdf, low, step, cells).float().cpu().numpy()
    if not volume.min() < 0 < volume.max():
        raise ConfigError(
            f"No surface crosses the model's box (SDF {volume.min():.3f}..{volume.max():.3f}).",
            "The codes are far outside the model's range, or the model is untrained.",
        )
    vertices, faces, _, _ = marching_cubes(volume, level=0.0)
    points = low + step * torch.from_numpy(np.ascontiguousarray(vertices)).to(low)
    colors = torch.cat([color(part) for part in points.split(CHUNK)])
    order = torch.from_numpy(np.ascontiguousarray(faces, dtype=np.int64)).to(points.device)
    return Mesh(points, order, ((colors + 1) / 2).clamp(0, 1))


def _refined_volume(sdf: Distance, low: Tensor, step: Tensor, cells: Tensor) -> Tensor:
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
        parts = [sdf(part) for part in points.split(CHUNK)]
        volume[active] = torch.cat(parts) if parts else volume[active]
        stride //= 2
    return volume
