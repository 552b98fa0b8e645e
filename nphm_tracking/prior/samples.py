"""One training batch: random people in random expressions, and what is known about points on them.

Letters: b heads, n points per head, e expression. Every batch follows from (seed, step) alone, so a
resumed run sees what an uninterrupted one would have seen.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nphm_tracking.prior.config import PriorConfig
from nphm_tracking.prior.data import BOX, PriorData, Rig
from nphm_tracking.prior.expressions import sample_expressions


@dataclass(frozen=True)
class Batch:
    """Points with known answers, head units."""

    person: Int[Tensor, "b"]
    weights: Float[Tensor, "b e"]
    posed: Float[Tensor, "b n 3"]
    """Points on and around the posed surface."""
    canonical: Float[Tensor, "b n 3"]
    """The same points on the neutral head."""
    trust: Float[Tensor, "b n"]
    """1 near the surface, less further away."""
    surface: Float[Tensor, "b m 3"]
    """Points exactly on the posed level set."""
    volume: Float[Tensor, "b k 3"]
    """Points around the neutral head."""
    distance: Float[Tensor, "b k"]
    at_normal: Float[Tensor, "b j 3"]
    """Points on the neutral level set."""
    normal: Float[Tensor, "b j 3"]
    color: Float[Tensor, "b j 3"]
    """Albedo at ``at_normal``, -1..1."""
    far: Float[Tensor, "b f 3"]
    """Points far from the head, where nothing should move."""


FAR_POINTS = 16


def make_batch(data: PriorData, rig: Rig, config: PriorConfig, step: int) -> Batch:
    """The batch of one step."""
    rng = np.random.default_rng([config.seed, 17, step])
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    heads = config.heads
    person = torch.from_numpy(rng.integers(data.people, size=heads))
    weights = torch.from_numpy(sample_expressions(rng, heads)).float()
    neutral = data.neutral[person]
    posed = rig.posed(neutral, data.eye_centres[person], weights)

    spots = _spots(rig, rig.draw, heads, config.correspondence_points, torch_rng)
    reach = _reach(spots.shape, torch_rng)
    at_posed, normal_posed, _ = spots.on(posed)
    at_neutral, normal_neutral, _ = spots.on(neutral)
    level = _spots(rig, rig.level, heads, config.surface_points, torch_rng)
    with_normal = _spots(rig, rig.level, heads, config.normal_points, torch_rng)
    at_normal, normal, _ = with_normal.on(neutral)
    rows = torch.randint(
        data.volume_points.shape[1], (heads, config.distance_points), generator=torch_rng
    )
    low, high = torch.tensor(BOX)
    far = low + (high - low) * torch.rand(heads, FAR_POINTS, 3, generator=torch_rng)
    return Batch(
        person=person,
        weights=weights,
        posed=at_posed + reach[..., None] * normal_posed,
        canonical=at_neutral + reach[..., None] * normal_neutral,
        trust=1 / (1 + (reach / 0.012) ** 2),
        surface=level.on(posed)[0],
        volume=data.volume_points[person[:, None], rows],
        distance=data.volume_distance[person[:, None], rows],
        at_normal=at_normal,
        normal=normal,
        color=with_normal.blend(rig.albedo(data.skin[person])) * 2 - 1,
        far=far * 1.2,
    )


def _reach(shape: tuple[int, int], rng: torch.Generator) -> Float[Tensor, "b n"]:
    """Signed distance along the normal: mostly within a millimetre, some up to a centimetre."""
    wide = torch.rand(shape, generator=rng)
    spread = torch.where(wide < 0.3, 0.0, torch.where(wide < 0.75, 0.004, 0.018))
    return spread * torch.randn(shape, generator=rng).clamp(-2.5, 2.5)


@dataclass(frozen=True)
class Spots:
    """Places on the template's triangles, to be looked up on any posed head."""

    corners: Int[Tensor, "b n 3"]
    bary: Float[Tensor, "b n 3"]

    @property
    def shape(self) -> tuple[int, int]:
        """(heads, points per head)."""
        return self.corners.shape[0], self.corners.shape[1]

    def _corners_of(self, values: Float[Tensor, "b v c"]) -> Float[Tensor, "b n 3 c"]:
        heads = torch.arange(len(values))[:, None, None]
        return values[heads, self.corners]

    def blend(self, values: Float[Tensor, "b v c"]) -> Float[Tensor, "b n c"]:
        """Vertex values at the spots."""
        return torch.einsum("bnk,bnkc->bnc", self.bary, self._corners_of(values))

    def on(
        self, vertices: Float[Tensor, "b v 3"]
    ) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 3"], Float[Tensor, "b n"]]:
        """Points, unit triangle normals, and twice the triangles' areas."""
        corner = self._corners_of(vertices)
        points = torch.einsum("bnk,bnkc->bnc", self.bary, corner)
        cross = torch.linalg.cross(
            corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0]
        )
        size = cross.norm(dim=-1)
        return points, cross / size.clamp_min(1e-9)[..., None], size


def _spots(
    rig: Rig, chance: Float[Tensor, "f"], heads: int, count: int, rng: torch.Generator
) -> Spots:
    face = torch.multinomial(chance, heads * count, replacement=True, generator=rng)
    u, v = torch.rand(2, heads * count, generator=rng)
    root = u.sqrt()
    bary = torch.stack([1 - root, root * (1 - v), root * v], dim=1)
    corners = rig.template.faces[face].reshape(heads, count, 3)
    return Spots(corners, bary.reshape(heads, count, 3))
