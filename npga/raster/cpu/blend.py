"""Blending the hits of a tile, front to back, and the gradients, back to front.

A tile is TILE_H rows of LANES pixels; all its planes lie one after another in one scratch array
``s``: T the transmittance (negative once the pixel has ended), ``last`` the last hit that painted
it, then one plane per channel (the colors, then depth). Only rows that the hit's ellipse crosses
are visited; along a row all pixels are computed and those outside the ellipse get alpha 0.

Backward, v the gradient of the pixel's channels, S = sum_(j>i) w_j <f_j, v> + T_end <bg, v>:
    d loss / d alpha_i = T_i <f_i, v> - S / (1 - alpha_i),     T_i = T_(i+1) / (1 - alpha_i)
so that one number per pixel, S, stands for all that lies behind. A hit's gradients go into its own
slot, and slots are summed in a fixed order: the result does not depend on the threads.
"""
# numba gives pixel_centres its first argument:
# pyright: reportCallIssue=false
# ruff: noqa: ANN001 (numba infers the types of kernels)

import numpy as np
from numba import njit

from npga.raster.cpu.lanes import (
    LANES,
    any_lane,
    exp_negative,
    load,
    pixel_centres,
    store,
    total,
    where,
)
from npga.raster.cpu.tiles import CA, CB, CC, DEPTH, HALF_HEIGHT, MX, MY, OPACITY, TILE_H
from npga.raster.semantics import ALPHA_MAX, ALPHA_MIN, T_MIN

_OPTIONS = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}
_PLANE = LANES * TILE_H
GEOMETRY = 6  # gradients of a hit before those of its channels: mean (2), conic (3), opacity
_ALL_ROWS = (1 << TILE_H) - 1

# forward scratch: planes T, last, channels; then one feature per channel
_T, _LAST, _CHANNELS = 0, _PLANE, 2 * _PLANE
# backward scratch: planes T, last, S, v of the channels; then rows for the channels' gradients;
# then one feature per channel
_S, _V = 2 * _PLANE, 3 * _PLANE


