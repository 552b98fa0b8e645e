"""Pictures of one camera with their times: a video file, the same played as if live, a device.

Every picture is uint8 RGB, upright (the rotation tag is applied), no longer than ``LONGEST`` pixels
(4K shrinks while it is decoded), with alpha laid over white. Times are seconds from the start.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from npga.core.errors import CaptureError, NpgaError
from npga.core.images import ImageArray

LONGEST = 1280
"""Longer side of a picture in pixels: landmarks need no more."""
RATE_WITHOUT_HEADER = 25.0
DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"),
           "win32": ("dshow", "video={}")}  # fmt: skip
"""FFmpeg's input and the name of a camera on each system."""


@dataclass(frozen=True)
class Frame:
    """One picture."""

    image: ImageArray
    seconds: float
    """Since the source began."""
    number: int
    shrunk: float = 1.0
    """Size over that of the source's pictures."""
    taken: float = 0.0
    """Live: ``time.perf_counter`` when it came from the camera."""


def read_frames(path: str | Path, *, longest: int = LONGEST) -> Iterator[Frame]:
    """All pictures of a video file in order; raises CaptureError where it cannot be decoded.

    A variable rate becomes a constant one: see ``constant_rate``.
    """
    path = _existing(path)
    from av.error import FFmpegError

    try:
        with _open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from _decoded(container, stream, longest)
    except (FFmpegError, OSError, IndexError) as error:
        raise CaptureError(
            f"The video {path} cannot be decoded ({type(error).__name__}).",
            "Copy it again, or convert it to mp4.",
        ) from None


def frame_rate(path: str | Path) -> float:
    """Pictures per second of a video file, by its header; raises CaptureError."""
    path = _existing(path)
    from av.error import FFmpegError

    try:
        with _open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            return float(rate) if rate else RATE_WITHOUT_HEADER
    except (FFmpegError, OSError, IndexError) as error:
        raise CaptureError(
            f"The video {path} cannot be opened ({type(error).__name__}).",
            "Give a video file that FFmpeg can read.",
        ) from None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise CaptureError(
            f"video={path} is not there; a video file was expected.", "Check the path."
        )
    return path


def constant_rate(frames: Iterator[Frame], rate: float) -> Iterator[Frame]:
    """The picture that is showing at every tick of a clock of `rate`; renumbered.

    A phone's variable rate neither speeds up nor slows down so; at a constant rate nothing changes.
    """
    number, shown = 0, None
    for frame in frames:
        while shown is not None and (number + 0.5) / rate < frame.seconds:
            yield replace(shown, seconds=number / rate, number=number)
            number += 1
        shown = frame
    if shown is not None:
        yield replace(shown, seconds=number / rate, number=number)


def _open(name: str, **options: Any) -> Any:  # noqa: ANN401 - PyAV's containers are untyped
    import av

    return av.open(name, **options)


def _decoded(container: Any, stream: Any, longest: int) -> Iterator[Frame]:  # noqa: ANN401
    start = None
    for number, frame in enumerate(container.decode(stream)):
        seconds = frame.time if frame.time is not None else number / RATE_WITHOUT_HEADER
        start = seconds if start is None else start
        shrunk = min(1.0, longest / max(frame.width, frame.height))
        yield Frame(upright(frame, longest), seconds - start, number, shrunk)


def upright(frame: Any, longest: int = LONGEST) -> ImageArray:  # noqa: ANN401
    """RGB pixels of a decoded frame as a player shows it: turned, shrunk, alpha over white."""
    scale = min(1.0, longest / max(frame.width, frame.height))
    size = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
    if any(part.is_alpha for part in frame.format.components):
        pixels = frame.reformat(format="rgba", **size).to_ndarray()
        alpha = pixels[..., 3:].astype(np.float32) / 255
        mixed = pixels[..., :3] * alpha + 255 * (1 - alpha)
        pixels = mixed.round().astype(np.uint8)
    else:
        pixels = frame.reformat(format="rgb24", **size).to_ndarray()
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns))


