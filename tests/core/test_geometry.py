"""Rotations, similarities and cameras: axioms, references and frames."""

import math

import pytest
import torch

from npga.core.cameras import Cameras, look_at, nearest_point
from npga.core.errors import CaptureError
from npga.core.gaussians import Gaussians
from npga.core.rotations import (
    matrix_from_quat,
    matrix_from_rotvec,
    mean_rotation,
    quat_from_matrix,
    quat_multiply,
    quat_rotate,
    rotvec_from_matrix,
    small_turn,
)
from npga.core.similarity import Similarity, fit_similarity


def rotvecs(seed: int = 0) -> torch.Tensor:
    """Uniform directions with angles from 1e-9 to nearly pi."""
    g = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(
        torch.randn(60, 3, generator=g, dtype=torch.float64), dim=1
    )
    angle = torch.cat([torch.logspace(-9, -2, 20), torch.linspace(0.1, math.pi - 1e-3, 40)])
    return axis * angle.double()[:, None]


def random_similarity(seed: int) -> Similarity:
    g = torch.Generator().manual_seed(seed)
    r = matrix_from_rotvec(torch.randn(3, generator=g, dtype=torch.float64))
    t = torch.randn(3, generator=g, dtype=torch.float64)
    return Similarity(torch.tensor(0.3 + seed, dtype=torch.float64), r, t)


def rig(dtype: torch.dtype = torch.float64) -> Cameras:
    target, up = torch.tensor([0.0, 0.1, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    eyes = torch.tensor([[0.5, 0.1, 1.0], [-0.4, 0.3, 1.1], [0.0, -0.2, 1.0]])
    poses = torch.stack([look_at(e.to(dtype), target.to(dtype), up.to(dtype)) for e in eyes])
    k = torch.tensor([[300.0, 0, 40.0], [0, 310.0, 70.0], [0, 0, 1]], dtype=dtype)
    return Cameras(k.expand(3, 3, 3).clone(), poses, 100, 140, ("a", "b", "c"))


def test_rotation_vectors_agree_with_the_matrix_exponential_and_come_back():
    r = rotvecs()
    zero = torch.zeros(len(r), dtype=r.dtype)
    x, y, z = r.unbind(1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    assert torch.allclose(matrix_from_rotvec(r), torch.linalg.matrix_exp(cross), atol=1e-12)
    assert torch.allclose(rotvec_from_matrix(matrix_from_rotvec(r)), r, atol=1e-8)


def test_gradient_at_zero_rotation_is_finite_and_exact():
    r = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: matrix_from_rotvec(v), (r,))


def test_quaternions_are_wxyz_and_multiply_like_matrices():
    quarter_about_z = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)], dtype=torch.float64)
    turned = matrix_from_quat(quarter_about_z) @ torch.tensor([1.0, 0, 0], dtype=torch.float64)
    assert torch.allclose(turned, torch.tensor([0.0, 1, 0], dtype=torch.float64), atol=1e-12)
    a, b = matrix_from_rotvec(rotvecs(1)), matrix_from_rotvec(rotvecs(2))
    product = matrix_from_quat(quat_multiply(quat_from_matrix(a), quat_from_matrix(b)))
    assert torch.allclose(product, a @ b, atol=1e-12)


def test_quaternions_of_any_length_turn_vectors_like_their_matrices():
    g = torch.Generator().manual_seed(0)
    quats, vectors = (torch.randn(40, s, generator=g, dtype=torch.float64) for s in (4, 3))
    by_matrix = (matrix_from_quat(quats) @ vectors[..., None])[..., 0]
    assert torch.allclose(quat_rotate(quats, vectors), by_matrix, atol=1e-12)


@pytest.mark.parametrize(("degrees", "off"), [(3, 0.003), (30, 2.0)])
def test_small_turns_take_a_vector_or_its_sine_for_the_angle(degrees, off):
    angle = math.radians(degrees)
    axis = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    for length in (angle, math.sin(angle)):
        found = rotvec_from_matrix(matrix_from_quat(small_turn(length * axis)))
        assert torch.allclose(found / found.norm(), axis)
        assert abs(math.degrees(float(found.norm())) - degrees) < off


