"""The NeRSemble v2 and NeRSemble benchmark layouts.

    <PPP>/calibration/camera_params.json      {"world_2_cam": {serial: 4x4}, "intrinsics": ...}
    <PPP>/calibration/color_calibration.json  {serial: 3xT}, v2 only
    <PPP>/sequences/<SEQ>/images/cam_<SERIAL>.mp4
    <PPP>/sequences/<SEQ>/alpha_maps/cam_<SERIAL>.mp4, pointclouds/frame_%05d.pcd    (benchmark)
    <PPP>/sequences/BACKGROUND/image_<SERIAL>.jpg                                    (v2)

``intrinsics`` is one matrix for pictures of 2200x3208 in v2 (unless ``width`` and ``height`` say
otherwise) and one matrix per camera at the size of the videos in the benchmark, whose pictures
stand on white. Source: nersemble-data 0.0.6 and nersemble-benchmark 0.2.0.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npga.capture.calibration import (
    AGAIN,
    Fault,
    intrinsics_problem,
    numbers,
    pose_problem,
    read_color_matrices,
    read_json,
)
from npga.capture.capture import Capture
from npga.capture.clips import probe_clip
from npga.capture.types import CalibratedCamera, Layout, SequenceFiles
from npga.core.errors import CaptureError

REFERENCE_WIDTH, REFERENCE_HEIGHT = 2200, 3208
SERIALS = (
    "222200042 222200044 222200046 222200040 222200036 222200048 220700191 222200041 "
    "222200037 222200038 222200047 222200043 222200049 222200039 222200045 221501007"
).split()
"""The rig's cameras in the order that every publication counts them."""
BENCHMARK_TASKS = {"nvs": (1100, 1604), "mono_flame_avatar": (512, 512)}
"""Folder and picture size (width, height) of the benchmark's multi-view tasks."""
VIDEO = re.compile(r"cam_(\d{9})\.mp4")
STILL = re.compile(r"image_(\d{9})\.(?:jpg|jpeg|png)")
PARTICIPANT = re.compile(r"\d{3,}")
BACKGROUND = "BACKGROUND"


def participants_in(root: Path) -> dict[str, Path]:
    """Folders of all participants; the root itself goes before the benchmark's tasks."""
    found: dict[str, Path] = {}
    for parent in (root, *(root / task for task in BENCHMARK_TASKS)):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            params = folder / "calibration" / "camera_params.json"
            if PARTICIPANT.fullmatch(folder.name) and params.is_file():
                found.setdefault(folder.name, folder)
    return dict(sorted(found.items()))


def read_nersemble(folder: Path, root: Path) -> tuple[Capture, list[Fault]]:
    """One participant without unusable cameras, and what is wrong with those.

    Raises CaptureError where the calibration as a whole cannot be read.
    """
    path = folder / "calibration" / "camera_params.json"
    params = read_json(path)
    poses = params.get("world_2_cam")
    if not isinstance(poses, dict) or not poses or "intrinsics" not in params:
        raise CaptureError(
            f"{path} has the keys {', '.join(params) or 'none'}; a non-empty world_2_cam and "
            "intrinsics were expected.",
            AGAIN,
        )
    files = _list_sequences(folder / "sequences")
    benchmark = isinstance(params["intrinsics"], dict)
    size = _reference_size(params, files, folder, benchmark)
    rig, faults = _read_rig(path, poses, params["intrinsics"], size)
    serials = tuple(camera.serial for camera in rig)
    colors, color_faults = read_color_matrices(path.with_name("color_calibration.json"), serials)
    stills = _matching(folder / "sequences" / BACKGROUND, STILL)
    capture = Capture(
        root=root,
        participant=folder.name,
        layout=Layout.nersemble_benchmark if benchmark else Layout.nersemble,
        rig=rig,
        files=files,
        color_matrices=colors,
        backgrounds={} if benchmark else stills,
        background_removed=benchmark,
    )
    return capture, faults + color_faults


def rig_order(serials: list[str]) -> list[str]:
    """Serials in the official order; others follow, sorted."""
    known = {serial: place for place, serial in enumerate(SERIALS)}
    return sorted(serials, key=lambda serial: (known.get(serial, len(known)), serial))


def _read_rig(
    path: Path, poses: dict[str, object], intrinsics: object, size: tuple[int, int]
) -> tuple[tuple[CalibratedCamera, ...], list[Fault]]:
    rig, faults = [], []
    for serial in rig_order(list(poses)):
        given = intrinsics.get(serial) if isinstance(intrinsics, dict) else intrinsics
        pose, K = numbers(poses[serial]), numbers(given)
        problem = pose_problem(pose) or intrinsics_problem(K)
        if isinstance(intrinsics, dict) and serial not in intrinsics:
            problem = "the calibration lacks this camera's intrinsics"
        if problem is not None or pose is None or K is None:
            faults.append(Fault(f"{path}, camera {serial}", f"{problem}.", AGAIN))
            continue
        rig.append(CalibratedCamera(serial, _frozen(K), _frozen(pose), *size))
    return tuple(rig), faults


def _frozen(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix.setflags(write=False)
    return matrix


def _reference_size(
    params: dict[str, object], files: tuple[SequenceFiles, ...], folder: Path, benchmark: bool
) -> tuple[int, int]:
    """The picture size (width, height) that K belongs to."""
    width, height = params.get("width"), params.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    if not benchmark:
        return REFERENCE_WIDTH, REFERENCE_HEIGHT
    for sequence in files:
        for video in sequence.images.values():
            info = probe_clip(video)
            return info.width, info.height
    return BENCHMARK_TASKS.get(folder.parent.name, BENCHMARK_TASKS["nvs"])


def _list_sequences(folder: Path) -> tuple[SequenceFiles, ...]:
    sequences = []
    for sequence in sorted(folder.iterdir()) if folder.is_dir() else ():
        images = _matching(sequence / "images", VIDEO)
        if sequence.name == BACKGROUND or not images:
            continue
        mattes = _matching(sequence / "alpha_maps", VIDEO)
        clouds = sequence / "pointclouds"
        has_clouds = next(clouds.glob("frame_*.pcd"), None) is not None
        sequences.append(
            SequenceFiles(sequence.name, images, mattes, clouds if has_clouds else None)
        )
    return tuple(sequences)


def _matching(folder: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    """Files whose name gives a serial, in the rig's order."""
    if not folder.is_dir():
        return {}
    named = ((pattern.fullmatch(path.name), path) for path in folder.iterdir())
    found = {match.group(1): path for match, path in named if match}
    return {serial: found[serial] for serial in rig_order(list(found))}
