"""Settings of `npga drive`."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from npga.core.config import knob
from npga.core.errors import ConfigError
from npga.drive.filters import Timing
from npga.raster import Backend
from npga.reenact.retarget import HeadMotion


class DriveMode(str, Enum):
    """How a video is tracked."""

    fast = "fast"
    """Frame by frame, as a live camera is."""
    accurate = "accurate"
    """All frames at once, with their pictures: several times slower."""


class Show(str, Enum):
    """Where a live avatar is seen."""

    web = "web"
    """On a page of 127.0.0.1."""
    window = "window"
    """In a window (needs the extra `tracking`'s OpenCV and a display)."""
    none = "none"


@dataclass(frozen=True)
class FilterConfig:
    """Smoothing and what happens while no face is seen."""

    cutoff_hz: float = knob(3.0, "One-Euro: below this a still face is smoothed; 0 = no filter")
    beta: float = knob(2.0, "One-Euro: hertz of cutoff per unit of code and second")
    pose_cutoff_hz: float = knob(1.5, "the same of the head's turn and shift")
    pose_beta: float = knob(3.0, "hertz per radian (or head unit) and second")
    hold_s: float = knob(Timing.hold, "seconds that a lost face keeps its expression")
    relax_s: float = knob(Timing.relax, "time constant with which it then goes to rest")
    return_s: float = knob(Timing.return_, "time constant with which a found face takes over")

    @property
    def timing(self) -> Timing:
        """Of absences."""
        return Timing(self.hold_s, self.relax_s, self.return_s)


LEAST = {"face": 1, "width": 16, "height": 16, "port": 0, "start_s": 0}
"""Smallest values."""


@dataclass(frozen=True)
class DriveConfig:
    """One RGB camera -> a driven avatar: a video to mp4, or a live camera to a page."""

    avatar: str = knob(MISSING, "avatar.safetensors, or the folder that `npga fit` made")
    video: str | None = knob(None, "a video file of the driver; this or camera")
    camera: str | None = knob(None, "live: number of a camera, or a video file played in a loop")
    out: str | None = knob(
        None, "mp4 to make; default runs/drive.mp4 for a video, none live (what is shown)"
    )
    overwrite: bool = knob(False, "replace out if it exists")
    mode: DriveMode = knob(DriveMode.fast, "of a video: fast or accurate")
    focal: float | None = knob(
        None, "focal length in pixels of the video; null = 1.2 times its longer side"
    )
    centre: list[float] | None = knob(
        None, "principal point [column, row] in pixels of the video; null = its middle"
    )
    face: int = knob(1, "which face drives: 1 is the largest, 2 the next")
    start_s: float = knob(0.0, "first second of the video that is used")
    end_s: float | None = knob(None, "last second; null = to the end")
    driver_track: str | None = knob(None, "a multi-view track of the driver, then known")
    avatar_track: str | None = knob(None, "the avatar's own track, for its rest face and openings")
    save_track: bool = knob(True, "video: keep the driver's track beside the mp4")
    head_model: str | None = knob(None, "head model file; null = the open prior that ships")
    prior: str | None = knob(None, "forward prior F of that head model; null = the one that ships")
    landmarker: str | None = knob(None, "MediaPipe .task file; null = what is installed")
    head_motion: HeadMotion = knob(HeadMotion.full, "full, damped or none")
    clamp: bool = knob(True, "keep codes inside the avatar's training hull")
    filter: FilterConfig = knob(FilterConfig(), "smoothing over time")
    view: str = knob("front", "camera of the result: front, orbit, a rig serial, a key-frame json")
    capture: str | None = knob(None, "the avatar's capture, for view=<serial>")
    participant: str | None = knob(None, "the avatar's person in it")
    width: int = knob(412, "pixels of the result")
    height: int = knob(550, "pixels of the result")
    beside: bool = knob(True, "show the driver beside the avatar")
    audio: bool = knob(True, "keep the video's sound")
    refine: bool = knob(True, "apply the screen-space refiner")
    show: Show = knob(Show.web, "live: web, window or none")
    port: int = knob(8765, "live: port of the page on 127.0.0.1; 0 = any free one")
    calibrate_s: float = knob(1.5, "live: seconds of a face at rest that are its calibration")
    seconds: float | None = knob(
        None, "live: stop so long after the camera opened; null = until Ctrl-C"
    )
    backend: Backend = knob(Backend.auto, "auto, cpu, triton, gsplat or reference")
    device: str = knob("auto", "auto, cpu or cuda")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; raises ConfigError."""
        if (self.video is None) == (self.camera is None):
            raise ConfigError(
                "npga drive takes either video=<file> or camera=<number>, one of the two.",
                "Give video=clip.mp4 for a recording, camera=0 for a live one.",
            )
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name}={getattr(self, name)} was given, but at least {least} is needed.",
                    f"Give {name}={least} or more.",
                )
        if self.port > 65535:
            raise ConfigError(
                f"port={self.port} was given, but ports end at 65535.",
                "Give port=8765, or port=0 for a free one.",
            )
        if self.focal is not None and not self.focal > 0:
            raise ConfigError(
                f"focal={self.focal} was given, but a focal length is positive.",
                "Give it in pixels of the video, or focal=null for a guess.",
            )
        if self.centre is not None and len(self.centre) != 2:
            raise ConfigError(
                f"centre={self.centre} was given, but a principal point is two numbers.",
                "Give centre=[column,row] in pixels of the video.",
            )
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ConfigError(
                f"start_s={self.start_s} is not before end_s={self.end_s}.",
                "Give an end after the start.",
            )
