"""What to look at after tracking: one page, a sheet of overlays, and where the head began.

`report.html` needs nothing beside it; `overlay.png` is its sheet of overlays; `alignment.png` is
written before anything is solved, so that it is there when tracking fails.
"""

from nphm_tracking.report.overlays import ALIGNMENT_FILE, write_alignment
from nphm_tracking.report.write import OVERLAY_FILE, REPORT_FILE, write_report

__all__ = [
    "ALIGNMENT_FILE",
    "OVERLAY_FILE",
    "REPORT_FILE",
    "write_alignment",
    "write_report",
]
