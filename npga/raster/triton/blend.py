"""Blending the hits of a tile on a GPU, front to back, and the gradients, back to front.

One program draws one tile. Planes are [TILE_H, TILE_W] and stay in registers: T the transmittance
(negative once the pixel has ended), ``last`` the last hit that painted it, and CHANNELS planes (the
colors, then depth, then padding). Every thread holds all channels of its pixels, so that only the
sums over pixels cross threads. What the next hit needs is loaded while this one is drawn.

Backward, v the gradient of the pixel's channels, S = sum_(j>i) w_j <f_j, v> + T_end <bg, v>:
    d loss / d alpha_i = T_i <f_i, v> - S / (1 - alpha_i),     T_i = T_(i+1) / (1 - alpha_i)
so that one number per pixel, S, stands for all that lies behind. A hit's gradients go into its own
slot, and slots are summed in a fixed order: no atomics, and the same bits on every run.
"""
# pyright cannot know what triton makes of a function:
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: ANN001, ANN202 (triton infers the types of kernels)

import triton
import triton.language as tl

from npga.raster import semantics
from npga.raster.triton.tiles import TILE_H, TILE_W

_ALPHA_MAX = tl.constexpr(semantics.ALPHA_MAX)
_ALPHA_MIN = tl.constexpr(semantics.ALPHA_MIN)
_T_MIN = tl.constexpr(semantics.T_MIN)
_PER_E = tl.constexpr(-1.4426950408889634)  # exp(-x) = 2^(_PER_E x)
_STRIDE = tl.constexpr(16)  # hits between two looks whether every pixel has ended
GEOMETRY = tl.constexpr(7)  # gradients of a hit before its colors': mean (2), shape (5)


@triton.jit
def _load_hit(rows, hit, means2d, shapes):
    """Mean, conic, opacity and row."""
    row = tl.load(rows + hit)
    mean, shape = means2d + 2 * row, shapes + 5 * row
    return (
        tl.load(mean), tl.load(mean + 1),
        tl.load(shape), tl.load(shape + 1), tl.load(shape + 2), tl.load(shape + 3),
        row,
    )  # fmt: skip


@triton.jit
def _load_feature(hit, shapes, colors, base, channels, CHANNELS: tl.constexpr):
    """The colors, then depth, [CHANNELS, 1, 1]."""
    channel = tl.arange(0, CHANNELS)[:, None, None]
    color = colors + (hit[6] - base).to(tl.int64) * channels + channel
    return tl.load(color, mask=channel < channels, other=tl.load(shapes + 5 * hit[6] + 4))


@triton.jit
def _fall(hit, x, y):
    """dx [1, w], dy [h, 1], the opacity at every pixel, and whether it is worth painting."""
    dx, dy = x - hit[0], y - hit[1]
    across = (0.5 * _PER_E * hit[2]) * dx * dx
    skewed = (_PER_E * hit[3]) * dx
    power = across + (skewed + (0.5 * _PER_E * hit[4]) * dy) * dy
    fall = hit[5] * tl.exp2(power)
    return dx, dy, fall, (fall >= _ALPHA_MIN) & (power <= 0.0)


