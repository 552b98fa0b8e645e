"""Studio light: a few lamps with soft shadows, and ambient light that geometry occludes.

Shadows are z-buffers seen from far away along each lamp's direction; ambient light is a sky of
many such directions, gathered per vertex with its cosine. Lengths in metres, radiance linear rgb.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch

from npga.core.cameras import look_at
from npga.core.mesh_raster import zbuffer

LAMP_DISTANCE_M = 3.0
SHADOW_REACH_M = 0.24
SHADOW_PIXELS = 448
SKY_PIXELS = 112
SKY_DIRECTIONS = 28
BIAS_M = 0.003


@dataclass(frozen=True)
class Lamps:
    """Directional lamps and the sky; l lamps, s sky directions."""

    toward: np.ndarray
    """[l 3] unit vectors from the head to each lamp."""
    color: np.ndarray
    """[l 3]"""
    sky_toward: np.ndarray
    """[s 3]"""
    sky_color: np.ndarray
    """[s 3], already divided so that an open white surface gathers their mean."""


@dataclass(frozen=True)
class Shadows:
    """Depth seen from every lamp."""

    lamp_from_world: np.ndarray
    """[l 3 4] homogeneous pixel projection; the third row is the depth."""
    depth: np.ndarray
    """[l p p], 0 where nothing is."""


def studio(warmth: float = 0.0) -> Lamps:
    """A key lamp from the subject's upper left, fill, two rims, and a bright overcast sky."""
    toward = np.array(
        [[0.50, 0.55, 0.75], [-0.75, 0.15, 0.75], [0.75, 0.45, -0.6], [-0.8, 0.4, -0.6]]
    )
    color = np.array([[1.25, 1.17, 1.07], [0.42, 0.46, 0.52], [0.55, 0.57, 0.62], [0.5, 0.5, 0.5]])
    color = color * np.array([1 + warmth, 1.0, 1 - warmth])
    index = np.arange(SKY_DIRECTIONS) + 0.5
    height = 1 - 2 * index / SKY_DIRECTIONS
    turn = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    sky = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], axis=1)
    strength = 0.55 + 0.45 * sky[:, 1] + 0.25 * sky[:, 2]
    tint = np.array([1.0, 1.0, 1.04]) * np.clip(strength, 0.12, None)[:, None]
    return Lamps(
        toward / np.linalg.norm(toward, axis=1, keepdims=True),
        color,
        sky,
        tint * (4.0 / SKY_DIRECTIONS) * 0.62,
    )


def _from_far(
    vertices: np.ndarray, faces: np.ndarray, toward: np.ndarray, centre: np.ndarray, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Projection [3 4] and depth [p p] of the scene seen from one direction."""
    up = np.array([0.0, 0.0, 1.0]) if abs(toward[1]) > 0.95 else np.array([0.0, 1.0, 0.0])
    eye = centre + LAMP_DISTANCE_M * toward
    pose = look_at(torch.tensor(eye), torch.tensor(centre), torch.tensor(up)).numpy()
    focal = pixels * LAMP_DISTANCE_M / (2 * SHADOW_REACH_M)
    intrinsics = np.array([[focal, 0, pixels / 2], [0, focal, pixels / 2], [0, 0, 1.0]])
    _, _, depth = zbuffer(vertices, faces, intrinsics, pose, pixels, pixels)
    return intrinsics @ pose[:3], depth


def cast_shadows(
    vertices: np.ndarray, faces: np.ndarray, lamps: Lamps, centre: np.ndarray
) -> Shadows:
    """Depth maps of all lamps; vertices [v 3] world metres, faces [f 3] int32."""
    maps = [_from_far(vertices, faces, t, centre, SHADOW_PIXELS) for t in lamps.toward]
    return Shadows(np.stack([m[0] for m in maps]), np.stack([m[1] for m in maps]))


@numba.njit(cache=True)
def lit(depth: np.ndarray, row: np.ndarray, x: float, y: float, z: float, reach: int) -> float:
    """Share of the (2 reach + 1)^2 texels around a world point that do not hide it from a lamp."""
    w = row[2, 0] * x + row[2, 1] * y + row[2, 2] * z + row[2, 3]
    u = int((row[0, 0] * x + row[0, 1] * y + row[0, 2] * z + row[0, 3]) / w)
    v = int((row[1, 0] * x + row[1, 1] * y + row[1, 2] * z + row[1, 3]) / w)
    size = depth.shape[0]
    open_texels = 0
    for dv in range(-reach, reach + 1):
        for du in range(-reach, reach + 1):
            i, j = v + dv, u + du
            if i < 0 or j < 0 or i >= size or j >= size:
                open_texels += 1
                continue
            hidden = depth[i, j]
            if hidden == 0.0 or w < hidden + BIAS_M:
                open_texels += 1
    return open_texels / (2 * reach + 1) ** 2


@numba.njit(cache=True, parallel=True)
def _gather(
    points: np.ndarray,
    normals: np.ndarray,
    toward: np.ndarray,
    color: np.ndarray,
    row: np.ndarray,
    depth: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add what one sky direction gives to every vertex."""
    for n in numba.prange(len(points)):
        cosine = normals[n, 0] * toward[0] + normals[n, 1] * toward[1] + normals[n, 2] * toward[2]
        if cosine <= 0.0:
            continue
        seen = lit(
            depth,
            row,
            points[n, 0] + 0.002 * normals[n, 0],
            points[n, 1] + 0.002 * normals[n, 1],
            points[n, 2] + 0.002 * normals[n, 2],
            0,
        )
        for k in range(3):
            out[n, k] += cosine * seen * color[k]


def ambient_light(
    vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, lamps: Lamps, centre: np.ndarray
) -> np.ndarray:
    """Sky light [v 3] that reaches every vertex, occluded by the whole scene."""
    out = np.zeros((len(vertices), 3), np.float32)
    for toward, color in zip(lamps.sky_toward, lamps.sky_color, strict=True):
        projection, depth = _from_far(vertices, faces, toward, centre, SKY_PIXELS)
        _gather(vertices, normals, toward, color, projection, depth, out)
    return out