def test_mean_rotation_of_a_symmetric_spread_is_its_centre():
    centre = matrix_from_rotvec(torch.tensor([0.2, 0.7, -0.4], dtype=torch.float64))
    spread = torch.randn(20, 3, dtype=torch.float64) * 0.2
    both = matrix_from_rotvec(torch.cat([spread, -spread]))
    assert torch.allclose(mean_rotation(centre @ both), centre, atol=1e-10)


def test_similarity_composes_and_inverts_like_its_matrix():
    a, b = random_similarity(1), random_similarity(2)
    points = torch.randn(7, 3, dtype=torch.float64)
    assert torch.allclose(a.compose(b).apply(points), a.apply(b.apply(points)))
    assert torch.allclose(a.inverse().apply(a.apply(points)), points)
    assert torch.allclose(a.compose(b).matrix(), a.matrix() @ b.matrix())
    again = Similarity.from_matrix(a.matrix())
    assert torch.allclose(again.scale, a.scale)
    assert torch.allclose(again.rotation, a.rotation)


def test_fit_similarity_recovers_the_motion_and_ignores_points_of_no_weight():
    motion = random_similarity(3)
    source = torch.randn(20, 3, dtype=torch.float64)
    target = motion.apply(source)
    target[0] += 5
    weights = torch.ones(20, dtype=torch.float64)
    weights[0] = 0
    found = fit_similarity(source, target, weights)
    assert torch.allclose(found.matrix(), motion.matrix(), atol=1e-10)
    assert torch.linalg.det(found.rotation) > 0


def test_cameras_project_the_target_to_the_principal_point():
    cameras = rig()
    pixels, depth = cameras.project(torch.tensor([[0.0, 0.1, 0.0]], dtype=torch.float64))
    expected = torch.tensor([40.0, 70.0], dtype=torch.float64)
    assert torch.allclose(pixels, expected.expand(3, 1, 2), atol=1e-9)
    distance = (cameras.centres_world() - torch.tensor([0.0, 0.1, 0.0])).norm(dim=1)
    assert torch.allclose(depth[:, 0], distance)
    above, _ = cameras.project(torch.tensor([[0.0, 0.2, 0.0]], dtype=torch.float64))
    assert (above[:, 0, 1] < 70).all(), "world +y is up, image y is down"


def test_resizing_and_cropping_scale_and_shift_pixels():
    cameras, point = rig(), torch.tensor([[0.03, 0.12, 0.02]], dtype=torch.float64)
    pixels, _ = cameras.project(point)
    assert torch.allclose(cameras.resized(50, 70).project(point)[0], pixels / 2)
    shift = torch.tensor([10.0, 5.0], dtype=torch.float64)
    assert torch.allclose(cameras.cropped(10, 5, 60, 60).project(point)[0], pixels - shift)


def test_the_rig_looks_at_its_target():
    assert torch.allclose(
        nearest_point(rig()), torch.tensor([0.0, 0.1, 0.0], dtype=torch.float64), atol=1e-9
    )


def test_the_frontal_camera_looks_against_z():
    cameras = rig()
    assert cameras.frontal() == 2  # at x = 0, the two others look from the sides
    sideways = Cameras(cameras.K[:2], cameras.cam_from_world[:2], 100, 140, ("a", "b"))
    assert sideways.frontal() == 1


def test_unknown_camera_is_refused_by_name():
    with pytest.raises(CaptureError, match="Camera z is not in this rig, which has a, b, c"):
        rig().by_id(["z"])


def test_gaussians_move_with_their_covariance():
    motion = random_similarity(4)
    g = Gaussians(
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 4, dtype=torch.float64),
        torch.randn(5, 3, dtype=torch.float64),
        torch.zeros(5, dtype=torch.float64),
        torch.rand(5, 3, dtype=torch.float64),
    )
    moved = g.transformed(motion)
    turned = motion.rotation @ g.covariances() @ motion.rotation.T * motion.scale**2
    assert torch.allclose(moved.covariances(), turned, rtol=1e-9)
    assert torch.allclose(moved.means, motion.apply(g.means))
