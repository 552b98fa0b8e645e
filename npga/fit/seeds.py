"""Canonical seeds for an avatar from what the capture offers: clouds, or else mattes.

A cloud point of a frame is carried back to canonical space by undoing the blend of head and torso
pose and then, near the face, the head model's backward field. Clouds bring hair, neck and clothes
with their colours. Without clouds, candidates around the head are kept where all mattes agree (the
visual hull) and coloured from the pictures. Ours.

Letters: `n` points, `c` cameras, `e` expression size, `h` hyper coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from npga.avatar.attachment import blend_poses, initial_attachment
from npga.avatar.initial import (
    EYES,
    MOUTH,
    REACH_INNER,
    REACH_OUTER,
    ColoredPoints,
    hair_seeds,
    inner_seeds,
    nearest_colors,
    nearest_rows,
    start_from,
    surface_seeds,
    thin,
)
from npga.avatar.types import CanonicalPoints
from npga.capture.types import PointCloud
from npga.core.graph import knn
from npga.core.mesh import Mesh
from npga.core.similarity import Similarity
from npga.fit.batch import FitBatch

Backward = Callable[
    [Float[Tensor, "n 3"], Float[Tensor, " e"]],
    Float[Tensor, "n 3"],
]
"""(points in head space, z_exp) -> offset to canonical: the head model's B."""

SURFACE_SHARE, INNER_SHARE = 0.5, 0.08
"""Shares of the starting Gaussians on the surface, and inside mouth and eyes."""
OUTLIER = 4.0
"""A cloud point is an outlier if its neighbours are so many times farther than the median's."""
COVERED = 0.012
"""Cloud points so near to the head surface (3 mm) only lend it their colours."""


@dataclass(frozen=True)
class CloudFrame:
    """One frame's cloud with the tracked state that it was seen in."""

    cloud: PointCloud
    z_exp: Float[Tensor, " e"]
    world_from_head: Similarity
    torso: Similarity


def unpose(
    points_world: Float[Tensor, "n 3"], world_from_head: Similarity, torso: Similarity
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """The points before head and torso moved them, and their attachment (3 fixed-point steps)."""
    head_matrix = world_from_head.scale * world_from_head.rotation
    torso_matrix = torso.scale * torso.rotation
    x = world_from_head.inverse().apply(points_world)
    weight = initial_attachment(x)
    for _ in range(3):
        w = weight[:, None, None]
        matrix = w * head_matrix + (1 - w) * torso_matrix
        shift = w[:, 0] * world_from_head.translation + (1 - w[:, 0]) * torso.translation
        x = torch.linalg.solve(matrix, (points_world - shift)[..., None])[..., 0]
        weight = initial_attachment(x)
    return x, weight


def surface_distance(points: Float[Tensor, "n 3"], surface: Mesh) -> Float[Tensor, " n"]:
    """Distance to the surface, to within the spacing of 20,000 samples."""
    from sklearn.neighbors import KDTree

    tree = KDTree(surface.sample(20000, 0).points.double().numpy())
    return torch.from_numpy(tree.query(points.double().numpy(), k=1)[0][:, 0]).float()


def canonical_cloud(
    frames: list[CloudFrame], surface: Mesh, backward: Backward | None
) -> ColoredPoints:
    """All clouds in canonical space, without outliers."""
    parts = []
    for frame in frames:
        x, weight = unpose(frame.cloud.points, frame.world_from_head, frame.torso)
        if backward is not None:
            distance = surface_distance(x, surface)
            fade = ((REACH_OUTER - distance) / (REACH_OUTER - REACH_INNER)).clamp(0, 1)
            x = x + backward(x, frame.z_exp) * (fade * weight)[:, None]
        parts.append(ColoredPoints(x, frame.cloud.colors))
    points = torch.cat([part.points for part in parts])
    colors = torch.cat([part.colors for part in parts])
    _, distance = knn(points, 6)
    spread = distance.mean(1)
    return ColoredPoints(points, colors).select(
        torch.nonzero(spread < OUTLIER * spread.median()).flatten()
    )


def seen_in(
    points: Float[Tensor, "n 3"], batch: FitBatch
) -> tuple[Bool[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Whether the mattes of a neutral frame allow each canonical point, and its median colour.

    A point is allowed if at least 85 % of the cameras that have it in their picture show matte.
    """
    n = len(points)
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1
    world, _, _ = blend_poses(
        points,
        quats,
        torch.zeros(n, 3),
        initial_attachment(points),
        batch.world_from_head,
        batch.torso,
    )
    pixels, depth = batch.cameras.project(world)
    column, row = pixels[..., 0].floor().long(), pixels[..., 1].floor().long()
    width, height = batch.cameras.width, batch.cameras.height
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (depth > 0)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    camera = torch.arange(len(batch.cameras))[:, None].expand_as(column)
    on_matte = (batch.matte[camera, row, column] > 0.3) & inside
    share = on_matte.sum(0) / inside.sum(0).clamp(min=1)
    colors = batch.image[camera, row, column].masked_fill(~on_matte[..., None], torch.nan)
    return (share > 0.85) & inside.any(0), colors.nanmedian(0).values.nan_to_num(0.5)


def hull_seeds(surface: Mesh, neutral: FitBatch, count: int, seed: int) -> ColoredPoints:
    """Hair shell, neck and shoulders inside the visual hull of one frame, with colours."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([-1.0, -1.5, -0.7]), torch.tensor([1.0, -0.4, 0.4])
    body = low + (high - low) * torch.rand(20 * count, 3, generator=generator)
    shell = hair_seeds(surface, count, seed)
    parts = []
    for candidates, most in ((shell, count // 2), (body, count - count // 2)):
        allowed, colors = seen_in(candidates, neutral)
        keep = torch.nonzero(allowed).flatten()[:most]
        parts.append(ColoredPoints(candidates[keep], colors[keep]))
    return parts[0].join(parts[1])


def seed_avatar(
    surface: Mesh,
    surface_omega: Float[Tensor, "v h"],
    neutral: FitBatch,
    clouds: list[CloudFrame],
    backward: Backward | None,
    count: int,
    seed: int,
) -> CanonicalPoints:
    """Canonical starting points of an avatar from the tracked surface and what else there is.

    `surface` is the canonical head with its omega, `neutral` the frame nearest to neutral with all
    its cameras, `count` the number of Gaussians. What clouds or hull do not fill goes to the
    surface.
    """
    eyes, mouth = torch.tensor(EYES), torch.tensor(MOUTH)
    rest = int((1 - SURFACE_SHARE - INNER_SHARE) * count)
    if clouds:
        cloud = canonical_cloud(clouds, surface, backward)
        apart = surface_distance(cloud.points, surface) > COVERED
        around = thin(cloud.select(torch.nonzero(apart).flatten()), rest, seed)
    else:
        around = hull_seeds(surface, neutral, rest, seed)
    inside = inner_seeds(int(INNER_SHARE * count), seed + 1, mouth, eyes)
    foci = torch.cat([eyes, mouth[None]])
    on_surface = surface_seeds(surface, count - len(around.points) - len(inside), seed, foci)
    head = torch.cat([on_surface, inside])
    colors = nearest_colors(head, cloud) if clouds else seen_in(head, neutral)[1]
    seeds = ColoredPoints(head, colors).join(around)
    omega = nearest_rows(seeds.points, surface.vertices, surface_omega)
    return start_from(seeds, omega, surface)
