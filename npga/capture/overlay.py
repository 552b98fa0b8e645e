"""The picture that shows whether the head stands where the cameras look.

One tile per camera: its frame, the outline of its matte (yellow), the capture's first cloud
(cyan), and the axes of the world (x red, y green, z blue; 10 cm long) at the cloud's median or,
without one, at the point nearest to all optical axes. Upper cameras are in the upper rows, the
subject's left is on the left.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from npga.capture.examine import CameraReport
from npga.capture.types import PointCloud
from npga.core.cameras import Cameras, nearest_point
from npga.core.images import contact_sheet

AXIS_METRES = 0.1
MAX_POINTS = 1500
CLOUD, OUTLINE = (0, 255, 255), (255, 220, 0)
AXIS_COLORS = ((255, 60, 60), (60, 255, 60), (90, 130, 255))
COLUMNS = 8


def overlay(
    reports: list[CameraReport], cameras: Cameras, cloud: PointCloud | None
) -> NDArray[np.uint8] | None:
    """The contact sheet [h w 3], or None if no camera has a picture.

    ``cameras`` are at any size and contain every reported serial.
    """
    shown = [report for report in reports if report.tile is not None]
    if not shown:
        return None
    rows = _arranged(shown, cameras)
    centre = nearest_point(cameras) if cloud is None else cloud.points.median(0).values
    tiles = [_tile(report, cameras, cloud, centre) for report in rows]
    return contact_sheet(tiles, min(COLUMNS, len(tiles)), [report.serial for report in rows])


def _tile(
    report: CameraReport, cameras: Cameras, cloud: PointCloud | None, centre: torch.Tensor
) -> NDArray[np.uint8]:
    assert report.tile is not None
    height, width = report.tile.shape[:2]
    image = report.tile.copy()
    if report.tile_matte is not None:
        head = report.tile_matte > 127
        image[head & ~np.asarray(ndimage.binary_erosion(head), bool)] = OUTLINE
    own = cameras.by_id([report.serial]).resized(width, height)
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    if cloud is not None and len(cloud):
        step = -(-len(cloud) // MAX_POINTS)
        pixels, depth = own.project(cloud.points[::step])
        for (x, y), z in zip(pixels[0].tolist(), depth[0].tolist(), strict=True):
            if z > 0 and 0 <= x < width and 0 <= y < height:
                draw.rectangle([x - 0.5, y - 0.5, x + 0.5, y + 0.5], fill=CLOUD)
    tips = torch.cat([centre[None], centre + AXIS_METRES * torch.eye(3)])
    pixels, depth = own.project(tips)
    if bool((depth > 0).all()) and bool((pixels.abs() < 1e5).all()):
        origin, *ends = [tuple(p) for p in pixels[0].tolist()]
        for end, color in zip(ends, AXIS_COLORS, strict=True):
            draw.line([origin, end], fill=color, width=2)
    return np.asarray(canvas)


def _arranged(reports: list[CameraReport], cameras: Cameras) -> list[CameraReport]:
    """Row by row from above, each from the subject's left (+x) to the right."""
    centres = cameras.by_id([report.serial for report in reports]).centres_world()
    from_above = sorted(range(len(reports)), key=lambda i: -float(centres[i, 1]))
    placed: list[CameraReport] = []
    for start in range(0, len(from_above), COLUMNS):
        row = from_above[start : start + COLUMNS]
        placed += [reports[i] for i in sorted(row, key=lambda i: -float(centres[i, 0]))]
    return placed
