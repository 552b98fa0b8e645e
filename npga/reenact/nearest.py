"""The code inside a box that looks most like a code outside it.

Clamping every number alone loses what it cuts off: a smile told by a control that the avatar never
used is gone. Here the controls that have room take over: nearest is measured by how far the codes
put the face's landmarks apart, in a box. t frames, e expression size. Ours.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from nphm_tracking import HeadModel
from nphm_tracking.head import landmark_slopes
from nphm_tracking.landmarks import DETAIL_IDS, used_landmarks

ROUNDS = 30
"""Of projected Newton steps; most frames need fewer than ten."""
OWN = 0.02
"""How much a control counts in itself beside what it moves, as a share of the mean curvature: keeps
codes where landmarks tell nothing."""
DETAIL = 2.0
"""Weight of lips, lids, brows and irises against 1, as in tracking."""


def likeness(model: HeadModel) -> Float[Tensor, "e e"] | None:
    """The metric of codes in which equal distances look equal: landmark motion, squared.

    None where the head model does not know how codes move landmarks.
    """
    slopes = landmark_slopes(model)
    if slopes is None:
        return None
    ids = used_landmarks(model.landmark_count)
    weight = torch.tensor([DETAIL if index in DETAIL_IDS else 1.0 for index in ids])
    moved = slopes.flatten(0, 1)
    metric = moved.T @ (moved * weight.repeat_interleave(3)[:, None].to(moved))
    return metric + OWN * metric.diagonal().mean() * torch.eye(len(metric)).to(metric)


def nearest_inside(
    wanted: Float[Tensor, "t e"],
    lower: Float[Tensor, " e"],
    upper: Float[Tensor, " e"],
    metric: Float[Tensor, "e e"],
) -> Float[Tensor, "t e"]:
    """argmin (z - wanted)' metric (z - wanted) over lower <= z <= upper.

    Projected Newton (Bertsekas 1982): controls at a bound that would leave it are held for a step.
    """
    z = torch.minimum(torch.maximum(wanted, lower), upper)
    eye = torch.eye(len(metric)).to(metric)
    energy = _energy(z, wanted, metric)
    for _ in range(ROUNDS):
        gradient = (z - wanted) @ metric
        held = ((z <= lower) & (gradient > 0)) | ((z >= upper) & (gradient < 0))
        free = (~held).to(metric)
        blocks = metric * free[:, :, None] * free[:, None] + eye * held.to(metric)[:, None]
        step = -torch.linalg.solve(blocks, (gradient * free)[..., None])[..., 0]
        moved, found = _searched(z, step, energy, wanted, lower, upper, metric)
        if not bool((found < energy - 1e-9).any()):
            break
        z, energy = moved, found
    return z


def _searched(
    z: Tensor,
    step: Tensor,
    energy: Float[Tensor, " t"],
    wanted: Tensor,
    lower: Tensor,
    upper: Tensor,
    metric: Tensor,
) -> tuple[Float[Tensor, "t e"], Float[Tensor, " t"]]:
    """The first of ever shorter projected steps that lowers a frame's energy, else where it was."""
    best, least = z, energy
    open_ = torch.ones_like(energy, dtype=torch.bool)
    for share in (1.0, 0.5, 0.25, 0.1):
        trial = torch.minimum(torch.maximum(z + share * step, lower), upper)
        found = _energy(trial, wanted, metric)
        better = open_ & (found < energy)
        best = torch.where(better[:, None], trial, best)
        least = torch.where(better, found, least)
        open_ = open_ & ~better
        if not bool(open_.any()):
            break
    return best, least


def _energy(z: Tensor, wanted: Tensor, metric: Tensor) -> Float[Tensor, " t"]:
    away = z - wanted
    return ((away @ metric) * away).sum(1)
