"""Blending the hits of a tile, front to back, and the gradients, back to front.

A tile's planes (TILE_H rows of TILE_W pixels) lie one after another in a single scratch array, so
that LLVM knows them apart and turns every loop over the pixels of a row into SIMD code: T the
transmittance, ``live`` 1 until the pixel has ended, ``last`` the last hit that painted it, then one
plane per channel (the colors, then depth). Only rows that the hit's ellipse crosses are visited;
along a row all pixels are computed and those outside the ellipse get alpha 0.

Backward, with v the gradient of the pixel's channels and S = sum_(j>i) w_j <f_j, v> + T_end <bg, v>:
    d loss / d alpha_i = T_i <f_i, v> - S / (1 - alpha_i),     T_i = T_(i+1) / (1 - alpha_i)
so that one number per pixel, S, stands for all that lies behind. Gradients of a hit go into its own
slot, and slots are summed in a fixed order: the result does not depend on the threads.
"""

import numpy as np
from numba import njit

from npga.raster.cpu.fastexp import exp_negative
from npga.raster.cpu.tiles import (
    CA,
    CB,
    CC,
    DEPTH,
    HALF_HEIGHT,
    MX,
    MY,
    OPACITY,
    TILE_H,
    TILE_W,
)
from npga.raster.semantics import ALPHA_MAX, ALPHA_MIN, T_MIN

# no NaN or infinity occurs in these loops: the door refuses them
_OPTIONS = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp", "nnan", "ninf"},
}
_PLANE = TILE_W * TILE_H
_EVERY = 16  # hits between two looks at whether the whole tile has ended
GEOMETRY = 6  # gradients of a hit before those of its channels: mean (2), conic (3), opacity

# scratch of the forward pass: planes T, live, last, one row of weights, then the channels' planes
_T, _LIVE, _LAST, _ROW = 0, _PLANE, 2 * _PLANE, 3 * _PLANE
_FORWARD_PLANES = 3 * _PLANE + TILE_W
# scratch of the backward pass: planes T, S, last; rows; then the planes of v; rows for v_channels
_S, _WEIGHT, _INVERSE, _FALL, _DOT, _Q0, _Q1, _Q2 = (
    _PLANE, 3 * _PLANE, 3 * _PLANE + TILE_W, 3 * _PLANE + 2 * TILE_W, 3 * _PLANE + 3 * TILE_W,
    3 * _PLANE + 4 * TILE_W, 3 * _PLANE + 5 * TILE_W, 3 * _PLANE + 6 * TILE_W,
)  # fmt: skip
_BACKWARD_PLANES = 3 * _PLANE + 7 * TILE_W


@njit(**_OPTIONS)
def _rows(packed, rank, top):
    """First and one past the last row of the tile whose pixel centres the ellipse can cover."""
    my, half = float(packed[rank, MY]) - top, float(packed[rank, HALF_HEIGHT])
    first = int(np.ceil(max(0.0, my - half - 0.5)))
    last = int(np.floor(min(TILE_H - 1.0, my + half - 0.5))) + 1
    return first, last


@njit(**_OPTIONS)
def _blend_row(s, base, mx, row_c, row_b, half_a, opacity, hit):
    """Advance T, live and last of one row; leaves the row's weights at _ROW."""
    real = s.dtype.type
    zero, one, half = real(0.0), real(1.0), real(0.5)
    for x in range(TILE_W):
        dx = real(x) + half - mx
        sigma = (half_a * dx + row_b) * dx + row_c
        fall = opacity * exp_negative(sigma)
        alpha = min(fall, real(ALPHA_MAX))
        alpha = alpha if (fall >= real(ALPHA_MIN)) & (sigma >= zero) else zero
        alpha *= s[_LIVE + base + x]
        before = s[_T + base + x]
        after = before * (one - alpha)
        ended = after <= real(T_MIN)
        s[_LIVE + base + x] = zero if ended else s[_LIVE + base + x]
        alpha = zero if ended else alpha
        s[_T + base + x] = before if ended else after
        s[_LAST + base + x] = hit if alpha > zero else s[_LAST + base + x]
        s[_ROW + x] = alpha * before


@njit(**_OPTIONS)
def _all_ended(s):
    live = s.dtype.type(0.0)
    for p in range(_PLANE):
        live += s[_LIVE + p]
    return live == 0


