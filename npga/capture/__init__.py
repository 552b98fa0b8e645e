"""Calibrated multi-view frames of one person, from any of three folder layouts.

``open_capture(root, participant)`` gives a ``Capture``; its ``views`` are pictures at a working
size, decoded once into a cache that lies beside the capture and never inside it. ``writer`` writes
the NeRSemble v2 layout; ``check`` is the doctor.
"""

from npga.capture.capture import Capture
from npga.capture.open import DEMO_CAPTURE, open_capture
from npga.capture.types import (
    Landmarks2D,
    Layout,
    MatteSource,
    PointCloud,
    SequenceInfo,
    Views,
)

__all__ = [
    "DEMO_CAPTURE",
    "Capture",
    "Landmarks2D",
    "Layout",
    "MatteSource",
    "PointCloud",
    "SequenceInfo",
    "Views",
    "open_capture",
]
