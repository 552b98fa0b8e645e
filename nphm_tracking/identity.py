"""One identity for all frames: Adam on geometry code, scale, codes and poses of chosen frames.

The geometry code moves in units of the prior's standard deviation, u = (z_geo - mean) / std, with
the prior |u|^2. The scale (metres in a head unit) is one per person. Points are drawn anew at every
step from the frames' points by a seeded generator, so that a run repeats exactly.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nphm_tracking.config import StageConfig
from nphm_tracking.energies import (
    LOST_UNITS,
    STEP_MAX,
    canonical_points,
    carried_landmarks,
    code_energy,
    landmark_residual,
    limited,
    robust_loss,
)
from nphm_tracking.head import CodePrior, canonical_landmarks
from nphm_tracking.solve import FrameData, FrameState, Person, to_head

POINTS_PER_STEP = 320
"""Of each frame: enough for a stable direction, a third of the cost of all."""
CODE_RATE, MOTION_RATE, SCALE_RATE = 0.01, 0.002, 0.001
"""Adam rates of codes (their units), poses (radians, head units) and the log of the scale."""


def fit_identity(
    person: Person,
    data: FrameData,
    state: FrameState,
    bias: Float[Tensor, "l 3"],
    geometry: CodePrior,
    stage: StageConfig,
    seed: int,
) -> tuple[Person, FrameState]:
    """Person and frames after `stage.identity_steps` steps on everything at once.

    `bias` is the personal offset of the landmarks, held fixed here.
    """
    frames = len(state.z_exp)
    unit = ((person.z_geo - geometry.mean) / geometry.std).clone().requires_grad_()
    log_scale = person.scale.log().clone().requires_grad_()
    code = state.z_exp.clone().requires_grad_()
    motion = torch.zeros(frames, 6, dtype=state.z_exp.dtype).requires_grad_()
    groups = [
        {"params": [unit], "lr": stage.identity_rate},
        {"params": [log_scale], "lr": SCALE_RATE},
        {"params": [code], "lr": CODE_RATE},
        {"params": [motion], "lr": MOTION_RATE},
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: 0.1 + 0.45 * (1 + math.cos(math.pi * step / max(stage.identity_steps, 1))),
    )
    generator = torch.Generator().manual_seed(seed)
    held = replace(state, z_exp=torch.zeros_like(state.z_exp))
    inverse = _mark_inverse(person, state)
    marks = state.marks
    for _ in range(stage.identity_steps):
        moved = held.moved(torch.cat([code, motion], 1), log_scale.exp(), person.prior)
        z_geo = geometry.mean + geometry.std * unit
        landmarks = canonical_landmarks(person.model, z_geo)[: len(bias)] + bias
        trial = replace(person, z_geo=z_geo, scale=log_scale.exp(), landmarks=landmarks)
        now = replace(moved, z_exp=code, marks=marks.detach())
        marks, kept = followed(trial, now, inverse)
        seen = replace(data, landmark_weight=data.landmark_weight * kept)
        now = replace(now, marks=marks)
        energy = data_energy(trial, _drawn(seen, generator), now, stage)
        energy = energy + stage.geometry * unit.square().mean()
        optimizer.zero_grad(set_to_none=True)
        energy.backward()
        optimizer.step()
        decay.step()
        with torch.no_grad():
            code.copy_(torch.minimum(torch.maximum(code, person.prior.lower), person.prior.upper))
    with torch.no_grad():
        scale = log_scale.exp().detach()
        moved = held.moved(torch.cat([code, motion], 1), scale, person.prior)
        z_geo = (geometry.mean + geometry.std * unit).detach()
        landmarks = canonical_landmarks(person.model, z_geo)[: len(bias)] + bias
    moved = replace(moved, marks=marks.detach())
    return replace(person, z_geo=z_geo, scale=scale, landmarks=landmarks), moved


def followed(
    person: Person, state: FrameState, inverse: Float[Tensor, "t l 3 3"]
) -> tuple[Float[Tensor, "t l 3"], Bool[Tensor, "t l"]]:
    """The state's landmarks after one Newton step, differentiable in codes and identity.

    `inverse` is (dB/dx)^-1, which may be a little stale: it is held fixed. Also tells which
    landmarks are followed well; the others do not count.
    """
    if not state.marks.shape[1]:
        return state.marks, state.marks.new_zeros(state.marks.shape[:2], dtype=torch.bool)
    if person.slopes is not None:
        posed = person.posed_landmarks(state)
        return posed.marks, posed.error < LOST_UNITS
    miss = landmark_residual(person.model, state.marks, person.landmarks, person.z_geo, state.z_exp)
    step = limited(-(inverse @ miss[..., None]).squeeze(-1), STEP_MAX)
    return state.marks + step, miss.detach().norm(dim=-1) < LOST_UNITS


def _mark_inverse(person: Person, state: FrameState) -> Float[Tensor, "t l 3 3"]:
    if not state.marks.shape[1]:
        return state.marks[..., None].expand(*state.marks.shape, 3)
    return person.posed_landmarks(state, rounds=1).inverse


def data_energy(
    person: Person, data: FrameData, state: FrameState, stage: StageConfig
) -> Float[Tensor, ""]:
    """Mean over frames of surface, landmark and code terms: what `solve_frames` lowers too."""
    to_mm = 1000 * person.scale
    points = to_head(data.points, state, person.scale)
    canonical = canonical_points(person.model, points, person.z_geo, state.z_exp)
    signed = person.model.sdf(canonical.flatten(0, 1), person.z_geo).reshape(points.shape[:2])
    share = data.point_weight / data.point_weight.sum(1, keepdim=True).clamp_min(1)
    energy = (
        stage.surface * (share * robust_loss(signed * to_mm, stage.surface_scale_mm)).sum(1).mean()
    )
    if data.landmarks.shape[1]:
        observed = to_head(data.landmarks, state, person.scale)
        share = data.landmark_weight / data.landmark_weight.sum(1, keepdim=True).clamp_min(1)
        length = ((state.marks - observed) * to_mm).square().sum(-1).add(1e-12).sqrt()
        robust = robust_loss(length, stage.landmark_scale_mm)
        energy = energy + stage.landmark * (share * robust).sum(1).mean()
    prior = person.prior
    weight = data.code_weight[:, None].sqrt()
    away = (state.z_exp - prior.mean) * weight
    energy = energy + stage.code * code_energy(away, torch.zeros_like(prior.mean), prior.std)
    sparse = (state.z_exp * (prior.lower >= 0) * data.code_weight[:, None]).sum(1).mean()
    return energy + stage.sparsity * sparse


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
        observed = to_head(data.landmarks, state, person.scale)
        base = canonical_landmarks(person.model, person.z_geo)
        if person.slopes is not None:
            error = observed - carried_landmarks(base, person.slopes, state.z_exp).marks
        else:
            error = landmark_residual(person.model, observed, base, person.z_geo, state.z_exp)
    seen = data.landmark_weight > 0
    missing = torch.where(seen[..., None], error, torch.nan)
    bias = missing.nanmedian(0).values.nan_to_num(0.0)
    length = bias.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return bias * (limit_mm / (1000 * person.scale * length)).clamp(max=1)


def _drawn(data: FrameData, generator: torch.Generator) -> FrameData:
    """A random part of every frame's points."""
    count = data.points.shape[1]
    if count <= POINTS_PER_STEP:
        return data
    rows = torch.randperm(count, generator=generator)[:POINTS_PER_STEP]
    return replace(
        data,
        points=data.points[:, rows],
        normals=data.normals[:, rows],
        point_weight=data.point_weight[:, rows],
    )
