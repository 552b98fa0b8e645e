"""The neighbour graph of the canonical Gaussians, refreshed whenever their number changes.

Letters: `n` Gaussians, `k` neighbours, `d` numbers per Gaussian.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.graph import knn, laplacian_energy

SHARE = 4
"""The energy is estimated on one in so many Gaussians, another part of them every step."""


class CanonicalGraph:
    """Who is whose neighbour in canonical space (`neighbours` each)."""

    def __init__(self, points: Float[Tensor, "n 3"], neighbours: int = 8) -> None:
        self.neighbours = neighbours
        self.turn = 0
        self.refresh(points)

    def refresh(self, points: Float[Tensor, "n 3"]) -> None:
        """Build the graph anew."""
        index, _ = knn(points.detach(), min(self.neighbours, len(points) - 1))
        self.index = index

    def energy(self, values: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """Laplacian energy of this step's share of the Gaussians (equal to all in the mean)."""
        rows = torch.arange(self.turn % SHARE, len(values), SHARE, device=values.device)
        picked = self.index[rows]
        around = values.index_select(0, picked.reshape(-1)).reshape(*picked.shape, -1).mean(1)
        return (values.index_select(0, rows) - around).square().sum(1).mean()

    def whole_energy(self, values: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """Laplacian energy of all Gaussians."""
        return laplacian_energy(values, self.index)
