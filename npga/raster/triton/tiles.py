"""Which Gaussian touches which tile of which camera, in depth order.

A hit is a (Gaussian, camera, tile) whose ellipse {alpha >= ALPHA_MIN} crosses the tile; a row is a
Gaussian in a camera, camera * n + i. Hits have two orders: by depth of the row (the place in that
order is the hit's ``slot``, where its gradients are put: the slots of a row stand together) and by
tile, then depth. So the many hits are sorted by a short key, stably, and only rows by depth.
"""
# pyright cannot know what triton makes of a function:
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: ANN001, ANN202 (triton infers the types of kernels)

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from npga.raster import semantics

TILE_W = tl.constexpr(16)
TILE_H = tl.constexpr(16)
_ALPHA_MIN = tl.constexpr(semantics.ALPHA_MIN)
_SLACK = tl.constexpr(1e-3)  # pixels by which an ellipse is widened, as on the CPU
_BLOCK = 32


@dataclass(frozen=True)
class TileLists:
    """The hits of all cameras; tiles go camera by camera, row by row."""

    tile_starts: Tensor
    """[tiles + 1] the hits of each tile, int32."""
    rows: Tensor
    """[hits] the row of each hit, by tile, then from near to far, int32."""
    slots: Tensor
    """[hits] the slot of each hit, in the same order, int64."""
    spans: Tensor
    """[c n, 2] first slot of each row, and one past its last, int64."""
    grid: tuple[int, int]
    """Tiles of one camera: columns, rows."""


@triton.jit
def _reach(ellipse, low, high, side):
    """How far it reaches to ``side`` (-1 left, +1 right) of its centre where low <= dy <= high.

    The chord at dy is centred at -b dy / a and has half the length of the widest one, times
    sqrt(1 - (dy / half height)^2): no difference of nearly equal numbers.
    """
    half_w, half_h, b_over_a, chord, dy_right = ellipse
    farthest = side * dy_right
    dy = tl.minimum(high, tl.maximum(low, farthest))
    share = dy / half_h
    root = chord * tl.sqrt(tl.maximum(0.0, 1.0 - share * share))
    cut = (root - side * b_over_a * dy) * (1.0 + _SLACK) + _SLACK
    return tl.where(dy == farthest, half_w, tl.minimum(half_w, cut))


@triton.jit
def _tile_columns(ellipse, mx, my, tile_row, tiles_x):
    """First and one past the last tile that the ellipse touches in one tile row."""
    half_h = ellipse[1]
    top = tile_row.to(tl.float32) * TILE_H - my
    low, high = tl.maximum(-half_h, top), tl.minimum(half_h, top + TILE_H)
    left, right = mx - _reach(ellipse, low, high, -1.0), mx + _reach(ellipse, low, high, 1.0)
    first = tl.minimum(tiles_x * 1.0, tl.maximum(0.0, tl.floor(left / TILE_W)))
    last = tl.maximum(first, tl.minimum(tiles_x * 1.0, tl.floor(right / TILE_W) + 1.0))
    return first.to(tl.int32), last.to(tl.int32)


