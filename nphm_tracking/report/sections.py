"""The parts of a track's page, each from a track to elements."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from npga.core.charts import Line, heat_map, line_chart
from npga.core.mesh_picture import cameras_around, mesh_picture
from npga.core.page import Element, element, facts, figure, picture, section
from nphm_tracking.config import TrackConfig
from nphm_tracking.head import TrackableHead, expression_prior
from nphm_tracking.report.choose import (
    FrameChoice,
    distance_text,
    good_residuals,
    reason,
)
from nphm_tracking.report.overlays import posed_mesh
from nphm_tracking.result import SequenceTrack, Track

FACE_RESOLUTION = 128
FACE_SIZE = (220, 240)
"""Of one side of the head, pixels."""
SIDES_DEG = (-45.0, 0.0, 45.0)
HEAD_CENTRE, HEAD_RADIUS = (0.0, 0.06, -0.13), 0.54
"""What the pictures of the head show, head units: crown to neck; shoulders are cut."""
HEAT_ROWS = 16
"""A heat map shows at most so many expressions."""
HEAT_LEAST = 0.1
"""Expressions that stay below this are left out."""


@dataclass(frozen=True)
class Overlay:
    """A frame and its picture."""

    choice: FrameChoice
    image: UInt8[np.ndarray, "h w 3"]


def header(track: Track) -> list[Element]:
    """Who was tracked, with what, and how well."""
    sequences = list(track.sequences.values())
    frames = sum(len(s) for s in sequences)
    good = good_residuals(track)
    median = f"{float(good.median()):.2f} mm" if len(good) else "none"
    scale = float(sequences[0].world_from_head.scale[0])
    told = track.provenance
    rows = [
        ("participant", track.participant),
        ("capture", str(told.get("capture", ""))),
        ("head model", track.head_model_checksum),
        ("frames tracked", str(len(good))),
        ("frames failed", str(frames - len(good))),
        ("median residual", median),
        ("metres per unit", f"{scale:.4f}"),
        ("landmarks", str(told.get("landmarks", ""))),
        ("npga", str(told.get("npga", ""))),
    ]
    return [element("h1", f"Track of {track.participant}"), facts([r for r in rows if r[1]])]


def residuals(track: Track, config: TrackConfig) -> Element:
    """A curve for each sequence, all of one scale."""
    good = good_residuals(track)
    highest = float(good.max()) if len(good) else config.residual_max_mm
    charts = []
    for name, sequence in track.sequences.items():
        line = Line(
            sequence.frames.tolist(),
            sequence.residual_mm.tolist(),
            (~sequence.ok).tolist(),
            config.residual_max_mm,
            "mm",
        )
        chart = line_chart(line, max(highest, 1e-3), f"residuals of {name}")
        charts.append(figure(chart, element("b", name), f": {_told(sequence)}"))
    about = (
        "Median distance of each frame's face points to the tracked surface. "
        "The dashed line is the limit (with an arrow: it lies far above), a red cross a frame that "
        "failed. Hover over a point for its value."
    )
    return section("Residuals", about, element("div", *charts, class_="grid"))


def _told(sequence: SequenceTrack) -> str:
    good = sequence.residual_mm[sequence.ok]
    middle = f", median {float(good.median()):.2f} mm" if len(good) else ""
    return f"{len(good)} of {len(sequence)} frames{middle}"


def overlays(track: Track, shown: list[Overlay]) -> Element:
    """The most expressive good frame of each sequence."""
    figures = [_overlay_figure(track, one, "") for one in shown]
    about = (
        "The most expressive good frame of each sequence, as the most frontal camera sees it: "
        "alone, and under the tracked surface with the triangulated landmarks in red."
    )
    return section("Overlays", about, element("div", *figures, class_="grid"))


def worst(track: Track, shown: list[Overlay], config: TrackConfig) -> Element:
    """The frames with the largest residuals, and why they failed where they did."""
    figures = [_overlay_figure(track, one, reason(track, one.choice, config)) for one in shown]
    about = (
        "The frames with the largest residuals. One that failed is no part of the result; here it "
        "shows the neutral head where its nearest good frame stands."
    )
    return section("Worst frames", about, element("div", *figures, class_="grid"))


def _overlay_figure(track: Track, shown: Overlay, why: str) -> Element:
    name, frame = shown.choice.one.name, shown.choice.frame
    text = f" frame {frame}: {distance_text(track, shown.choice)}"
    marks = [", ", element("span", why, class_="bad")] if why else []
    image = picture(shown.image, f"{name} frame {frame} beside the tracked surface")
    return figure(image, element("b", name), text, *marks)


def faces(track: Track, model: TrackableHead, choice: FrameChoice | None) -> Element:
    """The person's neutral head, and the most expressive one, from three sides."""
    shown = [("Neutral", expression_prior(model).mean)]
    if choice is not None:
        title = f"Most expressive: {choice.one.name} frame {choice.frame}"
        shown.append((title, track.sequences[choice.one.name].z_exp[choice.row]))
    around = cameras_around(torch.tensor(HEAD_CENTRE), HEAD_RADIUS, SIDES_DEG, *FACE_SIZE)
    figures = []
    for title, z_exp in shown:
        with torch.no_grad():
            mesh = posed_mesh(model, track.z_geo, z_exp, FACE_RESOLUTION)
            sides = [mesh_picture(mesh, camera) for camera in around]
        beside = np.concatenate(sides, 1)
        figures.append(figure(picture(beside, f"{title}, from three sides"), element("b", title)))
    about = "The fitted head from its right, from the front and from its left."
    return section("Head", about, element("div", *figures, class_="grid wide"))


def expressions(track: Track, names: tuple[str, ...]) -> Element:
    """The expression codes of each sequence: those that move most."""
    maps = []
    for name, sequence in track.sequences.items():
        codes = sequence.z_exp.clone()
        codes[~sequence.ok] = 0
        peak = codes.abs().amax(0)
        rows = peak.argsort(descending=True, stable=True)[:HEAT_ROWS]
        rows = rows[peak[rows] >= HEAT_LEAST].tolist()
        if not rows:
            maps.append(figure("", element("b", name), ": at rest throughout"))
            continue
        heat = heat_map(
            codes[:, rows].abs().T.double().numpy(),
            (~sequence.ok).numpy(),
            [names[row] for row in rows],
            sequence.frames.tolist(),
            f"expressions of {name}",
        )
        maps.append(figure(heat, element("b", name), f": {len(rows)} of {len(names)} expressions"))
    about = (
        f"The expressions that move most, at most {HEAT_ROWS} a sequence, over its frames: "
        "clear is 0, full is 1. Failed frames are red."
    )
    return section("Expressions", about, element("div", *maps, class_="grid"))
