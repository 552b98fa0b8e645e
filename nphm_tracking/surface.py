"""Distances to a head model's posed surface, by walking down the gradient until it is reached.

One division |SDF| / |gradient| is a first-order guess and lies where the field is not a distance;
walking on to the level set and measuring the straight line to it does not. Ours.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from nphm_tracking.model.head_model import HeadModel

STEP_MAX = 0.02
"""Longest step, head units (5 mm)."""
SLOPE_MIN = 0.3


def surface_distance(
    model: HeadModel,
    points: Float[Tensor, "n 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "e"],
    rounds: int = 8,
) -> Float[Tensor, "n"]:
    """How far posed head-space points are from the posed surface, head units.

    The distance to the surface point found by following the gradient: never less than the true
    distance but for what is left of |SDF|, which is added.
    """
    place = surface_foot(model, points, z_geo, z_exp, rounds)
    left, slope = _signed_distance(model, place, model.compress(z_geo), z_geo, z_exp)
    rest = left.abs() / slope.norm(dim=1).clamp_min(SLOPE_MIN)
    return (place - points).norm(dim=1) + rest


def surface_foot(
    model: HeadModel,
    points: Float[Tensor, "n 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "e"],
    rounds: int = 8,
) -> Float[Tensor, "n 3"]:
    """The points of the posed surface that are reached from posed points, head units."""
    place = points.detach().clone()
    identity = model.compress(z_geo)
    for _ in range(rounds):
        left, slope = _signed_distance(model, place, identity, z_geo, z_exp)
        step = left[:, None] * slope / slope.square().sum(1, keepdim=True).clamp_min(SLOPE_MIN**2)
        place = place - step * (STEP_MAX / step.norm(dim=1, keepdim=True).clamp_min(STEP_MAX))
    return place


def _signed_distance(
    model: HeadModel, points: Tensor, identity: Tensor, z_geo: Tensor, z_exp: Tensor
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
    with torch.enable_grad():
        place = points.detach().requires_grad_()
        offsets, hyper = model.backward_field(place, identity, z_exp)
        sdf = model.sdf(torch.cat([place + offsets, hyper], dim=-1), z_geo)
        (slope,) = torch.autograd.grad(sdf.sum(), place)
    return sdf.detach(), slope
