"""Triangle meshes -> which triangle every pixel sees: the door for mesh rasterisation.

Letters: v vertices, f faces, c cameras, h w image size. A pixel (column i, row j) is sampled at
its centre (i + 0.5, j + 0.5). For a face with camera depths z0 z1 z2 and screen barycentrics
b0 b1 b2 the depth is 1 / sum(b_k / z_k), and the barycentrics returned are perspective-correct:
w_k = (b_k / z_k) * depth, so `sum_k w_k * attribute_k` is exact on the triangle in space.

Two back-ends: a numba z-buffer (CPU, any tensor) and pytorch3d (only where it is importable and
the vertices are on a GPU). Both sides of a triangle are drawn. Nothing is clipped: a triangle with
a corner nearer than `NEAR_M` to the camera plane is dropped whole. Not differentiable: interpolate
with the barycentrics if a gradient to the vertices' attributes is needed.
"""

import math
from dataclasses import dataclass
from importlib.util import find_spec

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.errors import NpgaError

NEAR_M = 1e-3
"""Triangles with a corner nearer to the camera plane than this are dropped."""

BAND_ROWS = 16
"""Rows per parallel work item: small enough to balance, large enough to amortise the face scan."""


@dataclass(frozen=True)
class MeshFragments:
    """What every pixel of every camera sees."""

    face: Int[Tensor, "c h w"]
    """Index of the nearest face, -1 where there is none."""
    bary: Float[Tensor, "c h w 3"]
    """Perspective-correct barycentrics of that face, 0 where there is none."""
    depth: Float[Tensor, "c h w"]
    """Camera z of that face (world units), 0 where there is none."""


def rasterize_mesh(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], cameras: Cameras
) -> MeshFragments:
    """Find the nearest triangle behind every pixel centre.

    Vertices are in world space; the result lies on the vertices' device. Raises NpgaError for
    wrong shapes or face indices out of range.
    """
    check_mesh(vertices, faces)
    if vertices.is_cuda and find_spec("pytorch3d") is not None:
        return _rasterize_pytorch3d(vertices, faces, cameras)
    vertices_np = vertices.detach().cpu().to(torch.float64).numpy()
    faces_np = np.ascontiguousarray(faces.detach().cpu().to(torch.int32).numpy())
    intrinsics = cameras.K.detach().cpu().to(torch.float64).numpy()
    poses = cameras.cam_from_world.detach().cpu().to(torch.float64).numpy()
    layers = [
        zbuffer(vertices_np, faces_np, intrinsics[i], poses[i], cameras.width, cameras.height)
        for i in range(len(intrinsics))
    ]
    device = vertices.device
    return MeshFragments(
        face=torch.from_numpy(np.stack([layer[0] for layer in layers])).long().to(device),
        bary=torch.from_numpy(np.stack([layer[1] for layer in layers])).to(device),
        depth=torch.from_numpy(np.stack([layer[2] for layer in layers])).to(device),
    )


