"""A track -> `report.html`, one page that needs nothing beside it, and `overlay.png`."""

from pathlib import Path

from npga.capture import Capture
from npga.core.charts import CHART_STYLE
from npga.core.images import contact_sheet, write_image
from npga.core.page import page, write_page
from npga.core.progress import say
from nphm_tracking.config import TrackConfig
from nphm_tracking.head import TrackableHead
from nphm_tracking.observe import Observed
from nphm_tracking.report import sections
from nphm_tracking.report.choose import (
    FrameChoice,
    distance_text,
    expressive_frames,
    most_expressive,
    worst_frames,
)
from nphm_tracking.report.overlays import SHEET_COLUMNS, tracked_overlay
from nphm_tracking.report.sections import Overlay
from nphm_tracking.result import Track

REPORT_FILE = "report.html"
OVERLAY_FILE = "overlay.png"
WORST_FRAMES = 6
STYLE = """
.grid { align-items: start; }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)); }
"""


def write_report(
    track: Track,
    observed: list[Observed],
    capture: Capture,
    model: TrackableHead,
    config: TrackConfig,
    folder: Path,
) -> None:
    """`report.html` and `overlay.png` in the folder."""

    def pictures(choices: list[FrameChoice]) -> list[Overlay]:
        return [
            Overlay(c, tracked_overlay(track, c.one, c.row, capture, model, config))
            for c in choices
        ]

    choices = expressive_frames(track, observed)
    shown = pictures(choices)
    if shown:
        labels = [f"{c.one.name} {c.frame}: {distance_text(track, c)}" for c in choices]
        columns = min(SHEET_COLUMNS, len(shown))
        sheet = contact_sheet([one.image for one in shown], columns, labels)
        write_image(folder / OVERLAY_FILE, sheet)
    worst = pictures(worst_frames(track, observed, WORST_FRAMES))
    body = [
        *sections.header(track),
        sections.residuals(track, config),
        sections.overlays(track, shown),
        sections.faces(track, model, most_expressive(track, choices) if choices else None),
        sections.worst(track, worst, config),
    ]
    if model.expression_names:
        body.append(sections.expressions(track, tuple(model.expression_names)))
    text = page(f"Track of {track.participant}", *body, style=CHART_STYLE + STYLE)
    write_page(folder / REPORT_FILE, text)
    home = folder.with_suffix("") if folder.suffix == ".partial" else folder
    say(f"track: report in {home / REPORT_FILE}")
