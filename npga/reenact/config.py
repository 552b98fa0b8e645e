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
    """Avatar + what drives it -> mp4 with the driver beside the result, and a json."""

    avatar: str = knob(MISSING, "avatar.safetensors, or the folder that `npga fit` made")
    track: str | None = knob(None, "the driver's track; or give codes")
    sequence: str = knob("FREE", "the driver's take in the track (a unique prefix will do)")
    codes: str | None = knob(
        None, "instead of track: a Live Link Face .csv, a .csv of controls, a .safetensors (z_exp)"
    )
    fps: float | None = knob(
        None, "codes: frames per second; null = the file's own, 30 where it says nothing"
    )
    head_signs: list[float] = knob(
        [1.0, 1.0, 1.0], "codes: factors on HeadYaw, HeadPitch, HeadRoll (mirrored or turned phone)"
    )
    mode: Mode | None = knob(
        None, "self: this person's own; cross: another's; null = self for a track, cross for codes"
    )
    out: str = knob("runs/reenact.mp4", "the video to make; a .json goes beside it")
    overwrite: bool = knob(False, "replace out if it exists")
    capture: str | None = knob(None, "track: the driver's capture, for the driver's picture")
    participant: str | None = knob(None, "the driver, where the capture root holds several")
    serial: str | None = knob(None, "camera of the driver's picture; the middle one if not given")
    video: str | None = knob(None, "the driver's video, for the picture and the sound")
    audio: str | None = knob(None, "a file whose sound goes along; null = that of video, if any")
    avatar_capture: str | None = knob(
        None, "cross: the avatar's own capture, whose camera `serial` then shows the result"
    )
    avatar_track: str | None = knob(
        None, "cross: the avatar's own track, whose rest face and openings then count"
    )
    avatar_participant: str | None = knob(None, "the avatar's person in avatar_capture")
    camera: str | None = knob(
        None, "orbit, front, path, a serial or a .json of key frames; null = as the driver was seen"
    )
    swing_deg: float = knob(40.0, "half the sideways range of camera=orbit")
    height: int = knob(550, "pixels; the width follows the capture")
    every: int = knob(1, "use every n-th frame")
    head_motion: HeadMotion = knob(HeadMotion.full, "full, damped (half) or none")
    smooth_frames: float = knob(0.0, "width of the filter over time, in used frames; 0 is none")
    openings: bool = knob(True, "cross: lids and lips open and shut as far as the driver's")
    clamp: bool = knob(True, "keep codes inside the avatar's training hull")
    head_model: str | None = knob(None, "head model file; null = the open prior that ships")
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
        if (self.track is None) == (self.codes is None):
            given = "neither" if self.track is None else "both"
            raise ConfigError(
                f"What drives is either track or codes, but {given} was given.",
                "Give track=<folder of npga track>, or codes=<.csv or .safetensors>.",
            )
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError(
                f"fps={self.fps} is no frame rate.", "Give fps=24, 30, 60 or the like."
            )
        if len(self.head_signs) != 3:
            raise ConfigError(
                f"head_signs has {len(self.head_signs)} numbers; yaw, pitch and roll need 3.",
                "Give head_signs=[-1,1,-1] or the like.",
            )
        if self.codes is not None and self.capture is not None:
            raise ConfigError(
                "capture shows the driver of a track, but codes drive here.",
                "Give video=<the driver's video> instead, or none.",
            )

    @property
    def drives(self) -> Mode:
        """Who drives, where `mode` leaves it open too."""
        if self.mode is not None:
            return self.mode
        return Mode.self if self.codes is None else Mode.cross