@njit(**_OPTIONS)
def _blend_tile(s, left, top, start, stop, hit_rank, packed, order, colors):
    """Blend hits start..stop-1 into the scratch ``s``."""
    real = s.dtype.type
    half, channels = real(0.5), colors.shape[1]
    feature = len(s) - channels - 1
    planes = _FORWARD_PLANES
    s[: _LAST] = 1
    s[_LAST:_ROW] = -1
    s[planes:feature] = 0
    for hit in range(start, stop):
        rank = hit_rank[hit]
        mx = packed[rank, MX] - real(left)
        a, b, c = packed[rank, CA], packed[rank, CB], packed[rank, CC]
        for k in range(channels):
            s[feature + k] = colors[order[rank], k]
        s[feature + channels] = packed[rank, DEPTH]
        first, last = _rows(packed, rank, top)
        for y in range(first, last):
            dy = real(y + top) + half - packed[rank, MY]
            base = y * TILE_W
            _blend_row(
                s, base, mx, half * c * dy * dy, b * dy, half * a,
                packed[rank, OPACITY], real(hit - start),
            )  # fmt: skip
            for k in range(channels + 1):
                value, at = s[feature + k], planes + k * _PLANE + base
                for x in range(TILE_W):
                    s[at + x] += value * s[_ROW + x]
        if (hit - start) % _EVERY == _EVERY - 1 and _all_ended(s):
            break


