"""The driver's pictures, and the frame in which they stand beside the avatar's."""

from collections.abc import Iterator
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from npga.core.errors import CaptureError
from npga.core.images import ImageArray, labelled, resize_area, side_by_side
from npga.core.video import probe_video, read_video


def video_pictures(
    path: str | Path, seconds: Float[Tensor, "t"], height: int
) -> Iterator[ImageArray]:
    """What a video shows at rising times, at this height; its last frame after its end.

    Raises CaptureError for what is no readable video.
    """
    fps = probe_video(path).fps
    if fps <= 0:
        raise CaptureError(f"The video {path} tells no frame rate.", "Encode it again as mp4.")
    frames = read_video(path)
    at, shown = -1, None
    for second in seconds.tolist():
        while at < round(second * fps):
            found = next(frames, None)
            if found is None:
                break
            at, shown = at + 1, found
        if shown is None:
            raise CaptureError(f"The video {path} has no frame.", "Give another, or none.")
        width = max(1, round(height * shown.shape[1] / shown.shape[0]))
        yield resize_area(shown, width, height)


def composed(
    results: Iterator[ImageArray],
    drivers: Iterator[ImageArray],
    titles: tuple[str, str],
    frames: tuple[int, ...],
) -> Iterator[ImageArray]:
    """Driver left, result right, each under its title; the result alone where there is no driver.

    All frames have the size of the first.
    """
    for result, frame in zip(results, frames, strict=True):
        right = labelled(result, titles[1])
        left = next(drivers, None)
        if left is None:
            yield right
        else:
            yield side_by_side([labelled(left, f"{titles[0]} #{frame}"), right])
