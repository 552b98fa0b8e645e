"""The Triton kernels against their slow twin.

On a GPU with ``-m gpu``; elsewhere in Triton's interpreter, where triton is installed (torch's CPU
wheels do not bring it). The interpreter draws a tile in tenths of a second: its scenes are tiny.
"""

import os
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from raster_scenes import FIELDS, Differentiated, cameras, cloud, differentiate

from npga.core.cameras import Cameras
from npga.core.device import cuda_available
from npga.core.gaussians import Gaussians
from npga.raster import Backend, contributions, rasterize

if not cuda_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"  # triton reads it when it is imported

# numpy interprets the kernels, and warns of what their masks hide
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the kernels run; the test is skipped where they cannot."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if request.param == "cuda" and not cuda_available():
        pytest.skip("no CUDA device")
    from npga.raster.triton.autograd import interprets

    if request.param == "cpu" and not interprets():
        pytest.skip("Triton compiles here and does not interpret: run with -m gpu")
    return torch.device(request.param)


def single(gaussians: Gaussians, device: torch.device) -> Gaussians:
    """The same cloud in single precision, there."""
    fields = (getattr(gaussians, name).detach().float().to(device) for name in FIELDS)
    return Gaussians(*(f.requires_grad_() for f in fields))


def compare(gaussians: Gaussians, rig: Cameras, device: torch.device, **options) -> Differentiated:
    """Against the reference in double: all but single pixels at the cut-offs, and all gradients."""
    background = torch.linspace(0.2, 0.9, gaussians.colors.shape[1], dtype=torch.float64)
    slow = differentiate(gaussians, rig, Backend.reference, background=background, **options)
    fast = differentiate(
        single(gaussians, device), rig, Backend.triton,
        background=background.float().to(device), **options,
    )  # fmt: skip
    for name in ("image", "alpha", "depth", "means2d"):
        a, b = getattr(fast.images, name).cpu(), getattr(slow.images, name).cpu()
        assert a.shape == b.shape and a.dtype == torch.float32
        error = (a - b).abs().flatten()
        assert error.sort().values[int(0.999 * (len(error) - 1))] < 1e-4, name
        assert error.max() < 2e-2, name
    radii, wanted = fast.images.radii.cpu(), slow.images.radii.cpu()
    assert radii.dtype == torch.int32 and ((radii - wanted).abs() <= 1).all()
    for name, gradient in slow.gradients.items():
        wanted, found = gradient.cpu(), fast.gradients[name].cpu()
        error = (found - wanted).norm() / wanted.norm()
        assert found.shape == wanted.shape and error < 1e-3, (name, error)
    return fast


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("channels", [3, 19])
def test_triton_equals_reference(device: torch.device, channels: int, antialias: bool) -> None:
    gaussians, rig = cloud(80, channels=channels), cameras(2)
    fast = compare(gaussians, rig, device, antialias=antialias)
    assert (fast.images.radii == 0).any(), "nothing was culled"
    assert (fast.images.alpha > 0.9995).any(), "no pixel ended early"


@pytest.mark.parametrize("channels", [1, 70])
def test_any_number_of_channels(device: torch.device, channels: int) -> None:
    compare(cloud(30, channels=channels), cameras(1, 33, 17), device)


@pytest.mark.gpu
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("channels", [3, 6, 40])
def test_triton_equals_reference_on_larger_scenes(channels: int, antialias: bool) -> None:
    device = torch.device("cuda")
    gaussians = cloud(3000, channels=channels)
    fields = (getattr(gaussians, name).detach().to(device) for name in FIELDS)
    rig = cameras(3, 203, 155).to(device)
    compare(Gaussians(*(f.requires_grad_() for f in fields)), rig, device, antialias=antialias)


def test_many_hits_in_a_tile(device: torch.device) -> None:
    """More than the hits between two looks for pixels that have not ended; faint ones first."""
    gaussians = cloud(90)
    with torch.no_grad():
        gaussians.means.mul_(0.2)
        gaussians.logit_opacities[::2] = -3.0
    compare(gaussians, cameras(1, 20, 18), device)


def test_a_tile_may_be_empty(device: torch.device) -> None:
    gaussians, rig = cloud(12), cameras(1, 70, 20)
    fast = compare(gaussians, rig, device)
    blocks = fast.images.alpha[0].split(16, 1)
    assert any(not block.any() for block in blocks) and fast.images.alpha.any()


def test_nothing_to_see_is_background(device: torch.device) -> None:
    gaussians, rig = single(cloud(40), device), cameras(2, dtype=torch.float32)
    with torch.no_grad():
        gaussians.logit_opacities.fill_(-9.0)
    background = torch.tensor([0.1, 0.2, 0.3]).to(device)
    for few in (gaussians, gaussians.select(slice(0, 0))):
        images = rasterize(few, rig, background=background, backend=Backend.triton)
        assert torch.equal(images.image, background.expand(2, rig.height, rig.width, 3))
        assert not images.alpha.any() and not images.depth.any() and not images.radii.any()
        images.image.sum().backward()
    assert all(not getattr(gaussians, name).grad.any() for name in FIELDS)


def test_no_background_is_black(device: torch.device) -> None:
    gaussians, rig = single(cloud(30), device), cameras(1, dtype=torch.float32)
    plain = rasterize(gaussians, rig, backend=Backend.triton).image
    black = torch.zeros(3).to(device)
    wanted = rasterize(gaussians, rig, background=black, backend=Backend.triton).image
    assert torch.equal(plain, wanted)


