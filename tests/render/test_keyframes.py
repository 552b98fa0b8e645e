"""Key-framed cameras: exact at the keys, smooth between, held outside; bad files are refused."""

import json
import math

import numpy as np
import pytest
import torch

from npga.core.errors import ConfigError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.render.camera_path import camera_path
from npga.render.keyframes import smooth

FPS = 10.0
ROUND = [
    {"time": 0.5, "eye": [0, 0, 4], "target": [0, -0.1, 0]},
    {"frame": 15, "eye": [3, 0.5, 2], "target": [0.1, 0, 0], "fov": 30},
    {"time": 3, "eye": [-2, 1, 3], "target": [0, 0, 0.2], "up": [0.3, 2, 0], "focal": 200},
]


def head_pose() -> Similarity:
    turn = matrix_from_rotvec(torch.tensor([0.1, 0.3, -0.05]))
    return Similarity(torch.tensor(0.25), turn, torch.tensor([0.1, 0.2, -0.3]))


def path_of(tmp_path, keys, count=40, space=None, **more):
    file = tmp_path / "keys.json"
    content = {"keys": keys, **more} | ({} if space is None else {"space": space})
    file.write_text(json.dumps(content))
    return camera_path(
        str(file), count, FPS, head_pose(), 80, 120, capture=None, participant=None
    )  # fmt: skip


@pytest.mark.parametrize("space", ["head", "world"])
def test_the_camera_is_exactly_at_its_keys(tmp_path, space):
    path = path_of(tmp_path, ROUND, space=space)
    world = head_pose() if space == "head" else Similarity.identity()
    for frame, key in zip((5, 15, 30), ROUND, strict=True):
        points = world.apply(torch.tensor([key["eye"], key["target"]], dtype=torch.float32))
        assert torch.allclose(path.centres_world()[frame], points[0], atol=1e-5)
        pixels, _ = path.select([frame]).project(points[1:])
        assert torch.allclose(pixels[0, 0], torch.tensor([40.0, 60.0]), atol=1e-3)
        up = torch.tensor(key.get("up", [0, 1, 0]), dtype=torch.float32)
        in_camera = path.cam_from_world[frame, :3, :3] @ world.rotation @ up
        assert in_camera[0].abs() < 1e-5 and in_camera[1] < 0  # straight up in the picture
    focals = path.K[[5, 15, 30], 1, 1]
    expected = torch.tensor([4.4 / 1.75 * 80, 60 / math.tan(math.radians(15)), 200])
    assert torch.allclose(focals, expected, rtol=1e-5)
    assert path.ids[0] == "keys 0" and (path.width, path.height, len(path)) == (80, 120, 40)


def test_it_is_held_outside_the_keys_and_rigid_everywhere(tmp_path):
    path = path_of(tmp_path, ROUND)
    poses = path.cam_from_world
    assert (poses[:5] == poses[5]).all() and (poses[30:] == poses[30]).all()
    turn = poses[:, :3, :3]
    assert torch.allclose(turn @ turn.transpose(1, 2), torch.eye(3).expand(40, 3, 3), atol=1e-5)


def test_value_and_slope_are_continuous():
    times = np.array([0.0, 0.4, 2.0, 2.5])
    values = np.array([[0.0, 1], [2, 1], [-1, 1], [3, 1]])
    step = 1e-5
    at = np.concatenate([times - step, times, times + step])
    before, here, after = smooth(times, values, at).reshape(3, 4, 2)
    assert np.allclose(here, values, atol=1e-12)
    assert np.allclose((here - before) / step, (after - here) / step, atol=2e-3)
    assert np.allclose((after - here)[[0, -1]] / step, 0, atol=2e-3)  # it starts and ends at rest
    assert np.abs(here[1:3] - before[1:3]).max() / step > 0.1  # and passes the others in motion


def test_a_repeated_key_is_a_pause(tmp_path):
    first, second = ROUND[0], {**ROUND[1], "time": 1.0}
    del second["frame"]
    path = path_of(tmp_path, [first, second, {**second, "time": 2.0}, {**first, "time": 3.0}])
    pause = path.cam_from_world[10:21]
    assert torch.allclose(pause, pause[:1].expand_as(pause), atol=1e-6)
    assert (path.cam_from_world[9] - pause[0]).abs().max() > 1e-3


def test_half_a_turn_keeps_its_distance(tmp_path):
    eyes = ([-4, 0, 0], [0, 0, 4], [4, 0, 0])
    keys = [{"time": t, "eye": e, "target": [0, 0, 0]} for t, e in enumerate(eyes)]
    path = path_of(tmp_path, keys, count=21)
    distances = (path.centres_world() - head_pose().translation).norm(dim=1)
    assert torch.allclose(distances, torch.ones(21), atol=1e-5)


def test_one_key_stands_still(tmp_path):
    path = path_of(tmp_path, ROUND[:1], count=3)
    assert (path.cam_from_world == path.cam_from_world[:1]).all()


def test_front_stands_still_and_words_that_need_a_capture_say_so():
    def path(camera):
        return camera_path(camera, 3, FPS, head_pose(), 80, 120, capture=None, participant=None)

    assert (path("front").cam_from_world == path("orbit").cam_from_world[:1]).all()
    with pytest.raises(ConfigError, match="needs a calibration"):
        path("path")


KEY = {"time": 0, "eye": [0, 0, 4], "target": [0, 0, 0]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], '"keys" is empty'),
        ({}, 'no object with a list "keys"'),
        ([3], "key 1 is no object"),
        ([{**KEY, "lens": 3}], 'key 1 has an unknown field "lens"'),
        ([{**KEY, "frame": 3}], 'either "time"'),
        ([{**KEY, "eye": [0, 1]}], r'needs "eye": \[x, y, z\]'),
        ([{**KEY, "eye": [0, 1, "a"]}], "\"z\" 'a', which is no number"),
        ([{**KEY, "time": True}], '"time" True, which is no number'),
        ([KEY, {**KEY, "time": float("inf")}], "inf, which is no number"),
        ([KEY, {**KEY, "time": 0}], "key 2 is not later than key 1"),
        ([{**KEY, "eye": [0, 0, 0]}], "looks nowhere"),
        ([{**KEY, "up": [0, 0, 1]}], 'along its "up"'),
        ([{**KEY, "fov": 180}], "not between 0 and 180"),
        ([{**KEY, "focal": 0}], "must be above 0"),
        ([{**KEY, "focal": 9, "fov": 9}], 'both "fov" and "focal"'),
        ([KEY, {**KEY, "time": 1, "eye": [0, 0, -4]}], "looks from opposite sides"),
        (
            [{**KEY, "eye": [0, 4, 1]}, {**KEY, "time": 1, "eye": [0, 4, -1]}],
            "looks along its up direction",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        path_of(tmp_path, keys)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='unknown field "loop"'):
        path_of(tmp_path, [KEY], loop=True)
    with pytest.raises(ConfigError, match="not head or world"):
        path_of(tmp_path, [KEY], space="torso")
    file = tmp_path / "bad.json"
    for text, message in (("{\n'a'", "no JSON: .* in line 2"), ("[]", "no object")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            camera_path(str(file), 3, FPS, head_pose(), 8, 8, capture=None, participant=None)
    with pytest.raises(ConfigError, match="cannot be read"):
        camera_path("no.json", 3, FPS, head_pose(), 8, 8, capture=None, participant=None)
