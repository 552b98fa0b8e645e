"""Small per-frame corrections of the tracked head pose, learned with the avatar.

world_from_head' = world_from_head o (rotation vector, translation) in head space, zero at first.
Only training frames have one; held-out frames are always shown with their tracked pose. Ours.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity


class PoseCorrections(nn.Module):
    """One (rotation vector in rad, translation in head units) per training frame."""

    def __init__(self, frames: int, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled
        self.moves = nn.Parameter(torch.zeros(frames, 6), requires_grad=enabled)

    def of(self, index: int) -> Float[Tensor, "6"] | None:
        """The correction of a frame; None where corrections are off."""
        return self.moves[index] if self.enabled else None

    def forward(self, index: int, world_from_head: Similarity) -> Similarity:
        """The corrected pose of training frame `index`."""
        if not self.enabled:
            return world_from_head
        move = self.moves[index]
        step = Similarity(
            torch.ones_like(world_from_head.scale), matrix_from_rotvec(move[:3]), move[3:]
        )
        return world_from_head.compose(step)
