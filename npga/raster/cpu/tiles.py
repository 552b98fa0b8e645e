"""Which Gaussian touches which tile, in depth order.

The visible Gaussians of one camera, sorted by depth, get ranks 0..v-1. A hit is a (rank, tile) pair
whose ellipse {alpha >= ALPHA_MIN} crosses the tile. Hits have two orders: by rank (the index into
that order is the hit's ``slot``, where its gradients are put) and by tile, then rank.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from npga.raster.cpu.lanes import LANES
from npga.raster.semantics import ALPHA_MIN

TILE_W = LANES  # a tile is as wide as a row of the kernels
TILE_H = 16
_SLACK = 1e-3  # pixels by which an ellipse is widened, so that rounding never cuts a seen pixel

# columns of TileLists.packed
MX, MY, CA, CB, CC, OPACITY, HALF_HEIGHT, DEPTH = range(8)


@dataclass(frozen=True)
class TileLists:
    """One camera's Gaussians, sorted, and the tiles they touch; tiles go row by row."""

    order: np.ndarray
    """[v] index of the Gaussian of each rank, nearest first; ties by index."""
    packed: np.ndarray
    """[v, 8] what blending needs of each rank, in one cache line."""
    slot_starts: np.ndarray
    """[v + 1] slots of each rank."""
    tile_starts: np.ndarray
    """[tiles + 1] hits of each tile."""
    hit_rank: np.ndarray
    """[hits] by tile, then rank."""
    hit_slot: np.ndarray
    """[hits] by tile, then rank."""


def tile_lists(
    means2d: np.ndarray,
    conics: np.ndarray,
    opacities: np.ndarray,
    depths: np.ndarray,
    radii: np.ndarray,
    size: tuple[int, int],
) -> TileLists:
    """Sort one camera's visible Gaussians and list them by tile."""
    order = depth_order(depths, radii)
    tiles_x, tiles_y = -(-size[0] // TILE_W), -(-size[1] // TILE_H)
    packed = np.empty((len(order), 8), means2d.dtype)
    slot_starts = np.empty(len(order) + 1, np.int64)
    tile_starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    _pack_and_count(
        order, means2d, conics, opacities, depths, tiles_x, tiles_y,
        packed, slot_starts, tile_starts,
    )  # fmt: skip
    hit_rank = np.empty(slot_starts[-1], np.int32)
    hit_slot = np.empty(slot_starts[-1], np.int32)
    _fill(packed, tiles_x, tiles_y, tile_starts[:-1].copy(), hit_rank, hit_slot)
    return TileLists(order, packed, slot_starts, tile_starts, hit_rank, hit_slot)


def depth_order(depths: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Indices of the visible Gaussians from near to far; equal depths keep their order."""
    visible = np.flatnonzero(radii)
    if depths.dtype != np.float32:
        return visible[np.argsort(depths[visible], kind="stable")]
    # the bits of positive floats sort like the floats; one sort of 64-bit keys is the fastest
    keys = depths[visible].view(np.uint32).astype(np.uint64)
    keys = (keys << np.uint64(32)) | visible.astype(np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


@njit(nogil=True, cache=True, error_model="numpy")
def _ellipse(packed, rank):
    """mx, my, a, b, c, t, half width, half height of a dx^2 + 2 b dx dy + c dy^2 <= t, widened."""
    a, b, c = float(packed[rank, CA]), float(packed[rank, CB]), float(packed[rank, CC])
    t = 2.0 * math.log(max(1.0, packed[rank, OPACITY] / ALPHA_MIN))
    det = a * c - b * b
    half_w = math.sqrt(max(0.0, t * c / det)) * (1.0 + _SLACK) + _SLACK
    half_h = math.sqrt(max(0.0, t * a / det)) * (1.0 + _SLACK) + _SLACK
    return float(packed[rank, MX]), float(packed[rank, MY]), a, b, c, t, half_w, half_h


@njit(nogil=True, cache=True, error_model="numpy")
def _reach(ellipse, low, high, side):
    """How far the ellipse reaches to ``side`` (-1 left, +1 right) of its centre for low <= dy <= high.

    Its outermost point lies at dy = -side half_w b / c; the nearest dy in the band is used.
    """
    _, _, a, b, c, t, half_w, _ = ellipse
    dy = min(high, max(low, -side * half_w * b / c))
    root = math.sqrt(max(0.0, b * b * dy * dy - a * (c * dy * dy - t)))
    return min(half_w, (-side * b * dy + root) / a * (1.0 + _SLACK) + _SLACK)


@njit(nogil=True, cache=True, error_model="numpy")
def _tile_rows(ellipse, tiles_y):
    """First and one past the last tile row that the ellipse touches."""
    my, half_h = ellipse[1], ellipse[7]
    first = max(0.0, math.floor((my - half_h) / TILE_H))
    last = min(float(tiles_y), math.floor((my + half_h) / TILE_H) + 1.0)
    return int(first), int(last)


@njit(nogil=True, cache=True, error_model="numpy")
def _tile_columns(ellipse, row, tiles_x):
    """First and one past the last tile that the ellipse touches in one tile row."""
    mx, my, half_h = ellipse[0], ellipse[1], ellipse[7]
    low = max(-half_h, row * TILE_H - my)
    high = min(half_h, (row + 1) * TILE_H - my)
    left = mx - _reach(ellipse, low, high, -1.0)
    right = mx + _reach(ellipse, low, high, 1.0)
    first = max(0.0, math.floor(left / TILE_W))
    last = min(float(tiles_x), math.floor(right / TILE_W) + 1.0)
    return int(first), int(last)


@njit(nogil=True, cache=True, error_model="numpy")
def _pack_and_count(
    order, means2d, conics, opacities, depths, tiles_x, tiles_y,
    packed, slot_starts, tile_starts,
):  # fmt: skip
    """Fill ``packed`` and both lists of starts."""
    slots = 0
    for rank in range(len(order)):
        i = order[rank]
        packed[rank, MX], packed[rank, MY] = means2d[i, 0], means2d[i, 1]
        packed[rank, CA], packed[rank, CB] = conics[i, 0], conics[i, 1]
        packed[rank, CC], packed[rank, OPACITY] = conics[i, 2], opacities[i]
        packed[rank, DEPTH] = depths[i]
        ellipse = _ellipse(packed, rank)
        packed[rank, HALF_HEIGHT] = ellipse[7]
        slot_starts[rank] = slots
        first_row, last_row = _tile_rows(ellipse, tiles_y)
        for row in range(first_row, last_row):
            first, last = _tile_columns(ellipse, row, tiles_x)
            for column in range(first, last):
                tile_starts[row * tiles_x + column + 1] += 1
            slots += max(0, last - first)
    slot_starts[len(order)] = slots
    for tile in range(1, len(tile_starts)):
        tile_starts[tile] += tile_starts[tile - 1]


@njit(nogil=True, cache=True, error_model="numpy")
def _fill(packed, tiles_x, tiles_y, cursor, hit_rank, hit_slot):
    """Fill the hits by counting sort; ``cursor`` [tiles] starts at each tile's first hit."""
    slot = 0
    for rank in range(len(packed)):
        ellipse = _ellipse(packed, rank)
        first_row, last_row = _tile_rows(ellipse, tiles_y)
        for row in range(first_row, last_row):
            first, last = _tile_columns(ellipse, row, tiles_x)
            for column in range(first, last):
                tile = row * tiles_x + column
                hit_rank[cursor[tile]], hit_slot[cursor[tile]] = rank, slot
                cursor[tile] += 1
                slot += 1
