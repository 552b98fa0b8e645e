"""Codes and poses of all frames of a sequence by damped Gauss-Newton, identity held fixed.

t frames, d = e + 6 unknowns of a frame (expression code, rotation, translation of a small motion in
head space). Normal equations H [t d d] and gradients g [t d] of the data and code terms;
neighbouring frames are coupled by diagonal smoothness, so the whole sequence is one block
tridiagonal system, solved exactly. Bounds on the codes by projection (Bertsekas 1982): an unknown
at its bound whose gradient points outward is frozen for the step. Damping is per frame: a frame
whose energy rose returns to its last state and is damped more (Levenberg-Marquardt).
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from npga.core.rotations import rotvec_from_matrix
from nphm_tracking.config import StageConfig
from nphm_tracking.energies import (
    LOST_UNITS,
    Linearised,
    PosedLandmarks,
    limited,
    linearise_surface,
    robust_loss,
    robust_weight,
)
from nphm_tracking.frames import FrameData, FrameState, LandmarkMiss, Person, to_head
from nphm_tracking.head import CodePrior

CHUNK_POINTS = 16384
"""Points per network pass: bounds the memory, changes no result."""
PREDICTED_MAX = 0.1
"""Farthest that one step may carry a posed landmark, head units (25 mm)."""
LEVER_UNITS = 0.4
"""A rotation step counts as the motion of a point this far from the origin (a face's radius)."""


@dataclass(frozen=True)
class NormalEquations:
    """The quadratic model of every frame's own terms."""

    hessian: Float[Tensor, "t d d"]
    gradient: Float[Tensor, "t d"]
    energy: Float[Tensor, "t"]
    residual_mm: Float[Tensor, "t n"]
    marks: Float[Tensor, "t l 3"]
    """The state's landmarks, corrected."""
    slope: Float[Tensor, "t l 3 e"]
    """Their derivative with respect to the codes."""


@runtime_checkable
class MoreTerms(Protocol):
    """Further terms of frames, for instance of their pictures."""

    def __call__(
        self, person: Person, rows: Int[Tensor, "r"], state: FrameState
    ) -> tuple[Float[Tensor, "r d d"], Float[Tensor, "r d"], Float[Tensor, "r"]]:
        """Hessian, gradient and energy of some frames, whose numbers and states are given."""
        ...


def solve_frames(
    person: Person,
    data: FrameData,
    state: FrameState,
    stage: StageConfig,
    iterations: int | None = None,
    more: MoreTerms | None = None,
) -> FrameState:
    """The frames' codes and poses that minimise the stage's energy, and `more`, from `state` on."""
    iterations = stage.iterations if iterations is None else iterations
    with torch.no_grad():
        data = drop_wrong_normals(person, data, state)
        kept = normal_equations(person, data, state, stage, more)
        best = replace(state, marks=kept.marks)
        damping = torch.full_like(kept.energy, 1e-3)
        for _ in range(iterations):
            step = _step(person, data, best, kept, stage, damping)
            trial = best.moved(step, person.scale, person.prior)
            change = (trial.z_exp - best.z_exp)[:, None, :, None]
            carried = limited((kept.slope @ change).squeeze(-1), PREDICTED_MAX)
            trial = replace(trial, marks=best.marks + carried)
            found = normal_equations(person, data, trial, stage, more)
            better = found.energy + _smoothness(person, data, trial, stage) <= (
                kept.energy + _smoothness(person, data, best, stage)
            )
            damping = torch.where(better, damping * 0.3, damping * 6).clamp(1e-6, 1e4)
            best = FrameState(*(_pick(better, a, b) for a, b in _pairs(trial, best)))
            kept = NormalEquations(*(_pick(better, a, b) for a, b in _pairs(found, kept)))
            best = replace(best, marks=kept.marks)
    return best


def normal_equations(
    person: Person,
    data: FrameData,
    state: FrameState,
    stage: StageConfig,
    more: MoreTerms | None = None,
) -> NormalEquations:
    """Surface, landmark and code terms of every frame, without the coupling between frames."""
    per_frame = data.points.shape[1] + data.landmarks.shape[1]
    chunk = max(1, CHUNK_POINTS // max(per_frame, 1))
    parts = []
    for rows in torch.arange(len(data.points)).split(chunk):
        part = _chunk_equations(person, data[rows], state[rows], stage)
        if more is not None:
            hessian, gradient, energy = more(person, rows, state[rows])
            part = replace(
                part,
                hessian=part.hessian + hessian,
                gradient=part.gradient + gradient,
                energy=part.energy + energy,
            )
        parts.append(part)
    names = NormalEquations.__dataclass_fields__
    return NormalEquations(*(torch.cat([getattr(p, name) for p in parts]) for name in names))


def _chunk_equations(
    person: Person, data: FrameData, state: FrameState, stage: StageConfig
) -> NormalEquations:
    size = state.z_exp.shape[1]
    to_mm = 1000 * person.scale
    residual = data.point_weight
    hessian = residual.new_zeros(len(residual), size + 6, size + 6)
    gradient, energy = hessian[..., 0].clone(), residual.new_zeros(len(residual))
    if data.points.shape[1]:
        points = to_head(data.points, state, person.scale)
        surface = linearise_surface(person.model, points, person.z_geo, state.z_exp)
        total = data.point_weight.sum(1, keepdim=True).clamp_min(1)
        base = stage.surface * data.point_weight / total
        residual = surface.residual * to_mm
        hessian, gradient = _accumulate(
            surface, base * robust_weight(residual, stage.surface_scale_mm), residual, to_mm
        )
        energy = (base * robust_loss(residual, stage.surface_scale_mm)).sum(1)
    marks, slope = state.marks, state.marks.new_zeros(*state.marks.shape, size)
    if data.landmarks.shape[1]:
        posed = person.posed_landmarks(state)
        marks, slope = posed.marks, posed.slope
        extra = _landmark_terms(data, state, posed, stage, person.scale)
        hessian, gradient, energy = hessian + extra[0], gradient + extra[1], energy + extra[2]
    curvature, own_gradient, own_energy = _code_terms(person, data, state, stage)
    hessian[:, range(size), range(size)] += curvature
    gradient[:, :size] += own_gradient
    return NormalEquations(hessian, gradient, energy + own_energy, residual, marks, slope)


def _code_terms(
    person: Person, data: FrameData, state: FrameState, stage: StageConfig
) -> tuple[Float[Tensor, "t e"], Float[Tensor, "t e"], Float[Tensor, "t"]]:
    """Diagonal of the hessian, gradient and energy of what is known of codes alone."""
    prior = person.prior
    precision = stage.code * data.code_weight[:, None] / prior.std.square()
    away = state.z_exp - prior.mean
    pull = 0.5 * stage.sparsity * (prior.lower >= 0) * data.code_weight[:, None]
    curvature, gradient = precision, precision * away + pull
    energy = (precision * away.square() + 2 * pull * state.z_exp).sum(1)
    if data.scores is not None:
        known = stage.score * (~data.scores.isnan()).to(away)
        apart = state.z_exp - data.scores.nan_to_num(0.0)
        curvature, gradient = curvature + known, gradient + known * apart
        energy = energy + (known * apart.square()).sum(1)
    return curvature, gradient, energy


def _landmark_terms(
    data: FrameData, state: FrameState, posed: PosedLandmarks, stage: StageConfig, scale: Tensor
) -> tuple[Float[Tensor, "t d d"], Float[Tensor, "t d"], Float[Tensor, "t"]]:
    """Hessian, gradient and energy of posed minus observed landmarks; lost landmarks count 0."""
    to_mm = 1000 * scale
    miss = LandmarkMiss.of(data, state, posed.marks, scale)
    error = miss.error * to_mm
    length = error.norm(dim=-1)
    each = landmark_weights(data, stage)
    base = each * (posed.error < LOST_UNITS)
    weight = base * robust_weight(length, stage.landmark_scale_mm)
    turned = cross_matrix(miss.observed)
    shift = -torch.eye(3).to(turned).expand_as(turned)
    jacobian = miss.across(torch.cat([posed.slope, turned, shift], -1)).flatten(1, 2)
    lined = Linearised(error.flatten(1) / to_mm, jacobian, jacobian[..., -3:])
    hessian, gradient = _accumulate(lined, weight.repeat_interleave(3, 1), error.flatten(1), to_mm)
    energy = (base * robust_loss(length, stage.landmark_scale_mm)).sum(1)
    lost = each * (posed.error >= LOST_UNITS) * stage.landmark_scale_mm**2
    return hessian, gradient, energy + lost.sum(1)


def landmark_weights(data: FrameData, stage: StageConfig) -> Float[Tensor, "t l"]:
    """Every landmark's share of the stage's weight."""
    weight = stage.landmark if data.landmark_ray is None else stage.landmark_monocular
    return weight * data.landmark_weight / data.landmark_weight.sum(1, keepdim=True).clamp_min(1)


def cross_matrix(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """[x] with [x] w = x cross w: minus the derivative of Exp(w) x."""
    x, y, z = points.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return torch.stack(rows, -1).reshape(*points.shape, 3)


def _accumulate(
    found: Linearised,
    weight: Float[Tensor, "t m"],
    residual_mm: Float[Tensor, "t m"],
    to_mm: Tensor,
) -> tuple[Float[Tensor, "t d d"], Float[Tensor, "t d"]]:
    jacobian = found.jacobian * to_mm
    weighted = (jacobian * weight[..., None]).transpose(1, 2)
    return weighted @ jacobian, (weighted @ residual_mm[..., None]).squeeze(-1)


def drop_wrong_normals(person: Person, data: FrameData, state: FrameState) -> FrameData:
    """Weight 0 for points whose measured normal opposes the model's surface (hair, mouth, ears)."""
    with_normals = data.normals.norm(dim=-1) > 0.5
    if not bool(with_normals.any()):
        return data
    kept = []
    per_frame = max(1, CHUNK_POINTS // max(data.points.shape[1], 1))
    for rows in torch.arange(len(data.points)).split(per_frame):
        points = to_head(data.points[rows], state[rows], person.scale)
        normal = linearise_surface(person.model, points, person.z_geo, state.z_exp[rows]).normal
        measured = data.normals[rows] @ state.rotation[rows]
        kept.append(torch.cosine_similarity(normal, measured, dim=-1))
    agrees = ((torch.cat(kept) - 0.2) / 0.4).clamp(0, 1)
    return replace(data, point_weight=data.point_weight * torch.where(with_normals, agrees, 1.0))


def _coupling(
    person: Person, state: FrameState, stage: StageConfig
) -> tuple[Float[Tensor, "d"], Float[Tensor, "u d"]]:
    """Diagonal weights of a step between neighbours, and the present steps."""
    to_mm = 1000 * person.scale
    code = stage.smooth_code / person.prior.std.square()
    turn = (stage.smooth_pose * (to_mm * LEVER_UNITS).square()).expand(3)
    shift = (stage.smooth_pose * to_mm.square()).expand(3)
    relative = state.rotation[1:].transpose(1, 2) @ state.rotation[:-1]
    moved = (
        (state.translation[:-1] - state.translation[1:])[:, None] @ state.rotation[1:]
    ).squeeze(1)
    steps = [state.z_exp[1:] - state.z_exp[:-1], rotvec_from_matrix(relative), moved / person.scale]
    return torch.cat([code, turn, shift]), torch.cat(steps, 1)


def _smoothness(
    person: Person, data: FrameData, state: FrameState, stage: StageConfig
) -> Float[Tensor, "t"]:
    """Half of each coupling's energy to each of its two frames."""
    weight, steps = _coupling(person, state, stage)
    energy = 0.5 * data.linked * (weight * steps.square()).sum(1)
    total = torch.zeros_like(data.code_weight)
    total[:-1] += energy
    total[1:] += energy
    return total


def _step(
    person: Person,
    data: FrameData,
    state: FrameState,
    equations: NormalEquations,
    stage: StageConfig,
    damping: Float[Tensor, "t"],
) -> Float[Tensor, "t d"]:
    """The projected, damped Gauss-Newton step of the coupled frames."""
    prior = person.prior
    weight, steps = _coupling(person, state, stage)
    link = data.linked[:, None] * weight
    hessian, gradient = equations.hessian.clone(), equations.gradient.clone()
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    diagonal += damping[:, None] * diagonal + 1e-6
    diagonal[:-1] += link
    diagonal[1:] += link
    gradient[:-1] -= link * steps
    gradient[1:] += link * steps
    step = solve_tridiagonal(hessian, link, -gradient, free_unknowns(state, gradient, person))
    limit = step_limits(prior)
    return torch.minimum(torch.maximum(step, -limit), limit)


def step_limits(prior: CodePrior) -> Float[Tensor, "d"]:
    """The largest step of every unknown: half a code's range, 0.15 rad, 0.15 head units."""
    codes = 0.5 * (prior.upper - prior.lower).clamp(max=6.0)
    return torch.cat([codes, codes.new_full((6,), 0.15)])


def free_unknowns(
    state: FrameState, gradient: Float[Tensor, "t d"], person: Person
) -> Bool[Tensor, "t d"]:
    """All but codes at a bound whose gradient points outward."""
    size, prior = state.z_exp.shape[1], person.prior
    free = torch.ones_like(gradient, dtype=torch.bool)
    codes, slope = state.z_exp, gradient[:, :size]
    free[:, :size] = ~((codes <= prior.lower) & (slope > 0) | (codes >= prior.upper) & (slope < 0))
    return free


def solve_tridiagonal(
    diagonal: Float[Tensor, "t d d"],
    link: Float[Tensor, "u d"],
    right: Float[Tensor, "t d"],
    free: Bool[Tensor, "t d"],
) -> Float[Tensor, "t d"]:
    """x of the symmetric system with blocks `diagonal` and off-diagonal blocks -diag(link).

    Unknowns that are not `free` are held at 0. Block Cholesky (Thomas) elimination in float64.
    """
    mask = free.double()
    blocks = diagonal.double() * mask[:, :, None] * mask[:, None, :]
    torch.diagonal(blocks, dim1=1, dim2=2).add_(1 - mask)
    off = link.double() * mask[1:] * mask[:-1]
    values = right.double() * mask
    if not bool(off.any()):
        return torch.linalg.solve(blocks, values).to(right.dtype)
    factors: list[Tensor] = []
    for t in range(len(blocks)):
        if t > 0:
            inverse = torch.cholesky_inverse(factors[t - 1])
            blocks[t] -= off[t - 1][:, None] * inverse * off[t - 1]
            values[t] += off[t - 1] * (inverse @ values[t - 1])
        factors.append(torch.linalg.cholesky(blocks[t]))
    result = torch.zeros_like(values)
    for t in reversed(range(len(blocks))):
        rest = values[t] if t == len(blocks) - 1 else values[t] + off[t] * result[t + 1]
        result[t] = torch.cholesky_solve(rest[:, None], factors[t])[:, 0]
    return result.to(right.dtype)


def _pick(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.reshape(-1, *[1] * (new.dim() - 1)), new, old)


def _pairs(new: FrameState | NormalEquations, old: object) -> list[tuple[Tensor, Tensor]]:
    return [(getattr(new, name), getattr(old, name)) for name in new.__dataclass_fields__]
