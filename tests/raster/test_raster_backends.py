"""The compiled rasteriser against its slow twin: values and gradients."""

import pytest
import torch
from raster_scenes import cameras, cloud, differentiate

from npga.raster import Backend, rasterize
from npga.raster.reference import View, visible_footprints

PICTURES = ("image", "alpha", "depth", "means2d")


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 5, 19])
def test_cpu_equals_reference_in_double(channels: int, antialias: bool) -> None:
    gaussians, rig = cloud(channels=channels), cameras()
    background = torch.linspace(0.2, 0.9, channels, dtype=torch.float64)
    options = {"background": background, "antialias": antialias}
    fast = differentiate(gaussians, rig, Backend.cpu, **options)
    slow = differentiate(gaussians, rig, Backend.reference, **options)
    assert torch.equal(fast.images.radii, slow.images.radii)
    for name in PICTURES:
        a, b = getattr(fast.images, name), getattr(slow.images, name)
        assert a.shape == b.shape
        assert (a - b).abs().max() < 1e-12 * b.abs().max(), name
    for name, wanted in slow.gradients.items():
        worst = (fast.gradients[name] - wanted).abs().max() / wanted.abs().max()
        assert worst < 1e-10, (name, worst)


def test_no_background_is_black() -> None:
    gaussians, rig = cloud(), cameras()
    for backend in (Backend.cpu, Backend.reference):
        black = torch.zeros(3, dtype=torch.float64)
        plain = rasterize(gaussians, rig, backend=backend).image
        assert torch.equal(
            plain, rasterize(gaussians, rig, background=black, backend=backend).image
        )


def test_the_scene_meets_every_branch() -> None:
    """Otherwise the comparisons above would prove less than they seem to."""
    gaussians, rig = cloud(), cameras()
    images = rasterize(gaussians, rig, backend=Backend.reference)
    pixels, depth = rig.project(gaussians.means)
    seen = images.radii > 0
    assert (depth < 0).any() and (~seen & (depth > 0)).any()
    size = torch.tensor([rig.width, rig.height])
    beyond = (pixels > 1.15 * size) | (pixels < -0.15 * size)
    assert (beyond.any(-1) & seen).sum() > 2, "the Jacobian's clamp is not met"
    view = View(rig.K[0], rig.cam_from_world[0], (rig.width, rig.height), 0.01, False)
    assert (visible_footprints(gaussians, view).opacities > 0.9995).any(), "alpha is never clamped"
    assert (images.alpha > 0.9995).any() and (images.alpha < 0.5).any(), "no pixel ends early"


@pytest.mark.parametrize("antialias", [False, True])
def test_single_precision_is_close(antialias: bool) -> None:
    """All but single pixels at the cut-offs; gradients by relative L2."""
    exact = differentiate(cloud(), cameras(), Backend.cpu, antialias=antialias)
    single = differentiate(
        cloud(dtype=torch.float32), cameras(dtype=torch.float32), Backend.cpu, antialias=antialias
    )
    for name in ("image", "alpha", "depth"):
        error = (getattr(single.images, name) - getattr(exact.images, name)).abs()
        assert error.quantile(0.999) < 1e-4 and error.max() < 2e-2, name
    for name, wanted in exact.gradients.items():
        error = (single.gradients[name] - wanted).norm() / wanted.norm()
        assert error < 5e-3, (name, error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reference_draws_in_both_precisions(dtype: torch.dtype) -> None:
    images = rasterize(cloud(50, dtype=dtype), cameras(1, dtype=dtype), backend=Backend.reference)
    assert images.image.dtype == dtype and torch.isfinite(images.image).all()
