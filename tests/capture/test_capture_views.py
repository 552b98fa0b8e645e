"""Pictures and mattes through the cache: decoded once, whole or not at all, beside the capture."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_ball import FRAMES, HEIGHT, MATRIX, SERIALS, WIDTH, ball_cameras, ball_pictures, video_of

from npga.capture import MatteSource, cache, clips, open_capture, views
from npga.capture.clips import read_clip
from npga.capture.color import correct_exact
from npga.capture.mattes import snap_matte
from npga.core.errors import CaptureError


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Every video that is decoded, by name."""
    decoded: list[str] = []
    real = clips._decode

    def spy(path: Path):
        decoded.append(f"{path.parent.name}/{path.name}")
        yield from real(path)

    monkeypatch.setattr(clips, "_decode", spy)
    return decoded


def files_in(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(root)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in root.rglob("*")
        if p.is_file()
    }


def test_pictures_are_corrected_and_in_order(tiny, tmp_path):
    got = open_capture(tiny).views("FREE", cache_dir=tmp_path / "cache")
    assert got.images.shape == (FRAMES, 4, HEIGHT, WIDTH, 3) and got.images.dtype == torch.uint8
    assert (got.cameras.ids, got.frames, got.fps) == (SERIALS, (0, 1, 2, 3, 4), got.fps)
    for moment in (0, 4):
        images, mattes = ball_pictures(ball_cameras(), moment)
        for c in range(4):
            wanted = correct_exact(images[c] / 255, MATRIX).clip(0, 1) * 255
            head = mattes[c] == 255
            error = got.images[moment, c].numpy() - wanted
            assert np.abs(error[head].mean()) < 2 and np.abs(error[~head].mean()) < 3


def test_pictures_shrink_with_their_cameras(tiny, tmp_path):
    got = open_capture(tiny).views("FREE", [3], [SERIALS[2]], 22, 32, tmp_path / "cache")
    clip = next(read_clip(video_of(tiny, SERIALS[2]), WIDTH, HEIGHT, 4, 3))
    assert clip.shape == (HEIGHT, WIDTH, 3)
    full = list(read_clip(video_of(tiny, SERIALS[2]), WIDTH, HEIGHT))[3].astype(np.float64)
    small = full.reshape(32, 2, 22, 2, 3).mean((1, 3))
    wanted = correct_exact(small / 255, MATRIX).clip(0, 1) * 255
    error = got.images[0, 0].numpy() - wanted
    assert np.abs(error).mean() < 2.5 and abs(error.mean()) < 0.5
    assert got.cameras.K[0, 0, 2] == pytest.approx(23.5 / 2, abs=1e-4)


def test_the_second_request_opens_no_video(tiny, tmp_path, opened):
    capture, folder = open_capture(tiny), tmp_path / "cache"
    first = capture.views("FREE", cache_dir=folder)
    assert len(opened) == 8 and len(set(opened)) == 8
    again = open_capture(tiny).views("FREE", [1, 3], [SERIALS[3]], cache_dir=folder)
    assert len(opened) == 8
    assert torch.equal(again.images[:, 0], first.images[[1, 3], 3])
    assert torch.equal(again.mattes[:, 0], first.mattes[[1, 3], 3])


def test_a_finer_stride_serves_a_coarser_one(tiny, tmp_path, opened):
    capture, folder = open_capture(tiny), tmp_path / "cache"
    capture.views("FREE", [0, 2, 4], SERIALS[:1], cache_dir=folder)
    count = len(opened)
    coarse = capture.views("FREE", [0, 4], SERIALS[:1], cache_dir=folder)
    assert len(opened) == count
    fine = capture.views("FREE", None, SERIALS[:1], cache_dir=folder)
    assert len(opened) == count + 2
    assert torch.equal(coarse.images, fine.images[[0, 4]])


@pytest.mark.parametrize(
    "frames, stride", [([0, 3, 6], 3), ([3, 9], 3), ([5], 1), ([0], 1), ([0, 2, 5], 1), ([4, 6], 2)]
)
def test_common_stride(frames: list[int], stride: int):
    assert views.common_stride(frames) == stride


def test_another_size_or_another_video_is_decoded_anew(tiny, tmp_path, opened):
    folder = tmp_path / "cache"
    open_capture(tiny).views("FREE", None, SERIALS[:1], cache_dir=folder)
    open_capture(tiny).views("FREE", None, SERIALS[:1], 22, 32, cache_dir=folder)
    assert len(opened) == 4
    video = video_of(tiny, SERIALS[0])
    os.utime(video, ns=(1, 1))
    open_capture(tiny).views("FREE", None, SERIALS[:1], cache_dir=folder)
    assert opened[4:] == [f"images/{video.name}"]


def test_another_colour_matrix_is_corrected_anew(tiny, tmp_path):
    folder = tmp_path / "cache"
    first = open_capture(tiny).views("FREE", [0], SERIALS[:1], cache_dir=folder)
    (tiny / "031/calibration/color_calibration.json").unlink()
    again = open_capture(tiny).views("FREE", [0], SERIALS[:1], cache_dir=folder)
    assert (first.images.float() - again.images.float()).abs().mean() > 1
    assert torch.equal(first.mattes, again.mattes)


