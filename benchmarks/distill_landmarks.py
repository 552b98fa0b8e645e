"""Landmarks posed by F against landmarks posed by inverting B: how fast, how near the truth.

The truth is what the open prior knows of its own landmarks (linear in the codes). Unseen people
speak FRAMES frames that move between random expressions. Root finding is the tracker's own
(`follow_landmarks`, two Newton rounds) and starts at the true places of the frame before, which is
better than a tracker's start; F starts from nothing: its basis is made anew for every person.
"""

import time

import torch
from torch import Tensor

from benchmarks._results import row
from npga.avatar.forward import ForwardPrior
from npga.core import MM_PER_UNIT
from npga.core.device import synchronize
from npga.distill.landmarks import ForwardLandmarks
from npga.distill.samples import Sampler
from nphm_tracking import HeadModel
from nphm_tracking.energies import LOST_UNITS, carried_landmarks, follow_landmarks
from nphm_tracking.head import canonical_landmarks, landmark_slopes

FRAMES = 32
STOPS = 5
"""Expressions that a path goes through."""


def path_of(sampler: Sampler, generator: torch.Generator) -> Tensor:
    """Codes [t e] that move evenly between random expressions."""
    stops = sampler.expressions.draw(STOPS, generator, margin=0.0)
    at = torch.linspace(0, STOPS - 1, FRAMES)
    low = at.floor().long().clamp(max=STOPS - 2)
    return torch.lerp(stops[low], stops[low + 1], (at - low)[:, None])


def landmark_rows(
    forward: ForwardPrior, model: HeadModel, sampler: Sampler, z_geo: Tensor, seed: int
) -> list[dict]:
    """The two figures; none where the head model does not know its landmarks' motion."""
    slopes = landmark_slopes(model)
    if slopes is None:
        return []
    generator = torch.Generator().manual_seed(seed)
    seconds, missed, lost = [0.0, 0.0], [[], []], 0.0
    for number, person in enumerate([z_geo[0], *z_geo]):
        z_exp = path_of(sampler, generator).to(z_geo)
        with torch.no_grad():
            canonical = canonical_landmarks(model, person)
            truth = carried_landmarks(canonical, slopes, z_exp).marks
        start = torch.cat([truth[:1], truth[:-1]])
        spent, found = [], []
        for ask in (
            lambda c=canonical, p=person, z=z_exp: ForwardLandmarks(forward, model)(c, p, z),
            lambda c=canonical, p=person, z=z_exp, s=start: follow_landmarks(model, s, c, p, z),
        ):
            synchronize(z_geo.device)
            began = time.perf_counter()
            found.append(ask())
            synchronize(z_geo.device)
            spent.append(time.perf_counter() - began)
        if number == 0:  # the first person warms caches up and is asked again
            continue
        good = found[1].error < LOST_UNITS
        lost += float((~good).float().mean()) / len(z_geo)
        for which, posed in enumerate(found):
            seconds[which] += spent[which]
            missed[which].append(MM_PER_UNIT * (posed.marks - truth).norm(dim=-1)[good])
    ours, slow = (float(torch.cat(values).mean()) for values in missed)
    note = f"{ours:.3f} mm with F, {slow:.3f} mm with Newton, which lost {100 * lost:.2f} %"
    return [
        row("landmark_speedup", seconds[1] / seconds[0], "x", ">= 10"),
        row("landmark_accuracy_gap_mm", ours - slow, "mm", "<= 0.1", note),
    ]
