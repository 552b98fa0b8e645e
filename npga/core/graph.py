"""k-nearest-neighbour graphs and their Laplacian energy.

index [n k] names each point's neighbours (itself left out). The energy of values v is the mean of
|v_i - mean_j v_index(i,j)|^2: zero for values that are constant on every neighbourhood.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def knn(points: Float[Tensor, "n 3"], k: int) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The k nearest other points of every point, and their distances.

    scikit-learn's k-d tree on a CPU; pytorch3d's kernel where the points are on a GPU and pytorch3d
    is importable.
    """
    if points.is_cuda:
        try:
            from pytorch3d.ops import knn_points  # pyright: ignore[reportMissingImports]
        except ImportError:
            pass
        else:
            found = knn_points(points[None], points[None], K=k + 1)
            return found.idx[0, :, 1:], found.dists[0, :, 1:].sqrt()
    from sklearn.neighbors import NearestNeighbors

    data = points.detach().cpu().numpy()
    tree = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(data)
    distance, index = tree.kneighbors()
    return torch.from_numpy(index).to(points.device), torch.from_numpy(distance).to(points)


def laplacian_energy(values: Float[Tensor, "n d"], index: Int[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Mean squared uniform Laplacian of per-point values (ours; NPGA names the idea)."""
    n, k = index.shape
    neighbours = values.index_select(0, index.reshape(-1)).reshape(n, k, -1)
    return (values - neighbours.mean(1)).square().sum(1).mean()
