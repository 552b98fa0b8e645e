"""The pictures that a take was tracked from, to stand beside what is drawn of it."""

from npga.capture import open_capture
from npga.core.images import ImageArray


def driver_pictures(
    capture: str,
    participant: str | None,
    sequence: str,
    frames: list[int],
    camera: str,
    height: int,
) -> list[ImageArray]:
    """These frames of a sequence at this height, from `camera` if it is one that filmed it.

    Else from the camera that sees the face most from in front. Raises CaptureError for a capture,
    a sequence or a frame that is not there.
    """
    opened = open_capture(capture, participant)
    filmed = opened.sequence(sequence).serials
    if camera not in filmed:
        cameras = opened.cameras(filmed)
        camera = cameras.ids[cameras.frontal()]
    full = opened.cameras([camera])
    width = round(height * full.width / full.height)
    views = opened.views(sequence, frames, [camera], width, height)
    return [image.numpy() for image in views.images[:, 0]]
