"""The doctor: a sound capture passes, and every fault is found by its name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_ball import (
    HEIGHT,
    SERIALS,
    WIDTH,
    cut_after_the_header,
    edit_json,
    params_of,
    set_pose,
    video_of,
)

from npga.capture.check import CheckReport, check_capture
from npga.capture.config import CaptureCheckConfig
from npga.capture.findings import Severity
from npga.capture.run import run_check
from npga.core.errors import CaptureError, OutputError
from npga.core.images import read_image
from npga.core.video import VideoWriter, read_video


def found(report: CheckReport, severity: Severity, *words: str) -> bool:
    lines = [f"{f.where}: {f.what}" for f in report.findings if f.severity is severity]
    return any(all(word in line for word in words) for line in lines)


def rewrite(video: Path, change) -> None:
    frames = [change(frame) for frame in read_video(video)]
    with VideoWriter(video, 73 / 3, 10) as writer:
        for frame in frames:
            writer.write(frame)


def check(root: Path, **options) -> CheckReport:
    return check_capture(root, None, ["FREE"], **options)


def test_a_sound_capture_passes(tiny):
    report = check_capture(tiny)
    assert report.findings == ()
    assert report.overlay is not None and report.overlay.shape[2] == 3


def test_the_overlay_shows_cloud_and_axes_on_the_head(tiny):
    sheet = check(tiny).overlay
    assert sheet is not None
    tile = sheet[18:, 480:720].astype(int)
    cyan = (tile[..., 0] < 30) & (tile[..., 1] > 225) & (tile[..., 2] > 225)
    yellow = (tile[..., 0] > 225) & (tile[..., 1] > 190) & (tile[..., 2] < 60)
    scale = 240 / WIDTH
    assert cyan.any() and yellow.any()
    middle = np.argwhere(cyan).mean(0)
    assert middle == pytest.approx([30.25 * scale, 23.5 * scale], abs=2 * scale)


def test_truncated_videos(tiny):
    data = video_of(tiny, SERIALS[0]).read_bytes()
    video_of(tiny, SERIALS[0]).write_bytes(data[: len(data) // 2])
    cut_after_the_header(video_of(tiny, SERIALS[1]))
    report = check(tiny)
    assert found(report, Severity.error, SERIALS[0], "cannot be decoded")
    assert found(report, Severity.error, SERIALS[1])
    assert report.overlay is not None
    assert not found(check(tiny, decode=False), Severity.error, SERIALS[1])


def test_missing_videos_and_mattes(tiny):
    video_of(tiny, SERIALS[0]).unlink()
    video_of(tiny, SERIALS[1], kind="alpha_maps").unlink()
    report = check(tiny)
    assert found(report, Severity.warning, SERIALS[0], "missing")
    assert found(report, Severity.error, SERIALS[1], "matte is missing")


def test_counts_that_differ(tiny):
    video = video_of(tiny, SERIALS[3])
    frames = list(read_video(video))[:3]
    with VideoWriter(video, 73 / 3) as writer:
        for frame in frames:
            writer.write(frame)
    report = check(tiny)
    assert found(report, Severity.warning, "FREE", "3 to 5 frames", SERIALS[3])
    assert report.errors == ()


def test_cameras_without_calibration(tiny):
    edit_json(params_of(tiny), lambda v: v["world_2_cam"].pop(SERIALS[2]))
    assert found(check(tiny), Severity.error, SERIALS[2], "no usable calibration")


def test_poses_that_are_none(tiny):
    set_pose(tiny, lambda m: m.__setitem__((0, 0), m[0, 0] + 0.1))
    report = check(tiny)
    assert found(report, Severity.error, SERIALS[1], "orthonormal")
    assert report.overlay is not None


def test_pictures_of_another_shape(tiny):
    rewrite(video_of(tiny, SERIALS[0]), lambda frame: frame[:, :40])
    assert found(check(tiny), Severity.error, SERIALS[0], f"40x{HEIGHT}", "shape")


def test_mattes_that_do_not_fit(tiny):
    rewrite(video_of(tiny, SERIALS[0], kind="alpha_maps"), np.zeros_like)
    rewrite(video_of(tiny, SERIALS[1], kind="alpha_maps"), lambda f: np.full_like(f, 255))
    rewrite(video_of(tiny, SERIALS[2], kind="alpha_maps"), lambda f: f[:40])
    short = video_of(tiny, SERIALS[3], kind="alpha_maps")
    frames = list(read_video(short))[:2]
    with VideoWriter(short, 73 / 3) as writer:
        for frame in frames:
            writer.write(frame)
    report = check(tiny)
    assert found(report, Severity.warning, SERIALS[0], "empty")
    assert found(report, Severity.warning, SERIALS[1], "full")
    assert found(report, Severity.error, SERIALS[2], f"{WIDTH}x40")
    assert found(report, Severity.error, SERIALS[3], "2 frames")


def test_blurred_and_dark_cameras(tiny):
    from scipy.ndimage import gaussian_filter

    rewrite(video_of(tiny, SERIALS[0]), lambda f: gaussian_filter(f, (2.5, 2.5, 0)))
    rewrite(video_of(tiny, SERIALS[3]), lambda f: (f * 0.55).astype(np.uint8))
    report = check(tiny)
    assert found(report, Severity.warning, SERIALS[0], "blurred")
    assert found(report, Severity.warning, SERIALS[3], "bright")
    assert not found(report, Severity.warning, SERIALS[1])


def test_a_camera_that_looks_elsewhere(tiny):
    set_pose(tiny, lambda m: m.__setitem__((0, 3), m[0, 3] + 0.08))
    assert found(check(tiny), Severity.warning, SERIALS[1], "cloud")


def test_broken_clouds(tiny):
    cloud = tiny / "031/sequences/FREE/pointclouds/frame_00001.pcd"
    cloud.write_bytes(cloud.read_bytes()[:-5])
    assert found(check(tiny), Severity.error, "frame_00001.pcd", "promises")


def test_sequences_that_the_table_promises(tiny):
    shutil.rmtree(tiny / "031/sequences/SEN-07-fond_note_friend")
    assert found(check(tiny), Severity.note, "SEN-07-fond_note_friend")


def config(root: Path, out: Path, **changes) -> CaptureCheckConfig:
    return CaptureCheckConfig(capture=str(root), sequences=["FREE"], out=str(out), **changes)


def test_the_command_writes_picture_and_list(tiny, tmp_path, capsys):
    run_check(config(tiny, tmp_path / "out"))
    assert read_image(tmp_path / "out/overlay.png").shape[2] == 3
    assert json.loads((tmp_path / "out/findings.json").read_text()) == []
    assert "Nothing wrong" in capsys.readouterr().out
    with pytest.raises(OutputError, match="overwrite=true"):
        run_check(config(tiny, tmp_path / "out"))
    run_check(config(tiny, tmp_path / "out", overwrite=True))


def test_the_command_fails_when_the_capture_does(tiny, tmp_path, capsys):
    video_of(tiny, SERIALS[0]).write_bytes(b"no video")
    with pytest.raises(CaptureError, match="1 errors") as caught:
        run_check(config(tiny, tmp_path / "out"))
    assert len(str(caught.value).splitlines()) == 2
    assert "error" in capsys.readouterr().out and (tmp_path / "out/overlay.png").is_file()


def test_the_command_writes_nothing_into_the_capture(tiny):
    with pytest.raises(CaptureError, match="inside the capture"):
        run_check(config(tiny, tiny / "031" / "check"))
