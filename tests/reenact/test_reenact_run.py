"""`npga reenact`: what drives the avatar, the video beside the driver, the json."""

import json
import wave
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from npga.avatar.store import load_avatar
from npga.core.audio import AudioTrack
from npga.core.config import compose_config
from npga.core.errors import ConfigError
from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.core.video import VideoWriter, probe_video, read_video
from npga.reenact.config import Mode, ReenactConfig
from npga.reenact.pictures import composed, video_pictures
from npga.reenact.run import driven_by, run
from npga.reenact.source import take_of
from nphm_tracking import SequenceTrack, load_track, save_track
from nphm_tracking.model.load import open_prior_path


def config(person, *more) -> ReenactConfig:
    return compose_config(
        ReenactConfig,
        "reenact",
        [f"avatar={person}", f"track={person}", f"out={person}/a.mp4", "height=40",
         "device=cpu", *more],
    )  # fmt: skip


def prepare(settings, avatar, track):
    """The driven take and its frame numbers."""
    source = take_of(track, settings.sequence).used(settings.every)
    return driven_by(settings, source, avatar, None), tuple(source.frames.tolist())


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
    made, frames = prepare(config(person), avatar, track)
    good = track.sequence("FREE").good()
    assert torch.equal(made.drive.world_from_head.matrix(), good.world_from_head.matrix())
    assert torch.equal(made.drive.z_exp, good.z_exp.clamp(0, 1))
    assert frames == (0, 3, 6, 12, 15)
    assert made.hull_distance[:4].max() == 0
    assert made.hull_distance[4] == pytest.approx(0.2, abs=1e-5)
    free, _ = prepare(config(person, "clamp=false"), avatar, track)
    assert torch.equal(free.drive.z_exp, good.z_exp)


def test_cross_is_relative_to_both_rest_faces_and_mean_poses(person):
    another(person, 0.1)
    avatar, track = (
        load_avatar(person / "avatar.safetensors"),
        load_track(person / "other.safetensors"),
    )
    made, _ = prepare(config(person, "mode=cross", "clamp=false"), avatar, track)
    good = track.sequence("FREE").good()
    rest_face = good.z_exp[0]  # the fifth of five frames that is lowest
    assert torch.allclose(made.drive.z_exp, good.z_exp - rest_face, atol=1e-6)
    own, _ = prepare(
        config(person, "mode=cross", "clamp=false", f"avatar_track={person}"), avatar, track
    )
    mine = load_track(person).sequence("FREE").good().z_exp.amin(0)
    assert torch.allclose(own.drive.z_exp, mine + good.z_exp - rest_face, atol=1e-6)
    rest = avatar.torso.rest
    assert torch.allclose(made.drive.world_from_torso.matrix(), rest.matrix())
    assert torch.allclose(made.drive.world_from_head.scale, rest.scale.expand(5), atol=1e-5)
    centre = made.drive.world_from_head.mean()
    assert torch.allclose(centre.translation, rest.translation, atol=1e-4)
    assert torch.allclose(centre.rotation, rest.rotation, atol=1e-3)
    still, _ = prepare(config(person, "mode=cross", "head_motion=none"), avatar, track)
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


def test_own_take_with_a_still_head(person):
    avatar, track = load_avatar(person / "avatar.safetensors"), load_track(person)
    made, _ = prepare(config(person, "head_motion=none"), avatar, track)
    rest = track.sequence("FREE").torso
    assert torch.allclose(made.drive.world_from_head.rotation, rest.rotation.expand(5, 3, 3))
    half, _ = prepare(config(person, "head_motion=damped"), avatar, track)
    full, _ = prepare(config(person), avatar, track)
    angles = [
        rotvec_from_matrix(rest.rotation.T @ made.drive.world_from_head.rotation)[:, 1]
        for made in (half, full)
    ]
    assert torch.allclose(angles[0], angles[1] / 2, atol=1e-5)


def test_codes_from_a_curve_with_sound_and_a_camera(person):
    (person / "curve.csv").write_text("time,z0,HeadYaw\n0,0,0\n1,1,0.2\n")
    with wave.open(str(person / "a.wav"), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(2 * 16000 * 3))
    settings = [f"avatar={person}", f"codes={person}/curve.csv", "fps=10", f"out={person}/b.mp4",
                f"audio={person}/a.wav", "camera=orbit", "height=40", "device=cpu"]  # fmt: skip
    run(compose_config(ReenactConfig, "reenact", settings))
    assert len(list(read_video(person / "b.mp4"))) == 11
    with av.open(str(person / "b.mp4")) as video:
        assert float(video.streams.audio[0].duration * video.streams.audio[0].time_base) == (
            pytest.approx(1.1, abs=0.07)
        )
    told = json.loads((person / "b.json").read_text())
    assert told["mode"] == "cross" and told["driver"] == "curve" and told["camera"] == "orbit"
    assert told["frames"] == list(range(11)) and told["sequence"] is None


def test_with_sound_an_unknown_frame_is_held(person):
    source = take_of(load_track(person), "FREE")
    assert source.used().frames.tolist() == [0, 3, 6, 12, 15]
    held = source.used(hold=True)
    assert held.frames.tolist() == [0, 3, 6, 9, 12, 15] and held.rate == pytest.approx(10.0)
    assert torch.equal(held.z_exp[3], held.z_exp[2]) and bool(held.ok.all())
    assert held.sound(AudioTrack(person / "a.wav", 1.0)).start_s == 1.0
    late = replace(source, ok=source.ok & (source.frames >= 6)).used(hold=True)
    assert late.sound(AudioTrack(person / "a.wav")).start_s == pytest.approx(6 / 30)


def test_the_driver_of_a_video_is_shown_at_the_right_times(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 10.0) as video:
        for n in range(6):
            video.write(np.full((32, 16, 3), 40 * n, np.uint8))
    shown = list(video_pictures(tmp_path / "a.mp4", torch.tensor([0.0, 0.2, 0.2, 0.4, 2.0]), 16))
    assert [picture.shape for picture in shown] == [(16, 8, 3)] * 5
    assert [round(float(picture.mean()) / 40) for picture in shown] == [0, 2, 2, 4, 5]


def test_settings_that_exclude_each_other_are_refused(person):
    base = [f"avatar={person}"]

    def refused(*more):
        with pytest.raises(ConfigError) as error:
            compose_config(ReenactConfig, "reenact", [*base, *more])
        return str(error.value)

    assert "neither was given" in refused()
    assert "both was given" in refused("track=a", "codes=b.csv")
    assert "no frame rate" in refused("codes=b.csv", "fps=0")
    assert "yaw, pitch and roll" in refused("codes=b.csv", "head_signs=[1,1]")
    assert "video=" in refused("codes=b.csv", "capture=data")
    with pytest.raises(ConfigError, match="description goes"):
        run(config(person, f"camera={person}/a.json"))
    with pytest.raises(ConfigError, match="speaks the codes"):
        run(config(person, f"head_model={open_prior_path()}"))


def test_mode_is_a_word_of_the_user(person):
    assert config(person, "mode=cross").mode is Mode.cross
    assert config(person, "mode=self").mode is Mode.self
    with pytest.raises(ConfigError):
        config(person, "mode=both")
    with pytest.raises(ConfigError, match="cannot be negative"):
        config(person, "smooth_frames=-1")
