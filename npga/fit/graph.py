"""Who is whose neighbour among the Gaussians, refreshed whenever their number changes.

Two lips that touch at rest are near in canonical space, and yet no expression moves one like the
other. So neighbours are those of `CANDIDATES` nearest centres that are nearest wherever a code puts
them:

    d_ij^2 = |x_i - x_j|^2 + sum_e |m_ie - m_je|^2

with m_ie where F carries Gaussian i per training range of number e (`avatar.field.code_motion`).
Ours; NPGA takes the nearest centres.

Letters: `n` Gaussians, `k` neighbours, `e` expression size, `d` numbers per Gaussian.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.core.graph import knn

CANDIDATES = 24
"""Nearest centres from which neighbours are chosen."""
SHARE = 4
"""The energy is estimated on one in so many Gaussians, another part of them every step."""


def neighbours_that_stay(
    points: Float[Tensor, "n 3"], motion: Float[Tensor, "n 3 e"], count: int
) -> Int[Tensor, "n k"]:
    """The `count` neighbours of every point by the distance of the module docstring."""
    near, distance = knn(points, min(max(CANDIDATES, count), len(points) - 1))
    moved = motion.flatten(1)
    apart = [(moved - moved[column]).square().sum(1) for column in near.T]
    whole = distance.square() + torch.stack(apart, dim=1)
    return near.gather(1, whole.topk(min(count, near.shape[1]), dim=1, largest=False).indices)


class CanonicalGraph:
    """The graph (`neighbours` each) and the energy of values on it."""

    def __init__(
        self, points: Float[Tensor, "n 3"], motion: Float[Tensor, "n 3 e"], neighbours: int = 8
    ) -> None:
        self.neighbours = neighbours
        self.turn = 0
        self.refresh(points, motion)

    def refresh(self, points: Float[Tensor, "n 3"], motion: Float[Tensor, "n 3 e"]) -> None:
        """Build the graph anew."""
        self.index = neighbours_that_stay(points.detach(), motion, self.neighbours)

    def energy(self, values: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """Laplacian energy of this step's share of the Gaussians (equal to all in the mean)."""
        rows = torch.arange(self.turn % SHARE, len(values), SHARE, device=values.device)
        picked = self.index[rows]
        around = values.index_select(0, picked.reshape(-1)).reshape(*picked.shape, -1).mean(1)
        return (values.index_select(0, rows) - around).square().sum(1).mean()
