"""Bad input: two lines that say what it looks like; bad frames are marked, never invented."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from analytic_capture import AnalyticCapture, analytic_capture, ring
from analytic_head import AnalyticHead
from test_track_run import CONFIG, STAGES

from npga.capture.types import Landmarks2D, PointCloud
from npga.core.errors import TrackError
from nphm_tracking.align import check_scale
from nphm_tracking.clouds import _without_background, check_units
from nphm_tracking.run import track_capture

SHORT = [replace(s, identity_steps=2, iterations=3, rounds=1, frames=4) for s in STAGES]
BRIEF = replace(CONFIG, stages=SHORT, report=False)


def grown(cloud: PointCloud, factor: float) -> PointCloud:
    return replace(cloud, points=cloud.points * factor)


@pytest.mark.parametrize(
    ("factor", "unit"), [(1000.0, "millimetres"), (100.0, "centimetres"), (1e-3, "kilometres")]
)
def test_other_units_are_named(factor: float, unit: str) -> None:
    cloud = analytic_capture({"EXP-1": 1}).cloud("EXP-1", 0)
    check_units(cloud, "EXP-1 frame 0")
    with pytest.raises(TrackError, match=f"EXP-1 frame 0 .*looks like {unit}"):
        check_units(grown(cloud, factor), "EXP-1 frame 0")


def test_units_of_the_calibration_are_named() -> None:
    with pytest.raises(TrackError, match="looks like millimetres"):
        check_scale(251.0)
    with pytest.raises(TrackError, match="0.5 metres per head unit, not"):
        check_scale(0.5)
    check_scale(0.25)


class Millimetres(AnalyticCapture):
    def _cloud(self, sequence: str, frame: int) -> PointCloud:
        return grown(super()._cloud(sequence, frame), 1000.0)


class EmptyClouds(AnalyticCapture):
    def _cloud(self, sequence: str, frame: int) -> PointCloud:
        cloud = super()._cloud(sequence, frame)
        return cloud if frame != 2 else replace(cloud, **{k: v[:0] for k, v in vars(cloud).items()})


class Faceless(AnalyticCapture):
    """No face is found in frame 1."""

    def landmarks(self, sequence: str) -> Landmarks2D | None:
        found = super().landmarks(sequence)
        sure = found.confidence.clone()
        sure[1] = 0
        return replace(found, confidence=sure)


def like(kind: type[AnalyticCapture], frames: int = 5) -> AnalyticCapture:
    return kind(**vars(analytic_capture({"EXP-1": frames})))


def test_a_capture_in_millimetres_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrackError, match="looks like millimetres"):
        track_capture(like(Millimetres), ["EXP-1"], AnalyticHead(), BRIEF, tmp_path)


def test_an_empty_cloud_fails_its_frame_only(tmp_path: Path) -> None:
    track = track_capture(like(EmptyClouds), ["EXP-1"], AnalyticHead(), BRIEF, tmp_path)
    assert track.sequences["EXP-1"].ok.tolist() == [True, True, False, True, True]


def test_a_frame_without_a_face_is_tracked_by_its_cloud(tmp_path: Path) -> None:
    """With several cameras points remain; with one camera nothing does."""
    capture = like(Faceless)
    track = track_capture(capture, ["EXP-1"], AnalyticHead(), BRIEF, tmp_path / "many")
    assert bool(track.sequences["EXP-1"].ok.all())
    alone = replace(BRIEF, cameras=["cam2"])
    track = track_capture(capture, ["EXP-1"], AnalyticHead(), alone, tmp_path / "one")
    assert track.sequences["EXP-1"].ok.tolist() == [True, False, True, True, True]
    assert not bool(track.sequences["EXP-1"].z_exp[1].any()), "neutral, not invented"


def test_mattes_that_show_nobody_are_refused() -> None:
    cameras = ring(2)
    points = torch.zeros(3, 3)
    cloud = PointCloud(points, points, points)
    mattes = torch.full((2, cameras.height, cameras.width), 255, dtype=torch.uint8)
    assert len(_without_background(cloud, cameras, mattes)) == 3
    mattes[1] = 0
    with pytest.raises(TrackError, match="camera cam1 show nobody"):
        _without_background(cloud, cameras, mattes)
