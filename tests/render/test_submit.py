"""`npga submit`: what the benchmark would refuse is refused, and the zip holds what it asks for."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

import npga.render.submission
import npga.render.submit
from npga.avatar.store import load_avatar
from npga.capture import open_capture
from npga.core.cameras import look_at
from npga.core.config import compose_config
from npga.core.errors import CaptureError, ConfigError, OutputError, TrackError
from npga.core.images import from_uint8
from npga.core.metrics import psnr
from npga.core.similarity import Similarity
from npga.core.video import VideoWriter, read_video
from npga.render.render import draw_avatar
from npga.render.submission import TASKS, Task, TaskName, refusals, video_facts, video_path
from npga.render.submit import SubmitConfig, every_frame, run
from nphm_tracking import SequenceTrack, Track, load_track, save_track

SERIALS = ("222200046", "222200037")
TINY = Task(48, 64, 20.0, SERIALS, {"388": ("GLASSES",), "475": ("HAIR",)}, {"388": 6, "475": 4})


@pytest.fixture(autouse=True)
def tiny_task(monkeypatch):
    for module in (npga.render.submission, npga.render.submit):
        monkeypatch.setitem(module.TASKS, TaskName.nvs, TINY)


@pytest.fixture
def every_take(person) -> SequenceTrack:
    """The take of `person` with no frame left out; the fourth was not tracked."""
    take = load_track(person).sequence("FREE")
    return replace(take, frames=torch.arange(len(take.frames)))


@pytest.fixture
def benchmark(person, every_take):
    """The calibration of participant 388 without any video, and a track of every frame."""
    up, head = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.1, -0.1])
    poses = {
        serial: look_at(torch.tensor([x, 0.1, 1.0]), head, up).tolist()
        for serial, x in zip(SERIALS, (0.4, 0.0), strict=True)
    }
    K = [[90.0, 0.0, 24.0], [0.0, 90.0, 32.0], [0.0, 0.0, 1.0]]
    params = {"world_2_cam": poses, "intrinsics": dict.fromkeys(SERIALS, K)}
    folder = person / "bench" / "nvs" / "388" / "calibration"
    folder.mkdir(parents=True)
    (folder / "camera_params.json").write_text(json.dumps(params | {"width": 48, "height": 64}))
    model = load_track(person).head_model_checksum
    save_track(Track(torch.zeros(4), torch.zeros(4), {"GLASSES": every_take}, model, "388", {}),
               person / "track.safetensors")  # fmt: skip
    return person


def settings(person, *more) -> SubmitConfig:
    return compose_config(SubmitConfig, "submit", [f"out={person}/mine", *more])


def drawing(person) -> list[str]:
    return [f"avatar={person}", f"track={person}", f"capture={person}/bench", "participant='388'"]


def write(folder, participant, sequence, serial, frames, size=(48, 64), fps=20.0):
    with VideoWriter(video_path(folder, participant, sequence, serial), fps) as video:
        for _ in range(frames):
            video.write(np.full((size[1], size[0], 3), 200, np.uint8))


def test_one_participant_is_drawn_and_the_last_one_completes_the_zip(benchmark, every_take, capsys):
    run(settings(benchmark, *drawing(benchmark)))
    assert "2 videos are missing, of participants 475" in capsys.readouterr().out
    mine = benchmark / "mine"
    assert not (benchmark / "mine.zip").exists()
    facts = video_facts(video_path(mine, "388", "GLASSES", SERIALS[1]))
    assert (facts.codec, facts.width, facts.height, facts.frames) == ("h264", 48, 64, 6)
    assert facts.fps == pytest.approx(20.0)
    avatar, take = load_avatar(benchmark / "avatar.safetensors"), every_take
    cameras = open_capture(benchmark / "bench", "388").cameras(SERIALS, 48, 64)
    left, centre = draw_avatar(
        avatar, take.z_exp[4], take.world_from_head[4], take.torso, cameras
    )  # fmt: skip
    written = [
        from_uint8(list(read_video(video_path(mine, "388", "GLASSES", serial)))[4])
        for serial in SERIALS
    ]
    assert psnr(written[0], left) > psnr(written[0], centre) + 3
    assert psnr(written[1], centre) > psnr(written[1], left) + 3
    with pytest.raises(OutputError, match="exists already"):
        run(settings(benchmark, *drawing(benchmark)))
    for serial in SERIALS:
        write(mine, "475", "HAIR", serial, 4)
    run(settings(benchmark))
    with zipfile.ZipFile(benchmark / "mine.zip") as archive:
        assert archive.namelist() == [
            f"{p}/{s}/cam_{c}.mp4" for p, s in (("388", "GLASSES"), ("475", "HAIR"))
            for c in SERIALS
        ]  # fmt: skip
        assert archive.testzip() is None
    with pytest.raises(OutputError, match=r"mine.zip exists already"):
        run(settings(benchmark))


def test_what_the_benchmark_refuses_is_not_packed(tmp_path):
    mine = tmp_path / "mine"
    for serial in SERIALS:
        write(mine, "388", "GLASSES", serial, 6)
        write(mine, "475", "HAIR", serial, 4)
    assert refusals(mine, TINY) == []
    write(mine, "388", "GLASSES", SERIALS[0], 5)
    write(mine, "388", "GLASSES", SERIALS[1], 6, size=(64, 48))
    write(mine, "475", "HAIR", SERIALS[0], 4, fps=25.0)
    (mine / "notes.txt").write_text("hello")
    said = "\n".join(refusals(mine, TINY))
    assert f"camera {SERIALS[0]} has 5 frames, not 6" in said
    assert "has 64x48 pixels, not 48x64" in said and "25.00 frames per second, not 20" in said
    assert "notes.txt is asked for by nobody" in said
    with pytest.raises(OutputError, match=r"no complete submission: .*notes.txt"):
        run(settings(tmp_path))
    video_path(mine, "475", "HAIR", SERIALS[1]).unlink()
    with pytest.raises(OutputError, match=r"HAIR/cam_222200037.mp4 and 0 more are missing"):
        run(settings(tmp_path))
    video_path(mine, "475", "HAIR", SERIALS[1]).write_bytes(b"no video")
    with pytest.raises(CaptureError, match="cannot be read"):
        run(settings(tmp_path))
    assert not (tmp_path / "mine.zip").exists()


def test_frames_that_were_not_tracked_repeat_their_nearest_and_none_is_left_out(every_take):
    take = every_take
    drive = every_frame(take, "GLASSES", 73.0)
    assert len(drive) == 6 and drive.fps == 73
    expected = take.z_exp[[0, 1, 2, 2, 4, 5]]
    assert torch.equal(drive.z_exp, expected)
    assert isinstance(drive.world_from_head, Similarity)
    with pytest.raises(TrackError, match="not every one"):
        every_frame(replace(take, frames=3 * take.frames), "GLASSES", 73.0)
    with pytest.raises(TrackError, match="No frame of GLASSES"):
        every_frame(replace(take, ok=torch.zeros(6, dtype=torch.bool)), "GLASSES", 73.0)


def test_a_wrong_person_length_or_half_a_question_is_refused(benchmark, monkeypatch):
    with pytest.raises(ConfigError, match="not all three"):
        settings(benchmark, f"avatar={benchmark}")
    short = replace(TINY, frames={"388": 9, "475": 4})
    monkeypatch.setitem(npga.render.submit.TASKS, TaskName.nvs, short)
    with pytest.raises(TrackError, match="has 6 frames of GLASSES; the benchmark expects 9"):
        run(settings(benchmark, *drawing(benchmark)))
    others = replace(TINY, sequences={"475": ("HAIR",)})
    monkeypatch.setitem(npga.render.submit.TASKS, TaskName.nvs, others)
    with pytest.raises(ConfigError, match="388 is not in the task nvs"):
        run(settings(benchmark, *drawing(benchmark)))
    assert not (benchmark / "mine").exists()


def test_the_real_tasks_ask_for_fifteen_and_eighty_videos(monkeypatch):
    monkeypatch.undo()
    assert len(TASKS[TaskName.nvs].videos()) == 15
    assert len(TASKS[TaskName.mono_flame_avatar].videos()) == 80
    assert sum(TASKS[TaskName.nvs].frames.values()) == 3516
    assert sum(TASKS[TaskName.mono_flame_avatar].frames.values()) == 3105
