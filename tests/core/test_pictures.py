"""Losses, metrics, graphs and meshes against slow readable twins."""

import numpy as np
import pytest
import torch

from npga.core.graph import knn, laplacian_energy
from npga.core.images import (
    contact_sheet,
    linear_from_srgb,
    resize_area,
    srgb_from_linear,
)
from npga.core.losses import gaussian_window, ssim_map
from npga.core.mesh import Mesh
from npga.core.metrics import psnr, ssim


def slow_ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """SSIM by a loop over pixels, straight from Wang et al. 2004."""
    window = gaussian_window(11, 1.5, x)
    weight = window[:, None] * window[None, :]
    height, width = x.shape
    out = torch.zeros_like(x)
    px, py = (torch.nn.functional.pad(v, (5, 5, 5, 5)) for v in (x, y))
    for r in range(height):
        for c in range(width):
            a, b = px[r : r + 11, c : c + 11], py[r : r + 11, c : c + 11]
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * a * a).sum() - ma**2, (weight * b * b).sum() - mb**2
            cov = (weight * a * b).sum() - ma * mb
            out[r, c] = ((2 * ma * mb + 1e-4) * (2 * cov + 9e-4)) / (
                (ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)
            )
    return out


def test_ssim_equals_the_slow_twin_in_value_and_gradient():
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 12, 9, generator=g, dtype=torch.float64)
    fast_x, slow_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    fast = ssim_map(
        fast_x[None, :, :, None].expand(1, 12, 9, 3), y[None, :, :, None].expand(1, 12, 9, 3)
    )
    slow = slow_ssim(slow_x, y)
    assert torch.allclose(fast[0, :, :, 0], slow, atol=1e-12)
    fast.mean().backward()
    slow.mean().backward()
    assert torch.allclose(fast_x.grad, slow_x.grad, atol=1e-12)


def test_psnr_counts_only_the_mask():
    target = torch.full((4, 4, 3), 0.5)
    image = target.clone()
    image[:, :2] += 0.1
    left = torch.zeros(4, 4)
    left[:, :2] = 1
    assert psnr(image, target, left) == pytest.approx(20, abs=1e-4)
    assert psnr(image, target) == pytest.approx(20 + 10 * np.log10(2), abs=1e-4)
    assert ssim(target, target) == pytest.approx(1)


def test_srgb_curves_are_inverse_and_fixed_at_known_values():
    x = np.linspace(0, 1, 101)
    assert np.allclose(srgb_from_linear(linear_from_srgb(x)), x, atol=1e-7)
    assert linear_from_srgb(np.array(0.5)) == pytest.approx(0.21404, abs=1e-5)


def test_area_resize_averages_blocks():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    expected = image.reshape(4, 2, 4, 2).mean((1, 3))
    assert np.abs(resize_area(image, 4, 4) - expected).max() <= 1


def test_contact_sheet_holds_every_tile():
    tiles = [np.full((10, 20, 3), v, np.uint8) for v in (10, 20, 30)]
    sheet = contact_sheet(tiles, 2)
    assert sheet.shape == (20, 40, 3)
    assert [sheet[5, 5, 0], sheet[5, 25, 0], sheet[15, 5, 0], sheet[15, 25, 0]] == [10, 20, 30, 255]


def test_knn_agrees_with_all_pairs():
    points = torch.randn(80, 3, generator=torch.Generator().manual_seed(1))
    index, distance = knn(points, 5)
    pairs = torch.cdist(points, points).fill_diagonal_(float("inf"))
    expected = pairs.topk(5, largest=False)
    assert torch.equal(index, expected.indices)
    assert torch.allclose(distance, expected.values, atol=1e-5)


def test_laplacian_energy_vanishes_on_constants_and_counts_a_spike():
    index = torch.tensor([[1, 2], [0, 2], [0, 1]])
    assert laplacian_energy(torch.full((3, 4), 2.0), index) == 0
    spike = torch.tensor([[3.0], [0.0], [0.0]])
    assert laplacian_energy(spike, index) == pytest.approx((9 + 2.25 + 2.25) / 3)


def cube() -> Mesh:
    import trimesh

    box = trimesh.creation.box(extents=(1, 1, 1))
    return Mesh(torch.tensor(box.vertices).float(), torch.tensor(box.faces).long())


def test_mesh_areas_samples_and_closest_points():
    mesh = cube()
    areas, normals = mesh.face_areas_normals()
    assert float(areas.sum()) == pytest.approx(6)
    centres = mesh.vertices[mesh.faces].mean(1)
    assert ((centres * normals).sum(1) > 0).all()
    samples = mesh.sample(2000, seed=0)
    assert torch.allclose(samples.points.abs().amax(1), torch.full((2000,), 0.5), atol=1e-5)
    per_side = torch.bincount(samples.face // 2, minlength=6)
    assert per_side.min() > 260
    assert torch.equal(mesh.sample(10, seed=3).points, mesh.sample(10, seed=3).points)
    distance, near, _ = mesh.closest(torch.tensor([[0.0, 0.0, 0.8], [0.1, 0.2, 0.5]]))
    assert torch.allclose(distance, torch.tensor([0.3, 0.0]), atol=1e-6)
    assert torch.allclose(near[0], torch.tensor([0.0, 0.0, 0.5]), atol=1e-6)
