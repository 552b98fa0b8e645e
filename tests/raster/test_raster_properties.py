"""What must hold of any picture of Gaussians, whoever draws it."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from raster_scenes import FIELDS, cameras, cloud, differentiate

from npga.core.cameras import Cameras
from npga.core.gaussians import Gaussians
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.raster import Backend, contributions, rasterize

BOTH = pytest.mark.parametrize("backend", [Backend.cpu, Backend.reference])


def single(depth: float = 2.0, sigma: float = 0.05, logit: float = 1.0) -> Gaussians:
    """One round Gaussian on the optical axis."""
    fields = ([[0, 0, depth]], [[1, 0, 0, 0]], [[math.log(sigma)] * 3], [logit], [[0.25, 0.5, 1]])
    return Gaussians(*(torch.tensor(f, dtype=torch.float64) for f in fields))


def axis_camera(size: int = 33, focal: float = 60.0) -> Cameras:
    """At the origin, looking along +z; the axis meets the centre of the middle pixel."""
    K = torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]], dtype=torch.float64)
    return Cameras(K, torch.eye(4, dtype=torch.float64)[None], size, size, ("0",))


@BOTH
@pytest.mark.parametrize("antialias", [False, True])
def test_one_gaussian_by_hand(backend: Backend, antialias: bool) -> None:
    images = rasterize(single(), axis_camera(), backend=backend, antialias=antialias)
    sharp = (60.0 * 0.05 / 2.0) ** 2
    variance = sharp + 0.3
    peak = torch.tensor(1.0).double().sigmoid() * (sharp / variance if antialias else 1.0)
    across = torch.arange(33, dtype=torch.float64) - 16
    wanted = peak * torch.exp(-(across**2) / (2 * variance))
    wanted = torch.where(wanted >= 1 / 255, wanted, torch.zeros_like(wanted))
    assert torch.allclose(images.alpha[0, 16], wanted, rtol=0, atol=1e-12)
    assert torch.allclose(images.alpha[0, :, 16], wanted, rtol=0, atol=1e-12)
    assert torch.allclose(images.image[0, 16, :, 1], 0.5 * wanted, rtol=0, atol=1e-12)
    assert torch.allclose(images.depth[0, 16], 2.0 * wanted, rtol=0, atol=1e-12)
    assert images.radii.item() == math.ceil(math.sqrt(variance * 2 * math.log(255 * peak)))


@BOTH
def test_nearer_covers_farther(backend: Backend) -> None:
    near, far = single(1.0, 0.05, 20.0), single(3.0, 0.15, 20.0)
    red = replace(near, colors=torch.tensor([[1.0, 0, 0]]).double())
    for pair in (red.join(far), far.join(red)):
        middle = rasterize(pair, axis_camera(), backend=backend).image[0, 16, 16]
        assert middle[0] > 0.998 and middle[2] < 0.0011


@BOTH
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_moving_cameras_and_gaussians_together_changes_nothing(
    backend: Backend, scale: float
) -> None:
    gaussians, rig = cloud(), cameras(2)
    turn = matrix_from_rotvec(torch.tensor([0.4, -1.1, 0.7], dtype=torch.float64))
    shift = torch.tensor([0.3, -0.2, 5.0], dtype=torch.float64)
    move = Similarity(torch.tensor(scale, dtype=torch.float64), turn, shift)
    pose = rig.cam_from_world.clone()
    pose[:, :3, :3] = rig.cam_from_world[:, :3, :3] @ turn.T
    pose[:, :3, 3] = scale * rig.cam_from_world[:, :3, 3] - pose[:, :3, :3] @ shift
    with torch.no_grad():
        still = rasterize(gaussians, rig, backend=backend)
        moved = rasterize(
            gaussians.transformed(move),
            replace(rig, cam_from_world=pose),
            backend=backend,
            near=0.01 * scale,
        )
    assert (still.image - moved.image).abs().max() < 1e-11
    assert (still.depth * scale - moved.depth).abs().max() < 1e-11
    assert torch.equal(still.radii, moved.radii)


def test_order_of_gaussians_does_not_matter() -> None:
    gaussians, rig = cloud(), cameras()
    shuffle = torch.randperm(len(gaussians), generator=torch.Generator().manual_seed(2))
    a = differentiate(gaussians, rig, Backend.cpu)
    b = differentiate(gaussians.select(shuffle), rig, Backend.cpu)
    assert torch.equal(a.images.image, b.images.image)
    for name in FIELDS:
        assert torch.equal(a.gradients[name][shuffle], b.gradients[name]), name


def test_a_larger_picture_holds_the_smaller_one() -> None:
    """Tiles must not show: the same pixels from a window that starts elsewhere."""
    gaussians, rig = cloud(), cameras(1, 64, 64)
    pixels, depth = rig.project(gaussians.means)
    in_window = (pixels[0] > torch.tensor([2, 6])) & (pixels[0] < torch.tensor([52, 49]))
    calm = gaussians.select(in_window.all(-1) & (depth[0] > 0))  # the clamp knows the window
    whole = rasterize(calm, rig).image[0]
    window = rasterize(calm, rig.cropped(7, 11, 40, 33)).image[0]
    assert (whole[11 : 11 + 33, 7 : 7 + 40] - window).abs().max() < 1e-12


def test_threads_do_not_change_a_bit() -> None:
    gaussians = cloud(3000, channels=5, dtype=torch.float32)
    rig = cameras(2, 150, 130, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(differentiate(gaussians, rig, Backend.cpu))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0].images.image, other.images.image)
        for name, gradient in results[0].gradients.items():
            assert torch.equal(gradient, other.gradients[name]), name


def test_two_threads_may_draw_at_once() -> None:
    gaussians = cloud(500, dtype=torch.float32)
    rigs = [cameras(1, 60 + i, 50, dtype=torch.float32) for i in range(6)]
    alone = [differentiate(gaussians, rig, Backend.cpu) for rig in rigs]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda rig: differentiate(gaussians, rig, Backend.cpu), rigs))
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.images.image, b.images.image)
        assert torch.equal(a.gradients["means"], b.gradients["means"])


@BOTH
def test_contributions_add_up_to_alpha(backend: Backend) -> None:
    gaussians, rig = cloud(), cameras(2)
    shares = contributions(gaussians, rig, backend=backend)
    images = rasterize(gaussians, rig, backend=backend)
    assert shares.shape == (len(gaussians),) and not shares.requires_grad
    assert shares.sum().item() == pytest.approx(images.alpha.sum().item(), rel=1e-12)
    assert (shares[(images.radii == 0).all(0)] == 0).all() and (shares >= 0).all()
    with torch.no_grad():
        assert torch.equal(shares, contributions(gaussians, rig, backend=backend))