@njit(**_OPTIONS)
def blend_forward(
    first_tile, last_tile, tiles_x, tile_starts, hit_rank, packed, order, colors, background,
    image, alpha, depth, last_hit,
):  # fmt: skip
    """Draw tiles first_tile..last_tile-1; ``last_hit`` [h w] counts within the tile, -1 for none."""
    height, width, channels = image.shape
    s = np.empty(_FORWARD_PLANES + (channels + 1) * (_PLANE + 1), packed.dtype)
    for tile in range(first_tile, last_tile):
        left, top = (tile % tiles_x) * TILE_W, (tile // tiles_x) * TILE_H
        start, stop = tile_starts[tile], tile_starts[tile + 1]
        _blend_tile(s, left, top, start, stop, hit_rank, packed, order, colors)
        for y in range(min(TILE_H, height - top)):
            for x in range(min(TILE_W, width - left)):
                p = y * TILE_W + x
                clear = s[_T + p]
                for k in range(channels):
                    seen = s[_FORWARD_PLANES + k * _PLANE + p]
                    image[top + y, left + x, k] = seen + clear * background[k]
                alpha[top + y, left + x] = 1 - clear
                depth[top + y, left + x] = s[_FORWARD_PLANES + channels * _PLANE + p]
                last_hit[top + y, left + x] = int(s[_LAST + p])


@njit(**_OPTIONS)
def _load_tile(
    s, left, top, background, last_hit, clear_end, v_image, v_alpha, v_depth
):
    """Fill T, S, last and the planes of v; returns the last hit that painted any pixel."""
    height, width, channels = v_image.shape
    s[:_WEIGHT] = 0
    s[_LAST:_WEIGHT] = -1
    s[_BACKWARD_PLANES : _BACKWARD_PLANES + (channels + 1) * _PLANE] = 0
    latest = -1
    for y in range(min(TILE_H, height - top)):
        for x in range(min(TILE_W, width - left)):
            p, row, column = y * TILE_W + x, top + y, left + x
            behind = -v_alpha[row, column]
            for k in range(channels):
                s[_BACKWARD_PLANES + k * _PLANE + p] = v_image[row, column, k]
                behind += background[k] * v_image[row, column, k]
            s[_BACKWARD_PLANES + channels * _PLANE + p] = v_depth[row, column]
            s[_T + p] = clear_end[row, column]
            s[_S + p] = behind * clear_end[row, column]
            s[_LAST + p] = last_hit[row, column]
            latest = max(latest, last_hit[row, column])
    return latest


@njit(**_OPTIONS)
def _weigh_row(s, base, mx, row_c, row_b, half_a, opacity, hit):
    """Recompute a row's alphas and step T back; leaves weight, 1 / (1 - alpha) and fall in rows."""
    real = s.dtype.type
    zero, one, half = real(0.0), real(1.0), real(0.5)
    for x in range(TILE_W):
        dx = real(x) + half - mx
        sigma = (half_a * dx + row_b) * dx + row_c
        fall = opacity * exp_negative(sigma)
        painted = (fall >= real(ALPHA_MIN)) & (sigma >= zero) & (hit <= s[_LAST + base + x])
        alpha = min(fall, real(ALPHA_MAX)) if painted else zero
        inverse = one / (one - alpha)
        before = s[_T + base + x] * inverse
        s[_T + base + x] = before
        s[_WEIGHT + x] = alpha * before
        s[_INVERSE + x] = inverse
        s[_FALL + x] = fall if painted & (fall <= real(ALPHA_MAX)) else zero
        s[_DOT + x] = zero


@njit(**_OPTIONS)
def _row_gradient(s, base, dy, channels, feature):
    """Add one row to the hit's channel gradients and to its moments of d loss / d log fall."""
    v_channel = feature + channels
    for k in range(channels):
        value, at, into = s[feature + k], _BACKWARD_PLANES + k * _PLANE + base, v_channel + k * TILE_W
        for x in range(TILE_W):
            s[_DOT + x] += value * s[at + x]
        for x in range(TILE_W):
            s[into + x] += s[_WEIGHT + x] * s[at + x]
    for x in range(TILE_W):
        v_alpha = s[_T + base + x] * s[_DOT + x] - s[_S + base + x] * s[_INVERSE + x]
        s[_S + base + x] += s[_WEIGHT + x] * s[_DOT + x]
        q = v_alpha * s[_FALL + x]
        s[_Q0 + x] += q
        s[_Q1 + x] += q * dy
        s[_Q2 + x] += q * dy * dy


@njit(**_OPTIONS)
def _store_slot(s, slot, mx, a, b, c, opacity, channels, feature):
    """Turn the moments of a hit into gradients of mean, conic, opacity and channels."""
    real = s.dtype.type
    zero, half = real(0.0), real(0.5)
    q0 = q1 = q2 = qx = qxx = qxy = zero
    for x in range(TILE_W):
        dx = real(x) + half - mx
        q0 += s[_Q0 + x]
        q1 += s[_Q1 + x]
        q2 += s[_Q2 + x]
        qx += s[_Q0 + x] * dx
        qxx += s[_Q0 + x] * dx * dx
        qxy += s[_Q1 + x] * dx
    slot[0], slot[1] = a * qx + b * q1, b * qx + c * q1
    slot[2], slot[3], slot[4] = -half * qxx, -qxy, -half * q2
    slot[5] = q0 / opacity
    for k in range(channels):
        total = zero
        for x in range(TILE_W):
            total += s[feature + channels + k * TILE_W + x]
        slot[GEOMETRY + k] = total


@njit(**_OPTIONS)
def blend_backward(
    first_tile, last_tile, tiles_x, tile_starts, hit_rank, hit_slot, packed, order, colors,
    background, last_hit, clear_end, v_image, v_alpha, v_depth, slots,
):  # fmt: skip
    """Fill the slots [hits, GEOMETRY + k + 1] of the hits of tiles first_tile..last_tile-1."""
    real = packed.dtype.type
    half, channels = real(0.5), colors.shape[1] + 1
    feature = _BACKWARD_PLANES + channels * _PLANE
    s = np.empty(feature + channels * (TILE_W + 1), packed.dtype)
    for tile in range(first_tile, last_tile):
        left, top = (tile % tiles_x) * TILE_W, (tile // tiles_x) * TILE_H
        start, stop = tile_starts[tile], tile_starts[tile + 1]
        latest = _load_tile(
            s, left, top, background, last_hit, clear_end, v_image, v_alpha, v_depth
        )
        for hit in range(start + latest + 1, stop):
            slots[hit_slot[hit], :] = 0
        for hit in range(start + latest, start - 1, -1):
            rank = hit_rank[hit]
            mx, opacity = packed[rank, MX] - real(left), packed[rank, OPACITY]
            a, b, c = packed[rank, CA], packed[rank, CB], packed[rank, CC]
            for k in range(channels - 1):
                s[feature + k] = colors[order[rank], k]
            s[feature + channels - 1] = packed[rank, DEPTH]
            s[_Q0:_BACKWARD_PLANES] = 0
            s[feature + channels :] = 0
            first, last = _rows(packed, rank, top)
            for y in range(first, last):
                dy = real(y + top) + half - packed[rank, MY]
                base = y * TILE_W
                _weigh_row(
                    s, base, mx, half * c * dy * dy, b * dy, half * a, opacity, real(hit - start)
                )
                _row_gradient(s, base, dy, channels, feature)
            _store_slot(s, slots[hit_slot[hit]], mx, a, b, c, opacity, channels, feature)


@njit(**_OPTIONS)
def gather_slots(
    first_rank, last_rank, slot_starts, order, slots,
    v_means2d, v_conics, v_opacities, v_depths, v_colors,
):  # fmt: skip
    """Sum the slots of ranks first_rank..last_rank-1, in order; colours add to what is there."""
    channels = v_colors.shape[1]
    total = np.empty(slots.shape[1], slots.dtype)
    for rank in range(first_rank, last_rank):
        i = order[rank]
        total[:] = 0
        for slot in range(slot_starts[rank], slot_starts[rank + 1]):
            for j in range(len(total)):
                total[j] += slots[slot, j]
        v_means2d[i, 0], v_means2d[i, 1] = total[0], total[1]
        v_conics[i, 0], v_conics[i, 1], v_conics[i, 2] = total[2], total[3], total[4]
        v_opacities[i] = total[5]
        for k in range(channels):
            v_colors[i, k] += total[GEOMETRY + k]
        v_depths[i] = total[GEOMETRY + channels]
