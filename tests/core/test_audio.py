"""Sound in a written video: its length, its beginning, what is refused."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from npga.core.audio import AudioTrack, has_audio
from npga.core.errors import CaptureError, ConfigError
from npga.core.video import VideoWriter, read_video

RATE = 16000


def sound(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """A wave file of [n] or [n c] samples, -1..1."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(samples.shape[1] if samples.ndim == 2 else 1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((32767 * samples).astype("<i2").tobytes())
    return path


def tone(seconds: float, begins: float = 0.0, rate: int = RATE) -> np.ndarray:
    """440 Hz that begins after some silence."""
    t = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * 440 * t) * (t >= begins)


def film(path: Path, audio: AudioTrack | Path | None, frames: int = 24, fps: float = 12.0) -> Path:
    with VideoWriter(path, fps, audio=audio) as video:
        for n in range(frames):
            video.write(np.full((16, 16, 3), 8 * n, np.uint8))
    return path


def heard(path: Path) -> tuple[np.ndarray, int]:
    """Samples of the first channel, the encoder's lead-in cut as players do, and their rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        samples = np.concatenate([f.to_ndarray()[0] for f in frames])
        early = round(-float(frames[0].time or 0) * stream.rate)
        return samples[max(0, early) :], stream.rate


def test_sound_is_cut_to_the_picture(tmp_path):
    samples, rate = heard(film(tmp_path / "a.mp4", sound(tmp_path / "a.wav", tone(5))))
    assert rate == RATE
    assert len(samples) / rate == pytest.approx(2.0, abs=0.07)
    assert np.abs(samples).max() > 0.4
    assert len(list(read_video(tmp_path / "a.mp4"))) == 24


def test_sound_that_ends_early_leaves_silence(tmp_path):
    samples, rate = heard(film(tmp_path / "a.mp4", sound(tmp_path / "a.wav", tone(1))))
    assert len(samples) / rate == pytest.approx(1.0, abs=0.07)
    assert len(list(read_video(tmp_path / "a.mp4"))) == 24


def test_the_first_frame_has_its_own_sound(tmp_path):
    file = sound(tmp_path / "a.wav", tone(5, begins=1.5))
    for start, expected in ((0.0, 1.5), (1.0, 0.5)):
        samples, rate = heard(film(tmp_path / f"{start}.mp4", AudioTrack(file, start)))
        onset = np.argmax(np.abs(samples) > 0.2) / rate
        assert onset == pytest.approx(expected, abs=0.03)


def test_sound_of_a_video_and_rates_that_aac_lacks(tmp_path):
    both = np.stack([tone(3, rate=18000), 0 * tone(3, rate=18000)], 1)
    first = film(tmp_path / "a.mp4", sound(tmp_path / "a.wav", both, 18000))
    samples, rate = heard(film(tmp_path / "b.mp4", first))
    assert rate == 48000 and len(samples) / rate == pytest.approx(2.0, abs=0.07)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.audio[0].channels == 2
        assert container.streams.audio[0].codec_context.name == "aac"


def test_a_file_without_sound_leaves_a_note(tmp_path, capsys):
    silent = film(tmp_path / "a.mp4", None)
    assert not has_audio(silent)
    film(tmp_path / "b.mp4", silent)
    assert "holds no sound" in capsys.readouterr().out
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert not container.streams.audio


def test_what_cannot_be_heard_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(CaptureError, match="There is no file"):
        film(tmp_path / "b.mp4", tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(CaptureError, match="cannot be decoded"):
        film(tmp_path / "b.mp4", tmp_path / "text.wav")
    with pytest.raises(ConfigError, match="from -1"):
        AudioTrack(tmp_path / "a.wav", -1.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.wav"]
