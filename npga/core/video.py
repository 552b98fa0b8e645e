"""Video in and out through PyAV, sequentially; H.264 in yuv420p."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from npga.core.audio import AudioEncoder, AudioTrack, has_audio
from npga.core.errors import CaptureError, OutputError
from npga.core.images import ImageArray
from npga.core.progress import say


@dataclass(frozen=True)
class VideoInfo:
    """What a video's header says; ``frame_count`` is its claim, 0 where it makes none."""

    width: int
    height: int
    fps: float
    frame_count: int


def _unreadable(path: Path, error: Exception) -> CaptureError:
    return CaptureError(
        f"The video {path} cannot be decoded ({type(error).__name__}); a whole mp4 was expected.",
        "Copy or download it again; a truncated file cannot be repaired.",
    )


def probe_video(path: str | Path) -> VideoInfo:
    """Size, rate and claimed length; raises CaptureError for what is no readable video."""
    import av
    from av.error import FFmpegError

    path = Path(path)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            return VideoInfo(stream.width, stream.height, rate, stream.frames)
    except (FFmpegError, OSError, IndexError) as error:
        raise _unreadable(path, error) from None


def read_video(path: str | Path) -> Iterator[ImageArray]:
    """All frames in order as uint8 RGB; raises CaptureError where decoding fails."""
    import av
    from av.error import FFmpegError

    path = Path(path)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield frame.to_ndarray(format="rgb24")
    except (FFmpegError, OSError, IndexError) as error:
        raise _unreadable(path, error) from None


class VideoWriter:
    """Writes frames to an mp4 under a temporary name that is renamed when it is complete.

    Odd sizes are padded by one pixel (4:2:0 needs even ones). With `audio`, the sound of that file
    goes along as AAC, cut to the length of the picture; a file without sound leaves a note. Raises
    CaptureError on entering for a file that cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        crf: int = 18,
        audio: AudioTrack | Path | None = None,
        preset: str = "medium",
    ) -> None:
        """`crf` and `preset` are x264's: lower is better, slower is smaller."""
        self.path = Path(path)
        self._fps, self._crf = Fraction(fps).limit_denominator(1000), crf
        self._preset = preset
        self._audio = AudioTrack(audio) if isinstance(audio, Path) else audio
        self._sound: AudioEncoder | None = None
        self._frames = 0
        self._partial = self.path.with_name("." + self.path.name + ".partial.mp4")
        self._container = None
        self._stream = None

    def __enter__(self) -> "VideoWriter":
        import av

        if self._audio is not None and not has_audio(self._audio.path):
            say(f"{self._audio.path} holds no sound, so {self.path} has none.")
            self._audio = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._container = av.open(str(self._partial), "w")
        except OSError as error:
            raise OutputError(
                f"The video {self.path} cannot be written ({error.strerror}).",
                "Give an out=... in a folder that can be written.",
            ) from None
        return self

    def write(self, image: ImageArray) -> None:
        """Append one frame; all frames have the size of the first."""
        import av

        assert self._container is not None
        height, width, _ = image.shape
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream(
                "libx264", rate=self._fps, options={"crf": str(self._crf), "preset": self._preset}
            )
            self._stream.width, self._stream.height = image.shape[1], image.shape[0]
            self._stream.pix_fmt = "yuv420p"
            if self._audio is not None:
                self._sound = AudioEncoder(self._audio, self._container)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self._frames += 1
        if self._sound is not None:
            self._sound.write_until(self._frames / float(self._fps))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._container is not None
        if kind is None and self._stream is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
            if self._sound is not None:
                self._sound.close()
        self._container.close()
        if kind is None and self._stream is not None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink(missing_ok=True)
