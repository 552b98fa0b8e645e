"""A capture: what ``open_capture`` gives, and all that is asked of it.

n: points. Its parts lie in files of their own: ``views``, ``rig``, ``sequences``, ``pcd``,
``landmarks``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from npga.capture.landmarks import landmarks_path, read_landmarks
from npga.capture.pcd import read_cloud_of
from npga.capture.rig import cameras_at
from npga.capture.sequences import match_sequence, probe_sequence
from npga.capture.types import (
    CaptureFiles,
    Landmarks2D,
    MatteSource,
    PointCloud,
    SequenceFiles,
    SequenceInfo,
    Views,
)
from npga.capture.views import load_views
from npga.core.cameras import Cameras


@dataclass(frozen=True)
class Capture(CaptureFiles):
    """One person's calibrated multi-view recordings; made by ``open_capture``."""

    _probed: dict[str, SequenceInfo] = field(default_factory=dict, repr=False, compare=False)

    @property
    def sequences(self) -> tuple[SequenceInfo, ...]:
        """Every sequence; raises CaptureError if a video cannot be opened."""
        return tuple(self.sequence(name) for name in self.sequence_names)

    def sequence(self, name_or_prefix: str) -> SequenceInfo:
        """The sequence of this name, or whose name starts so up to its number (``SEN-07``).

        Raises CaptureError if unknown, if a video cannot be opened or its camera is uncalibrated.
        """
        files = self.sequence_files(name_or_prefix)
        if files.name not in self._probed:
            self._probed[files.name] = probe_sequence(files, self.serials)
        return self._probed[files.name]

    def sequence_files(self, name_or_prefix: str) -> SequenceFiles:
        """Where the files of a sequence lie; raises CaptureError if unknown."""
        name = match_sequence(name_or_prefix, self.sequence_names, self.root)
        return next(files for files in self.files if files.name == name)

    def cameras(
        self,
        serials: Sequence[str] | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> Cameras:
        """Calibrated cameras (default: all) at a picture size (default: that of the videos).

        Raises CaptureError for an unknown serial.
        """
        return cameras_at(self, serials, width, height)

    def matte_source(self, sequence: str) -> MatteSource:
        """Where ``views`` would take the mattes of a sequence from."""
        return self.matte_source_of(self.sequence_files(sequence))

    def views(
        self,
        sequence: str,
        frames: Sequence[int] | None = None,
        serials: Sequence[str] | None = None,
        width: int | None = None,
        height: int | None = None,
        cache_dir: Path | str | None = None,
    ) -> Views:
        """Colour-corrected pictures and mattes, decoded once into a cache beside the capture.

        Defaults: all frames, all cameras of the sequence, the video's size. Raises CaptureError.
        """
        info, files = self.sequence(sequence), self.sequence_files(sequence)
        return load_views(self, files, info, frames, serials, width, height, cache_dir)

    def has_clouds(self, sequence: str) -> bool:
        """Whether the capture brings point clouds of a sequence."""
        return self.sequence_files(sequence).clouds is not None

    def cloud(self, sequence: str, frame: int) -> PointCloud:
        """The capture's own point cloud of a frame; raises CaptureError if absent or broken."""
        return read_cloud_of(self.sequence_files(sequence), frame)

    def landmarks(self, sequence: str) -> Landmarks2D | None:
        """Landmarks found ahead of time, ``<root>/../landmarks/<participant>/<sequence>.npz``."""
        name = self.sequence_files(sequence).name
        path = landmarks_path(self.root, self.participant, name)
        return read_landmarks(path) if path.exists() else None
