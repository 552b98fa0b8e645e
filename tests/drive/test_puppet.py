"""From a driver's frames to an avatar's: nothing is lost for oneself, and nothing jumps."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from npga.core.cameras import look_at
from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.drive.config import FilterConfig
from npga.drive.driver import straight_pose
from npga.drive.puppet import NECK, Driven, Puppet
from npga.reenact.retarget import Face, Hull, Retargeting
from nphm_tracking.follow import Followed

SIZE, FPS = 5, 30.0
RAW = FilterConfig(cutoff_hz=0.0, pose_cutoff_hz=0.0)
"""No smoothing."""


def pose(turn: tuple[float, float, float], place: tuple[float, float, float]) -> Similarity:
    rotation = matrix_from_rotvec(torch.tensor(turn))
    return Similarity(torch.tensor(0.25), rotation, torch.tensor(place))


REST = pose((0.1, 0.2, 0.0), (0.02, -0.05, -0.6))
MINE = pose((0.0, -0.4, 0.1), (1.0, 0.3, 0.2))


def take(count: int = 40) -> list[Followed]:
    """A face that talks and nods before the camera."""
    draw = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 2 * math.pi, count)
    codes = 0.5 + 0.4 * (t[:, None] + 6 * torch.rand(SIZE, generator=draw)).sin()
    return [
        Followed(
            codes[n],
            REST.compose(
                Similarity(
                    torch.tensor(1.0),
                    matrix_from_rotvec(torch.tensor([0.3 * math.sin(t[n]), 0.2, 0.1 * n / count])),
                    torch.tensor([0.1 * math.cos(t[n]), 0.05, 0.2]),
                )
            ),
            1.0,
            True,
        )
        for n in range(count)
    ]


def retargeting(
    driver: torch.Tensor | None = None, avatar: torch.Tensor | None = None, hull: Hull | None = None
) -> Retargeting:
    zero, bound = torch.zeros(SIZE), torch.full((SIZE,), torch.inf)
    driver, avatar = zero if driver is None else driver, zero if avatar is None else avatar
    return Retargeting(Face(driver), Face(avatar), -bound, bound, hull)


def played(puppet: Puppet, frames: list[Followed]) -> list[Driven]:
    return [puppet(frame, n / FPS) for n, frame in enumerate(frames)]


def lost(frame: Followed) -> Followed:
    return replace(frame, found=False, residual_mm=float("inf"))


def angle(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(rotvec_from_matrix(left.mT @ right).norm())


def close(left: Similarity, right: Similarity, atol: float = 1e-5) -> bool:
    return torch.allclose(left.matrix(), right.matrix(), atol=atol)


def test_oneself_gets_codes_and_poses_back() -> None:
    same = torch.full((SIZE,), 0.2)
    puppet = Puppet(retargeting(same, same), REST, REST, 1.0, RAW)
    for given, driven in zip(take(), played(puppet, take()), strict=True):
        assert torch.allclose(driven.z_exp, given.z_exp, atol=1e-6)
        assert close(driven.world_from_head, given.world_from_head)
        assert driven.found and driven.hull_distance == 0


def test_codes_are_relative_to_rest_faces_and_stay_in_the_hull() -> None:
    mine, theirs = torch.full((SIZE,), 0.3), torch.full((SIZE,), 0.1)
    hull = Hull(torch.zeros(SIZE), torch.full((SIZE,), 0.8))
    puppet = Puppet(retargeting(theirs, mine, hull), REST, MINE, 1.0, RAW)
    for given, driven in zip(take(), played(puppet, take()), strict=True):
        wanted = given.z_exp + 0.2
        assert torch.allclose(driven.z_exp, wanted.clamp(0, 0.8), atol=1e-6)
        assert driven.hull_distance == pytest.approx(
            float((wanted - 0.8).clamp_min(0).max()) / 0.8, abs=1e-5
        )


def test_the_head_moves_about_the_avatars_rest() -> None:
    """The motion is the driver's, in head axes and head units, whatever size and place."""
    small = replace(MINE, scale=torch.tensor(0.2))
    puppet = Puppet(retargeting(), REST, small, 1.0, RAW)
    for given, driven in zip(take(), played(puppet, take()), strict=True):
        theirs = REST.inverse().compose(given.world_from_head)
        assert close(small.inverse().compose(driven.world_from_head), theirs)
        assert float(driven.world_from_head.scale) == pytest.approx(0.2)


def test_share_0_keeps_the_rest_and_half_is_half() -> None:
    frames = take()
    for driven in played(Puppet(retargeting(), REST, MINE, 0.0, RAW), frames):
        assert close(driven.world_from_head, MINE) and close(driven.world_from_torso, MINE)
    full = played(Puppet(retargeting(), REST, MINE, 1.0, RAW), frames)
    half = played(Puppet(retargeting(), REST, MINE, 0.5, RAW), frames)
    for one, other in zip(full, half, strict=True):
        turn = angle(MINE.rotation, one.world_from_head.rotation)
        assert angle(MINE.rotation, other.world_from_head.rotation) == pytest.approx(
            turn / 2, abs=1e-4
        )
        assert torch.equal(one.z_exp, other.z_exp)


def test_the_torso_follows_the_neck_and_does_not_turn() -> None:
    puppet = Puppet(retargeting(), REST, MINE, 1.0, RAW)
    neck = torch.tensor([NECK])
    for driven in played(puppet, take()):
        assert torch.allclose(driven.world_from_torso.rotation, MINE.rotation, atol=1e-6)
        assert torch.allclose(
            driven.world_from_torso.apply(neck), driven.world_from_head.apply(neck), atol=1e-6
        )
    shifted = Followed(
        torch.zeros(SIZE), replace(REST, translation=REST.translation + 0.1), 1, True
    )
    moved = puppet(shifted, 99.0)
    apart = moved.world_from_torso.translation - MINE.translation
    assert float(apart.norm()) == pytest.approx(0.1 * 3**0.5, abs=1e-5)


def test_a_lost_face_relaxes_to_rest_and_returns_without_a_jump() -> None:
    neutral = torch.full((SIZE,), 0.1)
    puppet = Puppet(retargeting(neutral, neutral), REST, MINE, 1.0, FilterConfig())
    frames = take()
    far = replace(frames[-1], z_exp=torch.ones(SIZE))
    script = [*frames, *[lost(frames[-1])] * 120, *[far] * 60]
    out = played(puppet, script)
    assert [one.found for one in out] == [one.found for one in script]
    held = out[40 + 7]
    assert torch.equal(held.z_exp, out[39].z_exp)  # FilterConfig.hold_s = 0.3
    assert close(held.world_from_head, out[39].world_from_head, 1e-7)
    rested = out[159]
    assert (rested.z_exp - neutral).abs().max() < 0.01
    assert close(rested.world_from_head, MINE, 0.01) and close(rested.world_from_torso, MINE, 0.01)
    steps = torch.stack([one.z_exp for one in out]).diff(dim=0).abs().amax(1)
    assert steps[160 - 1] < 0.25 and steps[40:159].max() < 0.06
    turns = [
        angle(a.world_from_head.rotation, b.world_from_head.rotation) for a, b in pairwise(out)
    ]
    assert max(turns[39:]) < 0.25 * angle(MINE.rotation, out[-1].world_from_head.rotation) + 0.02
    assert (out[-1].z_exp - 1).abs().max() < 0.01


def test_without_a_face_at_the_start_the_avatar_rests() -> None:
    neutral, mine = torch.full((SIZE,), 0.1), torch.full((SIZE,), 0.3)
    puppet = Puppet(retargeting(neutral, mine), REST, MINE, 1.0, FilterConfig())
    driven = puppet(lost(take()[0]), 0.0)
    assert torch.allclose(driven.z_exp, mine) and not driven.found
    assert close(driven.world_from_head, MINE) and close(driven.world_from_torso, MINE)


