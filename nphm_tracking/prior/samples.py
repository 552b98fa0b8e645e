"""One training batch: random people in random expressions, and what is known about points on them.

Letters: b heads, n points per head, e expression. Every batch follows from (seed, step) alone, so a
resumed run sees what an uninterrupted one would have seen.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.core.processes import ALONE, Processes
from nphm_tracking.prior.config import PriorConfig
from nphm_tracking.prior.data import BOX, PriorData, Rig
from nphm_tracking.prior.expressions import sample_expressions


@dataclass(frozen=True)
class Batch:
    """Points with known answers, head units."""

    person: Int[Tensor, "b 2"]
    mix: Float[Tensor, "b 2"]
    """Every head is mean + sum of mix * (person - mean); the first ``pure`` are one person each."""
    pure: int
    weights: Float[Tensor, "b e"]
    posed: Float[Tensor, "b n 3"]
    """Points on and around the posed surface."""
    canonical: Float[Tensor, "b n 3"]
    """The same points on the neutral head."""
    trust: Float[Tensor, "b n"]
    """What an error counts: more where little moves and near the surface (see ``SLOW``)."""
    label: Float[Tensor, "b n 2"]
    """What omega should be there."""
    surface: Float[Tensor, "b m 3"]
    """Points on the posed level set, half of them moved off it a little."""
    height: Float[Tensor, "b m"]
    """How far they were moved along the normal: their distance."""
    near: Float[Tensor, "b m 3"]
    """Points on and around the neutral level set."""
    near_height: Float[Tensor, "b m"]
    """Their signed distance."""
    near_label: Float[Tensor, "b m 2"]
    """omega to query them with."""
    volume: Float[Tensor, "q k 3"]
    """Points around the neutral heads of the pure ones."""
    distance: Float[Tensor, "q k"]
    volume_label: Float[Tensor, "q k 2"]
    """omega to query them with: the nearest surface's label, or 0 for half of the heads."""
    at_normal: Float[Tensor, "b j 3"]
    """Points on the neutral level set."""
    normal: Float[Tensor, "b j 3"]
    normal_label: Float[Tensor, "b j 2"]
    color: Float[Tensor, "b j 3"]
    """Albedo at ``at_normal``, -1..1."""
    around: Float[Tensor, "b i 3"]
    """Points around the neutral level set, where the SDF's gradient has length 1."""
    around_label: Float[Tensor, "b i 2"]
    far: Float[Tensor, "b f 3"]
    """Points far from the head, where nothing should move."""

    def to(self, device: torch.device) -> "Batch":
        """On another device."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in held.items()})  # pyright: ignore[reportArgumentType]


FAR_POINTS = 8
HEIGHT, NEAR_HEIGHT = 0.006, 0.012
"""Spread of the small moves off the posed and the neutral surface, head units."""
SLOW = 0.03
"""Errors are divided by 1 + the point's own motion / SLOW (head units), and points that move are
drawn more often: brows move 3 mm in few expressions, the jaw 40 mm in half of them, and a plain
mean over all points never learns lids and brows."""
MOVING_SHARE = 0.6
PURE_SHARE = 1 / 3
"""Heads that are one person of the data; the others mix two, so that identities never repeat."""


@dataclass(frozen=True)
class _Heads:
    """Who is in a batch, and in which expression."""

    person: Int[Tensor, "b 2"]
    mix: Float[Tensor, "b 2"]
    pure: int
    weights: Float[Tensor, "b e"]
    neutral: Float[Tensor, "b v 3"]
    posed: Float[Tensor, "b v 3"]
    labelled: Float[Tensor, "b 1 1"]
    """1 for the heads whose canonical points are queried with omega's label, else 0."""


def _draw_heads(data: PriorData, rig: Rig, config: PriorConfig, rng: np.random.Generator) -> _Heads:
    heads = config.heads
    pure = max(1, round(heads * PURE_SHARE))
    person = torch.from_numpy(rng.integers(data.people, size=(heads, 2)))
    weights = torch.from_numpy(sample_expressions(rng, heads)).float()
    mix = _mix(rng, heads, pure)
    neutral = mixed(data.neutral, data.shape_mean, person, mix)
    eyes = (rig.template.left_eye, rig.template.right_eye)
    between = torch.stack([data.shape_mean[index].mean(0) for index in eyes])
    centres = mixed(data.eye_centres, between, person, mix)
    labelled = torch.from_numpy(rng.random(heads) < 0.5).float()[:, None, None]
    posed = rig.posed(neutral, centres, weights)
    return _Heads(person, mix, pure, weights, neutral, posed, labelled)


