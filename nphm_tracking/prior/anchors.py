"""Which template vertices carry the 65 anchors: mirrored pairs, then the midline; ours.

Weighted farthest-point sampling on one half of the face: a vertex that matters twice as much counts
as twice as far away, so lips, lids, brows and nose get more anchors.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.capture.synthetic.people import NOSE_TIP, REGIONS, Template

IMPORTANCE = {
    "face": 1.3, "lips": 3.0, "lids": 2.6, "brows": 1.6, "scalp": 0.6, "ears": 0.8, "neck": 0.6,
}  # fmt: skip
"""Regions that may carry anchors, and how much nearer together they lie there."""
LOWEST_Y = -0.52
"""Anchors stay above this (head units): the neck, not the shoulders."""
NOSE_IMPORTANCE, NOSE_REACH = 2.2, 0.12
SIDE = 0.02
"""Half width of the midline strip that pairs stay out of."""


def select_anchors(template: Template, pairs: int, midline: int) -> Int[Tensor, "a"]:
    """Vertex of every anchor: (right, left) pairs first, then midline ones from top to bottom."""
    points = template.neutral
    importance = torch.zeros(len(points))
    for name, value in IMPORTANCE.items():
        importance[template.region == REGIONS.index(name)] = value
    nose = torch.tensor(NOSE_TIP)
    importance[(points - nose).norm(dim=1) < NOSE_REACH] = NOSE_IMPORTANCE
    importance[points[:, 1] < LOWEST_Y] = 0.0
    right = (points[:, 0] < -SIDE) & (importance > 0)
    chosen = farthest_points(points, importance * right, pairs)
    both = torch.stack([chosen, template.mirror[chosen]], dim=1).reshape(-1)
    middle = (points[:, 0].abs() < 1e-4) & (importance > 0)
    front = middle & (points[:, 2] > -0.1)
    centre = farthest_points(points, importance * front, midline)
    return torch.cat([both, centre[points[centre, 1].argsort(descending=True)]])


def farthest_points(
    points: Float[Tensor, "v 3"], importance: Float[Tensor, "v"], count: int
) -> Int[Tensor, "k"]:
    """Greedy farthest-point sampling with distances scaled by importance."""
    first = int((importance * points[:, 2]).argmax())
    chosen = [first]
    gap = (points - points[first]).norm(dim=1)
    while len(chosen) < count:
        chosen.append(int((gap * importance).argmax()))
        gap = torch.minimum(gap, (points - points[chosen[-1]]).norm(dim=1))
    return torch.tensor(chosen)
