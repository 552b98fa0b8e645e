"""What the doctor has to say, and the rules by which measurements become findings."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from npga.capture.examine import CameraReport, ClipReport
from npga.capture.types import CalibratedCamera, PointCloud, SequenceFiles
from npga.core.cameras import Cameras

ASPECT_TOLERANCE = 0.01
BLUR_RATIO, EXPOSURE_RATIO = 0.2, 2.0
"""A camera is an outlier this far from the rig's median sharpness (below) or brightness (both)."""
OUTLIERS_NEED = 4
"""Cameras that make a rig whose median means something."""
MATTE_EMPTY, MATTE_FULL = 0.005, 0.995
CLOUD_INSIDE = 0.8
"""Share of a cloud that must fall into a matte; noise may leave it."""
AGAIN = "Copy or download it again; a truncated file cannot be repaired."


class Severity(StrEnum):
    """How bad a finding is."""

    error = "error"
    """The capture cannot be used as it is."""
    warning = "warning"
    """It can, and the result will show it."""
    note = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor found."""

    severity: Severity
    where: str
    what: str
    todo: str


def inventory(
    files: SequenceFiles, calibrated: tuple[str, ...], in_use: set[str]
) -> Iterator[Finding]:
    """Videos without calibration, and cameras that lack a video or a matte in this sequence."""
    for serial, path in files.images.items():
        if serial not in calibrated:
            yield Finding(
                Severity.error,
                f"{files.name} {serial}",
                f"{path.name} has no usable calibration.",
                "Add its camera to the calibration, or move the video out of the capture.",
            )
    for serial in calibrated:
        if serial in in_use and serial not in files.images:
            yield Finding(
                Severity.warning,
                f"{files.name} {serial}",
                "the video is missing, though this camera has others.",
                "Download it again, or go on without this camera in this sequence.",
            )
        elif files.mattes and serial in files.images and serial not in files.mattes:
            yield Finding(
                Severity.error,
                f"{files.name} {serial}",
                f"the matte is missing; {len(files.mattes)} cameras have one.",
                "Add it, or remove all mattes of this sequence.",
            )


def clip_findings(where: str, report: ClipReport, claimed: int) -> Iterator[Finding]:
    """A clip that does not open or breaks off; ``claimed`` is what its header says."""
    if report.problem is not None:
        yield Finding(Severity.error, where, report.problem.what, report.problem.todo)
    elif report.decoded < claimed:
        what = f"it breaks off: {report.decoded} of {claimed} frames can be decoded."
        yield Finding(Severity.error, where, what, AGAIN)


def size_findings(where: str, report: ClipReport, camera: CalibratedCamera) -> Iterator[Finding]:
    """Pictures whose shape does not fit the calibration's."""
    if report.info is None:
        return
    stretch = (report.info.width / report.info.height) / (camera.width / camera.height)
    if abs(stretch - 1) > ASPECT_TOLERANCE:
        yield Finding(
            Severity.error,
            where,
            f"pictures are {report.info.width}x{report.info.height}; the calibration is for "
            f"{camera.width}x{camera.height}, another shape.",
            "Use uncropped videos, or a calibration of the crop.",
        )


def matte_findings(where: str, report: CameraReport) -> Iterator[Finding]:
    """Mattes of another shape or length than the pictures, empty or full."""
    matte, picture = report.matte, report.picture
    if matte is None or matte.info is None or picture.info is None:
        return
    stretch = (matte.info.width / matte.info.height) / (picture.info.width / picture.info.height)
    sizes = f"{matte.info.width}x{matte.info.height}"
    if abs(stretch - 1) > ASPECT_TOLERANCE:
        what = f"the matte is {sizes}, pictures {picture.info.width}x{picture.info.height}."
        yield Finding(Severity.error, where, what, "Make the mattes from these very pictures.")
    if matte.problem is None and matte.decoded < picture.decoded:
        what = f"the matte has {matte.decoded} frames, the video {picture.decoded}."
        yield Finding(Severity.error, where, what, "Make the mattes from these very pictures.")
    if report.coverage < MATTE_EMPTY or report.coverage > MATTE_FULL:
        kind = "empty" if report.coverage < MATTE_EMPTY else "full"
        what = f"the matte is {kind} ({report.coverage:.1%} head)."
        yield Finding(Severity.warning, where, what, "Look at it; leave the camera out if need be.")


def count_findings(name: str, reports: list[CameraReport]) -> Iterator[Finding]:
    """Cameras of one sequence with different numbers of frames."""
    counts = {r.serial: r.picture.decoded for r in reports if r.picture.problem is None}
    if len(set(counts.values())) > 1:
        least, most = min(counts, key=counts.__getitem__), max(counts.values())
        yield Finding(
            Severity.warning,
            name,
            f"cameras have {counts[least]} to {most} frames (shortest: {least}).",
            f"Only the first {counts[least]} are used; check that the rest is in step.",
        )


def outlier_findings(name: str, reports: Iterable[CameraReport]) -> Iterator[Finding]:
    """Cameras much blurrier, darker or brighter than the rig."""
    measured = [r for r in reports if np.isfinite(r.sharpness) and np.isfinite(r.brightness)]
    if len(measured) < OUTLIERS_NEED:
        return
    sharp = max(float(np.median([r.sharpness for r in measured])), 1e-12)
    bright = max(float(np.median([r.brightness for r in measured])), 1e-6)
    for report in measured:
        where = f"{name} {report.serial}"
        if report.sharpness < BLUR_RATIO * sharp:
            what = f"it is blurred: {report.sharpness / sharp:.2f} of the rig's median sharpness."
            yield Finding(Severity.warning, where, what, "Look at it; leave it out if need be.")
        exposure = report.brightness / bright
        if not 1 / EXPOSURE_RATIO <= exposure <= EXPOSURE_RATIO:
            what = f"its head is {exposure:.2f} times as bright as the rig's median."
            yield Finding(Severity.warning, where, what, "Check exposure and colour calibration.")


def cloud_findings(
    name: str, reports: Iterable[CameraReport], cameras: Cameras, cloud: PointCloud
) -> Iterator[Finding]:
    """Cameras into whose matte the capture's cloud does not fall."""
    for report in reports:
        inside = share_inside(report, cameras, cloud)
        if inside < CLOUD_INSIDE:
            yield Finding(
                Severity.warning,
                f"{name} {report.serial}",
                f"only {inside:.0%} of the first cloud falls into the matte (see the overlay).",
                "Camera pose, cloud and matte do not belong together; check units and axes.",
            )


def share_inside(report: CameraReport, cameras: Cameras, cloud: PointCloud) -> float:
    """The share of a cloud's points in the picture that fall into the matte; NaN without a matte.

    Where less than half of the cloud is in the picture, the share is of that half.
    """
    if report.tile_matte is None or not len(cloud):
        return float("nan")
    height, width = report.tile_matte.shape
    pixels, depth = cameras.by_id([report.serial]).resized(width, height).project(cloud.points)
    column, row = np.floor(pixels[0].numpy()).clip(-1, max(width, height)).astype(int).T
    seen = (depth[0].numpy() > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    head = np.zeros(len(column), bool)
    head[seen] = report.tile_matte[row[seen], column[seen]] > 0
    return float(head.sum() / max(seen.sum(), 0.5 * len(cloud)))
