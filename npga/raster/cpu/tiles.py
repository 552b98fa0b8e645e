"""Which Gaussian touches which tile, in depth order.

A hit is a (Gaussian, tile) pair whose ellipse {alpha >= ALPHA_MIN} crosses the tile. Hits have two
orders: by Gaussian (the place in that order is the hit's ``slot``, where its gradients are put) and
by tile, then depth.
"""
# ruff: noqa: ANN001 (numba infers the types of kernels)

import math
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from npga.raster.cpu.lanes import LANES
from npga.raster.cpu.pool import even_spans, run_spans
from npga.raster.semantics import ALPHA_MIN

TILE_W = LANES  # a tile is as wide as a row of the kernels
TILE_H = 16
_SLACK = 1e-3  # pixels by which an ellipse is widened, so that rounding never cuts a seen pixel
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}

# columns of TileLists.packed
MX, MY, CA, CB, CC, OPACITY, HALF_HEIGHT, DEPTH = range(8)


@dataclass(frozen=True)
class TileLists:
    """One camera's Gaussians and the tiles they touch; tiles go row by row."""

    packed: np.ndarray
    """[n, 8] what blending needs of each visible Gaussian, in one cache line."""
    slot_starts: np.ndarray
    """[n + 1] slots of each Gaussian."""
    tile_starts: np.ndarray
    """[tiles + 1] hits of each tile."""
    hits: np.ndarray
    """[hits, 2] Gaussian and slot, by tile, then from near to far."""


