"""Where a live avatar is seen: a window, an mp4; the page has a file of its own.

An output takes pictures one by one as they are made and never holds the maker up for long.
"""

import os
import sys
import textwrap
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageDraw

from npga.core.errors import OutputError
from npga.core.images import ImageArray
from npga.core.video import VideoWriter

RECORDED_FPS = 30.0
RECORDED_PRESET = "veryfast"
"""Of x264: a better one takes the time that the avatar needs."""
LINE_PX, LETTER_PX = 16, 6
"""Of Pillow's own font."""


@dataclass
class Controls:
    """What a user can ask for while it runs; set by outputs, from any thread."""

    driver: bool
    """Whether the driver is shown beside the avatar."""
    stop: threading.Event = field(default_factory=threading.Event)
    calibrate: threading.Event = field(default_factory=threading.Event)


@runtime_checkable
class LiveOutput(Protocol):
    """What takes pictures."""

    def show(self, picture: ImageArray, seconds: float, text: str) -> None:
        """The newest picture, the seconds since the first, and what is told beside it."""
        ...


def captioned(image: ImageArray, text: str) -> ImageArray:
    """The picture with a strip of two lines above it; what does not fit into them is cut off."""
    return np.concatenate([_strip(text, image.shape[1]), image], 0)


@lru_cache(maxsize=2)
def _strip(text: str, width: int) -> ImageArray:
    lines = textwrap.wrap(text, max(8, (width - 8) // LETTER_PX))[:2]
    strip = Image.new("RGB", (width, 2 * LINE_PX + 4), (24, 24, 24))
    ImageDraw.Draw(strip).text((4, 2), "\n".join(lines), fill=(235, 235, 235), spacing=2)
    return np.asarray(strip)


def fitted(image: ImageArray, width: int, height: int) -> ImageArray:
    """Cut or padded with black at the right and below, to a size."""
    image = image[:height, :width]
    missing = (0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)
    return np.pad(image, missing)


class Recorder:
    """An mp4 of what was shown, at a constant rate that keeps to the clock.

    A picture stays until the next one's time, however fast or slowly they come.
    """

    def __init__(self, path: Path, fps: float = RECORDED_FPS) -> None:
        self.fps = fps
        self._writer = VideoWriter(path, fps, preset=RECORDED_PRESET)
        self._shown: ImageArray | None = None
        self._frames = 0

    def __enter__(self) -> "Recorder":
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._shown is not None and self._frames == 0:
            self._writer.write(self._shown)
        self._writer.__exit__(kind, error, trace)

    def show(self, picture: ImageArray, seconds: float, text: str = "") -> None:
        """Write the last picture up to now; the size is that of the first."""
        if self._shown is not None:
            while (self._frames + 0.5) / self.fps < seconds:
                self._writer.write(self._shown)
                self._frames += 1
            picture = fitted(picture, self._shown.shape[1], self._shown.shape[0])
        self._shown = picture


class Window:
    """A window of OpenCV: q or Esc stops, c calibrates again, d shows or hides the driver."""

    TITLE = "npga drive"

    def __init__(self, controls: Controls) -> None:
        """Raises OutputError without a display or an OpenCV that has windows."""
        self._controls = controls
        self._cv2 = open_cv2()
        try:
            self._cv2.namedWindow(self.TITLE, self._cv2.WINDOW_AUTOSIZE)
        except self._cv2.error as error:
            raise OutputError(
                f"show=window: OpenCV cannot open a window ({str(error).splitlines()[0]}).",
                "Use show=web, or an OpenCV that is not called headless.",
            ) from None

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *error: object) -> None:
        self._cv2.destroyAllWindows()

    def show(self, picture: ImageArray, seconds: float, text: str) -> None:
        """Draw it and look at the keys; a closed window stops too."""
        self._cv2.imshow(self.TITLE, picture[..., ::-1])
        key = self._cv2.waitKey(1) & 0xFF
        visible = self._cv2.getWindowProperty(self.TITLE, self._cv2.WND_PROP_VISIBLE)
        if key in (ord("q"), 27) or visible < 1:
            self._controls.stop.set()
        elif key == ord("c"):
            self._controls.calibrate.set()
        elif key == ord("d"):
            self._controls.driver = not self._controls.driver


def open_cv2() -> Any:  # noqa: ANN401 - an optional package
    """OpenCV; raises OutputError where it or a display is absent (Qt would end the program)."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        raise OutputError(
            "show=window needs a display, and there is none (DISPLAY is not set).",
            "Use show=web, or out=<file>.mp4 with show=none.",
        )
    try:
        import cv2
    except ImportError:
        raise OutputError(
            "show=window needs OpenCV, which is not installed.",
            "pip install 'npga[tracking]' brings it, or use show=web.",
        ) from None
    return cv2


class Outputs:
    """All outputs of a run, entered and left together."""

    def __init__(self, *outputs: Any) -> None:  # noqa: ANN401 - a LiveOutput that can be entered
        self._outputs = outputs
        self._stack = ExitStack()

    def __enter__(self) -> "Outputs":
        with ExitStack() as entered:
            for one in self._outputs:
                entered.enter_context(one)
            self._stack = entered.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def show(self, picture: ImageArray, seconds: float, text: str) -> None:
        """Hand it to each."""
        for one in self._outputs:
            one.show(picture, seconds, text)
