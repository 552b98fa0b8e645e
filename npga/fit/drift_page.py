"""A refined track and its drift as files, `drift.html` among them; `drift.py` measures it."""

from pathlib import Path

from npga.core.charts import CHART_STYLE, Line, line_chart
from npga.core.config import as_plain
from npga.core.page import Element, element, facts, figure, page, section, write_page
from npga.core.store import write_json
from npga.fit.drift import OFFSET_MM, ControlDrift, Drift, Range
from nphm_tracking import Track, save_track
from nphm_tracking.result import TRACK_FILE

SHOWN = 16
"""Controls in the table."""

TABLE_STYLE = """
table { border-collapse: collapse; font-size: .85rem; margin: .6rem 0; display: block;
  overflow-x: auto; }
td, th { padding: .15rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; }
"""


def write_drift(folder: Path, drift: Drift, refined: Track, participant: str) -> None:
    """`track.safetensors`, `drift.json` and `drift.html` in a folder."""
    save_track(refined, folder / TRACK_FILE)
    write_json(folder / "drift.json", as_plain(drift))
    write_page(folder / "drift.html", drift_page(drift, participant))


def drift_page(drift: Drift, participant: str) -> str:
    """The whole page as HTML."""
    gauge = "offsets and factors were taken out" if drift.gauge else "nothing was taken out"
    head = facts(
        [
            ("corrected", drift.of.value),
            ("frames", str(len(drift.frames))),
            ("turned", _told(drift.turn_deg, "deg")),
            ("moved", _told(drift.shift_mm, "mm")),
            ("landmarks", _told(drift.landmarks_mm, "mm")),
            ("of which codes", _told(drift.code_landmarks_mm, "mm")),
            ("gauge", gauge),
        ]
    )
    warnings = [element("p", text, class_="bad") for text in drift.warnings]
    parts = [_curves(drift), _worst(drift), _takes(drift)]
    if drift.controls:
        parts.append(_controls(drift.controls))
    title = f"Drift of the track of {participant}"
    return page(
        title, element("h1", title), head, *warnings, *parts, style=CHART_STYLE + TABLE_STYLE
    )


def _told(one: Range, unit: str) -> str:
    return f"{one.median:.2f} {unit}, 95 % below {one.p95:.2f}, at most {one.max:.2f}"


def _curves(drift: Drift) -> Element:
    highest = max(drift.landmarks_mm.max, 1e-3)
    charts = []
    for take in drift.takes:
        mine = [one for one in drift.frames if one.sequence == take.sequence]
        line = Line(
            [one.frame for one in mine],
            [one.landmarks_mm for one in mine],
            [False] * len(mine),
            OFFSET_MM,
            "mm",
        )
        chart = line_chart(line, highest, f"how far landmarks of {take.sequence} moved")
        charts.append(figure(chart, element("b", take.sequence)))
    about = (
        "Mean distance that the face's landmarks moved against the track, by pose and code. From "
        "the dashed line on, a shift that a whole take shares counts as systematic."
    )
    return section("Landmarks", about, element("div", *charts, class_="grid"))


def _worst(drift: Drift) -> Element:
    rows = [
        [one.sequence, str(one.frame)]
        + [f"{value:.2f}" for value in (one.turn_deg, one.shift_mm, one.landmarks_mm)]
        for one in drift.worst
    ]
    header = ["sequence", "frame", "turn, deg", "shift, mm", "landmarks, mm"]
    return section("Worst frames", "Where the track was mended most.", _table(header, rows))


def _takes(drift: Drift) -> Element:
    rows = [
        [one.sequence, str(one.frames)]
        + [
            f"{value:.3f}"
            for value in (one.turn_deg, one.shift_mm, one.taken_turn_deg, one.taken_shift_mm)
        ]
        for one in drift.takes
    ]
    header = ["take", "frames", "turn, deg", "shift, mm", "taken out, deg", "taken out, mm"]
    about = "The mean pose correction of a take: what is left, and what was taken out in all."
    return section("Poses by take", about, _table(header, rows))


def _controls(controls: tuple[ControlDrift, ...]) -> Element:
    rows = [
        [
            one.name,
            f"{one.mean:+.4f}",
            f"{one.rms:.4f}",
            f"{100 * one.factor:+.1f} %",
            f"{one.taken:+.4f} {one.taken_from}",
            f"{100 * one.taken_factor:+.1f} %",
        ]
        for one in controls[:SHOWN]
    ]
    header = ["control", "mean", "rms", "factor", "taken out most", "factor taken out"]
    about = (
        "Controls whose takes are (or would have been) furthest off the track. A mean or a factor "
        "is drift: held-out codes do not have it."
    )
    return section("Codes", about, _table(header, rows))


def _table(header: list[str], rows: list[list[str]]) -> Element:
    lines = [element("tr", *(element("th", cell) for cell in header))]
    lines += [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("table", *lines)
