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
from npga.raster.semantics import NEAR
from npga.raster.types import Backend, RenderedImages

_FIELDS = ("means", "quats", "log_scales", "logit_opacities", "colors")


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
    _check(gaussians, cameras, background)
    chosen = _choose(Backend(backend), gaussians.means.device)
    cameras = cameras.to(gaussians.means.device)
    if chosen is Backend.reference:
        from npga.raster.reference import rasterize_reference as draw
    elif chosen is Backend.cpu:
        from npga.raster.cpu.autograd import rasterize_cpu as draw
    else:
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
        if on_gpu and not _has_gsplat():
            raise DeviceError(
                "The Gaussians are on a GPU, but gsplat, which draws there, is not installed.",
                "Install npga[cuda], or move the Gaussians to the CPU (device=cpu).",
            )
        return Backend.gsplat if on_gpu else Backend.cpu
    if backend is Backend.gsplat and not _has_gsplat():
        raise DeviceError(
            "The back-end gsplat was asked for, but the package gsplat is not installed.",
            "Install npga[cuda] on a machine with a CUDA GPU, or use backend=cpu.",
        )
    if backend is Backend.gsplat and not on_gpu:
        raise DeviceError(
            f"The back-end gsplat needs Gaussians on a CUDA GPU; these are on {device}.",
            "Move them to the GPU (device=cuda), or use backend=cpu.",
        )
    if backend is Backend.cpu and device.type != "cpu":
        raise DeviceError(
            f"The back-end cpu needs Gaussians on the CPU; these are on {device}.",
            "Move them to the CPU (device=cpu), or use backend=gsplat.",
        )
    return backend


def _has_gsplat() -> bool:
    return find_spec("gsplat") is not None


def _check(gaussians: Gaussians, cameras: Cameras, background: Tensor | None) -> None:
    """Refuse shapes that do not fit and numbers that are not finite, by name."""
    count, channels = len(gaussians.means), gaussians.colors.shape[-1]
    wanted = {
        "means": (count, 3),
        "quats": (count, 4),
        "log_scales": (count, 3),
        "logit_opacities": (count,),
        "colors": (count, max(channels, 1)),
    }
    fields = {}
    for name, shape in wanted.items():
        field = fields[f"Gaussians.{name}"] = getattr(gaussians, name)
        if tuple(field.shape) != shape:
            raise ValueError(
                f"Gaussians.{name} has shape {list(field.shape)}; expected {list(shape)}."
            )
        if field.dtype != gaussians.means.dtype or field.device != gaussians.means.device:
            raise ValueError(
                f"Gaussians.{name} is {field.dtype} on {field.device}; "
                f"the means are {gaussians.means.dtype} on {gaussians.means.device}."
            )
    fields |= {"Cameras.K": cameras.K, "Cameras.cam_from_world": cameras.cam_from_world}
    if background is not None:
        if tuple(background.shape) != (channels,):
            raise ValueError(
                f"background has shape {list(background.shape)}; expected [{channels}], "
                "one value per channel of the colors."
            )
        fields["background"] = background
    _require_finite(fields)


def _require_finite(fields: dict[str, Tensor]) -> None:
    """Raise ValueError that names the first field with NaN or infinity, and how many it has.

    A sum is finite only if all its terms are, so the common case costs one sum per field.
    """
    device = fields["Gaussians.means"].device
    sums = torch.stack([f.detach().sum().to(device, torch.float64) for f in fields.values()])
    if torch.isfinite(sums).all():
        return
    for name, field in fields.items():
        bad = int((~torch.isfinite(field)).sum())
        if bad:
            raise ValueError(f"{name} holds {bad} values that are not finite, of {field.numel()}.")
