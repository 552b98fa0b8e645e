"""What one camera's clips of one sequence are really like: the doctor's measurements.

Every frame is decoded; one frame is measured: sharpness = variance of the Laplacian over squared
mean grey, brightness = mean linear luminance, both where the matte says head (everywhere without
mattes).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from npga.capture.clips import count_frames, probe_clip, read_clip
from npga.capture.color import ColorCorrection
from npga.capture.mattes import snap_matte
from npga.core.errors import CaptureError
from npga.core.images import linear_from_srgb, resize_area
from npga.core.video import VideoInfo

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
TILE_WIDTH = 240
FACE_FRACTION = 0.9
"""A pixel counts as head for the measurements from this matte value on."""


@dataclass(frozen=True)
class ClipReport:
    """A clip's header against what decodes."""

    info: VideoInfo | None
    """None: it does not open."""
    decoded: int
    problem: CaptureError | None
    """Why it does not open, or where decoding fails."""


@dataclass(frozen=True)
class CameraReport:
    """One camera in one sequence."""

    serial: str
    picture: ClipReport
    matte: ClipReport | None
    """None: no matte file."""
    sharpness: float
    brightness: float
    coverage: float
    """Mean matte, 0..1; NaN without."""
    tile: NDArray[np.uint8] | None
    """The measured frame, corrected, ``TILE_WIDTH`` wide."""
    tile_matte: NDArray[np.uint8] | None


def examine_camera(
    serial: str,
    clip: Path,
    matte_clip: Path | None,
    matrix: NDArray[np.float64] | None,
    *,
    frame: int,
    decode: bool,
    stills_fps: float = 25.0,
) -> CameraReport:
    """Measure ``frame``; ``decode`` also decodes everything. Never raises for what is broken."""
    picture = examine_clip(clip, stills_fps, decode=decode)
    matte = None if matte_clip is None else examine_clip(matte_clip, stills_fps, decode=decode)
    nothing = CameraReport(serial, picture, matte, np.nan, np.nan, np.nan, None, None)
    image = None if picture.info is None else _one_frame(clip, picture.info, frame)
    if image is None:
        return nothing
    alpha = None
    if matte_clip is not None and matte is not None and matte.info is not None:
        alpha = _one_frame(matte_clip, matte.info, frame)
    corrected = ColorCorrection(matrix)(image)
    height, width = image.shape[:2]
    head = np.ones((height, width), bool)
    coverage, tile_matte = np.nan, None
    size = (TILE_WIDTH, max(1, round(TILE_WIDTH * height / width)))
    if alpha is not None:
        snapped = snap_matte(alpha[..., 0])
        coverage = float(snapped.mean() / 255)
        tile_matte = resize_area(snapped, *size)
        inside = resize_area(snapped, width, height) > 255 * FACE_FRACTION
        head = inside if inside.any() else head
    return CameraReport(
        serial,
        picture,
        matte,
        sharpness(corrected, head),
        brightness(corrected, head),
        coverage,
        resize_area(corrected, *size),
        tile_matte,
    )


def examine_clip(clip: Path, stills_fps: float, *, decode: bool) -> ClipReport:
    """Header and, if ``decode``, the number of frames that decode (else the header's claim)."""
    try:
        info = probe_clip(clip, stills_fps)
    except CaptureError as error:
        return ClipReport(None, 0, error)
    if not decode:
        return ClipReport(info, info.frame_count, None)
    try:
        return ClipReport(info, count_frames(clip), None)
    except CaptureError as error:
        return ClipReport(info, 0, error)


def sharpness(image: NDArray[np.uint8], head: NDArray[np.bool_]) -> float:
    """Variance of the Laplacian inside ``head`` over its squared mean grey."""
    grey = image.astype(np.float32) @ LUMINANCE.astype(np.float32)
    inside = np.asarray(ndimage.binary_erosion(head, iterations=2), bool)
    inside = inside if inside.any() else head
    return float(ndimage.laplace(grey)[inside].var() / max(grey[inside].mean(), 1.0) ** 2)


def brightness(image: NDArray[np.uint8], head: NDArray[np.bool_]) -> float:
    """Mean linear luminance inside ``head``."""
    return float((linear_from_srgb(image[head] / 255) @ LUMINANCE).mean())


def _one_frame(clip: Path, info: VideoInfo, frame: int) -> NDArray[np.uint8] | None:
    try:
        for place, image in enumerate(read_clip(clip, info.width, info.height, frame + 1)):
            if place == frame:
                return image
    except CaptureError:
        return None
    return None
