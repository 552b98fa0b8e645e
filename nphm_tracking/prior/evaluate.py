"""How good a prior is on people it has not seen: correspondence, and surface after fitting codes.

Millimetres, head units x 250. Letters: p people, q expressions per person, n points.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from npga.capture.synthetic.people import REGIONS, People
from npga.core.mesh import Mesh
from npga.core.progress import track_progress
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.prior.data import Rig
from nphm_tracking.prior.expressions import sample_expressions
from nphm_tracking.prior.finish import template_landmarks

MM = 250.0
FIT_POINTS, FIT_STEPS, FIT_BATCH = 5000, 400, 500
FACE = ("face", "lips", "lids", "brows", "eyes")
HELDOUT_SEED = 10_001
ACTIVE = 1.5
"""Held-out expressions are the neutral one and others whose weights add up to more than this."""


@dataclass(frozen=True)
class PriorReport:
    """Errors on held-out people, millimetres; medians beside means."""

    people: int
    expressions: int
    surface_mean: float
    """|SDF| / |gradient| of true face points after fitting codes to FIT_POINTS points."""
    surface_median: float
    canonical_mean: float
    """Posed -> canonical by the fitted codes, vertices of the face."""
    canonical_median: float
    canonical_lips: float
    canonical_lids: float
    canonical_true_mean: float
    """The same with the fitted identity and the true expression code."""
    canonical_true_lips: float
    canonical_true_lids: float
    canonical_unmoved_mean: float
    """The same for offsets of zero: what there is to gain."""
    landmark_mean: float
    """Canonical landmarks of the fitted codes against the person's own."""

    def to_meta(self) -> dict[str, float]:
        """For report.json."""
        return asdict(self)


@dataclass(frozen=True)
class HeldOut:
    """One unseen person in a few expressions."""

    neutral: Float[Tensor, "v 3"]
    posed: Float[Tensor, "q v 3"]
    weights: Float[Tensor, "q e"]
    points: Float[Tensor, "q n 3"]
    """Surface points to fit to."""


def held_out_people(people: People, rig: Rig, count: int, expressions: int) -> list[HeldOut]:
    """Unseen people: another seed than any training one."""
    rng = np.random.default_rng(HELDOUT_SEED)
    found = []
    for number in range(count):
        head = people.head(people.sample_identity(rng))
        drawn = sample_expressions(rng, 40 * expressions)
        active = drawn[drawn.sum(1) > ACTIVE][: expressions - 1]
        weights = torch.from_numpy(np.concatenate([np.zeros_like(drawn[:1]), active])).float()
        posed = head.posed(weights)
        seen = _seen_faces(rig)
        points = [
            Mesh(body, rig.template.faces).sample(FIT_POINTS, number * 97 + k, seen).points
            for k, body in enumerate(posed)
        ]
        found.append(HeldOut(head.neutral, posed, weights, torch.stack(points)))
    return found


def _seen_faces(rig: Rig) -> Float[Tensor, "f"]:
    """What cameras around a head see: the level set without the inside of the mouth."""
    outside = torch.tensor([n in (*FACE, "scalp", "ears", "neck") for n in REGIONS])
    return (rig.level > 0).float() * outside[rig.template.region[rig.template.faces]].all(1)


