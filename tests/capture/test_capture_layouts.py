"""The three layouts: what the writer wrote is what the readers read."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from tiny_ball import (
    FRAMES,
    HEIGHT,
    SERIALS,
    WIDTH,
    as_benchmark,
    as_folder,
    ball_cameras,
    ball_cloud,
    edit_json,
    params_of,
    video_of,
)

from npga.capture import Layout, MatteSource, open_capture
from npga.capture.nersemble import SERIALS as OFFICIAL
from npga.capture.nersemble import rig_order
from npga.capture.sequences import sequence_key
from npga.core.video import VideoWriter, read_video


def same_cameras(one, other, offset: float = 0.0) -> None:
    assert (one.width, one.height, one.ids) == (other.width, other.height, other.ids)
    assert torch.allclose(one.K, other.K + offset, atol=2e-4)
    assert torch.allclose(one.cam_from_world, other.cam_from_world, atol=1e-6)


def test_nersemble_v2_round_trip(tiny):
    capture = open_capture(tiny)
    assert (capture.layout, capture.participant) == (Layout.nersemble, "031")
    assert capture.sequence_names == ("FREE", "SEN-07-fond_note_friend")
    info = capture.sequence("FREE")
    assert (info.serials, info.frame_count) == (SERIALS, FRAMES)
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    assert info.fps == pytest.approx(73 / 3, abs=1e-3)
    same_cameras(capture.cameras(), ball_cameras())
    assert not capture.background_removed
    assert capture.matte_source("FREE") is MatteSource.files
    cloud = capture.cloud("FREE", 1)
    assert capture.has_clouds("FREE") and torch.equal(cloud.points, ball_cloud().points)
    stored = json.loads(params_of(tiny).read_text())
    assert np.shape(stored["intrinsics"]) == (3, 3)
    assert stored["intrinsics"][0][2] == pytest.approx(23.5 * 2200 / WIDTH)
    assert stored["intrinsics"][1][2] == pytest.approx(30.25 * 3208 / HEIGHT)


def test_only_participants_and_a_table_lie_in_the_root(tiny):
    assert sorted(p.name for p in tiny.iterdir()) == ["031", "metadata_sequences.csv"]
    table = (tiny / "metadata_sequences.csv").read_text().split()
    assert table == ["ID,wears_glasses,FREE,SEN-07-fond_note_friend,BACKGROUND", "31,,x,x,x"]


def test_mattes_are_three_channel_videos(tiny):
    frame = next(read_video(video_of(tiny, SERIALS[0], kind="alpha_maps")))
    assert frame.shape == (HEIGHT, WIDTH, 3) and np.ptp(frame.astype(int), axis=2).max() <= 2


@pytest.mark.parametrize("task", ["nvs", "mono_flame_avatar"])
def test_benchmark_layout(tiny, tmp_path, task: str):
    root = as_benchmark(tiny, task)
    capture = open_capture(root, 31)
    assert capture.layout is Layout.nersemble_benchmark and capture.background_removed
    shifted = ball_cameras()
    for i in range(4):
        shifted.K[i, 0, 0] += i
    same_cameras(capture.cameras(), shifted)
    views = capture.views("FREE", [0, 4], cache_dir=tmp_path / "cache")
    assert views.background_removed and views.images.shape == (2, 4, HEIGHT, WIDTH, 3)
    assert not capture.color_matrices


def test_a_task_folder_of_the_benchmark_is_a_root_too(tiny):
    capture = open_capture(as_benchmark(tiny, "nvs") / "nvs")
    assert capture.layout is Layout.nersemble_benchmark


def test_the_root_goes_before_the_tasks(tiny):
    shutil.copytree(tiny / "031", tiny / "nvs" / "031")
    edit_json(tiny / "nvs/031/calibration/camera_params.json", lambda v: v.pop("intrinsics"))
    assert open_capture(tiny).layout is Layout.nersemble


def test_plain_folder(tiny, tmp_path):
    capture = open_capture(as_folder(tiny))
    assert (capture.layout, capture.participant) == (Layout.folder, "ada")
    same_cameras(capture.cameras(), ball_cameras())
    info = capture.sequence("talk")
    assert (info.serials, info.frame_count) == (SERIALS, FRAMES)
    views = capture.views("talk", [2], SERIALS[1:3], 22, 32, tmp_path / "cache")
    assert views.images.shape == (1, 2, 32, 22, 3) and views.matte_source is MatteSource.files
    assert torch.allclose(capture.cloud("talk", 0).points, ball_cloud().points)


def test_plain_folder_of_stills(tiny, tmp_path):
    from npga.core.images import write_image

    root = as_folder(tiny)
    for serial in SERIALS:
        video = root / "talk" / f"cam_{serial}.mp4"
        for place, image in enumerate(read_video(video)):
            write_image(root / "talk" / f"cam_{serial}" / f"{place:04d}.png", image)
        video.unlink()
    edit_json(root / "cameras.json", lambda v: v.update(fps=30, name="grace"))
    capture = open_capture(root)
    assert capture.participant == "grace" and capture.sequence("talk").fps == 30
    views = capture.views("talk", cache_dir=tmp_path / "cache")
    assert views.images.shape[:2] == (FRAMES, 4)
    assert views.images.float().std() > 5


def test_principal_points_scale_without_a_half_pixel_shift(tiny):
    camera = open_capture(tiny).cameras([SERIALS[2]], 11, 128)
    assert camera.K[0, 0].tolist() == pytest.approx([170 / 4, 0, 23.5 / 4], abs=1e-4)
    assert camera.K[0, 1].tolist() == pytest.approx([0, 171 * 2, 30.25 * 2], abs=1e-3)


def test_the_calibration_may_name_another_size(tiny):
    edit_json(params_of(tiny), lambda v: v.update(width=1100, height=1604))
    assert torch.allclose(
        open_capture(tiny).cameras().K[:, :2], ball_cameras().K[:, :2] * 2, rtol=1e-5
    )


def test_cameras_come_in_the_official_order():
    assert rig_order(sorted(OFFICIAL)) == OFFICIAL
    assert rig_order(["999999999", "111111111", "222200037", "222200042"]) == [
        "222200042",
        "222200037",
        "111111111",
        "999999999",
    ]


def test_files_that_are_no_cameras_are_ignored(tiny):
    images = video_of(tiny, SERIALS[0]).parent
    for name in ("cam_12.mp4", "notes.txt", ".cam_222200042.mp4.partial.mp4", "cam_222200042.avi"):
        (images / name).write_bytes(b"")
    assert open_capture(tiny).sequence("FREE").serials == SERIALS


def test_the_shortest_camera_decides_with_a_warning(tiny, tmp_path, caplog):
    video = video_of(tiny, SERIALS[1])
    frames = list(read_video(video))[:3]
    with VideoWriter(video, 73 / 3) as writer:
        for frame in frames:
            writer.write(frame)
    capture = open_capture(tiny)
    with caplog.at_level(logging.WARNING):
        assert capture.sequence("FREE").frame_count == 3
    assert "3 to 5 frames" in caplog.text and SERIALS[1] in caplog.text
    assert capture.views("FREE", cache_dir=tmp_path / "cache").frames == (0, 1, 2)


def test_sequences_are_found_by_their_beginning(tiny):
    capture = open_capture(tiny)
    for query in ("SEN-07", "SEN-07-fond", "SEN-07-fond_note_fried", "SEN-07-fond_note_friend"):
        assert capture.sequence(query).name == "SEN-07-fond_note_friend"
    folder = tiny / "031" / "sequences"
    (folder / "SEN-07-fond_note_friend").rename(folder / "SEN-07-fond_note_fried")
    again = open_capture(tiny)
    for query in ("SEN-07", "SEN-07-fond_note_friend"):
        assert again.sequence(query).name == "SEN-07-fond_note_fried"


@pytest.mark.parametrize(
    "name, key",
    [
        ("EXP-2-eyes", "EXP-2"),
        ("EXP-6-tongue-1", "EXP-6"),
        ("FREE", "FREE"),
        ("EMO-1-shout+laugh", "EMO-1"),
        ("SEN-10-port_strong_smokey", "SEN-10"),
    ],
)
def test_sequence_keys_end_at_the_number(name: str, key: str):
    assert sequence_key(name) == key
