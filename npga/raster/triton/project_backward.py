"""The gradients of the projection: footprints of all cameras -> one gradient per Gaussian.

The twin of the lower half of ``npga.raster.cpu.project``; a prefix ``v_`` is the gradient of the
loss. One program takes BLOCK Gaussians and adds up their cameras in order: no atomics.
"""
# pyright cannot know what triton makes of a function:
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: ANN001, ANN202 (triton infers the types of kernels)

import triton
import triton.language as tl

from npga.raster import semantics
from npga.raster.triton.project import (
    _camera_point,
    _det_blurred,
    _footprint,
    _load3,
    _load_camera,
    _load_quat,
    _rotation,
    _unit,
)

_BLUR = tl.constexpr(semantics.BLUR)


@triton.jit
def _footprint_backward(cov0, det0, opacity, v_shape, ANTIALIAS: tl.constexpr):
    """(v_xx, v_xy / 2, v_yy) of C0 and v_opacity, from the gradient of conic and opacity rho."""
    xx, xy, yy, det = cov0[0] + _BLUR, cov0[1], cov0[2] + _BLUR, _det_blurred(cov0, det0)
    a, b, c = yy / det, -xy / det, xx / det
    ga, gb, gc, v_seen = v_shape[0], 0.5 * v_shape[1], v_shape[2], v_shape[3]
    top0, top1 = ga * a + gb * b, ga * b + gb * c
    low0, low1 = gb * a + gc * b, gb * b + gc * c
    v_xx, v_xy, v_yy = -(a * top0 + b * low0), -(a * top1 + b * low1), -(b * top1 + c * low1)
    if ANTIALIAS:
        ratio = det0 / det
        rho = tl.sqrt(ratio)
        v_ratio = 0.5 * v_seen * opacity / rho / det
        v_xx += v_ratio * (cov0[2] - ratio * yy)
        v_yy += v_ratio * (cov0[0] - ratio * xx)
        v_xy -= v_ratio * xy * (1.0 - ratio)
        v_seen *= rho
    return v_xx, v_xy, v_yy, v_seen


@triton.jit
def _column_backward(u, v, n0, n1, n2, v_cov, gx, gy, slope_x, slope_y):
    """From one column of U and N: v_n (3), and its shares of v_gx, v_gy and both v_slopes."""
    v_u = 2.0 * (v_cov[0] * u + v_cov[1] * v)
    v_v = 2.0 * (v_cov[1] * u + v_cov[2] * v)
    v_n = (v_u * gx, v_v * gy, -v_u * gx * slope_x - v_v * gy * slope_y)
    shares = (v_u * (n0 - slope_x * n2), v_v * (n1 - slope_y * n2), -v_u * gx * n2, -v_v * gy * n2)
    return v_n, shares


@triton.jit
def _turned_back(cam, v):
    """W^T v."""
    return (
        cam[0] * v[0] + cam[3] * v[1] + cam[6] * v[2],
        cam[1] * v[0] + cam[4] * v[1] + cam[7] * v[2],
        cam[2] * v[0] + cam[5] * v[1] + cam[8] * v[2],
    )


@triton.jit
def _view_backward(cam, point, n, uv, slopes, v_cov, v_pixel, v_depth):
    """One camera's share of the three columns of v_(R diag(s)) and of v_mean."""
    slope_x, inside_x, slope_y, inside_y = slopes
    n0, n1, n2 = n
    u, v = uv
    x, y, z = point
    gx, gy = cam[12] / z, cam[13] / z
    v_n0, s0 = _column_backward(u[0], v[0], n0[0], n1[0], n2[0], v_cov, gx, gy, slope_x, slope_y)
    v_n1, s1 = _column_backward(u[1], v[1], n0[1], n1[1], n2[1], v_cov, gx, gy, slope_x, slope_y)
    v_n2, s2 = _column_backward(u[2], v[2], n0[2], n1[2], n2[2], v_cov, gx, gy, slope_x, slope_y)
    v_gx, v_gy = s0[0] + s1[0] + s2[0], s0[1] + s1[1] + s2[1]
    v_slope_x = tl.where(inside_x, s0[2] + s1[2] + s2[2], 0.0)
    v_slope_y = tl.where(inside_y, s0[3] + s1[3] + s2[3], 0.0)
    v_x = v_slope_x / z + v_pixel[0] * gx
    v_y = v_slope_y / z + v_pixel[1] * gy
    v_z = v_depth - (v_slope_x * slope_x + v_slope_y * slope_y) / z - (v_gx * gx + v_gy * gy) / z
    v_z -= (v_pixel[0] * gx * x + v_pixel[1] * gy * y) / z
    columns = (_turned_back(cam, v_n0), _turned_back(cam, v_n1), _turned_back(cam, v_n2))
    return columns, _turned_back(cam, (v_x, v_y, v_z))


