"""A capture's calibrated cameras as ``Cameras`` of one picture size."""

from collections.abc import Sequence

import numpy as np
import torch

from npga.capture.clips import probe_clip
from npga.capture.types import CaptureFiles
from npga.core.cameras import Cameras
from npga.core.errors import CaptureError


def cameras_at(
    capture: CaptureFiles, serials: Sequence[str] | None, width: int | None, height: int | None
) -> Cameras:
    """See ``Capture.cameras``."""
    by_serial = {camera.serial: camera for camera in capture.rig}
    wanted = tuple(capture.serials if serials is None else serials)
    for serial in wanted:
        if serial not in by_serial:
            raise CaptureError(
                f"There is no calibrated camera {serial!r} in participant {capture.participant} "
                f"of {capture.root}.",
                f"Its cameras are {', '.join(by_serial) or 'none'}.",
            )
    width, height = _picture_size(capture, width, height)
    chosen = [by_serial[serial] for serial in wanted]
    K = [camera.intrinsics_at(width, height) for camera in chosen]
    poses = [camera.cam_from_world for camera in chosen]
    return Cameras(
        K=torch.from_numpy(np.array(K, np.float32).reshape(-1, 3, 3)),
        cam_from_world=torch.from_numpy(np.array(poses, np.float32).reshape(-1, 4, 4)),
        width=width,
        height=height,
        ids=wanted,
    )


def _picture_size(capture: CaptureFiles, width: int | None, height: int | None) -> tuple[int, int]:
    if (width is None) != (height is None):
        raise CaptureError(
            f"A picture size needs both sides; width={width} and height={height} were given.",
            "Give both, or neither for the size of the videos.",
        )
    if width is not None and height is not None:
        if width < 1 or height < 1:
            raise CaptureError(
                f"A picture size of {width} x {height} was given.", "Give positive numbers."
            )
        return width, height
    for files in capture.files:
        for path in files.images.values():
            info = probe_clip(path, files.stills_fps)
            return info.width, info.height
    return capture.rig[0].width, capture.rig[0].height
