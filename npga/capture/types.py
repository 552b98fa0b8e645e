"""The types that a capture hands to everything above it.

t: frames, c: cameras, h w: pixels, n: points, l: landmarks. A *serial* is a camera's name.
World: metres, +y up, +z from the face to the cameras, +x to the subject's left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor

from npga.core.cameras import Cameras


class Layout(StrEnum):
    """How the folders of a capture are arranged."""

    nersemble = "nersemble"
    nersemble_benchmark = "nersemble_benchmark"
    folder = "folder"


class MatteSource(StrEnum):
    """Where the mattes of a sequence come from."""

    files = "files"
    """Matte videos or stills beside the pictures."""
    background = "background"
    """The difference to stills of the empty stage: rough."""
    none = "none"
    """Nothing to tell head from background: every matte is one."""


@dataclass(frozen=True)
class PointCloud:
    """``n`` surface points of one frame."""

    points: Float[Tensor, "n 3"]
    """World, metres."""
    normals: Float[Tensor, "n 3"]
    """Unit, or all zero where the file has none."""
    colors: Float[Tensor, "n 3"]
    """sRGB, 0..1; 0.5 where the file has none."""

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class SequenceInfo:
    """What can be known of a sequence without decoding it."""

    name: str
    serials: tuple[str, ...]
    """Cameras with a video, in the rig's order."""
    frame_count: int
    """The least of all cameras, as their containers tell."""
    fps: float
    width: int
    """Of the videos, not of any working size."""
    height: int


@dataclass(frozen=True)
class Views:
    """Pictures of some frames by some cameras, all of one size."""

    images: UInt8[Tensor, "t c h w 3"]
    """sRGB 0..255, colour-corrected."""
    mattes: UInt8[Tensor, "t c h w"]
    """255 = head."""
    cameras: Cameras
    """At the size of the images."""
    frames: tuple[int, ...]
    sequence: str
    fps: float
    """Of the video; frame f shows time f / fps."""
    matte_source: MatteSource = MatteSource.files
    background_removed: bool = False
    """The pictures stand on white already (NeRSemble benchmark)."""


@dataclass(frozen=True)
class Landmarks2D:
    """Landmarks that someone found in the pictures, ahead of time."""

    points: Float32[Tensor, "t c l 2"]
    """Pixels at (width, height), centres at +0.5."""
    confidence: Float32[Tensor, "t c l"]
    """0 = not seen."""
    frames: tuple[int, ...]
    serials: tuple[str, ...]
    width: int
    height: int


@dataclass(frozen=True)
class CalibratedCamera:
    """One camera as its calibration file gives it."""

    serial: str
    K: NDArray[np.float64]
    """3x3, pixels of (width, height)."""
    cam_from_world: NDArray[np.float64]
    """4x4 rigid, metres, OpenCV axes."""
    width: int
    height: int

    def intrinsics_at(self, width: int, height: int) -> NDArray[np.float64]:
        """K for another picture size: pure scaling, principal point included."""
        return np.diag([width / self.width, height / self.height, 1.0]) @ self.K


@dataclass(frozen=True)
class SequenceFiles:
    """Where the files of one sequence lie; serials in the rig's order."""

    name: str
    images: Mapping[str, Path]
    """A video file, or a folder of stills, for every serial."""
    mattes: Mapping[str, Path]
    clouds: Path | None
    """Folder of frame_%05d.pcd."""
    stills_fps: float = 25.0
    """Frame rate of sequences that are folders of stills."""


@dataclass(frozen=True)
class CaptureFiles:
    """Where one person's calibrated multi-view recordings lie, and their calibration."""

    root: Path
    participant: str
    layout: Layout
    rig: tuple[CalibratedCamera, ...]
    """Every calibrated camera, with or without videos."""
    files: tuple[SequenceFiles, ...]
    color_matrices: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """3xT polynomial colour correction by serial; none = identity."""
    backgrounds: Mapping[str, Path] = field(default_factory=dict)
    """Stills of the empty stage by serial."""
    background_removed: bool = False

    @property
    def sequence_names(self) -> tuple[str, ...]:
        """Names on disk; opens no video."""
        return tuple(files.name for files in self.files)

    @property
    def serials(self) -> tuple[str, ...]:
        """Every calibrated camera."""
        return tuple(camera.serial for camera in self.rig)

    def matte_source_of(self, files: SequenceFiles) -> MatteSource:
        """Where the mattes of a sequence come from."""
        if files.mattes:
            return MatteSource.files
        return MatteSource.background if self.backgrounds else MatteSource.none