@triton.jit
def _quat_backward(unit, inv, v_r):
    """The gradient of R(q / |q|) to q; ``v_r`` row by row."""
    w, x, y, z = unit
    vw = 2 * (x * (v_r[7] - v_r[5]) + y * (v_r[2] - v_r[6]) + z * (v_r[3] - v_r[1]))
    vx = -4 * x * (v_r[4] + v_r[8]) + 2 * y * (v_r[1] + v_r[3])
    vx += 2 * (z * (v_r[2] + v_r[6]) + w * (v_r[7] - v_r[5]))
    vy = -4 * y * (v_r[0] + v_r[8]) + 2 * x * (v_r[1] + v_r[3])
    vy += 2 * (z * (v_r[5] + v_r[7]) + w * (v_r[2] - v_r[6]))
    vz = -4 * z * (v_r[0] + v_r[4]) + 2 * x * (v_r[2] + v_r[6])
    vz += 2 * (y * (v_r[5] + v_r[7]) + w * (v_r[3] - v_r[1]))
    along = vw * w + vx * x + vy * y + vz * z
    return (
        (vw - along * w) * inv,
        (vx - along * x) * inv,
        (vy - along * y) * inv,
        (vz - along * z) * inv,
    )


@triton.jit
def _load_gradients(v_means2d, v_shapes, row, mask):
    """Of a footprint: mean (2), and shape (5)."""
    mean, shape = v_means2d + 2 * row, v_shapes + 5 * row
    v_pixel = (tl.load(mean, mask=mask, other=0.0), tl.load(mean + 1, mask=mask, other=0.0))
    v_shape = (
        tl.load(shape, mask=mask, other=0.0),
        tl.load(shape + 1, mask=mask, other=0.0),
        tl.load(shape + 2, mask=mask, other=0.0),
        tl.load(shape + 3, mask=mask, other=0.0),
        tl.load(shape + 4, mask=mask, other=0.0),
    )
    return v_pixel, v_shape


@triton.jit
def _add3(total, share, mask):
    """total + share where the mask holds."""
    return (
        total[0] + tl.where(mask, share[0], 0.0),
        total[1] + tl.where(mask, share[1], 0.0),
        total[2] + tl.where(mask, share[2], 0.0),
    )


@triton.jit
def _store3(pointer, i, values, mask):
    """Row i of an array [n, 3]."""
    tl.store(pointer + 3 * i, values[0], mask=mask)
    tl.store(pointer + 3 * i + 1, values[1], mask=mask)
    tl.store(pointer + 3 * i + 2, values[2], mask=mask)


@triton.jit(do_not_specialize=["cameras", "count", "width", "height"])
def project_backward(
    K, poses, cameras, width, height,
    means, quats, log_scales, logits, count, radii, v_means2d, v_shapes,
    v_means, v_quats, v_log_scales, v_logits,
    ANTIALIAS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Fill the last four arrays, summed over cameras; 0 for Gaussians that no camera sees."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    unit, inv = _unit(_load_quat(quats, i, inside))
    r, mean, log_scale = _rotation(unit), _load3(means, i, inside), _load3(log_scales, i, inside)
    scale = (tl.exp(log_scale[0]), tl.exp(log_scale[1]), tl.exp(log_scale[2]))
    opacity = 1.0 / (1.0 + tl.exp(-tl.load(logits + i, mask=inside, other=0.0)))
    v_opacity = tl.zeros([BLOCK], tl.float32)
    v_mean = (v_opacity, v_opacity, v_opacity)
    v_m0, v_m1, v_m2 = v_mean, v_mean, v_mean
    ever = v_opacity > 0.0
    camera = cameras * 0
    while camera < cameras:
        row = camera * count + i
        seen = tl.load(radii + row, mask=inside, other=0) > 0
        cam = _load_camera(K, poses, camera)
        point = _camera_point(cam, mean)
        n, uv, slopes, cov0, det0 = _footprint(cam, r, scale, point, width, height)
        v_pixel, v_shape = _load_gradients(v_means2d, v_shapes, row, seen)
        v_xx, v_xy, v_yy, v_seen = _footprint_backward(cov0, det0, opacity, v_shape, ANTIALIAS)
        columns, v_place = _view_backward(
            cam, point, n, uv, slopes, (v_xx, v_xy, v_yy), v_pixel, v_shape[4]
        )
        v_m0, v_m1 = _add3(v_m0, columns[0], seen), _add3(v_m1, columns[1], seen)
        v_m2, v_mean = _add3(v_m2, columns[2], seen), _add3(v_mean, v_place, seen)
        v_opacity += tl.where(seen, v_seen, 0.0)
        ever |= seen
        camera += 1
    _store3(v_means, i, v_mean, inside)
    tl.store(v_logits + i, v_opacity * opacity * (1.0 - opacity), mask=inside)
    scale = _add3((0.0, 0.0, 0.0), scale, ever)
    v_log_scale = (
        (r[0] * v_m0[0] + r[3] * v_m0[1] + r[6] * v_m0[2]) * scale[0],
        (r[1] * v_m1[0] + r[4] * v_m1[1] + r[7] * v_m1[2]) * scale[1],
        (r[2] * v_m2[0] + r[5] * v_m2[1] + r[8] * v_m2[2]) * scale[2],
    )
    _store3(v_log_scales, i, v_log_scale, inside)
    v_r = (
        v_m0[0] * scale[0], v_m1[0] * scale[1], v_m2[0] * scale[2],
        v_m0[1] * scale[0], v_m1[1] * scale[1], v_m2[1] * scale[2],
        v_m0[2] * scale[0], v_m1[2] * scale[1], v_m2[2] * scale[2],
    )  # fmt: skip
    v_quat = _quat_backward(unit, inv, v_r)
    for j in tl.static_range(4):
        tl.store(v_quats + 4 * i + j, v_quat[j], mask=inside)
