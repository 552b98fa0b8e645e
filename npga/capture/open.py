"""The door to a capture: which layout a folder has, by explicit rules, and nothing guessed.

    <root>/cameras.json                                     a plain folder (``folder.py``)
    <root>/<PPP>/calibration/camera_params.json             NeRSemble v2, or a benchmark task folder
    <root>/nvs|mono_flame_avatar/<PPP>/calibration/...      NeRSemble benchmark

Whether NeRSemble files are v2 or benchmark is told by ``intrinsics`` (one matrix, or several).
"""

from pathlib import Path

from npga.capture.calibration import Fault
from npga.capture.capture import Capture
from npga.capture.folder import FOLDER_FILE, read_folder
from npga.capture.nersemble import BENCHMARK_TASKS, participants_in, read_nersemble
from npga.core.errors import CaptureError

DEMO_CAPTURE = Path(__file__).resolve().parents[1] / "assets" / "demo" / "capture"
"""The capture that ships with the package."""

LAYOUTS = (
    "Expected <root>/<PPP>/calibration/camera_params.json (NeRSemble v2), "
    "<root>/nvs|mono_flame_avatar/<PPP>/calibration/camera_params.json (NeRSemble benchmark) "
    "or <root>/cameras.json (plain folder); point capture= at such a folder."
)


def open_capture(root: Path | str, participant: str | int | None = None) -> Capture:
    """The capture of one person; ``participant`` may be left out where there is only one.

    Raises CaptureError: no folder, no known layout, unknown participant, unusable calibration.
    """
    capture, faults = inspect_capture(root, participant)
    if faults:
        raise CaptureError(f"{faults[0].where}: {faults[0].what}", faults[0].todo)
    return capture


def inspect_capture(
    root: Path | str, participant: str | int | None = None
) -> tuple[Capture, list[Fault]]:
    """A capture without its unusable cameras, and what is wrong with those (for the doctor)."""
    folder = Path(root).expanduser().resolve()
    if not folder.is_dir():
        raise CaptureError(
            f"There is no folder {folder}; a capture root was expected there.",
            "Correct capture=, or mount the disk that holds it.",
        )
    found = participants_in(folder)
    plain = (folder / FOLDER_FILE).is_file()
    if plain and found:
        raise CaptureError(
            f"{folder} is both a plain folder ({FOLDER_FILE}) and a NeRSemble root "
            f"(participants {', '.join(found)}).",
            f"Keep one layout per root: move {FOLDER_FILE} or the participants elsewhere.",
        )
    if plain:
        return read_folder(folder, participant)
    if not found:
        raise _no_capture(folder)
    return read_nersemble(found[_choose(folder, list(found), participant)], folder)


def _no_capture(folder: Path) -> CaptureError:
    if (folder / "calibration" / "camera_params.json").is_file():
        return CaptureError(
            f"{folder} is the folder of one participant, not a capture root.",
            f"Give capture={folder.parent} participant={folder.name}.",
        )
    inside = sorted(p.name for p in folder.iterdir())[:6]
    shown = ", ".join(inside) if inside else "nothing"
    return CaptureError(f"{folder} is no capture; it holds {shown}.", LAYOUTS)


def _choose(folder: Path, found: list[str], participant: str | int | None) -> str:
    if participant is None:
        if len(found) == 1:
            return found[0]
        raise CaptureError(
            f"{folder} holds {len(found)} participants and none was named.",
            f"Give participant=, one of {', '.join(found)}.",
        )
    wanted = str(participant).zfill(3)
    if wanted not in found:
        raise CaptureError(
            f"There is no participant {wanted} in {folder} "
            f"(looked in it and in its {' and '.join(BENCHMARK_TASKS)}).",
            f"Give participant=, one of {', '.join(found)}.",
        )
    return wanted
