"""Settings of `npga render`."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from npga.core.config import knob
from npga.core.errors import ConfigError
from npga.raster import Backend
from npga.render.camera_path import CAMERA_HELP


class Pass(str, Enum):
    """What can be written of every frame."""

    color = "color"
    alpha = "alpha"
    """How much of the pixel is covered, as grey."""
    depth = "depth"
    """Camera z: 16-bit PNGs in millimetres, and a grey video to look at."""
    normals = "normals"
    """Of the surface, in the camera's frame."""


class Panel(str, Enum):
    """What can stand in a side-by-side video: the passes, and the driver's own picture."""

    color = "color"
    alpha = "alpha"
    depth = "depth"
    normals = "normals"
    driver = "driver"
    """The camera's frame that was tracked; needs a capture."""


@dataclass(frozen=True)
class RenderConfig:
    """Avatar + track + camera path -> video or PNGs, passes, and a json that describes them."""

    avatar: str = knob(MISSING, "avatar.safetensors, or the folder that `npga fit` made")
    track: str = knob(MISSING, "track of the same person, for codes and poses")
    sequence: str = knob("FREE", "sequence of the track (a unique prefix will do)")
    out: str = knob(
        "runs/render.mp4",
        "<name>.mp4, <name>.mov (ProRes 4444, can be transparent) or a folder for PNGs; other "
        "passes and a .json go beside it",
    )
    overwrite: bool = knob(False, "replace results that exist")
    passes: list[Pass] = knob(
        [Pass.color],
        "color, alpha, depth (<name>_depth/ holds 16-bit millimetres), normals (camera frame)",
    )
    background: str = knob("white", "white, black, a grey level 0..1, or transparent (.mov, PNGs)")
    beside: list[Panel] = knob(
        [], "make out one video of these side by side: color, alpha, depth, normals, driver"
    )
    camera: str = knob("orbit", CAMERA_HELP)
    capture: str | None = knob(None, "capture, for camera=path, a serial, and the driver")
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
        if self.beside and self.passes != [Pass.color]:
            raise ConfigError(
                "passes and beside were both given; passes are files of their own, beside is one.",
                "Give one of them.",
            )
        if not self.beside and not self.passes:
            raise ConfigError("passes=[] leaves nothing to write.", "Give passes=[color].")
        for name in ("passes", "beside"):
            given = [item.value for item in getattr(self, name)]
            if len(set(given)) < len(given):
                raise ConfigError(
                    f"{name}=[{','.join(given)}] names one twice.", "Name each of them once."
                )
        if Panel.driver in self.beside and self.capture is None:
            raise ConfigError(
                "beside=driver needs the driver's pictures, but no capture was given.",
                "Give capture=<folder>.",
            )