def test_nothing_is_written_into_the_capture(tiny):
    before = files_in(tiny)
    open_capture(tiny).views("FREE", [0])
    assert files_in(tiny) == before
    assert list((tiny.parent / "derived" / "cache").rglob("*.frames"))


def test_a_cache_inside_the_capture_is_refused(tiny):
    for inside in (tiny, tiny / "031" / "cache"):
        with pytest.raises(CaptureError, match="inside the capture"):
            open_capture(tiny).views("FREE", [0], cache_dir=inside)


def test_a_parent_without_write_bits_is_left_alone(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    parent = tiny.parent
    parent.chmod(0o555)
    try:
        chosen = cache.default_cache_dir(tiny)
    finally:
        parent.chmod(0o755)
    assert (tmp_path / "home") in chosen.parents
    assert cache.default_cache_dir(tiny) == parent / "derived" / "cache"


def test_an_interrupted_run_keeps_whole_cameras_only(tiny, tmp_path, opened, monkeypatch):
    folder, capture = tmp_path / "cache", open_capture(tiny)
    real = cache.encode_picture
    calls = []

    def fails_in_the_third_camera(image):
        calls.append(1)
        if len(calls) > 2 * FRAMES + 2:
            raise KeyboardInterrupt
        return real(image)

    monkeypatch.setattr(views, "DECODERS", 1)
    monkeypatch.setattr(views, "encode_picture", fails_in_the_third_camera)
    with pytest.raises(KeyboardInterrupt):
        capture.views("FREE", cache_dir=folder)
    assert not list(folder.rglob("*.partial"))
    assert len(list(folder.rglob("*picture*.frames"))) == 2
    monkeypatch.setattr(views, "encode_picture", real)
    done = [name for name in opened if name.startswith("images")]
    got = capture.views("FREE", cache_dir=folder)
    assert len([n for n in opened if n.startswith("images")]) == len(done) + 2
    assert got.images.float().std(dim=(2, 3, 4)).min() > 5


def test_what_a_killed_run_left_is_swept_away(tiny, tmp_path):
    folder, capture = tmp_path / "cache", open_capture(tiny)
    capture.views("FREE", [0], SERIALS[:1], cache_dir=folder)
    entry = next(folder.rglob("*picture*.frames"))
    stale = entry.with_name(f".{entry.name}.999999999.partial")
    stale.write_bytes(b"half")
    entry.unlink()
    capture.views("FREE", [0], SERIALS[:1], cache_dir=folder)
    assert entry.is_file() and not stale.exists()


def test_a_damaged_cache_file_is_named(tiny, tmp_path):
    folder, capture = tmp_path / "cache", open_capture(tiny)
    capture.views("FREE", [0], SERIALS[:1], cache_dir=folder)
    entry = next(folder.rglob("*picture*.frames"))
    entry.write_bytes(entry.read_bytes()[:-20])
    with pytest.raises(CaptureError, match="Delete it"):
        capture.views("FREE", [0], SERIALS[:1], cache_dir=folder)


def test_a_full_disk_is_told_in_two_lines(tiny, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with pytest.raises(CaptureError, match="No space left") as caught:
        open_capture(tiny).views("FREE", [0], cache_dir=tmp_path / "cache")
    assert len(str(caught.value).splitlines()) == 2
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_mattes_are_snapped_and_fit_the_head(tiny, tmp_path):
    got = open_capture(tiny).views("FREE", cache_dir=tmp_path / "cache")
    _, wanted = ball_pictures(ball_cameras(), 0)
    assert got.matte_source is MatteSource.files
    disagree = (got.mattes.numpy() > 127) != (wanted > 127)
    assert disagree.mean() < 0.01
    values = np.unique(got.mattes)
    assert 0 in values and 255 in values
    assert not ((values > 0) & (values <= 8)).any() and not ((values >= 247) & (values < 255)).any()


def test_snapping():
    given = np.array([0, 8, 9, 128, 246, 247, 255], np.uint8)
    assert snap_matte(given).tolist() == [0, 0, 9, 128, 246, 255, 255]


def test_without_matte_files_the_empty_stage_helps(plain, tmp_path):
    got = open_capture(plain).views("FREE", [0, 4], cache_dir=tmp_path / "cache")
    _, wanted = ball_pictures(ball_cameras(), 0)
    assert got.matte_source is MatteSource.background
    head = wanted > 127
    for matte in got.mattes.numpy():
        assert ((matte > 127) & head).sum() / ((matte > 127) | head).sum() > 0.85


def test_without_mattes_and_stage_everything_is_head(plain, tmp_path):
    import shutil

    shutil.rmtree(plain / "031/sequences/BACKGROUND")
    got = open_capture(plain).views("FREE", [0], cache_dir=tmp_path / "cache")
    assert got.matte_source is MatteSource.none and bool((got.mattes == 255).all())
