"""What the door lets in, what it refuses and how it says so."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from raster_scenes import FIELDS, cameras, cloud

from npga.core.errors import DeviceError
from npga.core.gaussians import Gaussians
from npga.raster import Backend, contributions, rasterize
from npga.raster import rasterize as _rasterize_function

BOTH = pytest.mark.parametrize("backend", [Backend.cpu, Backend.reference])
door = sys.modules["npga.raster.rasterize"]
assert door.rasterize is _rasterize_function


def test_import_is_light() -> None:
    code = (
        "import npga.raster, sys;"
        "print([m for m in ('numba', 'llvmlite', 'triton', 'gsplat', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@BOTH
def test_nothing_is_background(backend: Backend) -> None:
    gaussians, rig = cloud(7).select(slice(0, 0)), cameras(2)
    background = torch.tensor([0.1, 0.2, 0.3]).double()
    images = rasterize(gaussians, rig, background=background, backend=backend)
    assert images.means2d.shape == (2, 0, 2) and images.radii.shape == (2, 0)
    assert torch.equal(images.image, background.expand(2, rig.height, rig.width, 3))
    assert not images.alpha.any() and not images.depth.any()
    images.image.sum().backward()
    assert contributions(gaussians, rig, backend=backend).shape == (0,)


@BOTH
def test_the_unseen_are_culled_without_harm(backend: Backend) -> None:
    """Behind the camera, at its centre, off the picture, faint, and of no orientation."""
    rig = cameras(1)
    eye, axis = rig.centres_world()[0], rig.axes_world()[0]
    side = rig.cam_from_world[0, 0, :3]
    places = [eye - axis, eye, eye + axis + 50 * side, eye + axis, eye + axis]
    gaussians = cloud(5)
    with torch.no_grad():
        gaussians.means.copy_(torch.stack(places))
        gaussians.logit_opacities.fill_(3.0)
        gaussians.logit_opacities[3] = -9.0
        gaussians.quats[4] = 0.0
    images = rasterize(gaussians, rig, backend=backend)
    assert not images.radii.any() and not images.alpha.any() and not images.means2d.any()
    (images.image.sum() + images.depth.sum()).backward()
    for name in FIELDS:
        assert not getattr(gaussians, name).grad.any(), name


@BOTH
@pytest.mark.parametrize("log_scale", [-200.0, 300.0])
def test_no_size_and_vast_size_stay_finite(backend: Backend, log_scale: float) -> None:
    gaussians = cloud(20)
    with torch.no_grad():
        gaussians.log_scales[::2] = log_scale
    images = rasterize(gaussians, cameras(1), backend=backend, antialias=True)
    images.image.sum().backward()
    for name in FIELDS:
        assert torch.isfinite(getattr(gaussians, name).grad).all(), name


@BOTH
@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_not_finite_is_refused_by_name(backend: Backend, name: str, poison: float) -> None:
    field = getattr(cloud(9), name).detach().clone()
    field.view(-1)[[1, 4]] = poison
    with pytest.raises(ValueError, match=rf"Gaussians\.{name} holds 2 values that are not finite"):
        rasterize(replace(cloud(9), **{name: field}), cameras(1), backend=backend)


def test_not_finite_cameras_and_background_are_refused() -> None:
    rig = cameras(1)
    broken = replace(rig, cam_from_world=rig.cam_from_world * float("nan"))
    with pytest.raises(ValueError, match=r"Cameras\.cam_from_world holds 1"):
        rasterize(cloud(9), broken)
    with pytest.raises(ValueError, match="background holds 3 values"):
        rasterize(cloud(9), rig, background=torch.full((3,), float("inf")).double())


def test_huge_finite_numbers_pass_the_check() -> None:
    gaussians = cloud(9, dtype=torch.float32)
    with torch.no_grad():
        gaussians.colors.fill_(3e38)  # their sum overflows
    rasterize(gaussians, cameras(1), backend=Backend.reference)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("means", (9, 2)), ("quats", (8, 4)), ("log_scales", (9,)), ("logit_opacities", (9, 1))],
)
def test_shapes_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    # built without the constructor: the tests' shape checker would refuse first
    gaussians = cloud(9)
    odd = object.__new__(Gaussians)
    for field in FIELDS:
        value = torch.zeros(shape).double() if field == name else getattr(gaussians, field)
        object.__setattr__(odd, field, value)
    with pytest.raises(ValueError, match=rf"Gaussians\.{name} has shape"):
        door.require_shapes(odd, cameras(1), None)


def test_mixed_precision_is_refused() -> None:
    gaussians = cloud(9)
    with pytest.raises(ValueError, match=r"Gaussians\.colors is torch\.float32"):
        rasterize(replace(gaussians, colors=gaussians.colors.float()), cameras(1))


def test_half_precision_is_refused_by_the_kernels() -> None:
    with pytest.raises(ValueError, match="float32 or float64"):
        rasterize(cloud(9, dtype=torch.float16), cameras(1), backend=Backend.cpu)


@pytest.mark.parametrize("backend", [Backend.triton, Backend.gsplat])
@pytest.mark.parametrize("installed", [False, True])
def test_back_ends_of_the_gpu_are_refused_without_one(
    monkeypatch, backend: Backend, installed: bool
) -> None:
    monkeypatch.setattr(door, "find_spec", lambda name: SimpleNamespace() if installed else None)
    monkeypatch.setattr(door, "_triton_interprets", lambda: False)
    with pytest.raises(DeviceError) as refusal:
        rasterize(cloud(9), cameras(1), backend=backend)
    first, second = str(refusal.value).splitlines()
    assert backend.value in first and "backend=cpu" in second
    assert ("not installed" in first) is not installed


def test_no_backend_stands_in_for_another() -> None:
    with pytest.raises(DeviceError, match="needs Gaussians on the CPU"):
        door._choose(Backend.cpu, torch.device("cuda"))
    assert door._choose(Backend.auto, torch.device("cpu")) is Backend.cpu


@pytest.mark.parametrize("installed", [("triton", "gsplat"), ("gsplat",), ("triton",)])
def test_auto_takes_the_first_that_is_installed(monkeypatch, installed: tuple[str, ...]) -> None:
    monkeypatch.setattr(door, "find_spec", lambda name: name if name in installed else None)
    assert door._choose(Backend.auto, torch.device("cuda")).value == installed[0]


def test_auto_says_what_draws_on_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(door, "find_spec", lambda name: None)
    with pytest.raises(DeviceError) as refusal:
        door._choose(Backend.auto, torch.device("cuda"))
    first, second = str(refusal.value).splitlines()
    assert "neither triton nor gsplat" in first
    assert "Install a CUDA build of torch" in second and "device=cpu" in second


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("antialias", [False, True])
def test_wild_shapes_in_single_precision_stay_in_bounds(seed: int, antialias: bool) -> None:
    """Needles, discs and specks whose conics single precision cannot hold; also at the eye."""
    gen = torch.Generator().manual_seed(seed)
    rig = cameras(2, 70, 50, dtype=torch.float32)
    gaussians = cloud(400, seed=seed, dtype=torch.float32)
    with torch.no_grad():
        gaussians.log_scales.copy_(torch.rand(400, 3, generator=gen) * 34 - 24)
        gaussians.means[::5] = rig.centres_world()[0] + rig.axes_world()[0] * 0.0101
    images = rasterize(gaussians, rig, backend=Backend.cpu, antialias=antialias)
    assert (images.radii > 1000).any() and (images.radii == 2).any()
    assert (images.alpha >= 0).all() and (images.alpha <= 1).all()
    assert (images.image >= 0).all() and (images.image <= 1.0001).all()
    images.image.sum().backward()
    for name in FIELDS:
        assert torch.isfinite(getattr(gaussians, name).grad).all(), name
