"""The one door to all rasterisers.

Letters: c cameras, h w pixels, n Gaussians, k channels.
"""

from dataclasses import replace
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.errors import DeviceError
from npga.core.gaussians import Gaussians
from npga.raster.checks import require_finite, require_shapes
from npga.raster.semantics import NEAR
from npga.raster.types import Backend, RenderedImages

_FIELDS = ("means", "quats", "log_scales", "logit_opacities", "colors")
_ON_GPU = (Backend.triton, Backend.gsplat)
"""What draws on a GPU, by the names of the packages; auto takes the first that is installed."""
_HOW_TO_GET = {
    Backend.triton: "Install a CUDA build of torch for Linux, which brings triton",
    Backend.gsplat: "Install npga[cuda] on a machine with a CUDA GPU",
}


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: Float[Tensor, "k"] | None = None,
    backend: Backend = Backend.auto,
    antialias: bool = False,
    near: float = NEAR,
) -> RenderedImages:
    """Draw the Gaussians (world space, metres) as seen by every camera.

    Differentiable with respect to all five fields of ``gaussians`` and to ``background``, not to
    the cameras. ``near`` (metres): Gaussians whose centre is nearer are left out, as are those
    outside the picture and those too faint to see (opacity below 1/255).
    Raises ValueError for numbers that are not finite and for shapes that do not fit, DeviceError
    for a back-end that cannot run here: no back-end ever stands in for another.
    """
    require_shapes(gaussians, cameras, background)
    chosen = _choose(Backend(backend), gaussians.means.device)
    cameras = cameras.to(gaussians.means.device)
    if chosen is Backend.triton:  # its kernels look for numbers that are not finite themselves
        from npga.raster.triton.autograd import rasterize_triton as draw
    else:
        require_finite(gaussians, cameras, background)
    if chosen is Backend.reference:
        from npga.raster.reference import rasterize_reference as draw
    elif chosen is Backend.cpu:
        from npga.raster.cpu.autograd import rasterize_cpu as draw
    elif chosen is Backend.gsplat:
        from npga.raster.gsplat_backend import rasterize_gsplat as draw
    return draw(gaussians, cameras, background=background, antialias=antialias, near=near)


def contributions(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    backend: Backend = Backend.auto,
    antialias: bool = False,
    near: float = NEAR,
) -> Float[Tensor, "n"]:
    """How much of the pictures each Gaussian paints: its weights summed over pixels and cameras.

    In pixels. It is the gradient of a channel of ones with respect to that channel, so that every
    back-end gives it; cameras are drawn one at a time. No gradient flows through the result.
    """
    total = torch.zeros(len(gaussians)).to(gaussians.means)
    plain = replace(gaussians, **{name: getattr(gaussians, name).detach() for name in _FIELDS})
    with torch.enable_grad():
        for index in range(len(cameras)):
            ones = torch.ones_like(total)[:, None].requires_grad_()
            images = rasterize(
                replace(plain, colors=ones),
                cameras.select([index]),
                backend=backend,
                antialias=antialias,
                near=near,
            )
            if images.image.requires_grad:
                total += torch.autograd.grad(images.image.sum(), ones)[0][:, 0]
    return total


def _choose(backend: Backend, device: torch.device) -> Backend:
    """The back-end that is meant; raises DeviceError where it cannot run."""
    on_gpu = device.type == "cuda"
    if backend is Backend.auto:
        return _choose_on_gpu() if on_gpu else Backend.cpu
    if backend in _ON_GPU:
        _require_gpu(backend, device)
    if backend is Backend.cpu and device.type != "cpu":
        raise DeviceError(
            f"The back-end cpu needs Gaussians on the CPU; these are on {device}.",
            "Move them to the CPU (device=cpu), or use backend=auto.",
        )
    return backend


def _choose_on_gpu() -> Backend:
    for backend in _ON_GPU:
        if _is_installed(backend):
            return backend
    raise DeviceError(
        "The Gaussians are on a GPU, but neither triton nor gsplat is installed, which draw there.",
        f"{_HOW_TO_GET[Backend.triton]}, or move the Gaussians to the CPU (device=cpu).",
    )


def _require_gpu(backend: Backend, device: torch.device) -> None:
    """Raise DeviceError where a back-end of the GPU cannot run."""
    name = backend.value
    if not _is_installed(backend):
        raise DeviceError(
            f"The back-end {name} was asked for, but the package {name} is not installed.",
            f"{_HOW_TO_GET[backend]}, or use backend=cpu.",
        )
    if device.type != "cuda" and not (backend is Backend.triton and _triton_interprets()):
        raise DeviceError(
            f"The back-end {name} needs Gaussians on a CUDA GPU; these are on {device}.",
            "Move them to the GPU (device=cuda), or use backend=cpu.",
        )


def _is_installed(backend: Backend) -> bool:
    return find_spec(backend.value) is not None


def _triton_interprets() -> bool:
    from npga.raster.triton.autograd import interprets

    return interprets()
