"""`npga reenact`: what drives the avatar, the video beside the driver, the json."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from npga.avatar.store import load_avatar
from npga.core.config import compose_config
from npga.core.errors import ConfigError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.core.video import probe_video, read_video
from npga.reenact.config import Mode, ReenactConfig
from npga.reenact.run import composed, prepare, run
from nphm_tracking import SequenceTrack, load_track, save_track


def config(person, *more) -> ReenactConfig:
    return compose_config(
        ReenactConfig,
        "reenact",
        [f"avatar={person}", f"track={person}", f"out={person}/a.mp4", "height=40",
         "device=cpu", *more],
    )  # fmt: skip


def another(person, codes_shift: float) -> None:
    """Replace the track by that of a person with another rest face, elsewhere, nodding."""
    track = load_track(person)
    take = track.sequence("FREE")
    t = len(take)
    nod = matrix_from_rotvec(
        torch.stack([torch.linspace(-0.2, 0.2, t), 0 * torch.ones(t), 0 * torch.ones(t)], -1)
    )
    tilt = matrix_from_rotvec(torch.tensor([0.0, 0.5, 0.0]))
    pose = Similarity(
        torch.full((t,), 0.27), tilt @ nod, torch.tensor([1.0, 2.0, 3.0]).expand(t, 3)
    )
    codes = codes_shift + take.z_exp / 2
    moved = SequenceTrack(take.frames, codes, pose, take.residual_mm, take.ok, take.fps)
    save_track(
        replace(track, sequences={"FREE": moved}, participant="054"), person / "other.safetensors"
    )


def test_self_keeps_codes_inside_the_hull_and_poses_as_they_were(person):
    avatar, track = load_avatar(person / "avatar.safetensors"), load_track(person)
    made = prepare(config(person), avatar, track)
    good = track.sequence("FREE").good()
    assert torch.equal(made.drive.world_from_head.matrix(), good.world_from_head.matrix())
    assert torch.equal(made.drive.z_exp, good.z_exp.clamp(0, 1))
    assert made.frames == (0, 3, 6, 12, 15)
    assert made.hull_distance[:4].max() == 0
    assert made.hull_distance[4] == pytest.approx(0.2, abs=1e-5)
    free = prepare(config(person, "clamp=false"), avatar, track)
    assert torch.equal(free.drive.z_exp, good.z_exp)


def test_cross_is_relative_to_both_rest_faces_and_mean_poses(person):
    another(person, 0.1)
    avatar, track = (
        load_avatar(person / "avatar.safetensors"),
        load_track(person / "other.safetensors"),
    )
    made = prepare(config(person, "mode=cross", "clamp=false"), avatar, track)
    good = track.sequence("FREE").good()
    rest_face = good.z_exp.quantile(0.1, dim=0)
    assert torch.allclose(made.drive.z_exp, good.z_exp - rest_face, atol=1e-6)
    own = prepare(
        config(person, "mode=cross", "clamp=false", f"avatar_track={person}"), avatar, track
    )
    mine = load_track(person).sequence("FREE").good().z_exp.quantile(0.1, dim=0)
    assert torch.allclose(own.drive.z_exp, mine + good.z_exp - rest_face, atol=1e-6)
    rest = avatar.torso.rest
    assert torch.allclose(made.drive.world_from_torso.matrix(), rest.matrix())
    assert torch.allclose(made.drive.world_from_head.scale, rest.scale.expand(5), atol=1e-5)
    centre = made.drive.world_from_head.mean()
    assert torch.allclose(centre.translation, rest.translation, atol=1e-4)
    assert torch.allclose(centre.rotation, rest.rotation, atol=1e-3)
    still = prepare(config(person, "mode=cross", "head_motion=none"), avatar, track)
    assert torch.allclose(
        still.drive.world_from_head.matrix(), rest.matrix().expand(5, 4, 4), atol=1e-5
    )


def test_video_and_json(person):
    run(config(person))
    info = probe_video(person / "a.mp4")
    assert (info.width, info.height) == (30, 40 + 18)  # the result under its title strip
    assert len(list(read_video(person / "a.mp4"))) == 5
    told = json.loads((person / "a.json").read_text())
    assert told["mode"] == "self" and told["frames"] == [0, 3, 6, 12, 15]
    assert told["frames_not_tracked"] == 1 and told["hull_inside_percent"] == 80.0
    assert len(told["hull_distance"]) == 5


def test_driver_stands_beside_the_result():
    driver = [np.full((40, 26, 3), 10 * n, np.uint8) for n in range(3)]
    result = [np.full((40, 30, 3), 200 + n, np.uint8) for n in range(3)]
    made = list(composed(iter(result), iter(driver), ("driver", "avatar"), (0, 2, 4)))
    assert [frame.shape for frame in made] == [(58, 56, 3)] * 3
    for n, frame in enumerate(made):
        assert (frame[18:, :26] == 10 * n).all() and (frame[18:, 26:] == 200 + n).all()


def test_mode_is_a_word_of_the_user(person):
    assert config(person, "mode=cross").mode is Mode.cross
    assert config(person, "mode=self").mode is Mode.self
    with pytest.raises(ConfigError):
        config(person, "mode=both")
    with pytest.raises(ConfigError, match="cannot be negative"):
        config(person, "smooth_frames=-1")
