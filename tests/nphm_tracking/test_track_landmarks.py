"""Triangulation against known points, and what landmark sources refuse."""

import numpy as np
import pytest
import torch
from analytic_capture import analytic_capture, ring

from npga.core.errors import TrackError
from nphm_tracking.config import LandmarkSource, TrackConfig
from nphm_tracking.landmarks import (
    detect_landmarks,
    frontal_cameras,
    triangulate,
)
from nphm_tracking.observe import landmark_source

POINTS = torch.tensor(
    [[0.02, 0.03, 0.08], [-0.06, 0.01, 0.04], [0.0, -0.07, 0.06], [0.05, 0.05, 0.0]]
)


def observed(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = ring(count).project(POINTS)[0][None]
    return pixels, torch.ones(pixels.shape[:3])


def test_exact_pixels_give_exact_points() -> None:
    found = triangulate(*observed(), ring(6))
    assert bool(found.valid.all())
    assert (found.points[0] - POINTS).abs().max() < 1e-5
    assert found.error_px.max() < 0.01


def test_outlier_cameras_are_dropped() -> None:
    pixels, confidence = observed()
    pixels[0, 1, 0] += 40.0
    pixels[0, 4, 0] -= 60.0
    pixels[0, 3, 2] += torch.tensor([0.0, 25.0])
    found = triangulate(pixels, confidence, ring(6), error_max_px=3.0)
    assert bool(found.valid.all())
    assert (found.points[0] - POINTS).abs().max() < 1e-4


def test_noise_averages_out() -> None:
    pixels, confidence = observed()
    generator = torch.Generator().manual_seed(1)
    pixels = pixels.repeat(200, 1, 1, 1)
    pixels = pixels + 0.5 * torch.randn(pixels.shape, generator=generator)
    found = triangulate(pixels, confidence.repeat(200, 1, 1), ring(6), error_max_px=3.0)
    assert (found.points.mean(0) - POINTS).norm(dim=1).max() < 5e-4
    assert 0.2 < float(found.error_px.mean()) < 0.7


def test_too_few_or_disagreeing_cameras_are_invalid_and_finite() -> None:
    pixels, confidence = observed()
    confidence[0, :, 0] = 0.0
    confidence[0, 1:, 1] = 0.0
    pixels[0, 0, 2] = torch.nan
    confidence[0, 2:, 3] = 0.0
    pixels[0, 1, 3] += torch.tensor([0.0, 80.0])
    found = triangulate(pixels, confidence, ring(6), error_max_px=3.0)
    assert found.valid[0].tolist() == [False, False, True, False]
    assert bool(found.points.isfinite().all())
    assert bool((found.points[0, 0] == 0).all())


def test_one_camera_cannot_be_enough() -> None:
    with pytest.raises(TrackError, match="cameras_min"):
        triangulate(*observed(), ring(6), cameras_min=1)


def test_frontal_cameras_are_the_middle_of_the_rig() -> None:
    assert frontal_cameras(ring(7), 3) == ("cam2", "cam3", "cam4")


class EdgeDetector:
    """A detector that finds the brightest pixel, and nothing in a dark picture."""

    count = 1

    def detect(self, image: np.ndarray) -> np.ndarray | None:
        grey = image.sum(-1)
        if grey.max() == 0:
            return None
        row, column = np.unravel_index(grey.argmax(), grey.shape)
        return np.array([[column + 0.5, row + 0.5]], dtype=np.float32)


def test_detection_keeps_place_and_marks_missing() -> None:
    images = torch.zeros(1, 2, 10, 12, 3, dtype=torch.uint8)
    images[0, 1, 7, 4] = 255
    pixels, confidence = detect_landmarks(images, EdgeDetector())
    assert confidence[0, :, 0].tolist() == [0.0, 1.0]
    assert pixels[0, 1, 0].tolist() == [4.5, 7.5]


def test_sources_refuse_what_is_absent() -> None:
    capture = analytic_capture({"EXP-1": 2})
    base = {"capture": "c", "out": "o"}
    auto = TrackConfig(**base)
    assert landmark_source(capture, ["EXP-1"], 5, auto) is LandmarkSource.capture
    assert landmark_source(capture, ["EXP-1"], 0, auto) is LandmarkSource.none
    with pytest.raises(TrackError, match="knows no landmarks"):
        landmark_source(
            capture, ["EXP-1"], 0, TrackConfig(**base, landmarks=LandmarkSource.capture)
        )
