"""The doctor: examines a capture and never stops at the first thing that is wrong.

Calibration faults, missing, short and truncated clips, mattes and clouds that do not fit, blurred
and badly exposed cameras; see ``findings.py`` for the rules and ``overlay.py`` for the picture.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npga.capture.capture import Capture
from npga.capture.examine import CameraReport, examine_camera
from npga.capture.findings import (
    Finding,
    Severity,
    clip_findings,
    cloud_findings,
    count_findings,
    inventory,
    matte_findings,
    outlier_findings,
    size_findings,
)
from npga.capture.open import inspect_capture
from npga.capture.overlay import overlay
from npga.capture.parallel import Stop, in_threads
from npga.capture.pcd import read_pcd
from npga.capture.types import PointCloud, SequenceFiles
from npga.core.errors import CaptureError
from npga.core.progress import bar

METADATA = "metadata_sequences.csv"


@dataclass(frozen=True)
class CheckReport:
    """Everything the doctor found."""

    capture: Capture
    findings: tuple[Finding, ...]
    overlay: NDArray[np.uint8] | None
    """Contact sheet [h w 3]; None if no camera has both a picture and a calibration."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make the capture unusable as it is."""
        return tuple(f for f in self.findings if f.severity is Severity.error)


def check_capture(
    root: Path | str,
    participant: str | int | None = None,
    sequences: Sequence[str] = (),
    *,
    decode: bool = True,
    workers: int = 2,
) -> CheckReport:
    """Examine some sequences (default: all); ``decode`` decodes every frame of every clip.

    Raises CaptureError only where there is no capture to examine.
    """
    capture, faults = inspect_capture(root, participant)
    findings = [Finding(Severity.error, f.where, f.what, f.todo) for f in faults]
    chosen = [capture.sequence_files(name) for name in sequences] or list(capture.files)
    if not chosen:
        findings.append(
            Finding(
                Severity.error,
                str(capture.root),
                "there is no sequence with videos.",
                "Download some, or see npga/capture for where they belong.",
            )
        )
    findings += _table_findings(capture)
    in_use = {serial for files in capture.files for serial in files.images}
    pictures: list[tuple[int, NDArray[np.uint8]]] = []
    clips = sum(len(files.images) for files in chosen)
    with bar("examine", clips) as shown:
        for files in chosen:
            findings += inventory(files, capture.serials, in_use)
            reports = _examine(capture, files, decode, workers, shown.update)
            cloud, problems = _first_cloud(files)
            findings += problems
            findings += _sequence_findings(capture, files, reports, cloud)
            if not pictures or (cloud is not None and pictures[0][0] == 0):
                sheet = _overlay(capture, reports, cloud)
                if sheet is not None:
                    pictures[:] = [(0 if cloud is None else 1, sheet)]
    return CheckReport(capture, tuple(findings), pictures[0][1] if pictures else None)


def _examine(
    capture: Capture,
    files: SequenceFiles,
    decode: bool,
    workers: int,
    advance: Callable[[], object],
) -> list[CameraReport]:
    """All cameras of a sequence, ``workers`` at a time."""
    frame = _cloud_frames(files)[0] if _cloud_frames(files) else 0

    def examine(serial: str, stop: Stop) -> CameraReport:
        stop.check()
        report = examine_camera(
            serial,
            files.images[serial],
            files.mattes.get(serial),
            capture.color_matrices.get(serial),
            frame=frame,
            decode=decode,
            stills_fps=files.stills_fps,
        )
        advance()
        return report

    return in_threads(examine, list(files.images), workers)


def _sequence_findings(
    capture: Capture,
    files: SequenceFiles,
    reports: list[CameraReport],
    cloud: PointCloud | None,
) -> Iterator[Finding]:
    rig = {camera.serial: camera for camera in capture.rig}
    for report in reports:
        where = f"{files.name} {report.serial}"
        for kind, clip in (("video", report.picture), ("matte", report.matte)):
            if clip is not None:
                claimed = clip.info.frame_count if clip.info is not None else 0
                yield from clip_findings(f"{where} {kind}", clip, claimed)
        if report.serial in rig:
            yield from size_findings(where, report.picture, rig[report.serial])
        yield from matte_findings(where, report)
    yield from count_findings(files.name, reports)
    yield from outlier_findings(files.name, reports)
    known = [report for report in reports if report.serial in rig]
    if cloud is not None and known:
        cameras = capture.cameras([r.serial for r in known], *_any_size(capture))
        yield from cloud_findings(files.name, known, cameras, cloud)


def _overlay(
    capture: Capture, reports: list[CameraReport], cloud: PointCloud | None
) -> NDArray[np.uint8] | None:
    known = [report for report in reports if report.serial in capture.serials]
    if not known:
        return None
    cameras = capture.cameras([r.serial for r in known], *_any_size(capture))
    return overlay(known, cameras, cloud)


def _any_size(capture: Capture) -> tuple[int, int]:
    """A picture size that needs no video to be opened."""
    return capture.rig[0].width, capture.rig[0].height


def _cloud_frames(files: SequenceFiles) -> list[int]:
    if files.clouds is None:
        return []
    numbers = (path.stem.removeprefix("frame_") for path in files.clouds.glob("frame_*.pcd"))
    return sorted(int(number) for number in numbers if number.isdigit())


def _first_cloud(files: SequenceFiles) -> tuple[PointCloud | None, list[Finding]]:
    """The first readable cloud, and those that are broken."""
    first, problems = None, []
    for path in sorted(files.clouds.glob("frame_*.pcd")) if files.clouds is not None else ():
        try:
            cloud = read_pcd(path)
        except CaptureError as error:
            where = f"{files.name} {path.name}"
            problems.append(Finding(Severity.error, where, error.what, error.todo))
            continue
        first = first or cloud
    return first, problems


def _table_findings(capture: Capture) -> Iterator[Finding]:
    """Sequences that the dataset's table promises and the disk lacks."""
    path = capture.root / METADATA
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("ID", "").isdigit()]
    for row in rows:
        if row["ID"].zfill(3) != capture.participant:
            continue
        promised = {name for name, cell in row.items() if cell in ("x", "m")}
        missing = sorted(promised - {*capture.sequence_names, "BACKGROUND"})
        if missing:
            yield Finding(
                Severity.note,
                path.name,
                f"{len(missing)} sequences of {capture.participant} are not on disk: "
                f"{', '.join(missing)}.",
                "Download them if you need them.",
            )
