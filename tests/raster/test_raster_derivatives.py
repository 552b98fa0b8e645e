"""Finite differences decide; the reference agrees with the compiled kernels by another test."""

from dataclasses import replace

import pytest
import torch
from raster_scenes import FIELDS, cameras, cloud, differentiate, loss_of

from npga.raster import Backend, rasterize

STEPS = (1e-5, 1e-6, 1e-7)  # the cut-offs make the loss piecewise smooth: the best step counts


def slope(loss, value: float, wanted: float) -> float:
    """The central difference nearest to ``wanted`` among those of a few steps."""
    quotients = [(loss(value + h) - loss(value - h)) / (2 * h) for h in STEPS]
    return min(quotients, key=lambda q: abs(q - wanted))


@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_are_slopes(antialias: bool) -> None:
    gaussians, rig = cloud(60, channels=4, seed=3), cameras(2, 23, 19)
    background = torch.full((4,), 0.3, dtype=torch.float64)
    options = {"background": background, "backend": Backend.cpu, "antialias": antialias}
    gradients = differentiate(gaussians, rig, **options).gradients
    gen = torch.Generator().manual_seed(5)
    for name in FIELDS:
        field = getattr(gaussians, name).detach()
        largest = gradients[name].abs().max().item()
        lively = gradients[name].flatten().nonzero()[:, 0]
        for place in lively[torch.randperm(len(lively), generator=gen)[:24]].tolist():

            def loss(value: float, field=field, place=place, name=name) -> float:
                moved = field.clone()
                moved.view(-1)[place] = value
                with torch.no_grad():
                    images = rasterize(replace(gaussians, **{name: moved}), rig, **options)
                return loss_of(images).item()

            wanted = gradients[name].flatten()[place].item()
            found = slope(loss, field.flatten()[place].item(), wanted)
            assert abs(found - wanted) < 1e-6 * (abs(wanted) + 0.05 * largest), (name, place)


def test_means2d_gradient_is_per_pixel() -> None:
    """Moving the principal point by h moves every centre by h pixels."""
    gaussians, rig = cloud(60), cameras(1)
    gaussians = gaussians.select(gaussians.means[:, 2] < 0.25)  # nothing at the clamp
    gradient = differentiate(gaussians, rig, Backend.cpu).gradients["means2d"].sum((0, 1))
    for axis in range(2):

        def loss(value: float, axis=axis) -> float:
            K = rig.K.clone()
            K[0, axis, 2] = value
            with torch.no_grad():
                return loss_of(rasterize(gaussians, replace(rig, K=K))).item()

        wanted = gradient[axis].item()
        assert slope(loss, rig.K[0, axis, 2].item(), wanted) == pytest.approx(wanted, rel=1e-6)


def test_gradients_pass_two_cameras_as_a_sum() -> None:
    gaussians, rig = cloud(80), cameras(3)
    together = differentiate(gaussians, rig, Backend.cpu).images
    for i in range(3):
        alone = rasterize(gaussians, rig.select([i]), backend=Backend.cpu)
        for name in ("image", "alpha", "depth", "means2d", "radii"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0]), name


def test_a_broken_loss_shows_in_the_gradient() -> None:
    """NaN from above must arrive as NaN, not as some number."""
    gaussians, rig = cloud(80), cameras(1)
    images = rasterize(gaussians, rig, backend=Backend.cpu)
    row, column = divmod(int(images.alpha[0].argmax()), rig.width)
    images.image[0, row, column, 0].mul(float("nan")).backward()
    assert gaussians.means.grad.isnan().any() and gaussians.colors.grad.isnan().any()
