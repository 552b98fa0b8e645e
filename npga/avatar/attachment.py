"""Which pose a Gaussian follows: the head's, the torso's, or a blend of both.

A head model says nothing of neck and shoulders, and they do not turn with the head (a limit NPGA
states). Here each Gaussian has a weight `a`, 1 = head, 0 = torso, learned from a start that
depends on canonical height. Positions follow linear blend skinning, rotations the normalised blend
of the two quaternions, sizes the blend of the two scales. All of it is ours.

Letters: `n` Gaussians. Head space: 1 unit = 250 mm, y up.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from npga.core.rotations import (
    matrix_from_rotvec,
    quat_from_matrix,
    quat_multiply,
    rotvec_from_matrix,
)
from npga.core.similarity import Similarity

NECK_TOP = -0.38
"""Canonical height, in head units, above which a Gaussian starts as all head (the chin)."""
NECK_BOTTOM = -0.72
"""Canonical height below which a Gaussian starts as all torso (the collar bones)."""


def initial_attachment(
    points: Float[Tensor, "n 3"], top: float = NECK_TOP, bottom: float = NECK_BOTTOM
) -> Float[Tensor, " n"]:
    """The starting weight, a smooth step in height, kept inside 0.01..0.99 so that it can learn."""
    t = ((points[:, 1] - bottom) / (top - bottom)).clamp(0.0, 1.0)
    return (t * t * (3.0 - 2.0 * t)).clamp(0.01, 0.99)


def blend_poses(
    points: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    log_scales: Float[Tensor, "n 3"],
    weight: Float[Tensor, " n"],
    world_from_head: Similarity,
    world_from_torso: Similarity,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"], Float[Tensor, "n 3"]]:
    """Centres, unit quaternions and log-scales in the world; both poses are single similarities."""
    w = weight[:, None]
    head, torso = world_from_head, world_from_torso
    head_matrix, torso_matrix = head.scale * head.rotation, torso.scale * torso.rotation
    by_head = torch.addmm(head.translation, points, head_matrix.T)
    by_torso = torch.addmm(torso.translation, points, torso_matrix.T)
    means = torch.lerp(by_torso, by_head, w)

    head_quat, torso_quat = quat_from_matrix(head.rotation), quat_from_matrix(torso.rotation)
    torso_quat = torch.where((head_quat * torso_quat).sum() < 0, -torso_quat, torso_quat)
    turned = quat_multiply(torch.lerp(torso_quat[None], head_quat[None], w), quats)
    turned = turned / turned.norm(dim=-1, keepdim=True).clamp(min=1e-9)

    scale = torch.lerp(torso.scale, head.scale, weight)
    return means, turned, log_scales + scale.log()[:, None]


class TorsoFollow(nn.Module):
    """Where the torso is when only the head is tracked: at rest, and following it a little.

    The torso's pose is its rest pose, turned and moved by a learned linear share of how far the
    head has turned and moved from the same rest pose; the share starts at 0 (a still torso).
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    def __init__(self, rest: Similarity) -> None:
        super().__init__()
        self.register_buffer("scale", rest.scale.detach().clone())
        self.register_buffer("rotation", rest.rotation.detach().clone())
        self.register_buffer("translation", rest.translation.detach().clone())
        self.share = nn.Parameter(torch.zeros(6, 6))

    @property
    def rest(self) -> Similarity:
        """The pose of head and torso at rest."""
        return Similarity(self.scale, self.rotation, self.translation)

    def head_motion(
        self, world_from_head: Similarity, rest: Similarity | None = None
    ) -> Float[Tensor, "6"]:
        """How the head differs from rest: rotation vector (rad), then translation (head units)."""
        motion = (self.rest if rest is None else rest).inverse().compose(world_from_head)
        return torch.cat([rotvec_from_matrix(motion.rotation), motion.translation])

    def forward(self, world_from_head: Similarity, rest: Similarity | None = None) -> Similarity:
        """world_from_torso for one head pose; `rest` is the take's, by default the avatar's."""
        rest = self.rest if rest is None else rest
        move = self.share @ self.head_motion(world_from_head, rest)
        step = Similarity(torch.ones_like(rest.scale), matrix_from_rotvec(move[:3]), move[3:])
        return rest.compose(step)
