"""How good a prior is on people it has not seen: surface and correspondence of fitted heads.

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
from nphm_tracking.align import METRES_PER_UNIT
from nphm_tracking.fit_points import fit_points
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.prior.data import Rig
from nphm_tracking.prior.expressions import sample_expressions
from nphm_tracking.prior.finish import template_landmarks
from nphm_tracking.surface import surface_distance

MM = 250.0
FIT_POINTS = 5000
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
    """Distance of true face points to the head fitted to FIT_POINTS other points."""
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
        for posed, points, true in zip(person.posed, person.points, person.weights, strict=True):
            fit = fit_points(model, points * METRES_PER_UNIT)
            local = fit.world_from_head.inverse().apply(posed * METRES_PER_UNIT)
            larger = fit.world_from_head.scale * 1000
            found = surface_distance(model, local[face], fit.z_geo, fit.z_exp)
            surface.append(found * larger)
            placed = fit.world_from_head.apply(model.landmarks(fit.z_geo)) / METRES_PER_UNIT
            own = template_landmarks(rig, person.neutral[None])[0]
            landmarks.append((placed - own).norm(dim=1).mean() * MM)
            unmoved.append((posed - person.neutral)[face].norm(dim=1) * MM)
            identity = model.compress(fit.z_geo)
            for kind, code in (("fitted", fit.z_exp), ("true", true)):
                offsets, _ = model.backward_field(local, identity, code)
                miss = fit.world_from_head.apply(local + offsets)
                missed[kind].append((miss / METRES_PER_UNIT - person.neutral).norm(dim=1) * MM)
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
