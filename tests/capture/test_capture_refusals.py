"""Wrong input: two lines that name what was given, where, and what to do."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_ball import (
    SERIALS,
    as_benchmark,
    as_folder,
    ball_cameras,
    ball_cloud,
    ball_pictures,
    cut_after_the_header,
    edit_json,
    params_of,
    set_pose,
    video_of,
)

from npga.capture import Landmarks2D, open_capture
from npga.capture.landmarks import landmarks_path, write_landmarks
from npga.capture.writer import CaptureWriter
from npga.core.errors import CaptureError
from npga.core.video import VideoWriter, read_video


def refusal(call, *words: str) -> str:
    with pytest.raises(CaptureError) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) == 2, text
    for word in words:
        assert word in text, text
    return text


def test_no_such_folder(tmp_path):
    refusal(lambda: open_capture(tmp_path / "nowhere"), "no folder", "nowhere", "capture=")


def test_a_folder_that_is_no_capture(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    refusal(lambda: open_capture(tmp_path), "no capture", "holiday.jpg", "cameras.json")


def test_a_participant_instead_of_the_root(tiny):
    refusal(lambda: open_capture(tiny / "031"), "participant=031", str(tiny))


def test_two_layouts_at_once(tiny):
    (tiny / "cameras.json").write_text("{}")
    refusal(lambda: open_capture(tiny), "both")


def test_unknown_participant(tiny):
    refusal(lambda: open_capture(tiny, "032"), "032", "031")


def test_unnamed_participant(tiny):
    shutil.copytree(tiny / "031", tiny / "054")
    refusal(lambda: open_capture(tiny), "participant=", "031, 054")
    assert open_capture(tiny, "54").participant == "054"


def test_another_name_for_a_plain_folder(tiny):
    refusal(lambda: open_capture(as_folder(tiny), "031"), "031", "ada")


def test_unknown_sequence(tiny):
    capture = open_capture(tiny)
    refusal(lambda: capture.sequence("FREEE"), "FREEE", "Did you mean FREE")
    refusal(lambda: capture.sequence("SEN"), "SEN", "SEN-07-fond_note_friend")
    refusal(lambda: capture.sequence("SEN-07-fondue"), "fondue")
    refusal(lambda: capture.sequence("EXP-7"), "EXP-7")


def test_unknown_camera(tiny, tmp_path):
    capture = open_capture(tiny)
    refusal(lambda: capture.cameras(["222200048"]), "222200048", SERIALS[0])
    refusal(lambda: capture.views("FREE", [0], ["front"], cache_dir=tmp_path / "c"), "front")
    refusal(lambda: capture.views("FREE", [0], [], cache_dir=tmp_path / "c"), "No camera")


@pytest.mark.parametrize("frames", [[5], [-1], [0, 99], []])
def test_frames_out_of_range(tiny, tmp_path, frames: list[int]):
    capture = open_capture(tiny)
    refusal(lambda: capture.views("FREE", frames, cache_dir=tmp_path / "c"), "0 to 4")


def test_picture_sizes_that_are_none(tiny):
    capture = open_capture(tiny)
    refusal(lambda: capture.cameras(None, 275), "both")
    refusal(lambda: capture.cameras(None, 0, 10), "positive")


def test_a_truncated_video(tiny, tmp_path):
    video = video_of(tiny, SERIALS[2])
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    refusal(lambda: open_capture(tiny).sequence("FREE"), video.name, "truncated")
    video.write_bytes(b"")
    refusal(lambda: open_capture(tiny).sequence("FREE"), video.name)


def test_a_video_whose_header_promises_more_than_it_holds(tiny, tmp_path):
    cut_after_the_header(video_of(tiny, SERIALS[2]))
    capture = open_capture(tiny)
    assert capture.sequence("FREE").frame_count == 5
    refusal(lambda: capture.views("FREE", cache_dir=tmp_path / "c"), SERIALS[2])
    assert not list((tmp_path / "c").rglob(f"*{SERIALS[2]}*picture*"))


def test_a_calibration_that_lacks_a_camera(tiny):
    edit_json(params_of(tiny), lambda v: v["world_2_cam"].pop(SERIALS[1]))
    refusal(lambda: open_capture(tiny).sequence("FREE"), "lacks camera", SERIALS[1])


def test_a_benchmark_calibration_that_lacks_intrinsics(tiny):
    root = as_benchmark(tiny, "nvs")
    path = root / "nvs/031/calibration/camera_params.json"
    edit_json(path, lambda v: v["intrinsics"].pop(SERIALS[1]))
    refusal(lambda: open_capture(root), "intrinsics", SERIALS[1])


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda m: m.__setitem__((0, 3), np.nan), "NaN"),
        (lambda m: m.__setitem__((0, 3), np.inf), "NaN"),
        (lambda m: m.__setitem__((0, 0), m[0, 0] + 0.01), "orthonormal"),
        (lambda m: m.__imul__(2), "last row"),
        (lambda m: m.__setitem__(0, -m[0]), "reflection"),
    ],
)
def test_poses_that_are_none(tiny, change, word: str):
    set_pose(tiny, change)
    refusal(lambda: open_capture(tiny), word, SERIALS[1], "camera_params.json")


@pytest.mark.parametrize(
    "matrix, word",
    [
        ([[float("nan"), 0, 1], [0, 1, 1], [0, 0, 1]], "NaN"),
        ([[-5, 0, 1], [0, 1, 1], [0, 0, 1]], "focal"),
        ([[1, 0], [0, 1]], "3x3"),
        ([[1, 0, 1], [0, 1, 1], [0, 0, 2]], "last row"),
        ([[1, 0, 1], [0, 1], [0, 0, 1]], "3x3"),
        ("wide", "3x3"),
    ],
)
def test_intrinsics_that_are_none(tiny, matrix, word: str):
    edit_json(params_of(tiny), lambda v: v.update(intrinsics=matrix))
    refusal(lambda: open_capture(tiny), word)


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "{}", '{"world_2_cam": {}, "intrinsics": []}', "\xff"]
)
def test_calibration_files_that_are_none(tiny, text: str):
    params_of(tiny).write_bytes(text.encode("latin-1"))
    refusal(lambda: open_capture(tiny), "camera_params.json")


def test_colour_matrices_that_are_none(tiny):
    path = tiny / "031/calibration/color_calibration.json"
    edit_json(path, lambda v: v.pop(SERIALS[0]))
    refusal(lambda: open_capture(tiny), "colour matrix", SERIALS[0])
    edit_json(path, lambda v: v.update({SERIALS[0]: [[1, 0, 0, 0, 0, 0]] * 3}))
    refusal(lambda: open_capture(tiny), "3x6", SERIALS[0])


def test_one_camera_without_a_matte(tiny, tmp_path):
    video_of(tiny, SERIALS[0], kind="alpha_maps").unlink()
    capture = open_capture(tiny)
    refusal(lambda: capture.views("FREE", [0], cache_dir=tmp_path / "c"), "no matte", SERIALS[0])
    assert len(capture.views("FREE", [0], SERIALS[1:], cache_dir=tmp_path / "c").cameras) == 3


def test_a_matte_shorter_than_its_video(tiny, tmp_path):
    matte = video_of(tiny, SERIALS[0], kind="alpha_maps")
    frames = list(read_video(matte))[:2]
    with VideoWriter(matte, 73 / 3) as writer:
        for frame in frames:
            writer.write(frame)
    capture = open_capture(tiny)
    refusal(lambda: capture.views("FREE", cache_dir=tmp_path / "c"), "2 of 5", "alpha_maps")


def test_one_camera_without_a_still_of_the_stage(plain, tmp_path):
    (plain / f"031/sequences/BACKGROUND/image_{SERIALS[0]}.jpg").unlink()
    capture = open_capture(plain)
    refusal(lambda: capture.views("FREE", [0], cache_dir=tmp_path / "c"), "still", SERIALS[0])


def test_clouds_that_are_not_there(tiny):
    capture = open_capture(tiny)
    refusal(lambda: capture.cloud("FREE", 4), "frame 4")
    shutil.rmtree(tiny / "031/sequences/FREE/pointclouds")
    refusal(lambda: open_capture(tiny).cloud("FREE", 0), "no point clouds")


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda v: v.pop("cameras"), "cameras"),
        (lambda v: v["cameras"][SERIALS[0]].pop("K"), "K"),
        (lambda v: v["cameras"][SERIALS[0]].update(width="wide"), "picture size"),
        (lambda v: v["cameras"].update({SERIALS[0]: 3}), "object"),
        (lambda v: v.update(fps=0), "fps"),
        (lambda v: v.update(fps="fast"), "fps"),
    ],
)
def test_plain_folders_with_a_broken_file(tiny, change, word: str):
    root = as_folder(tiny)
    edit_json(root / "cameras.json", change)
    refusal(lambda: open_capture(root), word, "cameras.json")


def test_the_writer_refuses_what_v2_cannot_hold(tmp_path):
    cameras = ball_cameras()
    refusal(lambda: CaptureWriter(tmp_path / "a", 1, cameras.resized(43, 64)), "even")
    cameras.K[1, 0, 0] += 1
    refusal(lambda: CaptureWriter(tmp_path / "b", 1, cameras), "one K")


def test_the_writer_replaces_nothing(tiny):
    refusal(lambda: CaptureWriter(tiny, 31, ball_cameras()), "exists already")


def test_an_interrupted_sequence_leaves_no_videos(tmp_path):
    writer = CaptureWriter(tmp_path / "a", 1, ball_cameras())
    images, mattes = ball_pictures(ball_cameras(), 0)
    with pytest.raises(KeyboardInterrupt), writer.sequence("FREE") as sequence:
        sequence.add(images, mattes, ball_cloud())
        refusal(lambda: sequence.add(images), "without mattes")
        raise KeyboardInterrupt
    assert not list(tmp_path.rglob("*.mp4"))
    assert not (tmp_path / "a/metadata_sequences.csv").exists()


def landmarks() -> Landmarks2D:
    shape = (2, 4, 478)
    points = torch.rand(*shape, 2, generator=torch.Generator().manual_seed(0)) * 40
    return Landmarks2D(points, torch.ones(shape), (0, 3), SERIALS, 44, 64)


def test_landmarks_lie_beside_the_capture(tiny):
    assert open_capture(tiny).landmarks("SEN-07") is None
    path = landmarks_path(tiny, "031", "SEN-07-fond_note_friend")
    assert tiny not in path.parents
    write_landmarks(path, landmarks())
    found = open_capture(tiny).landmarks("SEN-07")
    assert found is not None and torch.equal(found.points, landmarks().points)
    assert (found.frames, found.serials, found.width) == ((0, 3), SERIALS, 44)


def test_landmarks_that_are_none(tiny):
    path = landmarks_path(tiny, "031", "FREE")
    write_landmarks(path, landmarks())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refusal(lambda: open_capture(tiny).landmarks("FREE"), "landmarks", "FREE.npz")
    path.write_text(json.dumps({}))
    refusal(lambda: open_capture(tiny).landmarks("FREE"), "FREE.npz")
