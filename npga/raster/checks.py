"""What the door refuses: shapes that do not fit, numbers that are not finite."""

import torch
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.gaussians import Gaussians


def require_shapes(gaussians: Gaussians, cameras: Cameras, background: Tensor | None) -> None:
    """Raise ValueError for fields of other shapes, precisions or devices than the means."""
    count, channels = len(gaussians.means), gaussians.colors.shape[-1]
    wanted = {
        "means": (count, 3),
        "quats": (count, 4),
        "log_scales": (count, 3),
        "logit_opacities": (count,),
        "colors": (count, max(channels, 1)),
    }
    for name, shape in wanted.items():
        field = getattr(gaussians, name)
        if tuple(field.shape) != shape:
            raise ValueError(
                f"Gaussians.{name} has shape {list(field.shape)}; expected {list(shape)}."
            )
        if field.dtype != gaussians.means.dtype or field.device != gaussians.means.device:
            raise ValueError(
                f"Gaussians.{name} is {field.dtype} on {field.device}; "
                f"the means are {gaussians.means.dtype} on {gaussians.means.device}."
            )
    if background is not None and tuple(background.shape) != (channels,):
        raise ValueError(
            f"background has shape {list(background.shape)}; expected [{channels}], "
            "one value per channel of the colors."
        )


def require_finite(gaussians: Gaussians, cameras: Cameras, background: Tensor | None) -> None:
    """Raise ValueError that names the first field with NaN or infinity, and how many it has.

    A sum is finite only if all its terms are, so the common case costs one sum per field. On a GPU
    it waits for the result.
    """
    names = ("means", "quats", "log_scales", "logit_opacities", "colors")
    fields = {f"Gaussians.{name}": getattr(gaussians, name) for name in names}
    fields |= {"Cameras.K": cameras.K, "Cameras.cam_from_world": cameras.cam_from_world}
    if background is not None:
        fields["background"] = background
    device = gaussians.means.device
    sums = torch.stack([f.detach().sum().to(device, torch.float64) for f in fields.values()])
    if torch.isfinite(sums).all():
        return
    for name, field in fields.items():
        bad = int((~torch.isfinite(field)).sum())
        if bad:
            raise ValueError(f"{name} holds {bad} values that are not finite, of {field.numel()}.")