@triton.jit
def _place(grid_x, grid_y):
    """Of this program's tile: its camera, and the columns [1, w] and rows [h, 1] of its pixels."""
    tile = tl.program_id(0)
    column, row = tile % grid_x, (tile // grid_x) % grid_y
    x = column * TILE_W + tl.arange(0, TILE_W)[None, :]
    y = row * TILE_H + tl.arange(0, TILE_H)[:, None]
    return tile // (grid_x * grid_y), x, y


@triton.jit(do_not_specialize=["count", "channels", "width", "height", "grid_x", "grid_y"])
def blend_forward(
    tile_starts, rows, means2d, shapes, colors, background,
    image, alpha, depth, clear_end, last_hit,
    count, channels, width, height, grid_x, grid_y, CHANNELS: tl.constexpr,
) -> None:  # fmt: skip
    """Draw all tiles; ``clear_end`` is what the background shows through with, 1 - alpha.

    ``last_hit`` [c h w] counts in the tile, -1 for none.
    """
    camera, x, y = _place(grid_x, grid_y)
    center_x, center_y = x + 0.5, y + 0.5
    base = camera * count
    clear = tl.full([TILE_H, TILE_W], 1.0, tl.float32)
    last = tl.full([TILE_H, TILE_W], -1, tl.int32)
    painted = tl.zeros([CHANNELS, TILE_H, TILE_W], tl.float32)
    start = tl.load(tile_starts + tl.program_id(0))
    stop = tl.load(tile_starts + tl.program_id(0) + 1)
    if start < stop:
        ahead = _load_hit(rows, start, means2d, shapes)
        hit = start
        while hit < stop:
            until = tl.minimum(hit + _STRIDE, stop)
            while hit < until:
                now = ahead
                ahead = _load_hit(rows, tl.minimum(hit + 1, stop - 1), means2d, shapes)
                feature = _load_feature(now, shapes, colors, base, channels, CHANNELS)
                _, _, fall, seen = _fall(now, center_x, center_y)
                seen &= clear > 0.0
                opaque = tl.where(seen, tl.minimum(fall, _ALPHA_MAX), 0.0)
                after = clear * (1.0 - opaque)
                paints = seen & (after > _T_MIN)
                weight = tl.where(paints, opaque * clear, 0.0)
                painted += feature * weight[None, :, :]
                last = tl.where(paints, hit - start, last)
                clear = tl.where(seen & ~paints, -clear, after)
                hit += 1
            hit = tl.where(tl.max(tl.max(clear, axis=0), axis=0) > 0.0, hit, stop)

    clear = tl.abs(clear)
    inside, pixel = (x < width) & (y < height), y * width + x
    first = camera.to(tl.int64) * height * width
    tl.store(alpha + first + pixel, 1.0 - clear, mask=inside)
    tl.store(clear_end + first + pixel, clear, mask=inside)
    tl.store(last_hit + first + pixel, last, mask=inside)
    channel = tl.arange(0, CHANNELS)[:, None, None]
    behind = tl.load(background + channel, mask=channel < channels, other=0.0)
    painted += behind * clear[None, :, :]
    inside, pixel = inside[None, :, :], pixel[None, :, :]
    place = pixel * channels + channel
    tl.store(image + first * channels + place, painted, mask=inside & (channel < channels))
    tl.store(depth + first + pixel + channel * 0, painted, mask=inside & (channel == channels))


@triton.jit
def _load_planes(planes, x, y, channels, width, height, CHANNELS: tl.constexpr):
    """[CHANNELS, h, w] of the tile; 0 beyond the picture and beyond the last plane.

    Flat, then folded: so the compiler gives every thread all channels of its pixels.
    """
    pixel = tl.arange(0, TILE_W * TILE_H)[None, :]
    x, y = tl.min(x) + pixel % TILE_W, tl.min(y) + pixel // TILE_W
    channel = tl.arange(0, CHANNELS)[:, None]
    place = channel.to(tl.int64) * height * width + y * width + x
    inside = (x < width) & (y < height) & (channel <= channels)
    flat = tl.load(planes + place, mask=inside, other=0.0)
    return tl.reshape(flat, [CHANNELS, TILE_H, TILE_W])


@triton.jit
def _store_slot(slot, now, dx, dy, q, v_feature, channels, CHANNELS: tl.constexpr):
    """Fill a slot from q = d loss / d log(fall) and its moments, first along columns."""
    q0, q1, q2 = tl.sum(q, axis=0), tl.sum(q * dy, axis=0), tl.sum(q * dy * dy, axis=0)
    dx = tl.reshape(dx, [TILE_W])
    along_x, along_y, total = tl.sum(q0 * dx, axis=0), tl.sum(q1, axis=0), tl.sum(q0, axis=0)
    tl.store(slot, now[2] * along_x + now[3] * along_y)
    tl.store(slot + 1, now[3] * along_x + now[4] * along_y)
    tl.store(slot + 2, -0.5 * tl.sum(q0 * dx * dx, axis=0))
    tl.store(slot + 3, -tl.sum(q1 * dx, axis=0))
    tl.store(slot + 4, -0.5 * tl.sum(q2, axis=0))
    tl.store(slot + 5, total / now[5])
    channel = tl.arange(0, CHANNELS)
    place = tl.where(channel < channels, GEOMETRY + channel, GEOMETRY - 1)
    v_feature = tl.sum(tl.sum(v_feature, axis=1), axis=1)
    tl.store(slot + place, v_feature, mask=channel <= channels)


@triton.jit(do_not_specialize=["count", "channels", "width", "height", "grid_x", "grid_y"])
def blend_backward(
    tile_starts, rows, slots, means2d, shapes, colors, background,
    clear_end, last_hit, v_planes, v_alpha, hit_gradients,
    count, channels, width, height, grid_x, grid_y, CHANNELS: tl.constexpr,
) -> None:  # fmt: skip
    """Fill ``hit_gradients`` [hits, GEOMETRY + k] for all hits that painted; others stay as is.

    ``v_planes`` [c k+1 h w]: the gradients of the image, then of depth.
    """
    camera, x, y = _place(grid_x, grid_y)
    center_x, center_y = x + 0.5, y + 0.5
    base = camera * count
    inside, pixel = (x < width) & (y < height), y * width + x
    first = camera.to(tl.int64) * height * width
    clear = tl.load(clear_end + first + pixel, mask=inside, other=1.0)
    last = tl.load(last_hit + first + pixel, mask=inside, other=-1)
    behind = -tl.load(v_alpha + first + pixel, mask=inside, other=0.0)
    v = _load_planes(v_planes + first * (channels + 1), x, y, channels, width, height, CHANNELS)
    channel = tl.arange(0, CHANNELS)[:, None, None]
    behind += tl.sum(tl.load(background + channel, mask=channel < channels, other=0.0) * v, axis=0)
    behind *= clear
    start = tl.load(tile_starts + tl.program_id(0))
    hit = start + tl.max(tl.max(last, axis=0), axis=0)
    if hit >= start:
        ahead = _load_hit(rows, hit, means2d, shapes)
        while hit >= start:
            now = ahead
            ahead = _load_hit(rows, tl.maximum(hit - 1, start), means2d, shapes)
            feature = _load_feature(now, shapes, colors, base, channels, CHANNELS)
            slot = hit_gradients + tl.load(slots + hit) * (GEOMETRY + channels)
            dx, dy, fall, seen = _fall(now, center_x, center_y)
            paints = seen & (last >= hit - start)
            if tl.max(tl.max(paints.to(tl.int32), axis=0), axis=0) > 0:
                free = fall <= _ALPHA_MAX
                opaque = tl.where(paints, tl.minimum(fall, _ALPHA_MAX), 0.0)
                inverse = 1.0 / (1.0 - opaque)
                clear *= inverse
                weight = opaque * clear
                dot = tl.sum(feature * v, axis=0)
                q = (clear * dot - behind * inverse) * tl.where(paints & free, fall, 0.0)
                behind += weight * dot
                v_feature = weight[None, :, :] * v
                _store_slot(slot, now, dx, dy, q, v_feature, channels, CHANNELS)
            hit -= 1


@triton.jit(do_not_specialize=["cameras", "count", "channels"])
def gather_slots(
    spans, hit_gradients, v_means2d, v_shapes, v_colors, cameras, count, channels,
    COLUMNS: tl.constexpr, GAUSSIANS: tl.constexpr, SLOTS: tl.constexpr,
) -> None:  # fmt: skip
    """Sum the slots of GAUSSIANS rows, SLOTS at a time; colors are summed over cameras in order."""
    i = tl.program_id(0) * GAUSSIANS + tl.arange(0, GAUSSIANS)
    inside = i < count
    column = tl.arange(0, COLUMNS)[None, :]
    width = GEOMETRY + channels
    total = tl.zeros([GAUSSIANS, COLUMNS], tl.float32)
    camera = cameras * 0
    while camera < cameras:
        row = camera * count + i
        first = tl.load(spans + 2 * row, mask=inside, other=0)
        many = tl.load(spans + 2 * row + 1, mask=inside, other=0) - first
        sums = tl.zeros([GAUSSIANS, SLOTS, COLUMNS], tl.float32)
        slot, most = tl.arange(0, SLOTS)[None, :, None], tl.max(many, axis=0)
        while most > 0:
            place = (first[:, None, None] + slot) * width + column[:, None, :]
            mask = (slot < many[:, None, None]) & (column[:, None, :] < width)
            sums += tl.load(hit_gradients + place, mask=mask, other=0.0)
            slot += SLOTS
            most -= SLOTS
        summed = tl.sum(sums, axis=1)
        total += summed
        row, valid = row[:, None], inside[:, None]
        tl.store(v_means2d + 2 * row + column, summed, mask=valid & (column < 2))
        shape = valid & (column >= 2) & (column < GEOMETRY)
        tl.store(v_shapes + 5 * row + column - 2, summed, mask=shape)
        camera += 1
    color = i[:, None].to(tl.int64) * channels + column - GEOMETRY
    wanted = inside[:, None] & (column >= GEOMETRY) & (column < width)
    tl.store(v_colors + color, total, mask=wanted)
