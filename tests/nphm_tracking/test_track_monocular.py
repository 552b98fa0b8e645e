"""One camera alone: first poses, derivatives across rays, a whole track against the truth."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from analytic_capture import SCALE, analytic_capture, ring, rotation_error_deg
from analytic_head import AnalyticHead
from test_track_energies import FRAMES, moved, scene  # noqa: F401  the fixture
from test_track_identity import STAGE
from test_track_run import CONFIG, STAGES

from npga.core.errors import TrackError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from nphm_tracking.config import LandmarkSource, StageConfig
from nphm_tracking.frames import FrameData, FrameState, Person
from nphm_tracking.head import geometry_prior
from nphm_tracking.identity import fit_identity
from nphm_tracking.monocular import lift_landmarks
from nphm_tracking.run import track_capture
from nphm_tracking.solve import normal_equations


def test_posit_finds_the_exact_pose_despite_a_moved_mouth() -> None:
    marks = AnalyticHead().landmarks(torch.zeros(3))
    camera = ring(5).by_id(["cam1"])
    poses = Similarity(
        torch.full((3,), 0.25),
        matrix_from_rotvec(torch.tensor([[0.0, 0.3, 0.0], [0.2, -0.6, 0.1], [-0.3, 0.0, -0.4]])),
        torch.tensor([[0.0, 0.0, 0.0], [0.05, -0.02, 0.1], [-0.03, 0.04, -0.2]]),
    )
    world = poses.apply(marks.expand(3, -1, -1))
    pixels, _ = camera.project(world.reshape(-1, 3))
    pixels = pixels[0].reshape(3, -1, 2)
    confidence = torch.ones(3, len(marks))
    exact = lift_landmarks(pixels, confidence, camera, marks)
    assert rotation_error_deg(exact.start.rotation, poses.rotation).max() < 0.1
    torch.testing.assert_close(exact.start.translation, poses.translation, atol=1e-3, rtol=0)
    torch.testing.assert_close(exact.points, world, atol=2e-3, rtol=0)
    along = exact.points - camera.centres_world()[0]
    torch.testing.assert_close(torch.nn.functional.normalize(along, dim=-1), exact.ray)
    mouth = marks[:, 1] < -0.25
    pixels[:, mouth] += torch.tensor([2.0, 14.0])
    confidence[1] = 0
    rough = lift_landmarks(pixels, confidence, camera, marks)
    assert rotation_error_deg(rough.start.rotation[::2], poses.rotation[::2]).max() < 4.0
    assert rough.found.tolist() == [True, False, True]
    assert torch.equal(rough.start.translation[1], rough.start.translation[0])
    assert (rough.weight[1] == 0).all()
    with pytest.raises(TrackError, match="No face was found"):
        lift_landmarks(pixels, torch.zeros_like(confidence), camera, marks)


@pytest.fixture
def rays(scene: tuple) -> tuple[Person, FrameData, FrameState]:  # noqa: F811
    """The scene, seen by one camera a metre away."""
    person, data, state = scene
    centre = torch.tensor([0.1, 0.05, 1.0]).double()
    ray = torch.nn.functional.normalize(data.landmarks - centre, dim=-1)
    far = data.landmarks + 0.02 * torch.linspace(-1, 1, FRAMES).double()[:, None, None] * ray
    return person, replace(data, landmarks=far, landmark_ray=ray), state


def test_gradient_across_rays_is_the_energys(rays: tuple) -> None:
    person, data, state = rays
    stage = StageConfig(code=0.3, sparsity=0.2, surface=0.0, landmark=0.7)
    equations = normal_equations(person, data, state, stage)
    step = 1e-6
    for column in range(10):
        unit = torch.zeros(FRAMES, 10).double()
        unit[:, column] = step
        up = normal_equations(person, data, moved(person, state, unit), stage)
        down = normal_equations(person, data, moved(person, state, -unit), stage)
        slope = (up.energy - down.energy) / (2 * step)
        torch.testing.assert_close(2 * equations.gradient[:, column], slope, rtol=2e-3, atol=2e-3)


def test_depth_along_the_ray_does_not_count(rays: tuple) -> None:
    person, data, state = rays
    before = normal_equations(person, data, state, STAGE)
    deeper = replace(data, landmarks=data.landmarks + 0.03 * data.landmark_ray)
    after = normal_equations(person, deeper, state, STAGE)
    torch.testing.assert_close(after.energy, before.energy)
    torch.testing.assert_close(after.gradient, before.gradient)


def test_size_is_held(rays: tuple) -> None:
    person, data, state = rays
    stage = replace(STAGE, identity_steps=3)
    bias = torch.zeros_like(person.landmarks)
    found, _ = fit_identity(person, data, state, bias, geometry_prior(person.model), stage)
    assert torch.equal(found.scale, person.scale)
    assert not torch.equal(found.z_geo, person.z_geo)


def test_one_camera_recovers_codes_and_poses(tmp_path: Path) -> None:
    """Up to the head's size, which is taken as 0.25 m and is 0.26 m; a frame without a face fails.

    Identity is held near the mean: an analytic landmark set on one camera fixes little of it.
    """
    capture = analytic_capture({"EXP-1": 8, "FREE": 10})
    stages = [replace(s, geometry_monocular=4.0, rounds=2) for s in STAGES]
    config = replace(CONFIG, cameras=["cam2"], stages=stages, report=False)
    track = track_capture(capture, list(capture.truths), AnalyticHead(), config, tmp_path)
    for name, truth in capture.truths.items():
        found = track.sequences[name]
        assert bool(found.ok.all())
        assert (found.world_from_head.scale - 0.25).abs().max() < 1e-6
        true = truth.pose.rotation
        between = (found.world_from_head.rotation.mT @ true)[0]
        left = found.world_from_head.rotation @ between
        assert rotation_error_deg(left, true).median() < 2.5
        assert (found.z_exp - truth.z_exp).abs().mean() < 0.15
    eye = ring(6).by_id(["cam2"]).centres_world()[0]
    ours = (track.sequences["FREE"].world_from_head.translation - eye).norm(dim=1)
    true = (capture.truths["FREE"].pose.translation - eye).norm(dim=1)
    assert (ours / true - 0.25 / SCALE).abs().median() < 0.05


def test_one_camera_without_landmarks_is_refused(tmp_path: Path) -> None:
    capture = analytic_capture({"EXP-1": 3})
    config = replace(CONFIG, cameras=["cam2"], landmarks=LandmarkSource.none)
    with pytest.raises(TrackError, match="One camera alone"):
        track_capture(capture, ["EXP-1"], AnalyticHead(), config, tmp_path)
    with pytest.raises(TrackError, match="None of the cameras cam9"):
        track_capture(
            capture, ["EXP-1"], AnalyticHead(), replace(CONFIG, cameras=["cam9"]), tmp_path
        )
