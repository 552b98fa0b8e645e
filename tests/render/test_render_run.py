"""`npga render`: the video's size, rate, length and content; refusals in two lines."""

import numpy as np
import pytest
import torch

from npga.avatar.store import load_avatar
from npga.core.config import compose_config
from npga.core.errors import CheckpointError, ConfigError, OutputError
from npga.core.images import from_uint8
from npga.core.metrics import psnr
from npga.core.video import probe_video, read_video
from npga.render.config import RenderConfig
from npga.render.render import draw_avatar, render_frames
from npga.render.run import drive_of, run
from npga.render.trajectory import front_camera, orbit
from nphm_tracking import load_track, save_track


def config(person, *more) -> RenderConfig:
    return compose_config(
        RenderConfig,
        "render",
        [f"avatar={person}", f"track={person}", f"out={person}/a.mp4", "width=40", "height=60",
         "device=cpu", *more],
    )  # fmt: skip


def test_video_has_the_asked_size_the_takes_speed_and_the_drawn_frames(person):
    run(config(person))
    info = probe_video(person / "a.mp4")
    assert (info.width, info.height) == (40, 60)
    assert info.fps == pytest.approx(10.0)  # every third frame of 30 per second
    frames = list(read_video(person / "a.mp4"))
    drive = drive_of(load_track(person).sequence("FREE"))
    assert len(frames) == len(drive) == 5
    avatar = load_avatar(person / "avatar.safetensors")
    path = orbit(drive.world_from_torso, len(drive), 40, 60)
    drawn = render_frames(avatar, drive, path)
    for written, expected in zip(frames, drawn, strict=True):
        assert psnr(from_uint8(written), from_uint8(expected)) > 25


def test_background_is_white_and_the_head_is_there(person):
    avatar = load_avatar(person / "avatar.safetensors")
    camera = front_camera(avatar.torso.rest, 40, 60)
    drive = drive_of(load_track(person).sequence("FREE"))
    picture = draw_avatar(avatar, drive.z_exp[0], drive.world_from_head[0], None, camera)[0]
    assert picture[0, 0].min() > 0.99
    assert picture[25:35, 15:25].mean() < 0.9


def test_expression_pose_and_refiner_change_the_picture(person):
    avatar = load_avatar(person / "avatar.safetensors")
    with torch.no_grad():
        avatar.refiner.layers[-1].bias.fill_(-0.2)
    camera = front_camera(avatar.torso.rest, 40, 60)
    drive = drive_of(load_track(person).sequence("FREE"))

    def draw(code, pose, refine=True):
        return draw_avatar(
            avatar, drive.z_exp[code], drive.world_from_head[pose], drive.world_from_torso,
            camera, refine=refine,
        )  # fmt: skip

    base = draw(0, 0)
    assert (draw(4, 0) - base).abs().max() > 0.02
    assert (draw(0, 4) - base).abs().max() > 0.02
    assert (draw(0, 0, refine=False) - base).max() > 0.05


def test_every_frame_has_its_own_camera(person):
    avatar = load_avatar(person / "avatar.safetensors")
    drive = drive_of(load_track(person).sequence("FREE"), still_head=True)
    path = orbit(drive.world_from_torso, len(drive), 40, 60)
    frames = list(render_frames(avatar, drive, path))
    for n in (0, 3):
        alone = draw_avatar(
            avatar, drive.z_exp[n], drive.world_from_head[n], drive.world_from_torso,
            path.select([n]),
        )  # fmt: skip
        assert np.abs(frames[n] - 255 * alone[0].numpy()).max() <= 0.51


def test_still_head_holds_the_mean_pose(person):
    sequence = load_track(person).sequence("FREE")
    drive = drive_of(sequence, still_head=True)
    assert torch.allclose(drive.world_from_head.matrix(), sequence.torso.matrix().expand(5, 4, 4))
    assert drive_of(sequence, every=2).fps == pytest.approx(30 / 7.5, rel=0.3)


def test_failed_frames_are_left_out(person):
    drive = drive_of(load_track(person).sequence("FREE"))
    assert len(drive) == 5 and 0.72 not in np.round(drive.z_exp[:, 0].numpy(), 2)


def test_nothing_is_silently_replaced_or_mixed_up(person):
    (person / "a.mp4").write_bytes(b"mine")
    with pytest.raises(OutputError, match="overwrite=true"):
        run(config(person))
    assert (person / "a.mp4").read_bytes() == b"mine"
    with pytest.raises(OutputError, match=r"ends in \.avi"):
        run(config(person, f"out={person}/a.avi"))
    with pytest.raises(ConfigError, match="needs a calibration"):
        run(config(person, "camera=222200037", f"out={person}/b.mp4"))
    track = load_track(person)
    other = type(track)(
        track.z_geo, track.z_app, track.sequences, "ffffffffffffffff", track.participant, {}
    )
    save_track(other, person / "track.safetensors")
    with pytest.raises(CheckpointError, match="speaks the codes of head model"):
        run(config(person, f"out={person}/b.mp4"))
    assert not (person / "b.mp4").exists()
