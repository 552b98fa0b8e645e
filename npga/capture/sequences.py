"""Finding a sequence by its name, and what its containers say about it."""

import difflib
import logging
from pathlib import Path

from npga.capture.clips import probe_clip
from npga.capture.types import SequenceFiles, SequenceInfo
from npga.core.errors import CaptureError

log = logging.getLogger(__name__)

RENAMED = {"SEN-07-fond_note_fried": "SEN-07-fond_note_friend"}
"""Until nersemble-data 0.0.5 and in nersemble-benchmark 0.2.0 | as the server has it."""


def sequence_key(name: str) -> str:
    """The name up to its first number, before any free text: EXP-2-eyes -> EXP-2."""
    parts = name.split("-")
    for place, part in enumerate(parts):
        if part.isdigit():
            return "-".join(parts[: place + 1])
    return name


def match_sequence(query: str, names: tuple[str, ...], root: Path) -> str:
    """The one of ``names`` that is meant; raises CaptureError (with close names) if none is.

    Accepted are the name itself, its beginning as long as that goes up to the number (SEN-07, but
    not SEN), and the two spellings of SEN-07.
    """
    if query in names:
        return query
    renamed = query in RENAMED or query in RENAMED.values()
    for name in names:
        if sequence_key(name) == sequence_key(query) and (name.startswith(query) or renamed):
            return name
    close = difflib.get_close_matches(query, names, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise CaptureError(
        f"There is no sequence {query!r} in {root}.",
        f"{hint}It has {', '.join(names) or 'none at all'}.",
    )


def probe_sequence(files: SequenceFiles, calibrated: tuple[str, ...]) -> SequenceInfo:
    """Open every video's header; frame_count is the least, with a warning if they differ.

    Raises CaptureError if a video cannot be opened, sizes differ or a camera is not calibrated.
    """
    for serial, path in files.images.items():
        if serial not in calibrated:
            raise CaptureError(
                f"{path}: the calibration lacks camera {serial}; it has {', '.join(calibrated)}.",
                "Add that camera to the calibration, or move its videos out of the capture.",
            )
    order = {serial: place for place, serial in enumerate(calibrated)}
    serials = tuple(sorted(files.images, key=order.__getitem__))
    infos = {serial: probe_clip(files.images[serial], files.stills_fps) for serial in serials}
    counts = {serial: info.frame_count for serial, info in infos.items()}
    least = min(counts, key=counts.__getitem__)
    if max(counts.values()) != counts[least]:
        log.warning(
            "%s: cameras have %d to %d frames; the first %d are used (shortest: %s).",
            files.name,
            counts[least],
            max(counts.values()),
            counts[least],
            least,
        )
    first = infos[serials[0]]
    return SequenceInfo(files.name, serials, counts[least], first.fps, first.width, first.height)
