"""What hangs in the air where few cameras look; swept away when a fit ends. Ours.

Behind a shoulder and at the edge of all pictures many places along a ray explain the pictures
alike. Gaussians come to rest where nothing is, no training picture minds, and every other view
shows them. Two kinds go:

- clusters that nothing ties to the rest, of which no member is seen by `FEW` of the cameras;
- Gaussians whose centre lies in no training picture at all.

Letters: `n` Gaussians.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from npga.avatar import Avatar
from npga.core.graph import knn
from npga.fit.batch import FitData
from npga.fit.surgery import rearrange

NEIGHBOURS = 8
LINK = 2.0
"""Neighbours nearer than this many times the usual distance of neighbours belong together."""
FEW = 0.36
"""Share of the cameras that must see one of a cluster: 5 of 13."""
FRAMES = 8
"""Frames in which it is asked who sees what."""


def clusters(points: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    """The number of the cluster of every point."""
    count = len(points)
    index, distance = knn(points, min(NEIGHBOURS, count - 1))
    near = distance < LINK * distance.mean(1).median()
    rows = torch.arange(count, device=points.device)[:, None].expand_as(index)[near]
    ends = rows.cpu().numpy(), index[near].cpu().numpy()
    ties = coo_matrix((np.ones(len(rows)), ends), shape=(count, count))
    _, labels = connected_components(ties, directed=False)
    return torch.from_numpy(labels).long().to(points.device)


def debris(points: Float[Tensor, "n 3"], seen: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Who goes; `seen` is the share of the cameras that see a centre."""
    cluster = clusters(points)
    best = seen.new_zeros(int(cluster.max()) + 1).scatter_reduce_(0, cluster, seen, "amax")
    return (best[cluster] < FEW) | (seen == 0)


@torch.no_grad()
def seen_share(avatar: Avatar, data: FitData) -> Float[Tensor, " n"]:
    """The share of the cameras in whose picture each centre lies, in its best of some frames."""
    device, field = avatar.means.device, avatar.field()
    best = torch.zeros(len(avatar), device=device)
    rows = torch.linspace(0, len(data) - 1, min(FRAMES, len(data))).round().long()
    for index in rows.tolist():
        s, t = data.places[index]
        take = data.sequences[s]
        pose, torso = take.world_from_head[t].to(device), take.torso.to(device)
        posed = avatar.pose(take.z_exp[t].to(device), pose, torso, field=field)
        cameras = take.cameras.to(device)
        pixels, depth = cameras.project(posed.means)
        size = pixels.new_tensor([cameras.width, cameras.height])
        inside = ((pixels >= 0) & (pixels < size)).all(-1) & (depth > 0)
        best = torch.maximum(best, inside.float().mean(0))
    return best


@torch.no_grad()
def sweep(avatar: Avatar, optimizer: torch.optim.Optimizer, data: FitData) -> int:
    """Take debris out of the avatar; returns how many Gaussians went."""
    gone = debris(avatar.means.detach(), seen_share(avatar, data))
    kept = torch.nonzero(~gone).flatten()
    if len(kept) < len(avatar):
        rearrange(avatar, optimizer, kept, torch.zeros_like(kept, dtype=torch.bool))
    return int(gone.sum())