@triton.jit(do_not_specialize=["count", "tiles_x", "tiles_y", "fill"])
def list_tiles(
    order, means2d, shapes, halves, radii, counts, tiles, rows, spans,
    count, tiles_x, tiles_y, fill, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """With fill = 0, count the hits of every row; with fill = 1, list them.

    ``order`` [c n] holds each camera's Gaussians from near to far; ``counts`` goes in that order
    and holds, with fill = 1, the first slots. One kernel does both, so that both find the
    same hits to the last bit.
    """
    camera = tl.program_id(1)
    rank = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = rank < count
    place = camera * count + rank
    row = camera * count + tl.load(order + place, mask=inside, other=0).to(tl.int32)
    seen = tl.load(radii + row, mask=inside, other=0) > 0
    mx, my = tl.load(means2d + 2 * row), tl.load(means2d + 2 * row + 1)
    a, b = tl.load(shapes + 5 * row, mask=seen, other=1.0), tl.load(shapes + 5 * row + 1)
    c = tl.load(shapes + 5 * row + 2, mask=seen, other=1.0)
    opacity = tl.load(shapes + 5 * row + 3)
    half_w = tl.load(halves + 2 * row) * (1.0 + _SLACK) + _SLACK
    half_h = tl.load(halves + 2 * row + 1) * (1.0 + _SLACK) + _SLACK
    chord = tl.sqrt(2.0 * tl.log(tl.maximum(1.0, opacity / _ALPHA_MIN)) / a)
    ellipse = (half_w, half_h, b / a, chord, -half_w * b / c)
    first = tl.maximum(0.0, tl.floor((my - half_h) / TILE_H))
    last = tl.minimum(tiles_y * 1.0, tl.floor((my + half_h) / TILE_H) + 1.0)
    first, last = first.to(tl.int32), tl.where(seen, last, 0.0).to(tl.int32)
    start = tl.load(counts + place, mask=inside & (fill > 0), other=0)
    slot = start
    tile_row, most = first, tl.max(last - first, axis=0)
    while most > 0:
        left, right = _tile_columns(ellipse, mx, my, tile_row, tiles_x)
        across = tl.where(tile_row < last, right - left, 0)
        if fill > 0:
            tile = (camera * tiles_y + tile_row) * tiles_x + left
            column, widest = most * 0, tl.max(across, axis=0)
            while column < widest:
                tl.store(tiles + slot + column, tile + column, mask=column < across)
                tl.store(rows + slot + column, row, mask=column < across)
                column += 1
        slot += across
        tile_row += 1
        most -= 1
    if fill > 0:
        tl.store(spans + 2 * row, start, mask=inside)
        tl.store(spans + 2 * row + 1, slot, mask=inside)
    else:
        tl.store(counts + place, slot, mask=inside)


def new_ledger(rows: int, device: torch.device) -> Tensor:
    """[rows + 2]: 0, then the running sum of the rows' hits, then what ``broken`` becomes."""
    return torch.zeros(rows + 2, dtype=torch.int64, device=device)


def tile_lists(
    means2d: Tensor,
    shapes: Tensor,
    halves: Tensor,
    radii: Tensor,
    ledger: Tensor,
    size: tuple[int, int],
    refuse: Callable[[], None],
) -> TileLists:
    """List the hits of all cameras; means2d [c n 2] and shapes, halves, radii as projected.

    The one place where the host waits for the GPU: it has to know the number of hits, and reads
    with it whether the projection met a number that is not finite; then it calls ``refuse``.
    """
    c, n = radii.shape
    grid = -(-size[0] // TILE_W.value), -(-size[1] // TILE_H.value)
    tiles = c * grid[0] * grid[1]
    key = torch.int16 if tiles < 2**15 else torch.int32
    order = shapes[..., 4].argsort(dim=1, stable=True)
    counts, spans = ledger.new_empty(c * n), ledger.new_empty(c * n, 2)

    def launch(starts: Tensor, hits: int, fill: int) -> tuple[Tensor, Tensor]:
        hit_tiles = radii.new_empty(hits, dtype=key)
        rows = radii.new_empty(hits)
        list_tiles[(triton.cdiv(n, _BLOCK), c)](
            order, means2d, shapes, halves, radii, starts, hit_tiles, rows, spans,
            n, *grid, fill, BLOCK=_BLOCK, num_warps=1,
        )  # fmt: skip
        return hit_tiles, rows

    launch(counts, 1, fill=0)
    torch.cumsum(counts, 0, out=ledger[1:-1])
    hits, broken = ledger[-2:].tolist()
    if broken:
        refuse()
    hit_tiles, rows = launch(ledger, hits, fill=1)
    hit_tiles, slots = hit_tiles.sort(stable=True)
    edges = torch.arange(tiles + 1, dtype=key, device=radii.device)
    starts = torch.searchsorted(hit_tiles, edges, out_int32=True)
    return TileLists(starts, rows[slots], slots, spans, grid)
