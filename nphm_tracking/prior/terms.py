"""The losses of the open prior: MonoNPHM's where its data has a counterpart, else ours (said so).

All distances in head units. Ours: exact correspondences for whole heads (MonoNPHM's registrations
cover the face), true signed distances instead of eikonal + off-surface terms, and a meaning for
omega: how much the jaw and the lids carry a point along, so that touching lips stay apart in 5D.
"""

import torch
from torch import Tensor

from npga.core.errors import NpgaError
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.prior.config import PriorWeightsConfig
from nphm_tracking.prior.samples import Batch


def prior_terms(
    model: HeadModel,
    batch: Batch,
    z_geo: Tensor,
    z_app: Tensor,
    true_anchors: Tensor,
    weights: PriorWeightsConfig,
) -> dict[str, Tensor]:
    """Weighted scalars by name; terms of weight 0 are absent."""
    anchors = model.anchors(z_geo)
    identity = model.compress(z_geo)
    counts = [batch.posed.shape[1], batch.surface.shape[1], batch.far.shape[1]]
    points = torch.cat([batch.posed, batch.surface, batch.far], dim=1)
    offsets, hyper = model.backward_field(points, identity, batch.weights)
    to_canonical, to_surface, at_far = offsets.split(counts, dim=1)
    hyper_posed, hyper_surface, _ = hyper.split(counts, dim=1)
    surface = torch.cat([batch.surface + to_surface, hyper_surface], dim=-1)
    volume = torch.cat([batch.volume, batch.volume_label], dim=-1)
    near = torch.cat([batch.near, batch.near_label], dim=-1)
    found_sdf = model.sdf(torch.cat([surface, near], dim=1), z_geo)
    on_surface, at_near = found_sdf.split([surface.shape[1], near.shape[1]], dim=1)
    around = model.sdf(volume, z_geo[: batch.pure])
    miss = (batch.posed + to_canonical - batch.canonical).square().sum(-1)
    found = {
        "correspondence": (batch.trust * (miss + 1e-8).sqrt()).mean(),
        "surface": (on_surface - batch.height).abs().mean(),
        "near": (at_near - batch.near_height).abs().mean(),
        "distance": _distance(around, batch.distance),
        "anchors": (anchors - true_anchors).square().sum(-1).mean(),
        "hyper": (hyper_posed - batch.label).abs().mean(),
        "outside": at_far.norm(dim=-1).mean(),
    }
    if weights.normal or weights.color or weights.eikonal:
        found |= _slope_and_color(model, batch, z_geo, z_app)
    return {k: getattr(weights, k) * v for k, v in found.items() if getattr(weights, k)}


def _distance(found: Tensor, true: Tensor) -> Tensor:
    """Absolute error of signed distances; far points count less."""
    return ((found - true).abs() / (1 + 15 * true.abs())).mean()


def _slope_and_color(
    model: HeadModel, batch: Batch, z_geo: Tensor, z_app: Tensor
) -> dict[str, Tensor]:
    """SDF gradient against the true normal and against length 1, and albedo."""
    count = batch.at_normal.shape[1]
    label = torch.cat([batch.normal_label, batch.around_label], dim=1)
    with torch.enable_grad():
        place = torch.cat([batch.at_normal, batch.around], dim=1).detach().requires_grad_()
        query = torch.cat([place, label], dim=-1)
        sdf, color = model.canonical_field(query, z_geo, z_app)
        (gradient,) = torch.autograd.grad(sdf.sum(), place, create_graph=True)
    if color is None:
        raise NpgaError("The colour field gave no colour.", "Report this as a bug.")
    return {
        "normal": (gradient[:, :count] - batch.normal).norm(dim=-1).mean(),
        "eikonal": (gradient[:, count:].norm(dim=-1) - 1).abs().mean(),
        "color": (color[:, :count] - batch.color).abs().mean(),
    }
