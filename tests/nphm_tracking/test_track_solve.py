"""The Gauss-Newton solver: exact recovery, batch = singles, bounds, coupling, missing data."""

from dataclasses import replace

import pytest
import torch
from analytic_capture import SCALE, Z_GEO, rotation_error_deg, truth
from analytic_head import AnalyticHead

from npga.core.rotations import matrix_from_rotvec
from nphm_tracking.config import StageConfig
from nphm_tracking.frames import FrameData, FrameState, Person
from nphm_tracking.head import expression_prior
from nphm_tracking.solve import solve_frames, solve_tridiagonal

STAGE = StageConfig(code=1e-5, sparsity=0.0, iterations=10)
FRAMES = 5


@pytest.fixture(scope="module")
def scene() -> tuple[Person, FrameData, FrameState, FrameState]:
    head, true = AnalyticHead(), truth(FRAMES, 3)
    marks, canonical = head.landmarks(Z_GEO), head.surface(Z_GEO, 300, 1)
    points = torch.stack([head.posed_points(canonical, z) for z in true.z_exp])
    seen = torch.stack([head.posed_points(marks, z) for z in true.z_exp])
    data = FrameData(
        points=true.pose.apply(points),
        normals=torch.zeros_like(points),
        point_weight=torch.ones(points.shape[:2]),
        landmarks=true.pose.apply(seen),
        landmark_weight=torch.ones(seen.shape[:2]),
        linked=torch.zeros(FRAMES - 1),
        code_weight=torch.ones(FRAMES),
    )
    person = Person(head, Z_GEO, torch.tensor(SCALE), marks, expression_prior(head))
    wrong = matrix_from_rotvec(torch.tensor([0.1, -0.08, 0.05]).expand(FRAMES, 3))
    start = FrameState(
        torch.zeros(FRAMES, 4),
        true.pose.rotation @ wrong,
        true.pose.translation + 0.008,
        marks.expand(FRAMES, -1, -1),
    )
    target = FrameState(true.z_exp, true.pose.rotation, true.pose.translation, seen)
    return person, data, start, target


def test_codes_and_poses_are_exact(scene: tuple) -> None:
    person, data, start, target = scene
    found = solve_frames(person, data, start, STAGE)
    assert (found.z_exp - target.z_exp).abs().max() < 1e-3
    assert (found.translation - target.translation).norm(dim=1).max() < 1e-5
    assert rotation_error_deg(found.rotation, target.rotation).max() < 0.05
    assert (found.marks - target.marks).abs().max() < 1e-4


def test_a_batch_equals_its_frames_alone(scene: tuple) -> None:
    person, data, start, _ = scene
    batch = solve_frames(person, data, start, STAGE, 4)
    for t in range(FRAMES):
        rows = slice(t, t + 1)
        alone = solve_frames(person, data[rows], start[rows], STAGE, 4)
        assert torch.allclose(alone.z_exp, batch.z_exp[rows], atol=1e-4)
        assert torch.allclose(alone.translation, batch.translation[rows], atol=1e-6)


def test_codes_stay_inside_their_bounds(scene: tuple) -> None:
    person, data, start, _ = scene
    tight = replace(person.prior, upper=torch.full((4,), 0.4))
    found = solve_frames(replace(person, prior=tight), data, start, STAGE)
    assert found.z_exp.min() >= 0 and found.z_exp.max() <= 0.4
    assert bool((found.z_exp == 0.4).any())


def test_a_frame_without_data_follows_its_neighbours(scene: tuple) -> None:
    person, data, start, _ = scene
    weight, marks = data.point_weight.clone(), data.landmark_weight.clone()
    weight[2], marks[2] = 0, 0
    blind = replace(data, point_weight=weight, landmark_weight=marks, linked=torch.ones(FRAMES - 1))
    found = solve_frames(person, blind, start, replace(STAGE, smooth_code=1e-3, smooth_pose=1e-2))
    middle = (found.z_exp[1] + found.z_exp[3]) / 2
    assert (found.z_exp[2] - middle).abs().max() < 0.02
    assert bool(found.translation.isfinite().all())


def test_opposing_normals_are_ignored(scene: tuple) -> None:
    person, data, _, target = scene
    shifted = torch.cat([data.points, data.points + 0.004], 1)
    away = torch.zeros_like(data.points)
    away[..., 2] = -1.0
    both = replace(
        data,
        points=shifted,
        normals=torch.cat([torch.zeros_like(away), away], 1),
        point_weight=torch.ones(shifted.shape[:2]),
        landmarks=data.landmarks[:, :0],
        landmark_weight=data.landmark_weight[:, :0],
    )
    near = replace(target, translation=target.translation + 0.001, marks=target.marks[:, :0])
    kept = solve_frames(replace(person, landmarks=person.landmarks[:0]), both, near, STAGE)
    assert (kept.translation - target.translation).norm(dim=1).max() < 1.5e-3


def test_tridiagonal_solver_is_the_dense_one() -> None:
    generator = torch.Generator().manual_seed(5)
    count, size = 4, 3
    root = torch.randn(count, size, size, generator=generator)
    diagonal = root @ root.transpose(1, 2) + 3 * torch.eye(size)
    link = torch.rand(count - 1, size, generator=generator)
    right = torch.randn(count, size, generator=generator)
    free = torch.ones(count, size, dtype=torch.bool)
    free[1, 2], free[3, 0] = False, False
    dense = torch.block_diag(*diagonal)
    for t in range(count - 1):
        rows, columns = slice(t * size, (t + 1) * size), slice((t + 1) * size, (t + 2) * size)
        dense[rows, columns] = dense[columns, rows] = -torch.diag(link[t])
    keep = free.reshape(-1)
    expected = torch.zeros(count * size)
    expected[keep] = torch.linalg.solve(dense[keep][:, keep], right.reshape(-1)[keep])
    found = solve_tridiagonal(diagonal, link, right, free)
    assert torch.allclose(found.reshape(-1), expected, atol=1e-5)
