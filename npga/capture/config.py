"""Settings of `npga capture check`."""

from dataclasses import dataclass

from npga.core.config import knob


@dataclass(frozen=True)
class CaptureCheckConfig:
    """What to examine, and where to put the overlay picture."""

    capture: str = knob("???", "capture root: NeRSemble v2, NeRSemble benchmark or a plain folder")
    participant: str = knob("", "three digits, e.g. 031; may be left out if there is only one")
    sequences: list[str] = knob([], "names or prefixes (SEN-07); empty = all")
    decode: bool = knob(True, "decode every frame of every clip (finds truncated files)")
    workers: int = knob(2, "clips examined at once")
    out: str = knob("runs/capture_check", "folder for overlay.png and findings.json")
    overwrite: bool = knob(False, "replace an earlier result")