@njit(**_OPTIONS)
def _scratch(items, like) -> np.ndarray:
    """Zeros of the type of ``like``, aligned so that no row straddles two cache lines."""
    whole = np.zeros(items + LANES, like.dtype)
    skip = (-(whole.ctypes.data // like.itemsize)) % LANES
    return whole[skip : skip + items]


@njit(**_OPTIONS)
def _rows(packed, i, top) -> tuple[int, int]:
    """First and one past the last row of the tile whose pixel centres the ellipse can cover."""
    my, half = np.float64(packed[i, MY]) - top, np.float64(packed[i, HALF_HEIGHT])
    first = int(np.ceil(max(0.0, my - half - 0.5)))
    last = int(np.floor(min(TILE_H - 1.0, my + half - 0.5))) + 1
    return first, last


@njit(**_OPTIONS)
def _blend_hit(s, hit, i, left, top, packed, channels, feature, ended) -> int:
    """Blend one hit into the tile; returns ``ended``, the bits of the rows that have ended."""
    real = s.dtype.type
    zero, one, half = real(0.0), real(1.0), real(0.5)
    a, b, c = packed[i, CA], packed[i, CB], packed[i, CC]
    opacity = packed[i, OPACITY]
    dx = pixel_centres(half) - (packed[i, MX] - real(left))
    across, skewed = half * a * dx * dx, b * dx
    first, last = _rows(packed, i, top)
    for y in range(first, last):
        if (ended >> y) & 1:
            continue
        dy = real(y + top) + half - packed[i, MY]
        at = y * LANES
        sigma = across + skewed * dy + half * c * dy * dy
        fall = opacity * exp_negative(sigma)
        before = load(s, _T + at)
        seen = (fall >= real(ALPHA_MIN)) & (sigma >= zero) & (before > zero)
        alpha = where(seen, where(fall <= real(ALPHA_MAX), fall, real(ALPHA_MAX)), zero)
        after = before * (one - alpha)
        painted = seen & (after > real(T_MIN))
        left_over = where(seen & (after <= real(T_MIN)), zero - before, after)
        store(s, _T + at, left_over)
        store(s, _LAST + at, where(painted, real(hit), load(s, _LAST + at)))
        weight = where(painted, alpha * before, zero)
        for k in range(channels):
            place = _CHANNELS + k * _PLANE + at
            store(s, place, load(s, place) + s[feature + k] * weight)
        if not any_lane(left_over > zero):
            ended |= 1 << y
    return ended


@njit(**_OPTIONS)
def blend_forward(
    first_tile, last_tile, tiles_x, tile_starts, hits, packed, colors, background,
    image, alpha, depth, last_hit,
) -> None:  # fmt: skip
    """Draw tiles first_tile..last_tile-1; ``last_hit`` [h w] counts in the tile, -1 for none."""
    height, width, channels = image.shape
    feature = _CHANNELS + (channels + 1) * _PLANE
    s = _scratch(feature + channels + 1, packed)
    for tile in range(first_tile, last_tile):
        left, top = (tile % tiles_x) * LANES, (tile // tiles_x) * TILE_H
        s[:_LAST] = 1
        s[_LAST:_CHANNELS] = -1
        s[_CHANNELS:] = 0
        ended, start = np.int64(0), tile_starts[tile]
        for hit in range(start, tile_starts[tile + 1]):
            i = hits[hit, 0]
            for k in range(channels):
                s[feature + k] = colors[i, k]
            s[feature + channels] = packed[i, DEPTH]
            ended = _blend_hit(s, hit - start, i, left, top, packed, channels + 1, feature, ended)
            if ended == _ALL_ROWS:
                break
        for y in range(min(TILE_H, height - top)):
            for x in range(min(LANES, width - left)):
                p = y * LANES + x
                clear = abs(s[_T + p])
                for k in range(channels):
                    seen = s[_CHANNELS + k * _PLANE + p]
                    image[top + y, left + x, k] = seen + clear * background[k]
                alpha[top + y, left + x] = 1 - clear
                depth[top + y, left + x] = s[_CHANNELS + channels * _PLANE + p]
                last_hit[top + y, left + x] = int(s[_LAST + p])


@njit(**_OPTIONS)
def _load_tile(s, left, top, background, last_hit, clear_end, v_image, v_alpha, v_depth) -> int:
    """Fill T, last, S and the planes of v; returns the last hit that painted any pixel."""
    height, width, channels = v_image.shape
    s[:] = 0
    s[_LAST:_S] = -1
    latest = -1
    for y in range(min(TILE_H, height - top)):
        for x in range(min(LANES, width - left)):
            p, row, column = y * LANES + x, top + y, left + x
            behind = -v_alpha[row, column]
            for k in range(channels):
                s[_V + k * _PLANE + p] = v_image[row, column, k]
                behind += background[k] * v_image[row, column, k]
            s[_V + channels * _PLANE + p] = v_depth[row, column]
            s[_T + p] = clear_end[row, column]
            s[_S + p] = behind * clear_end[row, column]
            s[_LAST + p] = last_hit[row, column]
            latest = max(latest, last_hit[row, column])
    return latest


@njit(**_OPTIONS)
def _hit_backward(s, hit, i, left, top, packed, channels, v_feature, slot) -> None:
    """Step T and S back over one hit and fill its slot.

    q = d loss / d log(fall) and its moments in dx, dy give the gradients of mean and conic.
    """
    real = s.dtype.type
    zero, one, half = real(0.0), real(1.0), real(0.5)
    a, b, c = packed[i, CA], packed[i, CB], packed[i, CC]
    opacity, feature = packed[i, OPACITY], v_feature + channels * LANES
    dx = pixel_centres(half) - (packed[i, MX] - real(left))
    across, skewed = half * a * dx * dx, b * dx
    nothing = dx * zero
    q0 = q1 = q2 = nothing
    for k in range(channels):
        store(s, v_feature + k * LANES, nothing)
    first, last = _rows(packed, i, top)
    for y in range(first, last):
        dy = real(y + top) + half - packed[i, MY]
        at = y * LANES
        sigma = across + skewed * dy + half * c * dy * dy
        fall = opacity * exp_negative(sigma)
        latest = load(s, _LAST + at)
        painted = (fall >= real(ALPHA_MIN)) & (sigma >= zero) & (latest >= real(hit))
        free = fall <= real(ALPHA_MAX)
        alpha = where(painted, where(free, fall, real(ALPHA_MAX)), zero)
        inverse = one / (one - alpha)
        before = load(s, _T + at) * inverse
        store(s, _T + at, before)
        weight = alpha * before
        dot = nothing
        for k in range(channels):
            v = load(s, _V + k * _PLANE + at)
            dot = dot + s[feature + k] * v
            store(s, v_feature + k * LANES, load(s, v_feature + k * LANES) + weight * v)
        behind = load(s, _S + at)
        store(s, _S + at, behind + weight * dot)
        q = (before * dot - behind * inverse) * where(painted & free, fall, zero)
        q0 = q0 + q
        q1 = q1 + q * dy
        q2 = q2 + q * (dy * dy)
    qx, qy = total(q0 * dx), total(q1)
    slot[0], slot[1] = a * qx + b * qy, b * qx + c * qy
    slot[2], slot[3], slot[4] = -half * total(q0 * dx * dx), -total(q1 * dx), -half * total(q2)
    slot[5] = total(q0) / opacity
    for k in range(channels):
        slot[GEOMETRY + k] = total(load(s, v_feature + k * LANES))


@njit(**_OPTIONS)
def blend_backward(
    first_tile, last_tile, tiles_x, tile_starts, hits, packed, colors,
    background, last_hit, clear_end, v_image, v_alpha, v_depth, slots,
) -> None:  # fmt: skip
    """Fill the slots [hits, GEOMETRY + k + 1] of the hits of tiles first_tile..last_tile-1."""
    channels = colors.shape[1] + 1
    v_feature = _V + channels * _PLANE
    feature = v_feature + channels * LANES
    s = _scratch(feature + channels, packed)
    for tile in range(first_tile, last_tile):
        left, top = (tile % tiles_x) * LANES, (tile // tiles_x) * TILE_H
        start, stop = tile_starts[tile], tile_starts[tile + 1]
        latest = _load_tile(
            s, left, top, background, last_hit, clear_end, v_image, v_alpha, v_depth
        )
        for hit in range(start + latest + 1, stop):
            slots[hits[hit, 1], :] = 0
        for hit in range(start + latest, start - 1, -1):
            i = hits[hit, 0]
            for k in range(channels - 1):
                s[feature + k] = colors[i, k]
            s[feature + channels - 1] = packed[i, DEPTH]
            _hit_backward(
                s, hit - start, i, left, top, packed, channels, v_feature, slots[hits[hit, 1]]
            )


@njit(**_OPTIONS)
def gather_slots(
    first, last, slot_starts, slots, v_means2d, v_conics, v_opacities, v_depths, v_colors
) -> None:
    """Sum the slots of Gaussians first..last-1, in order; colours add to what is there."""
    channels = v_colors.shape[1]
    sums = np.zeros(slots.shape[1], slots.dtype)
    for i in range(first, last):
        sums[:] = 0
        for slot in range(slot_starts[i], slot_starts[i + 1]):
            for j in range(len(sums)):
                sums[j] += slots[slot, j]
        v_means2d[i, 0], v_means2d[i, 1] = sums[0], sums[1]
        v_conics[i, 0], v_conics[i, 1], v_conics[i, 2] = sums[2], sums[3], sums[4]
        v_opacities[i], v_depths[i] = sums[5], sums[GEOMETRY + channels]
        for k in range(channels):
            v_colors[i, k] += sums[GEOMETRY + k]
