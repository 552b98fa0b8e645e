"""Light that stays in the world: a lit ball that turns, and what must not change."""

from dataclasses import replace

import torch
from small_avatar import head_pose, small_avatar

from npga.avatar.light import Light, harmonics
from npga.core.rotations import matrix_from_rotvec

LAMP = torch.nn.functional.normalize(torch.tensor([0.5, 0.55, 0.75]), dim=0)


def sphere(count: int = 4000) -> torch.Tensor:
    """Directions spread evenly."""
    index = torch.arange(count) + 0.5
    height, turn = 1 - 2 * index / count, torch.pi * (1 + 5**0.5) * index
    ring = (1 - height**2).sqrt()
    return torch.stack([ring * turn.cos(), height, ring * turn.sin()], 1)


def lit(normals: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """sRGB of a matte ball under a lamp and a sky: the truth that no harmonics were asked for."""
    world = normals @ rotation.T
    lamp, sky = (world @ LAMP).clamp(min=0), 0.6 + 0.3 * world[:, 1]
    linear = 0.35 * lamp[:, None] * torch.tensor([1.0, 0.9, 0.8]) + 0.4 * sky[:, None]
    return linear ** (1 / 2.2)


def test_harmonics_are_orthogonal():
    values = harmonics(sphere())
    gram = values.T @ values / len(values)
    off = gram - torch.diag(torch.diagonal(gram))
    assert off.abs().max() < 1e-3 and torch.diagonal(gram).min() > 0.05


def test_small_turns_teach_what_large_ones_do():
    """Learned from nods within 10 degrees, asked at 25: under half of the error of no light."""
    normals = sphere(600)
    normals, rest, light = normals[normals[:, 2] > 0], torch.eye(3), Light()
    whole, still = torch.ones(len(normals)), lit(normals, rest)
    generator = torch.Generator().manual_seed(0)
    turns = 0.17 * (2 * torch.rand(20, 3, generator=generator) - 1)
    rotations = [matrix_from_rotvec(turn) for turn in turns]
    optimizer = torch.optim.Adam(light.parameters(), lr=0.02)
    for step in range(300):
        rotation = rotations[step % len(rotations)]
        error = still * light(normals, normals, whole, rotation, rest) - lit(normals, rotation)
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    for turn in ([0.44, 0.0, 0.0], [-0.3, 0.3, 0.0], [0.0, -0.44, 0.1]):
        rotation = matrix_from_rotvec(torch.tensor(turn))
        truth = lit(normals, rotation)
        with torch.no_grad():
            found = still * light(normals, normals, whole, rotation, rest)
        assert (found - truth).square().mean().sqrt() < (still - truth).square().mean().sqrt() / 2


def test_it_knows_rest_attachment_and_directions_only():
    torch.manual_seed(0)
    light, normals = Light(), torch.randn(50, 3)
    torch.nn.init.normal_(light.table)
    turn, rest = matrix_from_rotvec(torch.tensor([0.3, -0.2, 0.5])), torch.eye(3)
    whole = torch.ones(50)
    with torch.no_grad():
        turned = light(normals, normals, whole, turn, rest)
        assert torch.equal(light(normals, normals, whole, rest, rest), torch.ones(50, 3))
        assert torch.equal(light(normals, normals, 0 * whole, turn, rest), torch.ones(50, 3))
        torch.testing.assert_close(light(7 * normals, 3 * normals, whole, turn, rest), turned)
        half = light(normals, normals, 0.5 * whole, turn, rest)
        by_face = light(normals, normals @ turn.T, whole, rest, rest)
    torch.testing.assert_close(half, turned.sqrt())
    torch.testing.assert_close(by_face, turned)
    assert (turned - 1).abs().max() > 0.1


def test_only_turns_of_the_head_in_the_world_change_an_avatars_light():
    avatar = small_avatar().eval()
    code, rest = torch.full((3,), 0.4), avatar.torso.rest
    torch.nn.init.zeros_(avatar.reach)  # F turns nothing
    moved = replace(rest, translation=rest.translation + torch.tensor([0.05, 0.03, 0.0]))
    with torch.no_grad():
        avatar.observe_conditions(avatar.detail_condition(code, rest, None)[None])
        still, away = (avatar.pose(code, pose, rest).colors[:, :3] for pose in (rest, moved))
        turned = avatar.pose(code, head_pose(), head_pose()).colors[:, :3]  # the neck is still
    torch.testing.assert_close(still, avatar.colors.detach())
    torch.testing.assert_close(away, still)
    assert (turned - still).abs().max() > 0.02
