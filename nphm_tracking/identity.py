"""One identity for all frames: damped Gauss-Newton on identity, scale, codes and poses at once.

Every frame has its own unknowns (expression code and pose, d of them), all share the geometry code
and the logarithm of the scale (s unknowns). The normal equations have the shape of an arrow

    [ A    B_t ] [shared]      A [s s], B_t [s d], C_t [d d]
    [ B_t' C_t ] [frame ]

and are solved exactly by eliminating the frames (Schur complement; Triggs et al. 2000, 6). Bounds
and damping are as in ``solve``. Ours.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nphm_tracking.align import METRES_PER_UNIT
from nphm_tracking.config import StageConfig
from nphm_tracking.energies import (
    LOST_UNITS,
    canonical_slopes,
    geometry_slopes,
    landmark_residual,
    limited,
    linearise_head,
    robust_weight,
)
from nphm_tracking.frames import FrameData, FrameState, LandmarkMiss, Person, to_head
from nphm_tracking.head import CodePrior, canonical_landmarks
from nphm_tracking.solve import (
    PREDICTED_MAX,
    NormalEquations,
    cross_matrix,
    drop_wrong_normals,
    free_unknowns,
    landmark_weights,
    normal_equations,
)

TRIES = 5
"""Dampings tried in a step before it is given up."""
GEOMETRY_STEP_MAX, SCALE_STEP_MAX, POSE_STEP_MAX = 1.5, 0.04, 0.15
"""Longest steps: standard deviations, logarithm, radians and head units."""


def fit_identity(
    person: Person,
    data: FrameData,
    state: FrameState,
    bias: Float[Tensor, "l 3"],
    geometry: CodePrior,
    stage: StageConfig,
) -> tuple[Person, FrameState]:
    """Person and frames after at most ``stage.identity_steps`` steps on everything at once.

    ``bias`` is the personal offset of the landmarks, held fixed here. The energy is the sum of the
    frames' energies plus the geometry prior and never rises.
    """
    with torch.no_grad():
        data = drop_wrong_normals(person, data, state)
        own = normal_equations(person, data, state, stage)
        state = replace(state, marks=own.marks)
        damping = 1e-3
        for _ in range(stage.identity_steps):
            arrow = _arrow(person, data, state, own, bias, geometry, stage)
            if data.landmark_ray is not None:
                arrow.hold_scale()
            before = float(own.energy.sum()) + _prior_energy(person, data, geometry, stage)
            for _ in range(TRIES):
                shared, frame = arrow.solve(free_unknowns(state, own.gradient, person), damping)
                trial, moved = _moved(person, state, own, bias, geometry, shared, frame)
                found = normal_equations(trial, data, moved, stage)
                after = float(found.energy.sum()) + _prior_energy(trial, data, geometry, stage)
                if after <= before:
                    person, state, own = trial, replace(moved, marks=found.marks), found
                    damping = max(damping * 0.3, 1e-6)
                    break
                damping *= 8
            else:
                break
    return person, state


@dataclass(frozen=True)
class Arrow:
    """The quadratic model of identity and frames."""

    shared: Float[Tensor, "s s"]
    cross: Float[Tensor, "t s d"]
    own: Float[Tensor, "t d d"]
    shared_gradient: Float[Tensor, "s"]
    own_gradient: Float[Tensor, "t d"]

    def hold_scale(self) -> None:
        """Nothing moves the scale: one camera does not see how large a head is."""
        self.shared[-1], self.shared[:, -1], self.cross[:, -1] = 0, 0, 0
        self.shared[-1, -1], self.shared_gradient[-1] = 1, 0

    def solve(
        self, free: Bool[Tensor, "t d"], damping: float
    ) -> tuple[Float[Tensor, "s"], Float[Tensor, "t d"]]:
        """The damped step; unknowns that are not ``free`` are held. Float64 inside."""
        mask = free.double()
        own = self.own.double() * mask[:, :, None] * mask[:, None, :]
        diagonal = torch.diagonal(own, dim1=1, dim2=2)
        diagonal += damping * diagonal + 1e-6 + (1 - mask)
        cross = self.cross.double() * mask[:, None]
        right = -self.own_gradient.double() * mask
        shared = self.shared.double().clone()
        diagonal = torch.diagonal(shared)
        diagonal += damping * diagonal + 1e-9
        factor = torch.linalg.cholesky(own)
        reduced = torch.cholesky_solve(cross.mT, factor)
        offset = torch.cholesky_solve(right[..., None], factor)[..., 0]
        left = shared - (cross @ reduced).sum(0)
        wanted = -self.shared_gradient.double() - torch.einsum("tsd,td->s", cross, offset)
        step = torch.linalg.solve(left, wanted)
        frame = offset - torch.einsum("tds,s->td", reduced, step)
        return step.to(self.shared), frame.to(self.own)


def _arrow(
    person: Person,
    data: FrameData,
    state: FrameState,
    own: NormalEquations,
    bias: Tensor,
    geometry: CodePrior,
    stage: StageConfig,
) -> Arrow:
    frames, size = len(state.z_exp), len(person.z_geo)
    shared, gradient = _prior_terms(person, geometry, stage, data)
    cross = own.hessian.new_zeros(frames, size + 1, own.hessian.shape[1])
    to_mm = 1000 * person.scale
    total = data.point_weight.sum(1, keepdim=True).clamp_min(1)
    weight = stage.surface * data.point_weight / total
    weight = weight * robust_weight(own.residual_mm, stage.surface_scale_mm)
    points = to_head(data.points, state, person.scale)
    for t in range(frames if data.points.shape[1] else 0):
        rows = linearise_head(person.model, points[t], person.z_geo, state.z_exp[t])[1] * to_mm
        residual = own.residual_mm[t, :, None]  # measured in mm, it shrinks with the scale
        by_shared = torch.cat([rows[:, :size], rows[:, -1:] - residual], dim=1)
        weighted = by_shared * weight[t, :, None]
        shared += weighted.T @ by_shared
        cross[t] = weighted.T @ rows[:, size:-1]
        gradient += (weighted.T @ residual)[:, 0]
    if data.landmarks.shape[1]:
        more = _landmark_terms(person, data, state, stage, len(bias))
        shared, cross, gradient = shared + more[0], cross + more[1], gradient + more[2]
    return Arrow(shared, cross, own.hessian, gradient, own.gradient)


def _landmark_terms(
    person: Person, data: FrameData, state: FrameState, stage: StageConfig, count: int
) -> tuple[Float[Tensor, "s s"], Float[Tensor, "t s d"], Float[Tensor, "s"]]:
    """What the landmarks add to shared block, cross blocks and shared gradient."""
    to_mm = 1000 * person.scale
    posed = person.posed_landmarks(state)
    miss = LandmarkMiss.of(data, state, posed.marks, person.scale)
    error = miss.error * to_mm
    weight = landmark_weights(data, stage) * (posed.error < LOST_UNITS)
    weight = weight * robust_weight(error.norm(dim=-1), stage.landmark_scale_mm)
    weight = weight.repeat_interleave(3, 1)
    if person.carries:
        by_geometry = canonical_slopes(person.model, person.z_geo, posed.marks)
    else:
        by_geometry = geometry_slopes(person.model, state.marks, posed, person.z_geo, state.z_exp)
    by_scale = -posed.marks[..., None]  # of (marks - observed) / scale
    by_shared = torch.cat([by_geometry[:, :count], by_scale], dim=-1)
    by_shared = miss.across(by_shared).flatten(1, 2)
    turned = cross_matrix(miss.observed)
    shift = -torch.eye(3).to(turned).expand_as(turned)
    by_frame = miss.across(torch.cat([posed.slope, turned, shift], dim=-1)).flatten(1, 2)
    weighted = (by_shared * to_mm * weight[..., None]).mT
    return (
        (weighted @ (by_shared * to_mm)).sum(0),
        weighted @ (by_frame * to_mm),
        (weighted @ error.flatten(1)[..., None]).sum(0)[:, 0],
    )


def _prior_terms(
    person: Person, geometry: CodePrior, stage: StageConfig, data: FrameData
) -> tuple[Float[Tensor, "s s"], Float[Tensor, "s"]]:
    frames = len(data.points)
    weight = _geometry_weight(data, stage) * frames
    precision = weight / len(geometry.std) / geometry.std.square()
    pull = precision * (person.z_geo - geometry.mean)
    size = precision.new_tensor([stage.size * frames])
    larger = torch.log(person.scale / METRES_PER_UNIT)
    return torch.diag(torch.cat([precision, size])), torch.cat([pull, -size * larger])


def _geometry_weight(data: FrameData, stage: StageConfig) -> float:
    return stage.geometry if data.landmark_ray is None else stage.geometry_monocular


def _prior_energy(
    person: Person, data: FrameData, geometry: CodePrior, stage: StageConfig
) -> float:
    unit = (person.z_geo - geometry.mean) / geometry.std
    larger = torch.log(person.scale / METRES_PER_UNIT)
    each = _geometry_weight(data, stage) * unit.square().mean() + stage.size * larger.square()
    return float(len(data.points) * each)


def _moved(
    person: Person,
    state: FrameState,
    own: NormalEquations,
    bias: Tensor,
    geometry: CodePrior,
    shared: Float[Tensor, "s"],
    frame: Float[Tensor, "t d"],
) -> tuple[Person, FrameState]:
    """After a step, shortened as a whole where a part of it is too long."""
    codes = state.z_exp.shape[1]
    longest = max(
        float((shared[:-1] / geometry.std).abs().max()) / GEOMETRY_STEP_MAX,
        float(shared[-1].abs()) / SCALE_STEP_MAX,
        float(frame[:, codes:].abs().max()) / POSE_STEP_MAX,
        1.0,
    )
    shared, frame = shared / longest, frame / longest
    z_geo = person.z_geo + shared[:-1]
    scale = person.scale * torch.exp(-shared[-1])
    landmarks = person.landmarks
    if len(bias):
        landmarks = canonical_landmarks(person.model, z_geo)[: len(bias)] + bias
    trial = replace(person, z_geo=z_geo, scale=scale, landmarks=landmarks)
    moved = state.moved(frame, person.scale, person.prior)
    change = (moved.z_exp - state.z_exp)[:, None, :, None]
    carried = limited((own.slope @ change).squeeze(-1), PREDICTED_MAX)
    return trial, replace(moved, marks=state.marks + carried)


def landmark_bias(
    person: Person, data: FrameData, state: FrameState, limit_mm: float = 12.0
) -> Float[Tensor, "l 3"]:
    """Personal landmark offsets: the median over frames of what canonical landmarks miss.

    A detector's idea of a landmark differs from the model's by a constant on each face (ours); what
    matters for expressions is the motion. Landmarks seen in no frame get 0; offsets are limited.
    """
    if not data.landmarks.shape[1] or not len(data.landmarks):
        return torch.zeros_like(person.landmarks)
    with torch.no_grad():
        base = canonical_landmarks(person.model, person.z_geo)
        if person.carries:
            posed = person.carried(base, state.z_exp).marks
            error = -LandmarkMiss.of(data, state, posed, person.scale).error
        else:
            observed = to_head(data.landmarks, state, person.scale)
            error = landmark_residual(person.model, observed, base, person.z_geo, state.z_exp)
    seen = data.landmark_weight > 0
    missing = torch.where(seen[..., None], error, torch.nan)
    bias = missing.nanmedian(0).values.nan_to_num(0.0)
    length = bias.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return bias * (limit_mm / (1000 * person.scale * length)).clamp(max=1)