def make_batch(
    data: PriorData, rig: Rig, config: PriorConfig, step: int, team: Processes = ALONE
) -> Batch:
    """The batch of one step, or this process's part of it."""
    rng = np.random.default_rng(team.seed(config.seed, 17, step))
    config = replace(config, heads=team.share_of(config.heads, "heads"))
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    drawn = _draw_heads(data, rig, config, rng)
    heads, pure, neutral, posed = config.heads, drawn.pure, drawn.neutral, drawn.posed
    chance = moving_chance(rig, (posed - neutral).norm(dim=-1))
    spots = _spots(rig, chance, heads, config.correspondence_points, torch_rng)
    reach = _reach(spots.shape, torch_rng)
    at_posed, normal_posed, _ = spots.on(posed)
    at_neutral, normal_neutral, _ = spots.on(neutral)
    motion = (at_posed - at_neutral).norm(dim=-1)
    level = _spots(rig, rig.level, heads, config.surface_points, torch_rng)
    with_normal = _spots(rig, rig.level, heads, config.normal_points, torch_rng)
    at_normal, normal, _ = with_normal.on(neutral)
    per_head = config.distance_points * heads // pure
    rows = torch.randint(data.volume_points.shape[1], (pure, per_head), generator=torch_rng)
    owner = drawn.person[:pure, :1]
    on_surface, out_of_it, _ = level.on(posed)
    height = _height(level.shape, HEIGHT, torch_rng)
    near = _spots(rig, rig.level, heads, config.surface_points, torch_rng)
    at_near, normal_near, _ = near.on(neutral)
    near_height = _height(near.shape, NEAR_HEIGHT, torch_rng)
    around = _height(with_normal.shape, 3 * NEAR_HEIGHT, torch_rng)
    hyper = rig.hyper.expand(heads, -1, -1)
    normal_label = with_normal.blend(hyper) * drawn.labelled
    return Batch(
        person=drawn.person,
        mix=drawn.mix,
        pure=pure,
        weights=drawn.weights,
        posed=at_posed + reach[..., None] * normal_posed,
        canonical=at_neutral + reach[..., None] * normal_neutral,
        trust=SLOW / (SLOW + motion) / (1 + (reach / 0.012) ** 2),
        label=spots.blend(hyper),
        surface=on_surface + height[..., None] * out_of_it,
        height=height,
        near=at_near + near_height[..., None] * normal_near,
        near_height=near_height,
        near_label=near.blend(hyper) * drawn.labelled,
        volume=data.volume_points[owner, rows],
        distance=data.volume_distance[owner, rows],
        volume_label=data.volume_label[owner, rows] * drawn.labelled[:pure],
        at_normal=at_normal,
        normal=normal,
        normal_label=normal_label,
        color=_albedo_at(rig, with_normal, data.skin[drawn.person[:, 0]]) * 2 - 1,
        around=at_normal + around[..., None] * normal,
        around_label=normal_label,
        far=_anywhere(heads, torch_rng),
    )


def _anywhere(heads: int, rng: torch.Generator) -> Float[Tensor, "b f 3"]:
    """Points in a box a little larger than the prior's."""
    low, high = torch.tensor(BOX)
    return (low + (high - low) * torch.rand(heads, FAR_POINTS, 3, generator=rng)) * 1.2


def moving_chance(rig: Rig, motion: Float[Tensor, "b v"]) -> Float[Tensor, "b f"]:
    """Chance of each triangle per head: MOVING_SHARE of the draws go to what moves."""
    moving = motion[:, rig.template.faces].mean(2)
    drawn = rig.draw / rig.draw.sum()
    pulled = drawn * moving / (moving + SLOW)
    total = pulled.sum(1, keepdim=True)
    pulled = torch.where(total > 0, pulled / total.clamp_min(1e-9), drawn)
    return (1 - MOVING_SHARE) * drawn + MOVING_SHARE * pulled


def mixed(
    values: Float[Tensor, "p *c"],
    mean: Float[Tensor, "*c"],
    person: Int[Tensor, "b 2"],
    mix: Float[Tensor, "b 2"],
) -> Float[Tensor, "b *c"]:
    """mean + sum over both people of mix * (value - mean)."""
    ones = [1] * mean.ndim
    first, second = (mix[:, k].reshape(-1, *ones) * (values[person[:, k]] - mean) for k in (0, 1))
    return mean + first + second


def _mix(rng: np.random.Generator, heads: int, pure: int) -> Float[Tensor, "b 2"]:
    angle, size = rng.uniform(0, np.pi / 2, heads), rng.uniform(0.0, 1.1, heads)
    mix = np.stack([np.cos(angle), np.sin(angle)], axis=1) * size[:, None]
    mix[:pure] = (1.0, 0.0)
    return torch.from_numpy(mix).float()


def _albedo_at(rig: Rig, spots: "Spots", skin: Float[Tensor, "b 6"]) -> Float[Tensor, "b n 3"]:
    """Colours in 0..1 at the spots (as ``Rig.albedo`` for whole heads)."""
    heads = len(skin)
    base = spots.blend(rig.albedo_base.expand(heads, -1, -1))
    mix = spots.blend(rig.albedo_mix.expand(heads, -1, -1))
    return (base + torch.einsum("bnk,bkc->bnc", mix, rig.tones(skin))).clamp(0.02, 0.98)


def _height(shape: tuple[int, int], spread: float, rng: torch.Generator) -> Float[Tensor, "b n"]:
    """0 for half of the points, else about ``spread`` to either side."""
    off = torch.rand(shape, generator=rng) < 0.5
    return torch.randn(shape, generator=rng).clamp(-2, 2) * spread * off


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
    rig: Rig, chance: Float[Tensor, "*b f"], heads: int, count: int, rng: torch.Generator
) -> Spots:
    """``chance`` is one for all heads, or one per head."""
    each = count if chance.ndim == 2 else heads * count
    face = torch.multinomial(chance, each, replacement=True, generator=rng).reshape(-1)
    u, v = torch.rand(2, heads * count, generator=rng)
    root = u.sqrt()
    bary = torch.stack([1 - root, root * (1 - v), root * v], dim=1)
    corners = rig.template.faces[face].reshape(heads, count, 3)
    return Spots(corners, bary.reshape(heads, count, 3))
