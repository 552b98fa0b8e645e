"""First poses: Umeyama with outliers, one scale, ICP; refusals; cleaning of clouds."""

import pytest
import torch
from analytic_capture import analytic_capture, ring, rotation_error_deg
from analytic_head import AnalyticHead

from npga.capture.types import PointCloud
from npga.core.device import flush_denormals
from npga.core.errors import TrackError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity, fit_similarity
from nphm_tracking.align import align_cloud, align_landmarks, fit_robust
from nphm_tracking.clouds import clean_cloud, draw_points, face_rows, inside_mattes

POSE = Similarity(
    torch.tensor(0.24),
    matrix_from_rotvec(torch.tensor([0.2, -0.3, 0.1])),
    torch.tensor([0.03, 0.1, -0.02]),
)


def test_umeyama_survives_a_moving_mouth() -> None:
    marks = AnalyticHead().landmarks(torch.zeros(3))
    world = POSE.apply(marks)
    world[marks[:, 1] < -0.25] += torch.tensor([0.02, -0.03, 0.0])
    fit = fit_robust(marks, world, torch.ones(len(marks)))
    plain = fit_similarity(marks, world)
    angle = rotation_error_deg(fit.rotation, POSE.rotation)
    assert angle < 0.3 * rotation_error_deg(plain.rotation, POSE.rotation)
    assert abs(float(fit.scale) - 0.24) < 0.3 * abs(float(plain.scale) - 0.24)


def test_one_scale_and_borrowed_poses() -> None:
    marks = AnalyticHead().landmarks(torch.zeros(3))
    poses = Similarity.stack([POSE, POSE, POSE])
    weight = torch.ones(3, len(marks))
    weight[1] = 0
    found, enough = align_landmarks(poses.apply(marks.expand(3, -1, -1)), weight, marks)
    assert enough.tolist() == [True, False, True]
    assert len(set(found.scale.tolist())) == 1
    assert torch.allclose(found.translation[1], POSE.translation, atol=1e-4)


def test_no_landmarks_and_wrong_units_are_refused() -> None:
    marks = AnalyticHead().landmarks(torch.zeros(3))
    with pytest.raises(TrackError, match="No frame has"):
        align_landmarks(marks[None], torch.zeros(1, len(marks)), marks)
    with pytest.raises(TrackError, match="metres per head unit"):
        align_landmarks(250 * marks[None], torch.ones(1, len(marks)), marks)


def test_icp_without_landmarks() -> None:
    capture = analytic_capture({"EXP-1": 1})
    cloud = clean_cloud(capture.cloud("EXP-1", 0))
    codes = type("Codes", (), {"z_geo": torch.zeros(3), "z_exp": torch.zeros(4)})
    vertices = AnalyticHead().mesh(codes, 40).vertices
    found = align_cloud(cloud.points, vertices, ring(6))
    true = capture.truths["EXP-1"].pose[0]
    assert rotation_error_deg(found.rotation, true.rotation) < 15.0  # the solver does the rest
    assert (found.translation - true.translation).norm() < 0.015
    with pytest.raises(TrackError, match="50 points"):
        align_cloud(cloud.points[:50], vertices, ring(6))


def test_icp_with_denormals_flushed() -> None:
    """As on the command line; a tree that compares flushed coordinates may never end."""
    capture = analytic_capture({"EXP-1": 1})
    cloud = clean_cloud(capture.cloud("EXP-1", 0))
    codes = type("Codes", (), {"z_geo": torch.zeros(3), "z_exp": torch.zeros(4)})
    vertices = AnalyticHead().mesh(codes, 40).vertices
    vertices[::2, 0] *= 1e-40
    try:
        flush_denormals()
        found = align_cloud(cloud.points, vertices, ring(6))
    finally:
        torch.set_flush_denormal(False)
    assert bool(found.rotation.isfinite().all())


def test_cleaning_drops_strays_and_nan() -> None:
    generator = torch.Generator().manual_seed(0)
    sheet = torch.rand(600, 3, generator=generator) * torch.tensor([0.2, 0.2, 0.001])
    stray = torch.tensor([[0.1, 0.1, 0.05], [0.5, 0.5, 0.5], [torch.nan, 0.0, 0.0]])
    points = torch.cat([sheet, stray])
    cleaned = clean_cloud(PointCloud(points, torch.zeros_like(points), torch.zeros_like(points)))
    assert 560 < len(cleaned) <= 600
    assert cleaned.points[:, 2].max() < 0.002


def test_face_first_then_head_never_torso() -> None:
    marks = AnalyticHead().landmarks(torch.zeros(3))
    torso = torch.tensor([[0.0, -0.9, 0.2], [0.1, -1.2, 0.1]])
    side = torch.tensor([[0.3, 0.0, -0.05], [-0.3, 0.05, -0.05]])
    points = torch.cat([marks + 0.01, side, torso])
    face, head = face_rows(points, marks)
    assert bool(face[: len(marks)].all()) and not bool(face[-4:].any())
    assert head[-4:].tolist() == [True, True, False, False]
    rows = draw_points(face, head, 20, 1)
    assert len(rows) == 20 == len(set(rows.tolist()))
    assert bool((face | head)[rows].all())
    assert torch.equal(rows, draw_points(face, head, 20, 1))


def test_points_outside_a_matte_go() -> None:
    rig = ring(2)
    mattes = torch.zeros(2, rig.height, rig.width, dtype=torch.uint8)
    mattes[:, 60:200, 50:150] = 255
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.2, 0.0]])
    assert inside_mattes(points, rig, mattes).tolist() == [True, False]