def check_mesh(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> None:
    """Refuse arrays that are not a triangle mesh (raises NpgaError)."""
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise NpgaError(
            f"a mesh needs vertices [v 3] and faces [f 3], "
            f"given {list(vertices.shape)} and {list(faces.shape)}.",
            "pass one mesh at a time, with triangles.",
        )
    if len(faces) and (int(faces.min()) < 0 or int(faces.max()) >= len(vertices)):
        raise NpgaError(
            f"faces index vertices {int(faces.min())}..{int(faces.max())}, "
            f"but there are {len(vertices)} vertices.",
            "check that faces and vertices belong to the same mesh.",
        )


def zbuffer(
    vertices_world: np.ndarray,
    faces: np.ndarray,
    intrinsics: np.ndarray,
    cam_from_world: np.ndarray,
    width: int,
    height: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numba back-end for one camera, on numpy arrays.

    vertices [v 3] float64, faces [f 3] int32, K [3 3], cam_from_world [4 4] -> face [h w] int32
    (-1 none), bary [h w 3] float32, depth [h w] float32 (0 none).
    """
    camera_space = vertices_world @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    depth = camera_space[:, 2]
    inverse = 1.0 / np.maximum(depth, NEAR_M)
    homogeneous = camera_space @ intrinsics.T
    screen = np.stack(
        [homogeneous[:, 0] * inverse, homogeneous[:, 1] * inverse, depth, inverse], axis=1
    )
    return rasterize_screen(screen, faces, width, height)


def rasterize_screen(
    screen: np.ndarray, faces: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The z-buffer on vertices that are projected already: rows (x px, y px, depth, 1 / depth).

    For maps that are no pinhole pictures (an unwrapped texture). Results as `zbuffer`. As many
    threads as torch has; torch's number, which numba's OpenMP layer would set, is left as it was.
    """
    threads = torch.get_num_threads()
    most = numba.config.NUMBA_NUM_THREADS  # pyright: ignore
    numba.set_num_threads(min(threads, most))
    try:
        return _zbuffer_bands(np.ascontiguousarray(screen, dtype=np.float64), faces, width, height)
    finally:
        torch.set_num_threads(threads)


@numba.njit(cache=True)
def _row_range(screen: np.ndarray, faces: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel row whose centre each face may cover (empty for dropped faces)."""
    count = faces.shape[0]
    first = np.zeros(count, np.int32)
    last = np.zeros(count, np.int32)
    for f in range(count):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        nearest = min(screen[a, 2], screen[b, 2], screen[c, 2])
        if not nearest > NEAR_M:
            first[f], last[f] = 1, 0
            continue
        low = min(screen[a, 1], screen[b, 1], screen[c, 1])
        high = max(screen[a, 1], screen[b, 1], screen[c, 1])
        first[f] = int(max(0.0, min(float(height), math.ceil(low - 0.5))))
        last[f] = int(max(-1.0, min(height - 1.0, math.floor(high - 0.5))))
    return first, last


@numba.njit(cache=True, inline="always")
def _draw_face(
    screen: np.ndarray,
    faces: np.ndarray,
    index: int,
    row_first: int,
    row_last: int,
    face_image: np.ndarray,
    bary_image: np.ndarray,
    inverse_image: np.ndarray,
) -> None:
    """Draw one face into some rows; the nearest (largest 1/z) wins, of equals the first."""
    a, b, c = faces[index, 0], faces[index, 1], faces[index, 2]
    xa, ya, xb, yb, xc, yc = (
        screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1],
    )  # fmt: skip
    area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
    width = face_image.shape[1]
    first = int(max(0.0, min(float(width), math.ceil(min(xa, xb, xc) - 0.5))))
    last = int(max(-1.0, min(width - 1.0, math.floor(max(xa, xb, xc) - 0.5))))
    scale = 0.0 if area == 0.0 else 1.0 / area
    if area == 0.0:
        last = first - 1
    for row in range(row_first, row_last + 1):
        y = row + 0.5
        for column in range(first, last + 1):
            x = column + 0.5
            wa = ((xb - x) * (yc - y) - (xc - x) * (yb - y)) * scale
            wb = ((xc - x) * (ya - y) - (xa - x) * (yc - y)) * scale
            wc = 1.0 - wa - wb
            if wa < 0.0 or wb < 0.0 or wc < 0.0:
                continue
            wa *= screen[a, 3]
            wb *= screen[b, 3]
            wc *= screen[c, 3]
            inverse = wa + wb + wc
            if inverse > inverse_image[row, column]:
                inverse_image[row, column] = inverse
                face_image[row, column] = index
                bary_image[row, column, 0] = wa / inverse
                bary_image[row, column, 1] = wb / inverse
                bary_image[row, column, 2] = wc / inverse


@numba.njit(cache=True, parallel=True)
def _zbuffer_bands(
    screen: np.ndarray, faces: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All faces over all rows, bands of rows in parallel."""
    face_image = np.full((height, width), -1, np.int32)
    bary_image = np.zeros((height, width, 3), np.float32)
    inverse_image = np.zeros((height, width), np.float64)
    first, last = _row_range(screen, faces, height)
    bands = (height + BAND_ROWS - 1) // BAND_ROWS
    for band in numba.prange(bands):
        start = band * BAND_ROWS
        stop = min(height, start + BAND_ROWS) - 1
        for f in range(faces.shape[0]):
            if first[f] <= stop and last[f] >= start:
                _draw_face(
                    screen, faces, f, max(first[f], start), min(last[f], stop),
                    face_image, bary_image, inverse_image,
                )  # fmt: skip
    depth_image = np.zeros((height, width), np.float32)
    for row in numba.prange(height):
        for column in range(width):
            if face_image[row, column] >= 0:
                depth_image[row, column] = 1.0 / inverse_image[row, column]
    return face_image, bary_image, depth_image


def _rasterize_pytorch3d(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], cameras: Cameras
) -> MeshFragments:
    """The pytorch3d back-end: the same contract, one camera after the other.

    Its screen: +x left, +y up, the shorter image side spans -1..1, and depth passes through.
    """
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    height, width = cameras.height, cameras.width
    pixels, depth = cameras.to(vertices.device).project(vertices)
    half = 0.5 * min(height, width)
    x = (0.5 * width - pixels[..., 0]) / half
    y = (0.5 * height - pixels[..., 1]) / half
    face_images, bary_images, depth_images = [], [], []
    for c in range(len(depth)):
        drawn = (depth[c][faces] > NEAR_M).all(dim=1)
        kept = torch.nonzero(drawn)[:, 0]
        mesh = Meshes([torch.stack([x[c], y[c], depth[c]], dim=-1)], [faces[kept]])
        index, zbuf, bary, _ = rasterize_meshes(
            mesh, (height, width), faces_per_pixel=1, perspective_correct=True
        )
        hit = index[0, ..., 0] >= 0
        face_images.append(torch.where(hit, kept[index[0, ..., 0].clamp(min=0)], -1))
        bary_images.append(torch.where(hit[..., None], bary[0, ..., 0, :], 0.0))
        depth_images.append(torch.where(hit, zbuf[0, ..., 0], 0.0))
    return MeshFragments(
        face=torch.stack(face_images),
        bary=torch.stack(bary_images),
        depth=torch.stack(depth_images),
    )
