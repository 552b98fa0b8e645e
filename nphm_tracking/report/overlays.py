"""A picture of the capture beside the same picture under a head mesh and the landmarks."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from npga.capture import Capture
from npga.core.cameras import Cameras
from npga.core.images import contact_sheet, write_image
from npga.core.mesh import Mesh
from npga.core.mesh_picture import lay_over, mesh_picture
from nphm_tracking.config import TrackConfig
from nphm_tracking.head import TrackableHead, expression_prior, geometry_prior
from nphm_tracking.landmarks import frontal_cameras
from nphm_tracking.model.head_model import Codes
from nphm_tracking.observe import Observed
from nphm_tracking.result import Track

ALIGNMENT_FILE = "alignment.png"
OVERLAY_WIDTH = 320
MESH_RESOLUTION = 72
OPACITY = 0.7
DOT_COLOUR = (255, 60, 40)
DOT_RADIUS = 1.2
"""Pixels."""
SHEET_COLUMNS = 4


def write_alignment(
    observed: list[Observed],
    capture: Capture,
    model: TrackableHead,
    config: TrackConfig,
    folder: Path,
) -> Path:
    """`alignment.png`: the mean head at the first pose of a frame of each sequence; its path.

    Kept where it is there already (an interrupted run's). The frame is the first that has enough
    points, or else the first.
    """
    path = folder / ALIGNMENT_FILE
    if path.exists():
        return path
    mean = posed_mesh(model, geometry_prior(model).mean, expression_prior(model).mean)
    tiles, labels = [], []
    for one in observed:
        row = int(one.enough.int().argmax())
        world = Mesh(one.start[row].apply(mean.vertices), mean.faces)
        tiles.append(overlay(one, row, world, capture, config))
        labels.append(f"{one.name} {int(one.frames[row])}: mean head, first pose")
    write_image(path, contact_sheet(tiles, min(SHEET_COLUMNS, len(tiles)), labels))
    return path


def tracked_overlay(
    track: Track,
    one: Observed,
    row: int,
    capture: Capture,
    model: TrackableHead,
    config: TrackConfig,
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame as it was tracked; a failed one shows the neutral head at its neighbour's pose."""
    sequence = track.sequences[one.name]
    mesh = posed_mesh(model, track.z_geo, sequence.z_exp[row])
    world = Mesh(sequence.world_from_head[row].apply(mesh.vertices), mesh.faces)
    return overlay(one, row, world, capture, config)


def posed_mesh(
    model: TrackableHead,
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "e"],
    resolution: int = MESH_RESOLUTION,
    canonical: bool = False,
) -> Mesh:
    """The head's surface, head space."""
    codes = Codes(z_geo, z_geo.new_zeros(model.app_size), z_exp)
    return model.mesh(codes, resolution, canonical)


def overlay(
    one: Observed, row: int, mesh_world: Mesh, capture: Capture, config: TrackConfig
) -> UInt8[np.ndarray, "h w 3"]:
    """Picture of the most frontal camera beside the same under the mesh and the landmarks."""
    info = capture.sequence(one.name)
    width = min(OVERLAY_WIDTH, info.width)
    height = round(info.height * width / info.width)
    serial = frontal_cameras(capture.cameras(info.serials), 1)
    views = capture.views(one.name, [int(one.frames[row])], serial, width, height, config.cache)
    picture = views.images[0, 0].numpy()
    seen = one.data.landmarks[row][one.data.landmark_weight[row] > 0]
    shown = draw_dots(shade(picture, mesh_world, views.cameras), seen, views.cameras)
    return np.concatenate([picture, shown], 1)


def shade(
    picture: UInt8[np.ndarray, "h w 3"], mesh_world: Mesh, cameras: Cameras
) -> UInt8[np.ndarray, "h w 3"]:
    """The surface, grey and partly transparent, over the first camera's picture."""
    with torch.no_grad():
        return lay_over(picture, mesh_picture(mesh_world, cameras), OPACITY)


def draw_dots(
    picture: UInt8[np.ndarray, "h w 3"], points_world: Float[Tensor, "n 3"], cameras: Cameras
) -> UInt8[np.ndarray, "h w 3"]:
    """World points as red dots, as the first camera sees them."""
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    if len(points_world):
        pixels, _ = cameras.to(points_world.dtype).project(points_world)
        for x, y in pixels[0].tolist():
            box = (x - DOT_RADIUS, y - DOT_RADIUS, x + DOT_RADIUS, y + DOT_RADIUS)
            pen.ellipse(box, fill=DOT_COLOUR)
    return np.asarray(canvas)
