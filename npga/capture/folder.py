"""The plain folder: the simplest layout for any other rig.

    <root>/cameras.json
        {"cameras": {"left": {"K": 3x3, "cam_from_world": 4x4, "width": 1920, "height": 1080}, ...},
         "name": "ada", "fps": 25}
    <root>/<sequence>/cam_left.mp4              or   <root>/<sequence>/cam_left/0000.png ...
    <root>/<sequence>/mattes/cam_left.mp4       or   <root>/<sequence>/mattes/cam_left/0000.png ...
    <root>/<sequence>/clouds/frame_00000.pcd
    <root>/background/cam_left.png

Only cameras.json and one sequence are needed. K belongs to pictures of (width, height) and is
scaled to whatever size the videos have; poses are world to camera, OpenCV axes, metres. Cameras
keep the order of cameras.json. ``fps`` is used for folders of stills. ``name`` is the participant
(otherwise the folder's name).
"""

from pathlib import Path

from npga.capture.calibration import (
    Fault,
    intrinsics_problem,
    numbers,
    pose_problem,
    read_json,
)
from npga.capture.capture import Capture
from npga.capture.clips import STILLS
from npga.capture.types import CalibratedCamera, Layout, SequenceFiles
from npga.core.errors import CaptureError

FOLDER_FILE = "cameras.json"
PREFIX = "cam_"
CORRECT = "Correct it in cameras.json; npga/capture/folder.py shows the format."


def read_folder(root: Path, participant: str | int | None) -> tuple[Capture, list[Fault]]:
    """The capture of a plain folder without unusable cameras, and what is wrong with those.

    Raises CaptureError where cameras.json as a whole cannot be read.
    """
    path = root / FOLDER_FILE
    stored = read_json(path)
    cameras = stored.get("cameras")
    if not isinstance(cameras, dict) or not cameras:
        raise CaptureError(
            f"{path} has the keys {', '.join(stored) or 'none'}; a non-empty object 'cameras' was "
            "expected.",
            CORRECT,
        )
    name = str(stored.get("name", root.name))
    if participant is not None and str(participant) != name:
        raise CaptureError(
            f"There is no participant {participant} in {root}, the plain folder of {name}.",
            f"Leave participant out, or give participant={name}.",
        )
    rig, faults = [], []
    for serial, entry in cameras.items():
        camera, problem = _read_camera(str(serial), entry)
        if camera is None:
            faults.append(Fault(f"{path}, camera {serial}", f"{problem}.", CORRECT))
        else:
            rig.append(camera)
    return Capture(
        root=root,
        participant=name,
        layout=Layout.folder,
        rig=tuple(rig),
        files=_list_sequences(root, list(cameras), _frame_rate(stored, path)),
        backgrounds=_clips_in(root / "background", list(cameras)),
    ), faults


def _read_camera(serial: str, entry: object) -> tuple[CalibratedCamera | None, str]:
    if not isinstance(entry, dict):
        return None, "an object with K, cam_from_world, width and height was expected"
    K, pose = numbers(entry.get("K")), numbers(entry.get("cam_from_world"))
    problem = intrinsics_problem(K) or pose_problem(pose)
    width, height = entry.get("width"), entry.get("height")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        problem = problem or f"width {width!r} and height {height!r} are no picture size"
    if problem is not None or K is None or pose is None:
        return None, str(problem)
    return CalibratedCamera(serial, K, pose, int(str(width)), int(str(height))), ""


def _frame_rate(stored: dict[str, object], path: Path) -> float:
    fps = stored.get("fps", 25.0)
    if not isinstance(fps, int | float) or not 0 < fps < 1e4:
        raise CaptureError(f"{path} has fps {fps!r}; frames per second were expected.", CORRECT)
    return float(fps)


def _list_sequences(root: Path, order: list[str], fps: float) -> tuple[SequenceFiles, ...]:
    sequences = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name != "background"):
        images = _clips_in(folder, order)
        if not images:
            continue
        clouds = folder / "clouds"
        has_clouds = next(clouds.glob("frame_*.pcd"), None) is not None
        mattes = _clips_in(folder / "mattes", order)
        sequences.append(
            SequenceFiles(folder.name, images, mattes, clouds if has_clouds else None, fps)
        )
    return tuple(sequences)


def _clips_in(folder: Path, order: list[str]) -> dict[str, Path]:
    """Clips or stills named cam_<id>, in the order of cameras.json; unknown ids follow."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        fits = path.is_dir() or path.suffix.lower() in (".mp4", *STILLS)
        if path.name.startswith(PREFIX) and fits:
            serial = path.name.removeprefix(PREFIX)
            found[serial if path.is_dir() else Path(serial).stem] = path
    return {serial: found[serial] for serial in sorted(found, key=lambda s: _place(s, order))}


def _place(serial: str, order: list[str]) -> tuple[int, str]:
    return (order.index(serial) if serial in order else len(order), serial)