def tile_lists(
    means2d: np.ndarray,
    conics: np.ndarray,
    opacities: np.ndarray,
    depths: np.ndarray,
    radii: np.ndarray,
    size: tuple[int, int],
) -> TileLists:
    """List one camera's visible Gaussians by tile and depth; equal depths keep their order."""
    grid = -(-size[0] // TILE_W), -(-size[1] // TILE_H)
    count = len(radii)
    packed = torch.empty(count, 8, dtype=torch.from_numpy(depths).dtype).numpy()
    slot_starts = np.zeros(count + 1, np.int64)
    run_spans(
        _pack_and_count, even_spans(count),
        means2d, conics, opacities, depths, radii, *grid, packed, slot_starts[1:],
    )  # fmt: skip
    np.cumsum(slot_starts, out=slot_starts)
    slot_tile = np.zeros(slot_starts[-1], np.int32)
    run_spans(_list_tiles, even_spans(count), packed, radii, *grid, slot_starts, slot_tile)
    tile_starts = np.zeros(grid[0] * grid[1] + 1, np.int64)
    hits = torch.empty(len(slot_tile), 2, dtype=torch.int32).numpy()
    _sort_by_tile(_depth_order(depths, radii), slot_starts, slot_tile, tile_starts, hits)
    return TileLists(packed, slot_starts, tile_starts, hits)


def _depth_order(depths: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Indices of the visible Gaussians from near to far, stable."""
    visible = np.flatnonzero(radii)
    if depths.dtype == np.float32:
        return _radix_order(depths.view(np.uint32), visible)
    return visible[np.argsort(depths[visible], kind="stable")]


@njit(**_OPTIONS)
def _radix_order(keys, order) -> np.ndarray:
    """``order`` sorted by keys[order], stable; the bits of positive floats sort like the floats."""
    other = np.zeros_like(order)
    for shift in (0, 11, 22):
        starts = np.zeros(2049, np.int64)
        for i in order:
            starts[((keys[i] >> shift) & 2047) + 1] += 1
        for digit in range(2048):
            starts[digit + 1] += starts[digit]
        for i in order:
            digit = (keys[i] >> shift) & 2047
            other[starts[digit]] = i
            starts[digit] += 1
        order, other = other, order
    return order


@njit(**_OPTIONS)
def _ellipse(packed, radius, i) -> tuple[float, ...]:
    """mx, my, b, c, 1 / a, t, half width, half height, dy of the rightmost point.

    The ellipse is a dx^2 + 2 b dx dy + c dy^2 <= t; its halves are widened by the slack. Where
    rounding made a very long ellipse's conic indefinite, the square of ``radius`` stands for it.
    """
    mx, my = np.float64(packed[i, MX]), np.float64(packed[i, MY])
    a, b, c = np.float64(packed[i, CA]), np.float64(packed[i, CB]), np.float64(packed[i, CC])
    t, det = 2.0 * math.log(max(1.0, packed[i, OPACITY] / ALPHA_MIN)), a * c - b * b
    if not (a > 0.0 and c > 0.0 and det > 0.0):
        return mx, my, 0.0, 1.0, 1.0, np.inf, radius, radius, 0.0
    half_w = min(radius, math.sqrt(t * c / det) * (1.0 + _SLACK) + _SLACK)
    half_h = min(radius, math.sqrt(t * a / det) * (1.0 + _SLACK) + _SLACK)
    return mx, my, b, c, 1.0 / a, t, half_w, half_h, -half_w * b / c


@njit(**_OPTIONS)
def _reach(ellipse, low, high, side) -> float:
    """How far it reaches to ``side`` (-1 left, +1 right) of its centre where low <= dy <= high."""
    _, _, b, c, over_a, t, half_w, _, dy_right = ellipse
    farthest = side * dy_right
    if low <= farthest <= high:
        return half_w
    dy = low if farthest < low else high
    shift = b * dy * over_a
    root = math.sqrt(max(0.0, shift * shift - (c * dy * dy - t) * over_a))
    return min(half_w, (root - side * shift) * (1.0 + _SLACK) + _SLACK)


@njit(**_OPTIONS)
def _tile_rows(ellipse, tiles_y) -> tuple[int, int]:
    """First and one past the last tile row that the ellipse touches."""
    my, half_h = ellipse[1], ellipse[7]
    first = max(0.0, math.floor((my - half_h) / TILE_H))
    last = min(float(tiles_y), math.floor((my + half_h) / TILE_H) + 1.0)
    return int(first), int(last)


@njit(**_OPTIONS)
def _tile_columns(ellipse, row, tiles_x) -> tuple[int, int]:
    """First and one past the last tile that the ellipse touches in one tile row."""
    mx, my, half_h = ellipse[0], ellipse[1], ellipse[7]
    low, high = max(-half_h, row * TILE_H - my), min(half_h, (row + 1) * TILE_H - my)
    left = mx - _reach(ellipse, low, high, -1.0)
    right = mx + _reach(ellipse, low, high, 1.0)
    first = max(0.0, math.floor(left / TILE_W))
    last = min(float(tiles_x), math.floor(right / TILE_W) + 1.0)
    return int(first), int(max(first, last))


@njit(**_OPTIONS)
def _pack_and_count(
    first, last, means2d, conics, opacities, depths, radii, tiles_x, tiles_y, packed, counts
) -> None:
    """Fill ``packed`` and the number of tiles of Gaussians first..last-1."""
    for i in range(first, last):
        packed[i] = 0
        if radii[i] == 0:
            continue
        packed[i, MX], packed[i, MY] = means2d[i, 0], means2d[i, 1]
        packed[i, CA], packed[i, CB], packed[i, CC] = conics[i, 0], conics[i, 1], conics[i, 2]
        packed[i, OPACITY], packed[i, DEPTH] = opacities[i], depths[i]
        ellipse = _ellipse(packed, np.float64(radii[i]), i)
        packed[i, HALF_HEIGHT] = ellipse[7]
        first_row, last_row = _tile_rows(ellipse, tiles_y)
        for row in range(first_row, last_row):
            left, right = _tile_columns(ellipse, row, tiles_x)
            counts[i] += right - left


@njit(**_OPTIONS)
def _list_tiles(first, last, packed, radii, tiles_x, tiles_y, slot_starts, slot_tile) -> None:
    """Fill the tile of every slot of Gaussians first..last-1."""
    for i in range(first, last):
        slot = slot_starts[i]
        if slot == slot_starts[i + 1]:
            continue
        ellipse = _ellipse(packed, np.float64(radii[i]), i)
        first_row, last_row = _tile_rows(ellipse, tiles_y)
        for row in range(first_row, last_row):
            left, right = _tile_columns(ellipse, row, tiles_x)
            for column in range(left, right):
                slot_tile[slot] = row * tiles_x + column
                slot += 1


@njit(**_OPTIONS)
def _sort_by_tile(order, slot_starts, slot_tile, tile_starts, hits) -> None:
    """Counting sort of the slots by tile, each tile in the order of ``order``."""
    for tile in slot_tile:
        tile_starts[tile + 1] += 1
    for tile in range(1, len(tile_starts)):
        tile_starts[tile] += tile_starts[tile - 1]
    cursor = tile_starts.copy()
    for i in order:
        for slot in range(slot_starts[i], slot_starts[i + 1]):
            place = cursor[slot_tile[slot]]
            hits[place, 0], hits[place, 1] = i, slot
            cursor[slot_tile[slot]] += 1
