"""A small avatar with something in every part of it."""

import torch

from npga.avatar import Avatar, AvatarSizes, CanonicalPoints, ExpressionStats, ForwardPrior
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity


def small_avatar(count: int = 30, seed: int = 0) -> Avatar:
    """Random Gaussians, networks with random (not zero) last layers, three expression codes."""
    torch.manual_seed(seed)
    start = CanonicalPoints(
        points=0.3 * torch.randn(count, 3),
        colors=torch.rand(count, 3),
        log_scales=-3.0 + 0.3 * torch.randn(count, 3),
        normals=torch.randn(count, 3),
        omega=0.1 * torch.randn(count, 2),
        reach=torch.rand(count),
        attachment=torch.rand(count).clamp(0.02, 0.98),
    )
    prior = ForwardPrior(3, 4, width=8, depth=2, rank=5, head_model_checksum="aa")
    prior.offset_scale.fill_(0.2)
    expressions = ExpressionStats(
        torch.full((3,), 0.4), torch.zeros(3), torch.ones(3), torch.zeros(3)
    )
    rest = similarity(torch.tensor([0.1, 0.2, 0.0]), torch.tensor([0.0, -0.02, 0.01]))
    avatar = Avatar(
        start,
        prior,
        torch.randn(4),
        expressions,
        rest,
        AvatarSizes(features=6, screen_features=4, detail_width=8),
    )
    with torch.no_grad():
        avatar.quats += 0.3 * torch.randn(count, 4)
        avatar.features += torch.randn(count, 6)
        torch.nn.init.normal_(avatar.detail.exit.weight, std=0.5)
        torch.nn.init.normal_(avatar.refiner.layers[-1].weight, std=0.1)
        avatar.torso.share += 0.1 * torch.randn(6, 6)
        avatar.light.table += 0.3 * torch.randn(8, 3)
    return avatar


def similarity(rotvec: torch.Tensor, translation: torch.Tensor) -> Similarity:
    """A head pose: scale 0.25."""
    return Similarity(torch.tensor(0.25), matrix_from_rotvec(rotvec), translation)


def head_pose() -> Similarity:
    """Some head pose that is not the rest pose."""
    return similarity(torch.tensor([0.2, -0.3, 0.1]), torch.tensor([0.01, 0.02, -0.03]))
