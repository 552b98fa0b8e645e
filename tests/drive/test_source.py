"""Video files as they come: any rate, size, turn and pixel format become upright RGB pictures."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from npga.core.errors import CaptureError
from npga.core.video_alpha import CODECS, AlphaVideoWriter, alpha_codec
from npga.drive.source import LONGEST, Frame, constant_rate, frame_rate, read_frames

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (30, 40, 210)
MATRICES = {
    "0": (1, 0, 0, 1),
    "90": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "270": (0, -1, 1, 0),
}
"""(a b c d) of a QuickTime track header for a picture to be turned clockwise by so much."""


def corners(width: int = 48, height: int = 32) -> np.ndarray:
    """Red top left, green top right, blue bottom left, grey elsewhere."""
    image = np.full((height, width, 3), 120, np.uint8)
    size = min(width, height) // 3
    image[:size, :size], image[:size, -size:], image[-size:, :size] = RED, GREEN, BLUE
    return image


def film(
    path: Path,
    images: list[np.ndarray],
    seconds: list[float] | None = None,
    rate: float = 25.0,
    codec: str = "libx264",
    pixels: str = "yuv444p",
) -> Path:
    """A video of these pictures, shown at these times (every 1/rate if none are given)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        if codec == "libx264":
            stream.options = {"crf": "8", "preset": "ultrafast", "bf": "0"}
        stream.codec_context.time_base = Fraction(1, 90000)
        for n, image in enumerate(images):
            kind = "gray" if image.ndim == 2 else "rgb24"
            frame = av.VideoFrame.from_ndarray(image, format=kind)
            time = n / rate if seconds is None else seconds[n]
            frame.pts, frame.time_base = round(90000 * time), Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path, turn: str) -> Path:
    """The file with another matrix in its track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    assert data[at] == 0  # version
    a, b, c, d = MATRICES[turn]
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    data[at + 40 : at + 76] = matrix
    path.write_bytes(bytes(data))
    return path


def colour_at(image: np.ndarray, right: bool, bottom: bool) -> np.ndarray:
    return image[-4 if bottom else 3, -4 if right else 3].astype(int)


def near(found: np.ndarray, wanted: tuple[int, int, int], within: int = 12) -> bool:
    return bool((np.abs(found - np.array(wanted)) <= within).all())


def level(frame: Frame) -> int:
    """Which picture of a film of greys it is."""
    return round(float(frame.image.mean()) / 10)


def greys(count: int) -> list[np.ndarray]:
    return [np.full((16, 16, 3), 10 * n, np.uint8) for n in range(count)]


def frames_at(seconds: list[float]) -> Iterator[Frame]:
    blank = np.zeros((2, 2, 3), np.uint8)
    return (Frame(blank + np.uint8(n % 200), time, n) for n, time in enumerate(seconds))


@pytest.mark.parametrize("rate", [24.0, 25.0, 30000 / 1001, 60.0])
def test_a_constant_rate_stays(rate: float) -> None:
    times = [n / rate for n in range(90)]
    out = list(constant_rate(frames_at(times), rate))
    assert [frame.number for frame in out] == list(range(90))
    assert [int(frame.image[0, 0, 0]) for frame in out] == list(range(90))
    assert [frame.seconds for frame in out] == pytest.approx(times)


@pytest.mark.parametrize("seed", range(4))
def test_every_tick_of_a_variable_rate_shows_what_a_player_shows(seed: int) -> None:
    """The newest picture that has begun, to half a tick; so its length stays."""
    rate = 30.0
    gaps = np.random.default_rng(seed).choice([0.004, 0.02, 1 / 30, 0.05, 0.2], 120)
    times = [0.0, *np.cumsum(gaps).tolist()]
    out = list(constant_rate(frames_at(times), rate))
    assert [frame.number for frame in out] == list(range(len(out)))
    for n, frame in enumerate(out[:-1]):
        begun = [k for k, time in enumerate(times) if time <= (n + 0.5) / rate]
        assert int(frame.image[0, 0, 0]) == begun[-1]
        assert frame.seconds == pytest.approx(n / rate)
    assert int(out[-1].image[0, 0, 0]) == len(times) - 1
    assert abs(out[-1].seconds - times[-1]) <= 0.5 / rate + 1e-9


def test_no_frames_and_one_frame() -> None:
    assert list(constant_rate(frames_at([]), 30.0)) == []
    assert [frame.number for frame in constant_rate(frames_at([0.0]), 30.0)] == [0]


def test_a_file_of_constant_rate(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", greys(12), rate=30000 / 1001)
    rate = frame_rate(path)
    assert rate == pytest.approx(30000 / 1001, abs=0.01)
    read = list(read_frames(path))
    assert [level(frame) for frame in read] == list(range(12))
    assert [frame.seconds for frame in read] == pytest.approx(
        [n * 1001 / 30000 for n in range(12)], abs=1e-3
    )
    out = list(constant_rate(iter(read), rate))
    assert [level(frame) for frame in out] == list(range(12))


def test_a_file_of_variable_rate(tmp_path: Path) -> None:
    """A phone slows down in the dark: 30, then 10 pictures a second."""
    times = [n / 30 for n in range(10)] + [1 / 3 + n / 10 for n in range(10)]
    path = film(tmp_path / "a.mp4", greys(20), seconds=times)
    read = list(read_frames(path))
    assert [frame.seconds for frame in read] == pytest.approx(times, abs=2e-3)
    out = list(constant_rate(iter(read), 30.0))
    assert [level(frame) for frame in out[:10]] == list(range(10))
    assert [level(frame) for frame in out[10:-1]] == [10 + n // 3 for n in range(27)]
    assert abs(out[-1].seconds - times[-1]) <= 0.5 / 30 + 1e-3


def test_times_count_from_the_first_picture(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", greys(4), seconds=[2.0, 2.04, 2.08, 2.12])
    assert [frame.seconds for frame in read_frames(path)] == pytest.approx(
        [0, 0.04, 0.08, 0.12], abs=1e-3
    )


@pytest.mark.parametrize(("codec", "suffix"), [("png", "mov"), ("libx264", "mp4")])
def test_greyscale_is_rgb(tmp_path: Path, codec: str, suffix: str) -> None:
    """PNG has the full range; H.264 that says nothing has the video range, as in every player."""
    ramp = np.linspace(40, 220, 48).round().astype(np.uint8)[None].repeat(32, 0)
    path = film(tmp_path / f"a.{suffix}", [ramp] * 2, codec=codec, pixels="gray")
    image = next(read_frames(path)).image
    assert image.shape == (32, 48, 3) and image.dtype == np.uint8
    assert (image[..., :1] == image).all()
    wanted = ramp if codec == "png" else (ramp - 16.0) * 255 / 219
    assert np.abs(image[..., 0] - wanted).max() <= 4


@pytest.mark.parametrize("codec", list(CODECS))
def test_alpha_lies_over_white(tmp_path: Path, codec: str) -> None:
    if codec != alpha_codec() and codec == "prores_ks":
        pytest.skip("this FFmpeg has no ProRes")
    image = np.zeros((32, 48, 4), np.uint8)
    image[..., :3] = (200, 40, 80)
    image[:, 16:32, 3], image[:, 32:, 3] = 128, 255
    path = tmp_path / "a.mov"
    with AlphaVideoWriter(path, 10.0, codec) as video:
        for _ in range(3):
            video.write(image)
    frames = list(read_frames(path))
    assert len(frames) == 3
    seen = frames[1].image
    assert seen.shape == (32, 48, 3)
    assert near(seen[16, 8].astype(int), (255, 255, 255), 3)
    assert near(seen[16, 24].astype(int), (227, 147, 167), 6)
    assert near(seen[16, 40].astype(int), (200, 40, 80), 6)


def test_odd_sizes_stay(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mov", [corners(47, 31)] * 2, codec="png", pixels="rgb24")
    frame = next(read_frames(path))
    assert frame.shrunk == 1.0
    assert np.abs(frame.image.astype(int) - corners(47, 31)).max() <= 1


def test_a_large_picture_shrinks(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [corners(1600, 900)])
    frame = next(read_frames(path))
    assert frame.image.shape == (720, LONGEST, 3) and frame.shrunk == pytest.approx(0.8)
    assert near(colour_at(frame.image, False, False), RED)
    small = next(read_frames(path, longest=400))
    assert small.image.shape == (225, 400, 3) and small.shrunk == pytest.approx(0.25)


@pytest.mark.parametrize("turn", list(MATRICES))
def test_a_turned_picture_is_upright(tmp_path: Path, turn: str) -> None:
    """A stored corner lands where the track header's matrix carries it."""
    path = turned(film(tmp_path / "a.mp4", [corners()] * 2), turn)
    for image in (next(read_frames(path)).image, next(read_frames(path, longest=36)).image):
        flipped = turn in ("90", "270")
        assert (image.shape[0] > image.shape[1]) == flipped
        a, b, c, d = MATRICES[turn]
        for colour, (x, y) in ((RED, (-1, -1)), (GREEN, (1, -1)), (BLUE, (-1, 1))):
            right, bottom = a * x + c * y > 0, b * x + d * y > 0
            assert near(colour_at(image, right, bottom), colour)