class NewestFrame:
    """A camera read in a thread of its own, of which only the newest picture waits.

    Pictures that nobody took in time are dropped, so the delay never grows. `source` is a device
    number or path, or a video file, which is then played at its own speed again and again.
    """

    def __init__(self, source: str, longest: int = LONGEST, loop: bool = True) -> None:
        self._longest, self._loop = longest, loop
        self._ready = threading.Condition()
        self._newest: Frame | None = None
        self._error: NpgaError | None = None
        self._ended = False
        self.source = source
        self.received = self.dropped = 0
        """Pictures that came, and those of them that nobody took in time."""
        self._first = self._last = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "NewestFrame":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2.0)

    @property
    def rate(self) -> float:
        """Pictures per second, as they came; 0 before the second."""
        seconds = self._last - self._first
        return (self.received - 1) / seconds if seconds > 0 else 0.0

    def take(self, timeout: float = 5.0) -> Frame | None:
        """The newest picture not taken yet, waiting for it; None when the source has ended.

        Raises CaptureError for a source that cannot be opened, or that is silent for `timeout`.
        """
        with self._ready:
            there = self._ready.wait_for(
                lambda: self._newest is not None or self._error is not None or self._ended, timeout
            )
            if self._error is not None:
                raise self._error
            frame, self._newest = self._newest, None
        if frame is None and not there:
            raise CaptureError(
                f"camera={self.source} has sent no picture for {timeout:.0f} s.",
                "Check whether another program holds the camera.",
            )
        return frame

    def _read(self) -> None:
        try:
            if Path(self.source).is_file():
                self._play(Path(self.source))
            else:
                self._listen()
        except NpgaError as error:
            self._error = error
        finally:
            with self._ready:
                self._ended = True
                self._ready.notify_all()

    def _offer(self, frame: Frame) -> bool:
        with self._ready:
            self._first = self._first if self.received else frame.taken
            self._last = frame.taken
            self.received += 1
            self.dropped += self._newest is not None
            self._newest = frame
            self._ready.notify_all()
        return not self._stop.is_set()

    def _play(self, path: Path) -> None:
        """A file at its own speed, again and again; times go on."""
        began, number = time.perf_counter(), 0
        rate, offset = frame_rate(path), 0.0
        while True:
            last = 0.0
            for frame in read_frames(path, longest=self._longest):
                last = frame.seconds
                wait = offset + last - (time.perf_counter() - began)
                if wait > 0 and self._stop.wait(wait):
                    return
                now = time.perf_counter()
                if not self._offer(replace(frame, seconds=offset + last, number=number, taken=now)):
                    return
                number += 1
            offset += last + 1 / rate
            if not self._loop or number == 0:
                return

    def _listen(self) -> None:
        from av.error import FFmpegError

        kind, name = device_name(self.source)
        try:
            with _open(name, format=kind) as container:
                stream = container.streams.video[0]
                began = time.perf_counter()
                for number, frame in enumerate(container.decode(stream)):
                    now = time.perf_counter()
                    image = upright(frame, self._longest)
                    shrunk = max(image.shape) / max(frame.width, frame.height)
                    if not self._offer(Frame(image, now - began, number, shrunk, now)):
                        return
        except (FFmpegError, OSError, IndexError, ValueError) as error:
            raise CaptureError(
                f"camera={self.source} cannot be opened ({type(error).__name__} at {name}).",
                "Give the number of a camera that is plugged in and free, or a video file.",
            ) from None


def device_name(source: str) -> tuple[str, str]:
    """FFmpeg's input format and name of a camera given as a number or by its name."""
    import sys

    kind, pattern = DEVICES.get(sys.platform, DEVICES["linux"])
    return kind, pattern.format(source) if source.isdigit() or kind == "dshow" else source
