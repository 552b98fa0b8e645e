"""Settings of `npga reenact`."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from npga.core.config import knob
from npga.core.errors import ConfigError
from npga.raster import Backend
from npga.reenact.retarget import HeadMotion


class Mode(str, Enum):
    """Who drives."""

    self = "self"
    """Another take of the avatar's own person: codes and poses as tracked."""
    cross = "cross"
    """Another person: codes relative to both rest faces, head motion about the mean pose."""


@dataclass(frozen=True)
class ReenactConfig:
    """Avatar + driver's track -> mp4 with the driver beside the result, and a json."""

    avatar: str = knob(MISSING, "avatar.safetensors, or the folder that `npga fit` made")
    track: str = knob(MISSING, "the driver's track")
    sequence: str = knob("FREE", "the driver's take (a unique prefix will do)")
    mode: Mode = knob(Mode.self, "self: another take of this person; cross: another person")
    out: str = knob("runs/reenact.mp4", "the video to make; a .json goes beside it")
    overwrite: bool = knob(False, "replace out if it exists")
    capture: str | None = knob(None, "the driver's capture, for the driver's picture")
    participant: str | None = knob(None, "the driver, where the capture root holds several")
    serial: str | None = knob(None, "camera of the driver's picture; the middle one if not given")
    avatar_capture: str | None = knob(
        None, "cross: the avatar's own capture, whose camera `serial` then shows the result"
    )
    avatar_track: str | None = knob(
        None, "cross: the avatar's own track, whose rest face then stands for neutral"
    )
    avatar_participant: str | None = knob(None, "the avatar's person in avatar_capture")
    height: int = knob(550, "pixels; the width follows the capture")
    every: int = knob(1, "use every n-th tracked frame")
    head_motion: HeadMotion = knob(HeadMotion.full, "cross: full, damped or none")
    smooth_frames: float = knob(0.0, "width of the filter over time, in used frames; 0 is none")
    clamp: bool = knob(True, "keep codes inside the avatar's training hull")
    refine: bool = knob(True, "apply the screen-space refiner")
    backend: Backend = knob(Backend.auto, "auto, cpu, triton, gsplat or reference")
    device: str = knob("auto", "auto, cpu or cuda")

    def __post_init__(self) -> None:
        for name in ("height", "every"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)} was given, but at least 1 is needed.",
                    f"Give {name}=1 or more.",
                )
        if self.smooth_frames < 0:
            raise ConfigError(
                f"smooth_frames={self.smooth_frames} was given, but it cannot be negative.",
                "Give smooth_frames=0 for no filter.",
            )
