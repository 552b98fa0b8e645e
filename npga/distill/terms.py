"""What F is trained on.

F, B     forward prior and frozen backward field;  x canonical, omega hyper, o = F(x, omega)
pair     |F(x, omega) - (p - x)| on exact pairs (x, omega) = B(p): no gradient through B
cycle    |B3(x + F(x, omega)) - x| at rest points, the objective of NPGA (arXiv:2405.19331); omega
         is that of the rest pose, as an avatar holds it
fold     max(0, margin - det(I + dF/dx)): F must not turn space inside out

All lengths in millimetres, so that weights compare. A term with weight 0 is not computed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar.forward import ForwardPrior
from npga.core import MM_PER_UNIT
from npga.distill.samples import Batch, Pairs
from npga.distill.teacher import Teacher, backward

ROUND_MM = 0.1
"""Below this error the length term is quadratic, above it linear."""

FOLD_MARGIN = 0.1
"""det J below this is already pushed back."""

FOLD_STEP = 2e-3
"""Step of the finite differences of dF/dx, head units (0.5 mm)."""


def soft_length_mm(difference: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """sqrt(|d|^2 + r^2) - r in mm, r = ROUND_MM: a length with a gradient at zero."""
    squared = (MM_PER_UNIT * difference).square().sum(-1)
    return (squared + ROUND_MM**2).sqrt() - ROUND_MM


def pair_term(forward: ForwardPrior, pairs: Pairs) -> Float[Tensor, ""]:
    """Weighted mean length of F's error on exact pairs, mm."""
    error = forward(pairs.x, pairs.omega, pairs.z_exp, pairs.identity) - pairs.offset
    return (pairs.weight * soft_length_mm(error)).sum() / pairs.weight.sum().clamp(min=1.0)


def cycle_residual(
    forward: ForwardPrior,
    teacher: Teacher,
    x: Float[Tensor, "b n 3"],
    omega: Float[Tensor, "b n h"],
    z_exp: Float[Tensor, "b e"],
    identity: Float[Tensor, "b i"],
) -> Float[Tensor, "b n 3"]:
    """B3(x + F(x, omega)) - x, head units; differentiable in F through the frozen B."""
    posed = forward.posed(x, omega, z_exp, identity)
    canonical, _ = backward(teacher, posed, identity, z_exp)
    return canonical - x


def cycle_term(forward: ForwardPrior, teacher: Teacher, batch: Batch) -> Float[Tensor, ""]:
    """Mean length of the cycle residual at rest points, mm."""
    pairs = batch.pairs
    residual = cycle_residual(
        forward, teacher, batch.rest_x, batch.rest_omega, pairs.z_exp, pairs.identity
    )
    return soft_length_mm(residual).mean()


def forward_determinant(
    forward: ForwardPrior,
    x: Float[Tensor, "b n 3"],
    omega: Float[Tensor, "b n h"],
    z_exp: Float[Tensor, "b e"],
    identity: Float[Tensor, "b i"],
    step: float = FOLD_STEP,
) -> Float[Tensor, "b n"]:
    """det(I + dF/dx) by central differences, so that one ordinary backward pass suffices.

    The twin with the exact Jacobian is `ForwardPrior.jacobian`.
    """
    shifts = step * torch.cat([torch.eye(3), -torch.eye(3)]).to(x)
    around = (x[:, None] + shifts[:, None]).flatten(1, 2)
    offsets = forward(around, omega.repeat(1, 6, 1), z_exp, identity)
    up, down = (around + offsets).unflatten(1, (2, 3, x.shape[1])).unbind(1)
    a, b, c = ((up - down) / (2 * step)).unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(-1)


def fold_term(forward: ForwardPrior, batch: Batch, points: int) -> Float[Tensor, ""]:
    """Mean shortfall of det J below FOLD_MARGIN on the first `points` rest points of each code."""
    pairs = batch.pairs
    x, omega = batch.rest_x[:, :points], batch.rest_omega[:, :points]
    determinant = forward_determinant(forward, x, omega, pairs.z_exp, pairs.identity)
    return (FOLD_MARGIN - determinant).clamp(min=0).mean()


@dataclass(frozen=True)
class Terms:
    """Weights of the terms; calling it gives the weighted scalars by name."""

    pair: float = 1.0
    cycle: float = 1.0
    fold: float = 0.1
    fold_points: int = 6
    """Rest points per code on which det J is looked at."""

    def __call__(
        self, forward: ForwardPrior, teacher: Teacher, batch: Batch
    ) -> dict[str, Float[Tensor, ""]]:
        """{name: weight * term}."""
        losses = {}
        if self.pair > 0:
            losses["pair"] = self.pair * pair_term(forward, batch.pairs)
        if self.cycle > 0:
            losses["cycle"] = self.cycle * cycle_term(forward, teacher, batch)
        if self.fold > 0:
            losses["fold"] = self.fold * fold_term(forward, batch, self.fold_points)
        return losses
