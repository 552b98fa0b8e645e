"""Pictures on disk and in memory: uint8 [h w 3] arrays outside, float sRGB 0..1 inside."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

ImageArray = UInt8[np.ndarray, "_ _ 3"]


def to_uint8(image: Float[Tensor, "h w 3"]) -> ImageArray:
    """Rounded and clipped bytes of a float picture."""
    return (image.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()


def from_uint8(image: ImageArray) -> Float[Tensor, "h w 3"]:
    """Floats in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image)).float() / 255


def linear_from_srgb(values: np.ndarray) -> np.ndarray:
    """The sRGB decoding curve (IEC 61966-2-1)."""
    curve = ((np.maximum(values, 0.04045) + 0.055) / 1.055) ** 2.4
    return np.where(values <= 0.04045, values / 12.92, curve)


def srgb_from_linear(values: np.ndarray) -> np.ndarray:
    """The sRGB encoding curve (IEC 61966-2-1)."""
    curve = 1.055 * np.maximum(values, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(values <= 0.0031308, values * 12.92, curve)


def read_image(path: str | Path) -> ImageArray:
    """An RGB picture from disk (grey and alpha are converted)."""
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def write_image(path: str | Path, image: ImageArray) -> None:
    """Write PNG or JPEG (by suffix) under a temporary name, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name("." + path.name + ".partial")
    kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), "PNG")
    Image.fromarray(image).save(partial, format=kind)
    os.replace(partial, path)


def resize_area(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Box-filtered resize of uint8 [h w] or [h w 3]; the same array where the size is right."""
    if image.shape[1] == width and image.shape[0] == height:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def labelled(image: ImageArray, text: str) -> ImageArray:
    """The picture with a strip of text above it."""
    width = image.shape[1]
    strip = Image.new("RGB", (width, 18), (24, 24, 24))
    ImageDraw.Draw(strip).text((4, 3), text, fill=(235, 235, 235))
    return np.concatenate([np.asarray(strip), image], 0)


def side_by_side(images: Sequence[ImageArray]) -> ImageArray:
    """Pictures in a row, padded with white below to the tallest."""
    tallest = max(i.shape[0] for i in images)
    padded = [
        np.pad(i, ((0, tallest - i.shape[0]), (0, 0), (0, 0)), constant_values=255) for i in images
    ]
    return np.concatenate(padded, 1)


def contact_sheet(
    images: Sequence[ImageArray], columns: int, labels: Sequence[str] | None = None
) -> ImageArray:
    """A grid of pictures, row by row, each with its label."""
    tiles = list(images)
    if labels is not None:
        tiles = [labelled(i, t) for i, t in zip(tiles, labels, strict=True)]
    width = max(t.shape[1] for t in tiles)
    height = max(t.shape[0] for t in tiles)
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for n, tile in enumerate(tiles):
        y, x = (n // columns) * height, (n % columns) * width
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet
