"""Camera paths look where they should."""

import pytest
import torch

from npga.core.cameras import Cameras, look_at
from npga.core.errors import ConfigError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.render.trajectory import LIFT, front_camera, hold, orbit, rig_path


def head_pose() -> Similarity:
    turn = matrix_from_rotvec(torch.tensor([0.1, 0.3, -0.05]))
    return Similarity(torch.tensor(0.25), turn, torch.tensor([0.1, 0.2, -0.3]))


def rig(count: int = 5) -> Cameras:
    angles = torch.linspace(-0.8, 0.8, count)[torch.tensor([2, 0, 4, 1, 3])[:count]]
    up, target = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.1, 0.0])
    poses = torch.stack([
        look_at(target + torch.stack([a.sin(), torch.tensor(0.1), a.cos()]), target, up)
        for a in angles
    ])  # fmt: skip
    intrinsics = torch.tensor([[300.0, 0, 60], [0, 300, 80], [0, 0, 1]]).repeat(count, 1, 1)
    return Cameras(intrinsics, poses, 120, 160, tuple("abcde"[:count]))


def test_orbit_keeps_the_head_in_the_middle_and_upright():
    head = head_pose()
    path = orbit(head, 24, 80, 120)
    centre = head.apply(torch.tensor([[0.0, LIFT, 0.0]]))
    pixels, depth = path.project(centre)
    assert torch.allclose(pixels[:, 0], torch.tensor([40.0, 60.0]).expand(24, 2), atol=1e-3)
    assert torch.allclose(depth, torch.full_like(depth, 1.1), atol=1e-5)
    above, _ = path.project(centre + torch.tensor([0.0, 0.1, 0.0]))
    assert (above[:, 0, 1] < 60).all() and torch.allclose(
        above[:, 0, 0], torch.tensor(40.0), atol=1e-2
    )


def test_orbit_starts_in_front_sways_to_both_sides_and_closes():
    head = head_pose()
    path = orbit(head, 40, 80, 120, swing_deg=40.0, lift_deg=0.0)
    eyes = head.inverse().apply(path.centres_world())
    azimuth = torch.rad2deg(torch.atan2(eyes[:, 0], eyes[:, 2]))
    assert azimuth[0].abs() < 1e-3
    assert azimuth.max() == pytest.approx(40, abs=0.1) and azimuth.min() == pytest.approx(
        -40, abs=0.1
    )
    steps = (path.centres_world().roll(-1, 0) - path.centres_world()).norm(dim=-1)
    assert steps.max() < 3 * steps.median()


def test_orbit_shows_the_subjects_left_on_the_pictures_right():
    camera = front_camera(Similarity.identity(), 100, 100)
    pixels, _ = camera.project(torch.tensor([[0.2, LIFT, 0.2]]))
    assert pixels[0, 0, 0] > 55


def test_rig_path_visits_every_camera_in_order_of_azimuth():
    cameras = rig()
    path = rig_path(cameras, 8 * 6)
    assert path.ids[0] == "path 0" and len(path) == 48
    order = [1, 3, 0, 4, 2, 4, 0, 3]
    for stop, index in enumerate(order):
        assert torch.allclose(
            path.cam_from_world[6 * stop], cameras.cam_from_world[index], atol=1e-5
        )


def test_rig_path_stays_rigid_and_keeps_looking_at_the_target():
    path = rig_path(rig(), 50)
    rotation = path.cam_from_world[:, :3, :3]
    assert torch.allclose(
        rotation @ rotation.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5
    )
    pixels, depth = path.project(torch.tensor([[0.0, 0.1, 0.0]]))
    assert (depth > 0.7).all()
    assert (pixels[:, 0] - torch.tensor([60.0, 80.0])).abs().max() < 10


def test_rig_path_needs_two_cameras():
    with pytest.raises(ConfigError, match="the rig has 1 camera"):
        rig_path(rig().select([0]), 10)


def test_hold_repeats_one_camera():
    path = hold(rig().by_id(["e"]), 3)
    assert path.ids == ("e", "e", "e") and (path.cam_from_world == path.cam_from_world[:1]).all()
