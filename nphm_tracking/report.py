"""Pictures of a track: the residual of every frame, the tracked head over the pictures."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from npga.capture.types import Capture
from npga.core.cameras import Cameras
from npga.core.images import contact_sheet, write_image
from npga.core.mesh_raster import rasterize_mesh
from npga.core.progress import say
from nphm_tracking.config import TrackConfig
from nphm_tracking.head import TrackableHead
from nphm_tracking.landmarks import frontal_cameras
from nphm_tracking.model.head_model import Codes
from nphm_tracking.observe import Observed
from nphm_tracking.result import SequenceTrack, Track

OVERLAY_WIDTH = 275
OVERLAY_FRAMES = 8
MESH_RESOLUTION = 72
COLOURS = (
    (52, 101, 164),
    (204, 102, 0),
    (60, 140, 60),
    (160, 40, 120),
    (90, 90, 90),
    (0, 140, 150),
)


def write_report(
    track: Track,
    observed: list[Observed],
    capture: Capture,
    model: TrackableHead,
    config: TrackConfig,
    folder: Path,
) -> None:
    """`residuals.png` and `overlay.png` in the folder."""
    write_image(folder / "residuals.png", residual_curves(track, config.residual_max_mm))
    tiles, labels = [], []
    for one, row in overlay_frames(track, observed):
        frame = int(one.frames[row])
        tiles.append(overlay(track, one, row, capture, model, config))
        labels.append(
            f"{one.name} {frame}: {float(track.sequences[one.name].residual_mm[row]):.2f} mm"
        )
    if tiles:
        write_image(folder / "overlay.png", contact_sheet(tiles, 4, labels))
    say(f"track: report in {folder.with_suffix('') if folder.suffix == '.partial' else folder}")


def overlay_frames(track: Track, observed: list[Observed]) -> list[tuple[Observed, int]]:
    """Of each sequence the good frame whose code is farthest from neutral."""
    chosen = []
    for one in observed[:OVERLAY_FRAMES]:
        sequence = track.sequences[one.name]
        if bool(sequence.ok.any()):
            size = sequence.z_exp.abs().sum(1) * sequence.ok
            chosen.append((one, int(size.argmax())))
    return chosen


def overlay(
    track: Track,
    one: Observed,
    row: int,
    capture: Capture,
    model: TrackableHead,
    config: TrackConfig,
) -> UInt8[np.ndarray, "h w 3"]:
    """Picture beside the same picture under the tracked surface and the landmarks."""
    info = capture.sequence(one.name)
    width = min(OVERLAY_WIDTH, info.width)
    height = round(info.height * width / info.width)
    serial = frontal_cameras(capture.cameras(info.serials), 1)
    views = capture.views(one.name, [int(one.frames[row])], serial, width, height, config.cache)
    picture = views.images[0, 0].numpy()
    sequence = track.sequences[one.name]
    shaded = shade(picture, sequence, row, track, model, views.cameras)
    dots = draw_dots(
        shaded, one.data.landmarks[row][one.data.landmark_weight[row] > 0], views.cameras
    )
    return np.concatenate([picture, dots], 1)


def shade(
    picture: UInt8[np.ndarray, "h w 3"],
    sequence: SequenceTrack,
    row: int,
    track: Track,
    model: TrackableHead,
    cameras: Cameras,
) -> UInt8[np.ndarray, "h w 3"]:
    """The posed surface, grey and half transparent, over the picture."""
    mesh = model.mesh(Codes(track.z_geo, track.z_app, sequence.z_exp[row]), MESH_RESOLUTION)
    world = sequence.world_from_head[row].apply(mesh.vertices)
    found = rasterize_mesh(world, mesh.faces, cameras)
    face = found.face[0].numpy()
    corners = world[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = torch.nn.functional.normalize(normal, dim=1)
    light = (normal @ -cameras.axes_world()[0].to(normal)).abs().numpy()
    grey = (60 + 195 * light[np.maximum(face, 0)])[..., None] * np.array([0.75, 0.9, 1.0])
    mixed = np.where(face[..., None] >= 0, 0.35 * picture + 0.65 * grey, picture)
    return mixed.clip(0, 255).astype(np.uint8)


def draw_dots(
    picture: UInt8[np.ndarray, "h w 3"], points_world: Float[Tensor, "n 3"], cameras: Cameras
) -> UInt8[np.ndarray, "h w 3"]:
    """World points as red dots, as the first camera sees them."""
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    if len(points_world):
        pixels, _ = cameras.to(points_world.dtype).project(points_world)
        for x, y in pixels[0].tolist():
            pen.point((x, y), fill=(255, 60, 40))
    return np.asarray(canvas)


def residual_curves(track: Track, limit_mm: float) -> UInt8[np.ndarray, "h w 3"]:
    """One curve per sequence, millimetres over frames; failed frames are red ticks at the top."""
    width, row_height, left = 640, 70, 210
    names = list(track.sequences)
    canvas = Image.new("RGB", (width, row_height * len(names) + 24), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    values = torch.cat([s.residual_mm[s.ok] for s in track.sequences.values()])
    top = max(1.0, 1.2 * float(values.max()) if len(values) else limit_mm)
    pen.text(
        (left, 4), f"median surface distance per frame, full scale {top:.1f} mm", fill=(0, 0, 0)
    )
    for index, name in enumerate(names):
        sequence, base = track.sequences[name], 24 + row_height * (index + 1) - 8
        high = row_height - 16
        median = (
            float(sequence.residual_mm[sequence.ok].median()) if bool(sequence.ok.any()) else 0.0
        )
        text = f"{name[:28]}\n{int(sequence.ok.sum())}/{len(sequence)} ok, {median:.2f} mm"
        pen.text((6, base - high), text, fill=(0, 0, 0))
        pen.line([(left, base), (width - 10, base)], fill=(200, 200, 200))
        step = (width - 10 - left) / max(len(sequence) - 1, 1)
        line = []
        for t, (value, ok) in enumerate(
            zip(sequence.residual_mm.tolist(), sequence.ok.tolist(), strict=True)
        ):
            x = left + step * t
            if ok:
                line.append((x, base - high * value / top))
            else:
                pen.line([(x, base - high), (x, base - high + 8)], fill=(220, 0, 0), width=2)
        if len(line) > 1:
            pen.line(line, fill=COLOURS[index % len(COLOURS)], width=2)
    return np.asarray(canvas)
