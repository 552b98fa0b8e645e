"""Settings of `npga render`."""

from dataclasses import dataclass

from omegaconf import MISSING

from npga.core.config import knob
from npga.core.errors import ConfigError
from npga.raster import Backend
from npga.render.camera_path import CAMERA_HELP


@dataclass(frozen=True)
class RenderConfig:
    """Avatar + track + camera path -> mp4."""

    avatar: str = knob(MISSING, "avatar.safetensors, or the folder that `npga fit` made")
    track: str = knob(MISSING, "track of the same person, for codes and poses")
    sequence: str = knob("FREE", "sequence of the track (a unique prefix will do)")
    out: str = knob("runs/render.mp4", "the video to make")
    overwrite: bool = knob(False, "replace out if it exists")
    camera: str = knob("orbit", CAMERA_HELP)
    capture: str | None = knob(None, "capture whose calibration camera=path or a serial means")
    participant: str | None = knob(None, "which person of a capture root with several")
    width: int = knob(401, "pixels")
    height: int = knob(550, "pixels")
    every: int = knob(1, "use every n-th tracked frame")
    still_head: bool = knob(False, "hold the head in the take's mean pose")
    refine: bool = knob(True, "apply the screen-space refiner")
    swing_deg: float = knob(40.0, "half the sideways range of the orbit")
    backend: Backend = knob(Backend.auto, "auto, cpu, triton, gsplat or reference")
    device: str = knob("auto", "auto, cpu or cuda")

    def __post_init__(self) -> None:
        for name in ("width", "height", "every"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)} was given, but at least 1 is needed.",
                    f"Give {name}=1 or more.",
                )
