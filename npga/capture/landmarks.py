"""Landmarks that were found ahead of time, one npz per sequence, beside the capture.

<root>/../landmarks/<participant>/<sequence>.npz
points [t c l 2] px at (width, height), confidence [t c l], frames [t], serials [c], size [2]
"""

import os
import zipfile
from pathlib import Path

import numpy as np
import torch

from npga.capture.types import Landmarks2D
from npga.core.errors import CaptureError

KEYS = ("points", "confidence", "frames", "serials", "size")


def landmarks_path(root: Path, participant: str, sequence: str) -> Path:
    """Where a sequence's landmarks lie: beside the capture, never inside it."""
    return root.parent / "landmarks" / participant / f"{sequence}.npz"


def write_landmarks(path: Path | str, landmarks: Landmarks2D) -> None:
    """Write under a temporary name, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            points=landmarks.points.numpy().astype(np.float32),
            confidence=landmarks.confidence.numpy().astype(np.float32),
            frames=np.array(landmarks.frames, dtype=np.int64),
            serials=np.array(landmarks.serials, dtype=np.str_),
            size=np.array([landmarks.width, landmarks.height], dtype=np.int64),
        )
    os.replace(partial, path)


def read_landmarks(path: Path | str) -> Landmarks2D:
    """Landmarks of one sequence; raises CaptureError for a broken file."""
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            points, confidence, frames, serials, size = (stored[key] for key in KEYS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CaptureError(
            f"{path} holds no landmarks ({type(error).__name__}); an npz with {', '.join(KEYS)} "
            "was expected.",
            "Make it again, or delete it to do without.",
        ) from None
    if points.shape != (len(frames), len(serials), *confidence.shape[2:], 2):
        raise CaptureError(
            f"{path}: points {points.shape} do not fit {len(frames)} frames, {len(serials)} "
            f"cameras and confidence {confidence.shape}.",
            "Make it again, or delete it to do without.",
        )
    return Landmarks2D(
        points=torch.from_numpy(points.astype(np.float32)),
        confidence=torch.from_numpy(confidence.astype(np.float32)),
        frames=tuple(int(f) for f in frames),
        serials=tuple(str(s) for s in serials),
        width=int(size[0]),
        height=int(size[1]),
    )