def test_two_runs_give_the_same_bits(device: torch.device) -> None:
    count, size = (20_000, (300, 220)) if device.type == "cuda" else (60, (33, 21))
    gaussians, rig = single(cloud(count), device), cameras(2, *size, dtype=torch.float32)
    background = torch.full((3,), 0.4).to(device)
    first = differentiate(gaussians, rig, Backend.triton, background=background)
    for _ in range(3 if device.type == "cuda" else 1):
        again = differentiate(gaussians, rig, Backend.triton, background=background)
        assert torch.equal(first.images.image, again.images.image)
        for name, gradient in first.gradients.items():
            assert torch.equal(gradient, again.gradients[name]), name


def test_cameras_do_not_disturb_each_other(device: torch.device) -> None:
    gaussians, rig = single(cloud(40), device), cameras(3, 33, 21, dtype=torch.float32)
    together = rasterize(gaussians, rig, backend=Backend.triton)
    for i in range(3):
        alone = rasterize(gaussians, rig.select([i]), backend=Backend.triton)
        for name in ("image", "alpha", "depth", "means2d", "radii"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0]), name


def test_contributions_add_up_to_alpha(device: torch.device) -> None:
    gaussians, rig = single(cloud(40), device), cameras(2, 33, 21, dtype=torch.float32)
    shares = contributions(gaussians, rig, backend=Backend.triton)
    alpha = rasterize(gaussians, rig, backend=Backend.triton).alpha
    assert shares.sum().item() == pytest.approx(alpha.sum().item(), rel=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
def test_wild_shapes_stay_in_bounds(device: torch.device, antialias: bool) -> None:
    """Needles, discs and specks, also at the eye; some of no size, of vast size and of no turn."""
    count = 4000 if device.type == "cuda" else 50
    gen, rig = torch.Generator().manual_seed(0), cameras(2, 70, 50, dtype=torch.float32)
    gaussians = cloud(count, dtype=torch.float32)
    with torch.no_grad():
        gaussians.log_scales.copy_(torch.rand(count, 3, generator=gen) * 34 - 24)
        gaussians.means[::5] = rig.centres_world()[0] + rig.axes_world()[0] * 0.0101
        gaussians.means[1] = rig.centres_world()[0]
        gaussians.log_scales[2], gaussians.log_scales[3] = -200.0, 300.0
        gaussians.quats[4] = 0.0
    gaussians = single(gaussians, device)
    images = rasterize(gaussians, rig, backend=Backend.triton, antialias=antialias)
    assert (images.radii > 1000).any() and not images.radii[:, 3:5].any()
    assert (images.alpha >= 0).all() and (images.alpha <= 1).all()
    assert (images.image >= 0).all() and (images.image <= 1.0001).all()
    images.image.sum().backward()
    for name in FIELDS:
        assert torch.isfinite(getattr(gaussians, name).grad).all(), name


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", FIELDS)
def test_not_finite_is_refused_by_name(device: torch.device, name: str, poison: float) -> None:
    gaussians = single(cloud(9), device)
    field = getattr(gaussians, name).detach().clone()
    field.view(-1)[[1, 4]] = poison
    broken = replace(gaussians, **{name: field})
    rig = cameras(1, 20, 16, dtype=torch.float32)
    with pytest.raises(ValueError, match=rf"Gaussians\.{name} holds 2 values"):
        rasterize(broken, rig, backend=Backend.triton)


def test_cameras_and_background_that_are_not_finite_are_refused(device: torch.device) -> None:
    gaussians, rig = single(cloud(9), device), cameras(2, 20, 16, dtype=torch.float32)
    K = rig.K.clone()
    K[1, 0, 1] = float("nan")
    with pytest.raises(ValueError, match=r"Cameras\.K holds 1 values"):
        rasterize(gaussians, replace(rig, K=K), backend=Backend.triton)
    background = torch.tensor([0.0, 0.0, float("inf")]).to(device)
    with pytest.raises(ValueError, match="background holds 1 values"):
        rasterize(gaussians, rig, background=background, backend=Backend.triton)


def test_huge_finite_numbers_pass(device: torch.device) -> None:
    gaussians = single(cloud(9), device)
    with torch.no_grad():
        gaussians.colors.fill_(3e38)
    rig, background = cameras(1, 20, 16, dtype=torch.float32), torch.full((3,), 3e38).to(device)
    rasterize(gaussians, rig, background=background, backend=Backend.triton)


def test_a_broken_loss_shows_in_the_gradient(device: torch.device) -> None:
    gaussians, rig = single(cloud(30), device), cameras(1, 33, 21, dtype=torch.float32)
    images = rasterize(gaussians, rig, backend=Backend.triton)
    row, column = divmod(int(images.alpha[0].argmax()), rig.width)
    images.image[0, row, column, 0].mul(float("nan")).backward()
    assert gaussians.means.grad.isnan().any() and gaussians.colors.grad.isnan().any()


def test_double_precision_is_refused(device: torch.device) -> None:
    gaussians = cloud(9)
    fields = (getattr(gaussians, name).detach().to(device) for name in FIELDS)
    with pytest.raises(ValueError, match="float32"):
        rasterize(Gaussians(*fields), cameras(1), backend=Backend.triton)
