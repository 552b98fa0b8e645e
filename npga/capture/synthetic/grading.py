"""Colour calibrations of the synthetic cameras, and the pictures such cameras would store.

NeRSemble's map takes stored sRGB -> linear -> T polynomial terms -> 3xT matrix -> sRGB = true
colours. Filming needs its inverse: the x with M terms(x) = true, by the fixed point
x <- x + (true - M terms(x)), which contracts because M is near the identity.
"""

import numpy as np

from npga.capture.color import expand_terms
from npga.core.images import linear_from_srgb, srgb_from_linear

STEPS = 6


def make_matrix(terms: int, rng: np.random.Generator) -> np.ndarray:
    """A camera's 3xT matrix: the identity for 3 terms, else mild mixing and curvature."""
    matrix = np.zeros((3, terms))
    matrix[:, :3] = np.eye(3)
    if terms > 3:
        matrix[:, :3] *= 1 + rng.normal(0, 0.02, (3, 1))
        matrix[:, :3] += rng.normal(0, 0.012, (3, 3))
        matrix[:, 3:] += rng.normal(0, 0.008, (3, terms - 3))
        matrix[:, -1] = rng.normal(0, 0.001, 3)
    return matrix


def stored_colors(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """What the camera stores [h w 3] uint8 of the true colours [h w 3] uint8."""
    if matrix.shape[1] == 3 and np.array_equal(matrix, np.eye(3)):
        return image
    levels, inverse = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True)
    true = linear_from_srgb(levels.astype(np.float64) / 255).T
    guess = true.copy()
    for _ in range(STEPS):
        guess = np.clip(guess + true - matrix @ expand_terms(guess, matrix.shape[1]), 0, 1)
    stored = np.clip(srgb_from_linear(guess.T) * 255 + 0.5, 0, 255).astype(np.uint8)
    return stored[inverse.reshape(-1)].reshape(image.shape)


def backdrop(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """The empty stage as one camera sees it: a softly lit grey wall, sRGB [h w 3] in 0..1."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    centre = rng.uniform(-0.4, 0.4, 2)
    glow = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 1.8)
    level = rng.uniform(0.46, 0.54) * (0.80 + 0.28 * glow)
    tint = 1 + rng.normal(0, 0.008, 3)
    return np.clip(level[..., None] * tint, 0, 1)
