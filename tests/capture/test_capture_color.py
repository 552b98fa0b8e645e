"""Colour correction: term order against colour-science, tables against the formula."""

import numpy as np
import pytest

from npga.capture.color import TERMS, ColorCorrection, correct_exact, expand_terms
from npga.core.errors import CaptureError

GOLDEN = {
    3: 3.3,
    4: 7.3,
    5: 8.58,
    7: 13.5,
    8: 14.99,
    10: 23.19,
    11: 24.89,
    14: 33.937,
    16: 24.959,
    17: 41.959,
    19: 31.449,
    20: 51.449,
    22: 33.542,
}
"""Terms of (0.2, 0.5, 0.7) times 1, 2, ... T, summed; made with colour-science 0.4.7."""


def mild(count: int, seed: int = 0) -> np.ndarray:
    matrix = np.zeros((3, count))
    matrix[:, :3] = np.eye(3)
    return matrix + np.random.default_rng(seed).normal(0, 0.03, matrix.shape)


@pytest.mark.parametrize("count", TERMS)
def test_terms_come_in_the_order_of_colour_science(count: int):
    terms = expand_terms(np.array([[0.2], [0.5], [0.7]]), count)[:, 0]
    assert float(terms @ np.arange(1, count + 1)) == pytest.approx(GOLDEN[count], abs=1e-9)


@pytest.mark.parametrize("count", TERMS)
def test_tables_agree_with_the_formula(count: int):
    image = np.random.default_rng(1).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    matrix = mild(count)
    exact = np.clip(correct_exact(image / 255, matrix), 0, 1) * 255
    assert np.abs(ColorCorrection(matrix)(image) - exact).max() < 0.6


def test_a_matrix_without_off_diagonals_scales_linear_light():
    half = correct_exact(np.array([1.0, 1.0, 1.0]), np.eye(3) * 0.5)
    assert half == pytest.approx([0.735357] * 3, abs=1e-5)  # sRGB of linear 0.5


def test_the_exact_formula_is_not_clipped():
    assert correct_exact(np.ones(3), np.eye(3) * 2).min() > 1
    assert correct_exact(np.ones(3), -np.eye(3)).max() < 0


@pytest.mark.parametrize("count", TERMS)
def test_the_identity_returns_the_picture_itself(count: int):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    matrix = np.zeros((3, count))
    matrix[:, :3] = np.eye(3)
    assert ColorCorrection(matrix)(image) is image
    assert ColorCorrection(None)(image) is image


@pytest.mark.parametrize("matrix", [np.eye(3)[:2], np.zeros((3, 6)), np.full((3, 4), np.nan)])
def test_illegal_matrices_are_refused(matrix: np.ndarray):
    with pytest.raises(CaptureError) as caught:
        ColorCorrection(matrix)
    assert len(str(caught.value).splitlines()) == 2
