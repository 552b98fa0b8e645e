"""Rows of an avatar move together: parameters, Adam's moments, and constants of every Gaussian.

One function does it all: `rearrange` builds the new avatar row by row from rows of the old one, so
that permuting, pruning, cloning and splitting are the same thing. Ours.

Letters: `n` old, `m` new Gaussians.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from npga.avatar import Avatar

MOMENTS = ("exp_avg", "exp_avg_sq")


def rearrange(
    avatar: Avatar,
    optimizer: torch.optim.Optimizer,
    source: Int[Tensor, " m"],
    fresh: Bool[Tensor, " m"],
) -> None:
    """Make row i of the avatar a copy of its old row source[i].

    Adam's moments are copied along and set to 0 where `fresh`. The optimiser must hold every
    parameter of `ROWS` in a group of its own.
    """
    groups = {id(group["params"][0]): group for group in optimizer.param_groups}
    for name in avatar.ROWS:
        old = getattr(avatar, name)
        new = nn.Parameter(old.detach()[source].clone(), requires_grad=old.requires_grad)
        state = optimizer.state.pop(old, {})
        for moment in MOMENTS:
            if moment in state:
                rows = state[moment][source].clone()
                rows[fresh] = 0.0
                state[moment] = rows
        if state:
            optimizer.state[new] = state
        groups[id(old)]["params"] = [new]
        setattr(avatar, name, new)
    for name in avatar.CONSTANT_ROWS:
        setattr(avatar, name, getattr(avatar, name)[source].clone())