def test_a_turned_large_picture_shrinks_by_its_longer_side(tmp_path: Path) -> None:
    path = turned(film(tmp_path / "a.mp4", [corners(96, 64)]), "90")
    frame = next(read_frames(path, longest=48))
    assert frame.image.shape == (48, 32, 3) and frame.shrunk == 0.5


def test_what_is_no_video_is_told_in_two_lines(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mp4", greys(8))
    (tmp_path / "text.mp4").write_text("no video\n" * 30)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:900])
    with av.open(str(tmp_path / "sound.wav"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        out.mux(stream.encode(sound))
    with pytest.raises(CaptureError, match=r"none\.mp4 is not there") as error:
        next(read_frames(tmp_path / "none.mp4"))
    assert str(error.value).count("\n") == 1
    for name in ("text.mp4", "cut.mp4", "sound.wav"):
        with pytest.raises(CaptureError, match="cannot be decoded") as error:
            list(read_frames(tmp_path / name))
        assert name in str(error.value) and str(error.value).count("\n") == 1
        with pytest.raises(CaptureError, match="cannot be opened") as error:
            frame_rate(tmp_path / name)
        assert str(error.value).count("\n") == 1


def test_frames_are_in_order_and_numbered(tmp_path: Path) -> None:
    frames = list(read_frames(film(tmp_path / "a.mp4", greys(15))))
    assert [frame.number for frame in frames] == list(range(15))
    assert all(b.seconds > a.seconds for a, b in pairwise(frames))
