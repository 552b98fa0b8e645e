"""The sound of a file, for a video that is being written: decoded by PyAV, encoded as AAC.

Sample times count from the beginning of the file's picture where it has one, else of its sound.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from npga.core.errors import CaptureError, ConfigError

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Samples per second that are kept; others become 48000."""
LIMIT = 48000


@dataclass(frozen=True)
class AudioTrack:
    """What of a file is heard."""

    path: Path
    """A video or audio file."""
    start_s: float = 0.0
    """Second of the file that the video's first frame shows."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a start before the file's beginning."""
        if not 0 <= self.start_s < float("inf"):
            raise ConfigError(
                f"The sound of {self.path} was asked for from {self.start_s} s on.",
                "Start at 0 s or later.",
            )


def has_audio(path: str | Path) -> bool:
    """Whether a file holds sound; raises CaptureError for what is no readable media file."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            return len(container.streams.audio) > 0
    except (FFmpegError, OSError) as error:
        raise unreadable(Path(path), error) from None


def unreadable(path: Path, error: Exception) -> CaptureError:
    """The error for a file that PyAV cannot read."""
    if isinstance(error, FileNotFoundError):
        return CaptureError(f"There is no file {path}.", "Give audio=<a video or audio file>.")
    return CaptureError(
        f"The sound of {path} cannot be decoded ({type(error).__name__}).",
        "Give a video or an audio file: mp4, mov, webm, wav, mp3, m4a, flac.",
    )


def read_audio(track: AudioTrack) -> tuple[int, int, Iterator[Float32[np.ndarray, "c n"]]]:
    """Rate, channels (1 or 2) and the samples, -1..1, in pieces from `start_s` on.

    The file must have sound, see `has_audio`. Raises CaptureError where decoding fails.
    """
    import av

    with av.open(str(track.path)) as container:
        stream = container.streams.audio[0]
        rate = stream.rate if stream.rate in RATES else LIMIT
        channels = min(2, stream.channels)
    return rate, channels, _pieces(track, rate, channels)


def _pieces(track: AudioTrack, rate: int, channels: int) -> Iterator[Float32[np.ndarray, "c n"]]:
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(track.path)) as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler("fltp", "mono" if channels == 1 else "stereo", rate)
            zero = _start(container.streams.video[0]) if container.streams.video else None
            left: int | None = None
            for frame in container.decode(stream):
                if left is None:
                    began = frame.time or 0.0
                    late = began - (began if zero is None else zero)
                    left = round((track.start_s - late) * rate)
                    if left < 0:
                        yield np.zeros((channels, -left), np.float32)
                        left = 0
                for part in resampler.resample(frame):
                    samples = part.to_ndarray()
                    yield samples[:, left:]
                    left = max(0, left - samples.shape[1])
            for part in resampler.resample(None):
                yield part.to_ndarray()[:, left or 0 :]
    except (FFmpegError, OSError) as error:
        raise unreadable(track.path, error) from None


def _start(stream: Any) -> float:  # noqa: ANN401
    """Second at which a stream begins."""
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


class AudioEncoder:
    """Feeds a file's sound to an mp4 that is open for writing, never ahead of its picture."""

    def __init__(self, track: AudioTrack, container: Any) -> None:  # noqa: ANN401
        self._container = container
        self._rate, channels, self._samples = read_audio(track)
        self._waiting = np.zeros((channels, 0), np.float32)
        self._written = 0
        self._layout = "mono" if channels == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=self._rate, layout=self._layout)

    def write_until(self, seconds: float) -> None:
        """Encode what is heard before this second of the video; nothing after the sound's end."""
        import av

        wanted = round(seconds * self._rate) - self._written
        while self._waiting.shape[1] < wanted:
            piece = next(self._samples, None)
            if piece is None:
                break
            self._waiting = np.concatenate([self._waiting, piece], 1)
        chosen, self._waiting = self._waiting[:, :wanted], self._waiting[:, max(wanted, 0) :]
        if wanted <= 0 or not chosen.shape[1]:
            return
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(chosen), format="fltp", layout=self._layout
        )
        frame.sample_rate, frame.pts = self._rate, self._written
        self._written += chosen.shape[1]
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds."""
        if self._written:
            self._container.mux(self._stream.encode(None))
