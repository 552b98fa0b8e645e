"""Where an avatar's Gaussians start, in canonical head space (1 unit = 250 mm).

Three sources: the canonical surface of the tracked head, sampled by area and denser around given
places (eyes, mouth); a few blobs of points where the surface has nothing to offer (inside the
mouth, in the eyes) and, without clouds, a shell around the scalp for hair; and points that the
caller brings, usually coloured clouds of several frames carried back to canonical space, which
cover hair, neck and clothes. Everything here is ours.

Letters: `n` points, `h` hyper coordinates, `k` neighbours.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.avatar.attachment import initial_attachment
from npga.avatar.types import CanonicalPoints
from npga.core.graph import knn
from npga.core.mesh import Mesh

MOUTH = (0.0, -0.19, 0.20)
"""The middle of the mouth in NPHM's canonical space."""
EYES = ((0.125, 0.08, 0.10), (-0.125, 0.08, 0.10))
SCALP_BASE = 0.12
"""Canonical height above which, or behind the ears, the surface may carry hair."""
REACH_INNER, REACH_OUTER = 0.08, 0.24
"""Distance from the surface (20 mm, 60 mm) where F starts and ends to fade out."""


@dataclass(frozen=True)
class ColoredPoints:
    """Points with sRGB colours, canonical."""

    points: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]

    def join(self, other: "ColoredPoints") -> "ColoredPoints":
        """Both."""
        return ColoredPoints(
            torch.cat([self.points, other.points]), torch.cat([self.colors, other.colors])
        )

    def select(self, index: Tensor) -> "ColoredPoints":
        """The rows at `index`."""
        return ColoredPoints(self.points[index], self.colors[index])


def surface_seeds(
    surface: Mesh,
    count: int,
    seed: int,
    foci: Float[Tensor, "k 3"],
    radius: float = 0.12,
    boost: float = 4.0,
) -> Float[Tensor, "n 3"]:
    """Points on the surface by area, 1 + `boost` times as dense at a focus, twice on the face."""
    centres = surface.vertices[surface.faces].mean(1)
    near = torch.cdist(centres, foci).amin(1)
    face = torch.sigmoid((centres[:, 2] - 0.05) / 0.03)
    weights = 1.0 + face + boost * torch.exp(-((near / radius) ** 2))
    return surface.sample(count, seed, face_weights=weights).points


def blob_seeds(
    centre: Float[Tensor, "3"],
    radii: tuple[float, float, float],
    count: int,
    generator: torch.Generator,
) -> Float[Tensor, "n 3"]:
    """Points inside an axis-aligned ellipsoid, uniform in volume."""
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    distance = torch.rand(count, 1, generator=generator) ** (1 / 3)
    return centre + direction * distance * torch.tensor(radii)


def hair_seeds(
    surface: Mesh, count: int, seed: int, thickness: float = 0.12
) -> Float[Tensor, "n 3"]:
    """A shell outside the scalp: surface points of top and back moved out along the normals."""
    samples = surface.sample(8 * count, seed)
    points, normals = samples.points, samples.normals
    scalp = (points[:, 1] > SCALP_BASE) & ((points[:, 2] < 0.1) | (points[:, 1] > 0.35))
    keep = torch.nonzero(scalp).flatten()[:count]
    generator = torch.Generator().manual_seed(seed + 1)
    height = torch.rand(len(keep), 1, generator=generator) * thickness
    return points[keep] + normals[keep] * height


def inner_seeds(
    count: int,
    seed: int,
    mouth: Float[Tensor, "3"],
    eyes: Float[Tensor, "k 3"],
) -> Float[Tensor, "n 3"]:
    """Half of the points behind the lips, half in the eyes."""
    generator = torch.Generator().manual_seed(seed)
    behind = mouth + torch.tensor([0.0, 0.0, -0.05])
    blobs = [blob_seeds(behind, (0.11, 0.06, 0.07), count - count // 2, generator)]
    for eye in eyes:
        blobs.append(
            blob_seeds(eye, (0.055, 0.045, 0.045), count // 2 // max(1, len(eyes)), generator)
        )
    return torch.cat(blobs)


def thin(points: ColoredPoints, count: int, seed: int) -> ColoredPoints:
    """At most `count` of the points, spread evenly: one per voxel, then a random choice."""
    if len(points.points) <= count:
        return points
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(points.points), generator=generator)
    shuffled = points.select(order)
    extent = (shuffled.points.amax(0) - shuffled.points.amin(0)).prod().clamp(min=1e-9)
    size = float((extent / count) ** (1 / 3))
    while True:
        cells = torch.round(shuffled.points / size).long()
        _, inverse = torch.unique(cells, dim=0, return_inverse=True)
        first = torch.full((int(inverse.max()) + 1,), len(inverse)).scatter_reduce(
            0, inverse, torch.arange(len(inverse)), reduce="amin"
        )
        if len(first) >= count:
            return shuffled.select(first[:count].sort().values)
        size *= 0.8


def nearest_places(points: Float[Tensor, "n 3"], places: Float[Tensor, "m 3"]) -> Int[Tensor, " n"]:
    """Which place is nearest to each point."""
    from sklearn.neighbors import KDTree

    tree = KDTree(places.double().numpy())
    index = tree.query(points.double().numpy(), k=1, return_distance=False)[:, 0]
    return torch.from_numpy(index)


def nearest_rows(
    points: Float[Tensor, "n 3"], places: Float[Tensor, "m 3"], values: Float[Tensor, "m d"]
) -> Float[Tensor, "n d"]:
    """The value of the place nearest to each point."""
    return values[nearest_places(points, places)]


def nearest_colors(
    points: Float[Tensor, "n 3"], known: ColoredPoints, fallback: float = 0.5
) -> Float[Tensor, "n 3"]:
    """The colour of the nearest known point (grey where nothing is known)."""
    if len(known.points) == 0:
        return torch.full_like(points, fallback)
    return nearest_rows(points, known.points, known.colors)


def spread_scales(
    points: Float[Tensor, "n 3"], factor: float = 0.7, limits: tuple[float, float] = (0.002, 0.06)
) -> Float[Tensor, "n 3"]:
    """Isotropic log-scales: `factor` times the mean distance to three neighbours, within limits."""
    _, distance = knn(points, 3)
    scale = (factor * distance.mean(1)).clamp(*limits)
    return scale.log()[:, None].expand(-1, 3).clone()


def start_from(
    seeds: ColoredPoints, omega: Float[Tensor, "n h"], surface: Mesh, opacity: float = 0.3
) -> CanonicalPoints:
    """All that an avatar's Gaussians need to start, from coloured canonical seeds."""
    from sklearn.neighbors import KDTree

    samples = surface.sample(20000, 0)
    tree = KDTree(samples.points.double().numpy())
    distance, nearest = (
        torch.from_numpy(found[:, 0]) for found in tree.query(seeds.points.double().numpy(), k=1)
    )
    fade = ((REACH_OUTER - distance.float()) / (REACH_OUTER - REACH_INNER)).clamp(0.0, 1.0)
    return CanonicalPoints(
        points=seeds.points,
        colors=seeds.colors,
        log_scales=spread_scales(seeds.points),
        normals=samples.normals[nearest],
        omega=omega,
        reach=fade,
        attachment=initial_attachment(seeds.points),
        opacity=opacity,
    )
