"""The whole tracker on the analytic head: truth recovered, failures flagged, resume identical."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from analytic_capture import SCALE, Z_GEO, AnalyticCapture, analytic_capture, rotation_error_deg
from analytic_head import AnalyticHead

import nphm_tracking.track as track_module
from npga.core.errors import ConfigError, TrackError
from nphm_tracking.config import LandmarkSource, StageConfig, StageKind, TrackConfig
from nphm_tracking.result import Track
from nphm_tracking.run import track_capture

STAGES = [
    StageConfig(
        kind=StageKind.keyframe,
        frames=9,
        rounds=3,
        points=250,
        iterations=4,
        identity_steps=5,
        geometry=0.001,
        size=0.0,
        code=1e-4,
        sparsity=1e-4,
    ),
    StageConfig(kind=StageKind.sequential, points=250, iterations=8, code=1e-4, sparsity=1e-4),
    StageConfig(
        kind=StageKind.joint,
        frames=12,
        points=250,
        iterations=4,
        identity_steps=5,
        geometry=0.001,
        size=0.0,
        code=1e-4,
        sparsity=1e-4,
        smooth_code=1e-4,
        smooth_pose=1e-4,
    ),
]
CONFIG = TrackConfig(capture="memory", out="unused", stages=STAGES, points_min=50)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The analytic head's arrays are small: a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def capture() -> AnalyticCapture:
    return analytic_capture({"EXP-1": 8, "FREE": 12}, broken={"FREE": (5, 6)})


@pytest.fixture(scope="module")
def tracked(capture: AnalyticCapture, tmp_path_factory: pytest.TempPathFactory) -> Track:
    folder = tmp_path_factory.mktemp("track")
    track = track_capture(capture, list(capture.truths), AnalyticHead(), CONFIG, folder)
    assert {p.name for p in folder.iterdir()} == {
        "track.safetensors",
        "summary.json",
        "alignment.png",
        "report.html",
        "overlay.png",
    }
    return track


def test_codes_and_poses_are_recovered(tracked: Track, capture: AnalyticCapture) -> None:
    for name, sequence in tracked.sequences.items():
        true = capture.truths[name]
        ok = sequence.ok
        assert (sequence.z_exp - true.z_exp)[ok].abs().mean() < 0.04
        angle = rotation_error_deg(sequence.world_from_head.rotation, true.pose.rotation)
        assert angle[ok].max() < 0.6
        assert (sequence.world_from_head.translation - true.pose.translation)[ok].norm(
            dim=1
        ).max() < 0.002
        assert sequence.residual_mm[ok].max() < 0.5
        assert abs(float(sequence.world_from_head.scale[0]) - SCALE) < 0.006


def test_identity_is_recovered(tracked: Track) -> None:
    wanted = SCALE * AnalyticHead().radii(Z_GEO)
    scale = next(iter(tracked.sequences.values())).world_from_head.scale[0]
    found = scale * AnalyticHead().radii(tracked.z_geo)
    assert (found - wanted).abs().max() < 0.0015


def test_frames_without_points_are_flagged_not_invented(tracked: Track) -> None:
    free = tracked.sequence("FREE")
    assert torch.nonzero(~free.ok).flatten().tolist() == [5, 6]
    assert bool((free.z_exp[5] == 0).all())
    assert torch.isinf(free.residual_mm[5])
    assert bool(free.z_exp.isfinite().all())
    assert len(free.good()) == 10


def test_torso_is_the_mean_of_good_poses(tracked: Track) -> None:
    free = tracked.sequence("FREE")
    expected = free.world_from_head.translation[free.ok].mean(0)
    assert torch.allclose(free.torso.translation, expected)


def test_interrupted_run_resumes_to_the_same_numbers(
    capture: AnalyticCapture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(capture.truths)
    short = [replace(s, identity_steps=5, iterations=2, rounds=1, frames=4) for s in STAGES]
    config = replace(CONFIG, report=False, every=3, stages=short)
    (tmp_path / "whole").mkdir()
    whole = track_capture(capture, names, AnalyticHead(), config, tmp_path / "whole")
    real, calls = track_module._sequence, []

    def interrupted(*given: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    folder = tmp_path / "resumed"
    folder.mkdir()
    monkeypatch.setattr(track_module, "_sequence", interrupted)
    with pytest.raises(KeyboardInterrupt):
        track_capture(capture, names, AnalyticHead(), config, folder)
    kept = {p.name for p in (folder / "state").iterdir()}
    assert kept == {"1-keyframe.safetensors", "2-sequential-0.safetensors"}
    monkeypatch.setattr(track_module, "_sequence", real)
    monkeypatch.setattr(track_module, "solve_identity", _only_joint(track_module.solve_identity))
    again = track_capture(capture, names, AnalyticHead(), config, folder)
    assert torch.equal(again.z_geo, whole.z_geo)
    for name in names:
        one, other = again.sequences[name], whole.sequences[name]
        assert torch.equal(one.z_exp, other.z_exp)
        assert torch.equal(one.world_from_head.rotation, other.world_from_head.rotation)


def _only_joint(real):
    def checked(observed, solution, stage, chosen):
        assert stage.kind is StageKind.joint, "the kept keyframe stage ran again"
        return real(observed, solution, stage, chosen)

    return checked


def test_without_landmarks_the_cloud_aligns(capture: AnalyticCapture, tmp_path: Path) -> None:
    config = replace(CONFIG, landmarks=LandmarkSource.none, every=4, report=False)
    track = track_capture(capture, ["EXP-1"], AnalyticHead(), config, tmp_path)
    sequence = track.sequence("EXP-1")
    assert bool(sequence.ok.all())
    true = capture.truths["EXP-1"].pose
    angle = rotation_error_deg(sequence.world_from_head.rotation, true.rotation[::4])
    assert angle.median() < 4.0


def test_a_capture_without_any_good_frame_is_refused(tmp_path: Path) -> None:
    capture = analytic_capture({"EXP-1": 4}, noise_mm=30.0)
    short = [replace(s, identity_steps=2, iterations=1, rounds=1) for s in STAGES]
    config = replace(CONFIG, report=False, residual_max_mm=1.0, stages=short)
    with pytest.raises(TrackError, match="No frame was tracked|enough"):
        track_capture(capture, ["EXP-1"], AnalyticHead(), config, tmp_path)


def test_stages_must_begin_with_a_keyframe() -> None:
    with pytest.raises(ConfigError, match="keyframe"):
        TrackConfig(capture="c", out="o", stages=[StageConfig(kind=StageKind.joint)])
