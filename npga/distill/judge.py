"""How good F is, in millimetres: on people and expressions it was not trained on.

residual    |B3(x + F(x, omega)) - x| on the canonical surface, omega of the rest pose
agreement   |x + F - Broyden(x)| where Broyden converges (start x, as MonoNPHM does; the points
            that are left start again from a few jittered places)
fold-over   share of surface points with det(I + dF/dx) <= 0
speed       time of Broyden's first start over F's, same points, same machine, same threads
"""

import time
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from npga.avatar.forward import ForwardPrior
from npga.core import MM_PER_UNIT
from npga.core.device import synchronize
from npga.distill.invert import broyden, restarted
from npga.distill.samples import Sampler
from npga.distill.teacher import Region, Teacher, backward
from npga.distill.terms import cycle_residual, forward_determinant

RESTART_SIGMAS = (0.01, 0.04, 0.04)
"""Jitter of Broyden's further starts, head units (2.5 mm, 10 mm)."""


@dataclass(frozen=True)
class Judgement:
    """The figures of one F."""

    residual_mean_mm: float
    residual_p95_mm: float
    lips_mean_mm: float
    lids_mean_mm: float
    lips_lids_mean_mm: float
    rest_mean_mm: float
    moving_mean_mm: float
    """Over the points that move by 1 mm or more."""
    motion_mean_mm: float
    """How far the points move at all: what a field that answers 0 would leave."""
    agreement_mean_mm: float
    broyden_converged_percent: float
    fold_over_percent: float
    speedup_vs_broyden: float
    forward_points_per_second: float
    people: int
    codes: int
    points: int
    """Surface points per code."""


@dataclass(frozen=True)
class HeldOutCode:
    """The surface of one person under one expression; a batch of one."""

    person: int
    x: Float[Tensor, "1 v 3"]
    omega: Float[Tensor, "1 v h"]
    z_exp: Float[Tensor, "1 e"]
    identity: Float[Tensor, "1 i"]
    region: Int[Tensor, " v"]


@dataclass(frozen=True)
class Found:
    """What F does with one held-out code, per surface point."""

    residual_mm: Float[Tensor, " v"]
    """|B3(x + F(x, omega)) - x|."""
    motion_mm: Float[Tensor, " v"]
    """|F(x, omega)|."""
    folds: Bool[Tensor, " v"]
    """det(I + dF/dx) <= 0."""


def held_out_codes(sampler: Sampler, codes: int, seed: int) -> list[HeldOutCode]:
    """`codes` random expressions in range, person after person."""
    generator = torch.Generator().manual_seed(seed)
    z_exp = sampler.expressions.draw(codes, generator, margin=0.0).to(sampler.rest_x.device)
    return [
        held_out_code(sampler, index % len(sampler.subjects), z_exp[index])
        for index in range(codes)
    ]


def held_out_code(sampler: Sampler, person: int, z_exp: Float[Tensor, " e"]) -> HeldOutCode:
    """One of the sampler's people under one expression."""
    return HeldOutCode(
        person,
        sampler.rest_x[[person]],
        sampler.rest_omega[[person]],
        z_exp[None],
        sampler.subjects.identity[[person]],
        sampler.subjects.region[person],
    )


@torch.no_grad()
def examine(forward: ForwardPrior, teacher: Teacher, code: HeldOutCode) -> Found:
    """Residual, motion and fold-overs of F at every surface point of a code."""
    asked = (code.x, code.omega, code.z_exp, code.identity)
    residual = cycle_residual(forward, teacher, *asked)[0]
    return Found(
        MM_PER_UNIT * residual.norm(dim=-1),
        MM_PER_UNIT * forward(*asked)[0].norm(dim=-1),
        forward_determinant(forward, *asked)[0] <= 0,
    )


@torch.no_grad()
def compare_with_broyden(
    forward: ForwardPrior, sampler: Sampler, codes: list[HeldOutCode], points: int
) -> tuple[Float[Tensor, "k"], float, float, float]:
    """(distances in mm where Broyden converged, share converged, seconds Broyden, seconds F)."""
    distances, total, slow, fast = [], 0, 0.0, 0.0
    generator = torch.Generator().manual_seed(len(codes))
    forward(codes[0].x, codes[0].omega, codes[0].z_exp, codes[0].identity)
    for code in codes:
        stride = max(1, code.x.shape[1] // points)
        x, omega = code.x[:, ::stride], code.omega[:, ::stride]

        def field(at: Tensor, code: HeldOutCode = code) -> Tensor:
            return backward(sampler.teacher, at[None], code.identity, code.z_exp)[0][0]

        began = moment(x)
        found = broyden(field, x[0])
        middle = moment(x)
        posed = forward.posed(x, omega, code.z_exp, code.identity)
        fast += moment(x) - middle
        slow += middle - began
        total += x.shape[1]
        starts = [
            x[0] + sigma * torch.randn(x[0].shape, generator=generator).to(x)
            for sigma in RESTART_SIGMAS
        ]
        found = restarted(broyden, field, x[0], found, starts)
        distance = MM_PER_UNIT * (posed[0] - found.points).norm(dim=-1)
        distances.append(distance[found.converged])
    joined = torch.cat(distances)
    return joined, len(joined) / max(1, total), slow, fast


def moment(like: Tensor) -> float:
    """A reading of the clock once everything asked of the tensor's device is done, seconds."""
    synchronize(like.device)
    return time.perf_counter()


@torch.no_grad()
def judge(
    forward: ForwardPrior, sampler: Sampler, *, codes: int, points: int, seed: int
) -> Judgement:
    """Every figure of F on `sampler`'s people; `points` per code go to Broyden."""
    problems = held_out_codes(sampler, codes, seed)
    found = [examine(forward, sampler.teacher, code) for code in problems]
    residual = torch.cat([one.residual_mm for one in found])
    motion = torch.cat([one.motion_mm for one in found])
    folds = torch.cat([one.folds for one in found])
    region = torch.cat([code.region for code in problems])
    agreement, share, slow, fast = compare_with_broyden(forward, sampler, problems, points)

    def mean(values: Tensor) -> float:
        return round(float(values.mean()), 4) if len(values) else 0.0

    lips, lids = region == int(Region.lips), region == int(Region.lids)
    asked_points = len(agreement) / max(share, 1e-9)
    return Judgement(
        residual_mean_mm=mean(residual),
        residual_p95_mm=round(float(residual.quantile(0.95)), 4),
        lips_mean_mm=mean(residual[lips]),
        lids_mean_mm=mean(residual[lids]),
        lips_lids_mean_mm=mean(residual[lips | lids]),
        rest_mean_mm=mean(residual[~(lips | lids)]),
        moving_mean_mm=mean(residual[motion > 1.0]),
        motion_mean_mm=mean(motion),
        agreement_mean_mm=mean(agreement),
        broyden_converged_percent=round(100 * share, 2),
        fold_over_percent=round(100 * float(folds.float().mean()), 4),
        speedup_vs_broyden=round(slow / max(fast, 1e-9), 1),
        forward_points_per_second=round(asked_points / max(fast, 1e-9)),
        people=len(sampler.subjects),
        codes=codes,
        points=problems[0].x.shape[1],
    )
