"""Charts as inline SVG for a page: a line over frames, and a map of rows over frames.

Colours are the page's own variables, so that both follow light and dark; hover titles are SVG's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from npga.core.page import Element, element, image_data, short

WIDTH, HEIGHT = 360, 140
"""Of a line chart, in SVG units: a phone's width, so that its letters stay readable there."""
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 24, 20
NAME_WIDTH, ROW_HEIGHT = 112, 12
"""Of a heat map: room for the rows' names, and one row."""
HEADROOM = 1.15
LIMIT_REACH = 2.5
"""A limit above so many times the largest value is off the scale: at the top, with an arrow."""
HEAT, GAP = (52, 120, 200), (198, 40, 40, 90)

CHART_STYLE = """
svg text { font: 10px system-ui, sans-serif; fill: var(--soft); }
svg .end { text-anchor: end; }
svg .axis { stroke: var(--line); fill: none; }
svg .limit { stroke: var(--soft); stroke-dasharray: 4 3; }
svg .curve { stroke: var(--accent); fill: none; stroke-width: 1.5; stroke-linejoin: round; }
svg .point { fill: var(--accent); }
svg .failed { stroke: var(--bad); stroke-width: 1.5; fill: none; }
svg .hover { fill: transparent; }
svg .heat { image-rendering: pixelated; }
"""


@dataclass(frozen=True)
class Line:
    """One value per frame, with the limit that it is held against."""

    frames: Sequence[int]
    values: Sequence[float]
    """Not finite where there is none; shown only where `failed` is False."""
    failed: Sequence[bool]
    limit: float
    unit: str
    axis: str = "frame"
    """What is counted from left to right."""


def line_chart(line: Line, scale_max: float, label: str) -> Element:
    """The values over the frames; failed frames are red crosses at the top.

    `scale_max` is the largest value of all charts that are compared; `label` tells those who cannot
    see it what it shows. The curve is broken at failed frames and has a point for each good one.
    """
    below = line.limit <= LIMIT_REACH * scale_max
    high = HEADROOM * (line.limit if below else scale_max)
    first, last = min(line.frames, default=0), max(line.frames, default=0)

    def x(frame: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (frame - first) / max(last - first, 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value / high, 1.0)

    parts = _axes(line, high, (first, last), y(line.limit), below)
    run: list[str] = []
    points, curves = [], []
    for frame, value, failed in zip(line.frames, line.values, line.failed, strict=True):
        if failed or not math.isfinite(value):
            text = f"{line.axis} {frame}: failed" + _value(value, line.unit, ", ")
            points.append(_cross(x(frame), text))
            run = _finished(run, curves)
            continue
        run.append(f"{short(x(frame))},{short(y(value))}")
        title = element("title", f"{line.axis} {frame}: {_value(value, line.unit)}")
        points.append(element("circle", title, cx=x(frame), cy=y(value), r=2, class_="point"))
    _finished(run, curves)
    return _svg(WIDTH, HEIGHT, label, *parts, *curves, *points)


def _finished(run: list[str], curves: list[Element]) -> list[str]:
    if run:
        curves.append(element("polyline", points=" ".join(run), class_="curve"))
    return []


def _value(value: float, unit: str, before: str = "") -> str:
    return f"{before}{value:.2f} {unit}" if math.isfinite(value) else ""


def _cross(x: float, text: str) -> Element:
    a, b, c, d = short(x - 3), short(x + 3), short(TOP - 9), short(TOP - 3)
    strokes = f"M{a} {c}L{b} {d}M{b} {c}L{a} {d}M{short(x)} {TOP}V{HEIGHT - BOTTOM}"
    return element("path", element("title", text), d=strokes, class_="failed")


def _axes(
    line: Line, high: float, ends: tuple[int, int], limit_y: float, below: bool
) -> list[Element]:
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    arrow = "" if below else " ↑"
    limit = f"limit {short(line.limit)} {line.unit}{arrow}"
    return [
        element("path", d=f"M{LEFT} {TOP}V{base}H{right}", class_="axis"),
        element("path", d=f"M{LEFT} {short(limit_y)}H{right}", class_="limit"),
        element("text", limit, x=right, y=9, class_="end"),
        element("text", short(round(high, 1)), x=LEFT - 4, y=TOP + 4, class_="end"),
        element("text", "0", x=LEFT - 4, y=base + 3, class_="end"),
        element("text", line.unit, x=LEFT - 4, y=(TOP + base) / 2, class_="end"),
        element("text", f"{line.axis} {ends[0]}", x=LEFT, y=HEIGHT - 6),
        element("text", str(ends[1]), x=right, y=HEIGHT - 6, class_="end"),
    ]


def _svg(width: float, height: float, label: str, *parts: Element) -> Element:
    box = f"0 0 {short(width)} {short(height)}"
    return element("svg", element("title", label), *parts, viewBox=box, role="img")


def heat_map(
    values: Float[np.ndarray, "n t"],
    failed: Bool[np.ndarray, "t"],
    names: Sequence[str],
    frames: Sequence[int],
    label: str,
) -> Element:
    """Rows of values 0..1 over the frames: the fuller the colour, the larger; failed frames red."""
    count, steps = values.shape
    pixels = np.zeros((count, steps, 4), np.uint8)
    pixels[..., :3] = HEAT
    pixels[..., 3] = (255 * values.clip(0, 1)).round()
    pixels[:, failed] = GAP
    height, width = count * ROW_HEIGHT, WIDTH - NAME_WIDTH - RIGHT
    place = {"x": NAME_WIDTH, "y": 0, "width": width, "height": height}
    heat = element(
        "image", href=image_data(pixels), preserveAspectRatio="none", class_="heat", **place
    )
    parts = [heat, element("rect", **place, class_="axis")]
    for row, name in enumerate(names):
        peak = int(np.where(failed, -1.0, values[row]).argmax())
        text = f"{name}: at most {values[row, peak]:.2f}, frame {frames[peak]}"
        middle = (row + 0.5) * ROW_HEIGHT
        parts.append(element("text", name, x=NAME_WIDTH - 5, y=middle + 3.5, class_="end"))
        band = {"x": 0, "y": row * ROW_HEIGHT, "width": WIDTH, "height": ROW_HEIGHT}
        parts.append(element("rect", element("title", text), **band, class_="hover"))
    below = height + 13
    parts.append(element("text", f"frame {frames[0]}", x=NAME_WIDTH, y=below))
    parts.append(element("text", str(frames[-1]), x=WIDTH - RIGHT, y=below, class_="end"))
    return _svg(WIDTH, height + 18, label, *parts)
