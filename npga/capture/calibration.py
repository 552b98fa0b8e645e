"""Reading calibration files, and what can be wrong with them.

``cam_from_world`` (NeRSemble: ``world_2_cam``) is 4x4, world to camera, OpenCV axes, metres; K is
3x3 in pixels, without distortion. A ``Fault`` makes one camera (or one file) unusable.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npga.capture.color import check_matrix
from npga.core.errors import CaptureError

ORTHONORMAL_TOLERANCE = 1e-4
"""Largest entry of R Rt - 1; float32 calibrations stay below 1e-6."""
AGAIN = "Download or export the calibration again; do not repair matrices by hand."


@dataclass(frozen=True)
class Fault:
    """Something in a capture that cannot be used."""

    where: str
    what: str
    todo: str


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file; raises CaptureError if it is absent, broken or no object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CaptureError(f"{path} cannot be read ({error.strerror}).", AGAIN) from None
    except ValueError as error:
        raise CaptureError(f"{path} is no JSON: {error}.", AGAIN) from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise CaptureError(f"{path} holds a {kind}; an object was expected.", AGAIN)
    return values


def numbers(values: object) -> NDArray[np.float64] | None:
    """Nested lists as an array, or None if they are ragged or no numbers."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def pose_problem(matrix: NDArray[np.float64] | None) -> str | None:
    """What is wrong with a world-to-camera matrix, or None."""
    if matrix is None or matrix.shape != (4, 4):
        return "the world-to-camera pose is no 4x4 matrix of numbers"
    if not np.isfinite(matrix).all():
        return "the world-to-camera pose holds NaN or infinity"
    if not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-8):
        return f"the last row of the world-to-camera pose is {matrix[3].tolist()}, not 0 0 0 1"
    rotation = matrix[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if error > ORTHONORMAL_TOLERANCE:
        return f"the rotation is not orthonormal (R Rt is off by {error:.2g})"
    if np.linalg.det(rotation) < 0:
        return "the rotation is a reflection (determinant -1)"
    return None


def intrinsics_problem(matrix: NDArray[np.float64] | None) -> str | None:
    """What is wrong with a K, or None."""
    if matrix is None or matrix.shape != (3, 3):
        return "K is no 3x3 matrix of numbers"
    if not np.isfinite(matrix).all():
        return "K holds NaN or infinity"
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        return f"K has focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g}, not positive ones"
    if not np.allclose(matrix[2], [0, 0, 1], atol=1e-8):
        return f"the last row of K is {matrix[2].tolist()}, not 0 0 1"
    return None


def read_color_matrices(
    path: Path, serials: tuple[str, ...]
) -> tuple[dict[str, NDArray[np.float64]], list[Fault]]:
    """Colour matrices by serial (none where there is no file), and who lacks a good one."""
    if not path.is_file():
        return {}, []
    stored = read_json(path)
    matrices: dict[str, NDArray[np.float64]] = {}
    faults = []
    for serial in serials:
        where = f"{path}, camera {serial}"
        if serial not in stored:
            what = "there is no colour matrix for this camera, though there is for others."
            faults.append(Fault(where, what, AGAIN))
            continue
        matrix = numbers(stored[serial])
        problem = "the colour matrix is no matrix" if matrix is None else check_matrix(matrix)
        if problem is not None or matrix is None:
            faults.append(Fault(where, f"{problem}.", AGAIN))
        else:
            matrices[serial] = matrix
    return matrices, faults
