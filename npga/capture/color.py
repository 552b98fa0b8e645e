"""Colour correction of NeRSemble v2: a polynomial per camera, fitted to a colour chart.

Stored sRGB -> linear r g b -> T terms (products of r, g, b; Cheung et al. 2004) -> 3xT matrix ->
sRGB. ``correct_exact`` is that formula in float64, unclipped, as ``nersemble_data`` has it (whose
bytes are truncated; ours are rounded). ``ColorCorrection`` is the same for bytes, by tables.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from npga.core.errors import CaptureError
from npga.core.images import linear_from_srgb, srgb_from_linear

TERMS: Mapping[int, str] = {
    3: "r g b",
    4: "r g b 1",
    5: "r g b rgb 1",
    7: "r g b rg rb gb 1",
    8: "r g b rg rb gb rgb 1",
    10: "r g b rg rb gb rr gg bb 1",
    11: "r g b rg rb gb rr gg bb rgb 1",
    14: "r g b rg rb gb rr gg bb rgb rrr ggg bbb 1",
    16: "r g b rg rb gb rr gg bb rgb rrg ggb bbr rrr ggg bbb",
    17: "r g b rg rb gb rr gg bb rgb rrg ggb bbr rrr ggg bbb 1",
    19: "r g b rg rb gb rr gg bb rgb rrg ggb bbr rrb ggr bbg rrr ggg bbb",
    20: "r g b rg rb gb rr gg bb rgb rrg ggb bbr rrb ggr bbg rrr ggg bbb 1",
    22: "r g b rg rb gb rr gg bb rgb rrg ggb bbr rrb ggr bbg rrr ggg bbb rrgb rggb rgbb",
}
"""The legal numbers of terms and their order (colour-science 0.4.7)."""

ENCODE_STEPS = 1 << 15
"""Steps of the sRGB encoding table: at most 0.1 of a level each."""
BAND = 1 << 14
"""Pixels at a time, so that the terms stay in the processor's cache."""


def expand_terms(rgb: NDArray[np.floating], count: int) -> NDArray[np.floating]:
    """The ``count`` polynomial terms [T n] of linear colours [3 n]; count is a key of ``TERMS``."""
    values = {"1": np.ones_like(rgb[0]), "r": rgb[0], "g": rgb[1], "b": rgb[2]}
    for term in TERMS[count].split():
        if term not in values:
            head = "".join(sorted(term[:-1], key="rgb".index))
            shorter = values.get(term[:-1], values.get(head))
            if shorter is None:
                shorter = np.prod([values[letter] for letter in term[:-1]], axis=0)
            values[term] = shorter * values[term[-1]]
    return np.stack([values[term] for term in TERMS[count].split()])


def correct_exact(image: NDArray[np.floating], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct sRGB colours [... 3] in 0..1 by a 3xT matrix; the slow twin, not clipped."""
    linear = linear_from_srgb(np.asarray(image, dtype=np.float64)).reshape(-1, 3).T
    corrected = matrix @ expand_terms(linear, matrix.shape[1])
    return srgb_from_linear(corrected.T.reshape(np.shape(image)))


def is_identity(matrix: NDArray[np.float64]) -> bool:
    """Whether a matrix leaves every colour as it is."""
    padded = np.zeros_like(matrix)
    padded[:, :3] = np.eye(3)
    return bool(np.array_equal(matrix, padded))


def check_matrix(matrix: NDArray[np.float64]) -> str | None:
    """What is wrong with a colour matrix, or None."""
    if matrix.ndim != 2 or matrix.shape[0] != 3 or matrix.shape[1] not in TERMS:
        legal = ", ".join(map(str, TERMS))
        shape = "x".join(map(str, matrix.shape))
        return f"the colour matrix is {shape}; 3xT with T one of {legal} was expected"
    if not np.isfinite(matrix).all():
        return "the colour matrix holds NaN or infinity"
    return None


class ColorCorrection:
    """One camera's correction of uint8 pictures: within 0.6 of a level of ``correct_exact``."""

    def __init__(self, matrix: NDArray[np.float64] | None) -> None:
        """``matrix`` is 3xT, or None for no correction; raises CaptureError if T is not legal."""
        fault = None if matrix is None else check_matrix(matrix)
        if fault is not None:
            raise CaptureError(f"Colour correction: {fault}.", "Download the calibration again.")
        self._matrix = None
        if matrix is not None and not is_identity(matrix):
            self._matrix = np.asarray(matrix, dtype=np.float32)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Corrected copy of a uint8 sRGB picture [h w 3] (the same array where it is identity)."""
        if self._matrix is None:
            return image
        decode, encode = _decode_table(), _encode_table()
        pixels = image.reshape(-1, 3)
        corrected = np.zeros_like(pixels)
        for start in range(0, len(pixels), BAND):
            linear = decode[pixels[start : start + BAND].T]
            level = self._matrix @ expand_terms(linear, self._matrix.shape[1])
            level *= ENCODE_STEPS
            np.clip(level, 0, ENCODE_STEPS, out=level)
            corrected[start : start + BAND] = encode[(level + 0.5).astype(np.uint16)].T
        return corrected.reshape(image.shape)


@cache
def _decode_table() -> NDArray[np.float32]:
    return linear_from_srgb(np.arange(256) / 255).astype(np.float32)


@cache
def _encode_table() -> NDArray[np.uint8]:
    levels = srgb_from_linear(np.arange(ENCODE_STEPS + 1) / ENCODE_STEPS) * 255
    return np.round(levels).astype(np.uint8)