def test_smoothing_does_not_reach_over_a_gap() -> None:
    """What comes after a gap is where it is at once, apart from the fade."""
    puppet = Puppet(retargeting(), REST, REST, 1.0, FilterConfig(cutoff_hz=0.2, beta=0.0))
    one, other = take()[0], replace(take()[0], z_exp=torch.ones(SIZE))
    out = played(puppet, [*[one] * 20, lost(one), *[other] * 60])
    fade = math.exp(-39 / FPS / FilterConfig().return_s)
    assert (out[59].z_exp - 1).abs().max() < 2 * fade + 1e-3


def test_smoothing_calms_a_still_face() -> None:
    draw = torch.Generator().manual_seed(1)
    one = take(1)[0]
    frames = [
        replace(one, z_exp=0.5 + 0.01 * torch.randn(SIZE, generator=draw)) for _ in range(200)
    ]
    raw = torch.stack([f.z_exp for f in frames]).std(0)
    puppet = Puppet(retargeting(), REST, REST, 1.0, FilterConfig())
    calm = torch.stack([one.z_exp for one in played(puppet, frames)])[30:].std(0)
    assert (calm < 0.65 * raw).all()


def facing(place: tuple[float, float, float], yaw: float = 0.0, nod: float = 0.0) -> Similarity:
    """A head at a place, towards the camera in the origin, then turned about its own axes."""
    eye = torch.tensor(place)
    toward = look_at(eye, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))[:3, :3]
    # The rows of a camera at the head are right (the viewer's), down and forward.
    axes = torch.stack([-toward[0], -toward[1], toward[2]], 1)
    turn = matrix_from_rotvec(torch.tensor([0.0, yaw, 0.0]))
    tilt = matrix_from_rotvec(torch.tensor([nod, 0.0, 0.0]))
    return Similarity(torch.tensor(0.25), axes @ turn @ tilt, eye)


@pytest.mark.parametrize("place", [(0.0, 0.0, -0.5), (0.15, -0.1, -0.6), (-0.2, 0.2, -0.9)])
@pytest.mark.parametrize("nod", [0.0, 0.2, -0.15])
def test_straight_is_towards_the_camera_with_the_takes_nod(
    place: tuple[float, float, float], nod: float
) -> None:
    """Whatever aside a driver looks for half of the time, even all of it."""
    wanted = facing(place, 0.0, nod)
    for yaws in ([0.0] * 10 + [0.6] * 10, [0.6] * 20, [0.3, -0.5, 0.1, 0.0]):
        found = straight_pose(Similarity.stack([facing(place, yaw, nod) for yaw in yaws]))
        assert torch.allclose(found.translation, wanted.translation)
        assert angle(found.rotation, wanted.rotation) < 2e-3
        assert float(found.scale) == 0.25


def test_a_rolled_head_is_not_straight() -> None:
    """Heads that lean to one side all the time lean on the avatar too."""
    leaning = facing((0.0, 0.0, -0.5)).compose(
        Similarity(
            torch.tensor(1.0), matrix_from_rotvec(torch.tensor([0.0, 0.0, 0.2])), torch.zeros(3)
        )
    )
    found = straight_pose(Similarity.stack([leaning] * 6))
    assert angle(found.rotation, leaning.rotation) == pytest.approx(0.2, abs=1e-3)


def test_straight_is_where_the_head_is_most_of_the_time() -> None:
    poses = [facing((0.0, 0.0, -0.5))] * 15 + [facing((0.4, 0.1, -0.8))] * 4
    found = straight_pose(Similarity.stack(poses))
    assert torch.allclose(found.translation, torch.tensor([0.0, 0.0, -0.5]))