def fit_codes(
    model: HeadModel, points: Float[Tensor, "q n 3"], start_exp: Float[Tensor, "q e"] | None = None
) -> tuple[Float[Tensor, "g"], Float[Tensor, "q e"]]:
    """Shared z_geo and one z_exp per expression from surface points alone (|SDF| and priors)."""
    stats, count = model.geo_stats, len(points)
    z_geo = stats.mean.clone().requires_grad_()
    first = torch.zeros(count, model.exp_size) if start_exp is None else start_exp.clone()
    z_exp = first.requires_grad_()
    optimizer = torch.optim.Adam(
        [{"params": [z_geo], "base": 0.06}, {"params": [z_exp], "base": 0.04}]
    )
    rng = torch.Generator().manual_seed(0)
    for step in range(FIT_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * (1 - step / FIT_STEPS)
        pick = torch.randint(points.shape[1], (FIT_BATCH,), generator=rng)
        identity = model.compress(z_geo).expand(count, -1)
        offsets, hyper = model.backward_field(points[:, pick], identity, z_exp)
        canonical = torch.cat([points[:, pick] + offsets, hyper], dim=-1)
        sdf = model.sdf(canonical.flatten(0, 1), z_geo)
        unusual = ((z_geo - stats.mean) / stats.std).square()
        loss = sdf.abs().mean() * 200 + unusual.mean() * 0.05 + z_exp.abs().mean() * 0.3
        optimizer.zero_grad()
        torch.autograd.backward([loss], inputs=[z_geo, z_exp])
        optimizer.step()
        with torch.no_grad():
            z_exp.copy_(torch.minimum(z_exp.clamp_min(0), model.exp_stats.upper))
    return z_geo.detach(), z_exp.detach()


def evaluate(
    model: HeadModel, people: People, rig: Rig, *, count: int, expressions: int = 3
) -> PriorReport:
    """Fit codes of unseen people and compare with their exact geometry."""
    region = rig.template.region
    names = {name: (region == REGIONS.index(name)) for name in REGIONS}
    face = torch.stack([names[n] for n in FACE]).any(0)
    face &= (
        torch.zeros(len(region))
        .index_fill_(0, rig.template.faces[rig.level > 0].reshape(-1), 1.0)
        .bool()
    )
    surface, landmarks, unmoved = [], [], []
    missed: dict[str, list[Tensor]] = {"fitted": [], "true": []}
    for person in track_progress(held_out_people(people, rig, count, expressions), "held-out"):
        z_geo, z_exp = fit_codes(model, person.points)
        landmarks.append(landmark_error(model, rig, z_geo, person.neutral))
        identity = model.compress(z_geo)
        for posed, fitted, true in zip(person.posed, z_exp, person.weights, strict=True):
            surface.append(surface_distance(model, posed[face], z_geo, fitted))
            unmoved.append((posed - person.neutral)[face].norm(dim=1) * MM)
            for kind, code in (("fitted", fitted), ("true", true)):
                offsets, _ = model.backward_field(posed, identity, code)
                missed[kind].append((posed + offsets - person.neutral).norm(dim=1) * MM)
    near = torch.cat(surface)
    fitted, true = torch.stack(missed["fitted"]), torch.stack(missed["true"])
    return PriorReport(
        people=count,
        expressions=expressions,
        surface_mean=float(near.mean()),
        surface_median=float(near.median()),
        canonical_mean=float(fitted[:, face].mean()),
        canonical_median=float(fitted[:, face].median()),
        canonical_lips=float(fitted[:, names["lips"]].mean()),
        canonical_lids=float(fitted[:, names["lids"]].mean()),
        canonical_true_mean=float(true[:, face].mean()),
        canonical_true_lips=float(true[:, names["lips"]].mean()),
        canonical_true_lids=float(true[:, names["lids"]].mean()),
        canonical_unmoved_mean=float(torch.cat(unmoved).mean()),
        landmark_mean=float(torch.stack(landmarks).mean()),
    )


def surface_distance(
    model: HeadModel,
    points: Float[Tensor, "n 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "e"],
) -> Float[Tensor, "n"]:
    """First-order distance of points to the posed level set, millimetres."""
    identity = model.compress(z_geo)
    place = points.detach().requires_grad_()
    offsets, hyper = model.backward_field(place, identity, z_exp)
    sdf = model.sdf(torch.cat([place + offsets, hyper], dim=-1), z_geo)
    (slope,) = torch.autograd.grad(sdf.sum(), place)
    return (sdf.abs() / slope.norm(dim=1).clamp(0.3, 3.0)).detach() * MM


def landmark_error(
    model: HeadModel, rig: Rig, z_geo: Float[Tensor, "g"], neutral: Float[Tensor, "v 3"]
) -> Float[Tensor, ""]:
    """Mean distance of the predicted canonical landmarks to the person's true ones, millimetres."""
    miss = model.landmarks(z_geo) - template_landmarks(rig, neutral[None])[0]
    return miss.norm(dim=1).mean() * MM
