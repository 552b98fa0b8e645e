"""The passes of one frame as pictures: bytes for videos and PNGs.

Letters: h w pixels. All of them are of one camera's `Layers`, the first.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, UInt16
from scipy.ndimage import distance_transform_edt

from npga.core.errors import ConfigError
from npga.core.images import ImageArray, to_uint8
from npga.core.video_alpha import AlphaImageArray
from npga.render.config import Pass
from npga.render.layers import Layers

FAR_LEVEL = 0.1
"""Grey of the far end in a depth picture; black is nothing."""
DEPTH_MAX_MM = 65535
SPREAD = 16
"""Pixels over which colours reach into what is transparent: the width of a codec's block."""


@dataclass(frozen=True)
class Look:
    """How passes become pictures, the same for all frames of a video."""

    background: float | None
    """Grey level behind color; None: transparent."""
    depth_range_m: tuple[float, float]
    """Camera z of white and of the darkest grey in a depth picture."""


def background_level(text: str) -> float | None:
    """The grey level 0..1 of a word or number, None for `transparent`; raises ConfigError."""
    words = {"white": 1.0, "black": 0.0, "transparent": None}
    if text in words:
        return words[text]
    try:
        level = float(text)
    except ValueError:
        level = float("nan")
    if not 0 <= level <= 1:
        raise ConfigError(
            f"background={text} is no background.",
            "Give white, black, transparent or a grey level within 0..1.",
        )
    return level


def pass_picture(kind: Pass, layers: Layers, look: Look) -> ImageArray | AlphaImageArray:
    """What is looked at of one pass; color and normals have alpha where the look is transparent."""
    if kind is Pass.color:
        return color_picture(layers, look.background)
    if kind is Pass.alpha:
        return to_uint8(layers.alpha[0, ..., None].expand(-1, -1, 3))
    if kind is Pass.depth:
        return depth_picture(layers, look.depth_range_m)
    return normals_picture(layers, transparent=look.background is None)


def color_picture(layers: Layers, background: float | None) -> ImageArray | AlphaImageArray:
    """On a grey, or with straight alpha.

    Just outside of what is covered, a transparent picture has the colour of the nearest covered
    pixel, so that scaling, filtering or compressing it makes no halo.
    """
    if background is not None:
        return to_uint8(layers.over(background)[0])
    alpha = (layers.alpha[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return np.dstack([_spread(to_uint8(layers.straight()[0]), alpha > 0), alpha])


def depth_mm(layers: Layers) -> UInt16[np.ndarray, "h w"]:
    """Camera z in whole millimetres, 0 where nothing is."""
    depth = (layers.depth()[0] * 1000).round().clamp(0, DEPTH_MAX_MM)
    return depth.cpu().numpy().astype(np.uint16)


def depth_picture(layers: Layers, range_m: tuple[float, float]) -> ImageArray:
    """Near is white, far is dark, nothing is black."""
    near, far = range_m
    depth = layers.depth()[0]
    share = ((depth - near) / (far - near)).clamp(0, 1)
    grey = torch.where(depth > 0, 1 - (1 - FAR_LEVEL) * share, torch.zeros_like(share))
    return to_uint8(grey[..., None].expand(-1, -1, 3))


def normals_picture(layers: Layers, *, transparent: bool) -> ImageArray | AlphaImageArray:
    """(n + 1) / 2 in RGB; where nothing is, the middle grey of n = 0, or alpha 0."""
    normals = layers.normals()[0]
    picture = to_uint8(0.5 + 0.5 * normals)
    if not transparent:
        return picture
    solid = (normals != 0).any(-1).cpu().numpy()
    alpha = (layers.alpha[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return np.dstack([_spread(picture, solid), alpha])


def _spread(picture: ImageArray, known: Bool[np.ndarray, "h w"]) -> ImageArray:
    """Unknown pixels take the colour of the nearest known one; those farther off are black."""
    if known.all() or not known.any():
        return picture
    found = distance_transform_edt(~known, return_indices=True)
    assert isinstance(found, tuple)
    distance, (rows, columns) = found
    return np.where((distance <= SPREAD)[..., None], picture[rows, columns], 0).astype(np.uint8)
