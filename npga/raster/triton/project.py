"""Gaussians -> screen-space ellipses, and the gradients back, on a GPU; one kernel each.

Letters and formulas are those of ``npga.raster.cpu.project``, in single precision. det C0 is the
squared length of the cross product of U's rows and det C grows from it by sums alone, so that thin
footprints lose no digits to a difference. One program takes BLOCK Gaussians. Loops are ``while``
loops, since Triton's interpreter cannot count up to a tensor (3.6 with numpy 2.4).
"""
# pyright cannot know what triton makes of a function:
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: ANN001, ANN202 (triton infers the types of kernels)

import triton
import triton.language as tl

from npga.raster import semantics

_ALPHA_MIN = tl.constexpr(semantics.ALPHA_MIN)
_BLUR = tl.constexpr(semantics.BLUR)
_EXTENT_MAX = tl.constexpr(semantics.EXTENT_MAX)
_FRUSTUM_MARGIN = tl.constexpr(semantics.FRUSTUM_MARGIN)
_RADIUS_MAX = tl.constexpr(semantics.RADIUS_MAX)
_INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _load3(pointer, i, mask):
    """Row i of an array [n, 3]."""
    row = pointer + 3 * i
    return (
        tl.load(row, mask=mask, other=0.0),
        tl.load(row + 1, mask=mask, other=0.0),
        tl.load(row + 2, mask=mask, other=0.0),
    )


@triton.jit
def _load_quat(quats, i, mask):
    """Quaternion i."""
    row = quats + 4 * i
    return (
        tl.load(row, mask=mask, other=0.0),
        tl.load(row + 1, mask=mask, other=0.0),
        tl.load(row + 2, mask=mask, other=0.0),
        tl.load(row + 3, mask=mask, other=0.0),
    )


@triton.jit
def _load_camera(K, poses, camera):
    """W row by row (9), t (3), fx, fy, cx, cy."""
    pose, k = poses + 16 * camera, K + 9 * camera
    return (
        tl.load(pose), tl.load(pose + 1), tl.load(pose + 2),
        tl.load(pose + 4), tl.load(pose + 5), tl.load(pose + 6),
        tl.load(pose + 8), tl.load(pose + 9), tl.load(pose + 10),
        tl.load(pose + 3), tl.load(pose + 7), tl.load(pose + 11),
        tl.load(k), tl.load(k + 4), tl.load(k + 2), tl.load(k + 5),
    )  # fmt: skip


@triton.jit
def _unit(quat):
    """The quaternion at length 1, and 1 / its length; zeros for length 0."""
    w, x, y, z = quat
    square = w * w + x * x + y * y + z * z
    inv = tl.where(square > 0.0, 1.0 / tl.sqrt(tl.where(square > 0.0, square, 1.0)), 0.0)
    return (w * inv, x * inv, y * inv, z * inv), inv


@triton.jit
def _rotation(unit):
    """R row by row."""
    w, x, y, z = unit
    return (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip


@triton.jit
def _camera_point(cam, mean):
    """W mean + t."""
    m0, m1, m2 = mean
    return (
        cam[0] * m0 + cam[1] * m1 + cam[2] * m2 + cam[9],
        cam[3] * m0 + cam[4] * m1 + cam[5] * m2 + cam[10],
        cam[6] * m0 + cam[7] * m1 + cam[8] * m2 + cam[11],
    )


@triton.jit
def _turned_row(a, b, c, r, scale):
    """One row of W R diag(s), from that row of W."""
    return (
        (a * r[0] + b * r[3] + c * r[6]) * scale[0],
        (a * r[1] + b * r[4] + c * r[7]) * scale[1],
        (a * r[2] + b * r[5] + c * r[8]) * scale[2],
    )


@triton.jit
def _slope(ratio, size, focal, centre):
    """The ratio x / z clamped to the widened frustum, and whether it was inside."""
    margin = _FRUSTUM_MARGIN * 0.5 * size / focal
    high, low = (size - centre) / focal + margin, -(centre / focal + margin)
    return tl.minimum(high, tl.maximum(low, ratio)), (ratio >= low) & (ratio <= high)


@triton.jit
def _footprint(cam, r, scale, point, width, height):
    """N (three rows), U (two rows), the slopes of the Jacobian, C0 and det C0."""
    x, y, z = point
    slope_x, inside_x = _slope(x / z, width, cam[12], cam[14])
    slope_y, inside_y = _slope(y / z, height, cam[13], cam[15])
    n0 = _turned_row(cam[0], cam[1], cam[2], r, scale)
    n1 = _turned_row(cam[3], cam[4], cam[5], r, scale)
    n2 = _turned_row(cam[6], cam[7], cam[8], r, scale)
    gx, gy = cam[12] / z, cam[13] / z
    u0, u1, u2 = (
        gx * (n0[0] - slope_x * n2[0]),
        gx * (n0[1] - slope_x * n2[1]),
        gx * (n0[2] - slope_x * n2[2]),
    )
    v0, v1, v2 = (
        gy * (n1[0] - slope_y * n2[0]),
        gy * (n1[1] - slope_y * n2[1]),
        gy * (n1[2] - slope_y * n2[2]),
    )
    cov0 = (u0 * u0 + u1 * u1 + u2 * u2, u0 * v0 + u1 * v1 + u2 * v2, v0 * v0 + v1 * v1 + v2 * v2)
    cross0, cross1, cross2 = u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0
    det0 = cross0 * cross0 + cross1 * cross1 + cross2 * cross2
    slopes = (slope_x, inside_x, slope_y, inside_y)
    return (n0, n1, n2), ((u0, u1, u2), (v0, v1, v2)), slopes, cov0, det0


@triton.jit
def _det_blurred(cov0, det0):
    """det C."""
    return det0 + _BLUR * (cov0[0] + cov0[2]) + _BLUR * _BLUR


@triton.jit
def _finite(x):
    return tl.abs(x) < _INFINITY


@triton.jit
def _all_finite(values):
    """Per Gaussian, whether every one of the values is finite."""
    every = _finite(values[0])
    for k in tl.static_range(1, len(values)):
        every &= _finite(values[k])
    return every


@triton.jit
def _finite_colors(colors, channels, background, i, inside):
    """Per Gaussian, whether its colors and the background are finite."""
    every, row = inside, i.to(tl.int64) * channels
    k = channels * 0
    while k < channels:
        color = tl.load(colors + row + k, mask=inside, other=0.0)
        every &= _finite(color + tl.load(background + k))
        k += 1
    return every


@triton.jit(do_not_specialize=["count", "channels", "width", "height", "broken"])
def project_forward(
    K, poses, width, height, near,
    means, quats, log_scales, logits, colors, background, count, channels,
    means2d, shapes, halves, radii, broken,
    ANTIALIAS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Fill means2d [c n 2], shapes [c n 5], halves [c n 2] and radii [c n]; 0 for the culled.

    A shape is the conic (3), the opacity and the depth; ``halves`` are the half sides of the box
    around {alpha >= ALPHA_MIN}. ``broken`` becomes 1 where any number of the input is not finite.
    """
    camera = tl.program_id(1)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    cam = _load_camera(K, poses, camera)
    mean, quat = _load3(means, i, inside), _load_quat(quats, i, inside)
    log_scale = _load3(log_scales, i, inside)
    logit = tl.load(logits + i, mask=inside, other=0.0)
    at = tl.arange(0, 16)
    rig = tl.sum(tl.load(K + 9 * camera + at, mask=at < 9, other=0.0), axis=0)
    rig += tl.sum(tl.load(poses + 16 * camera + at), axis=0)
    every = _all_finite(mean) & _all_finite(quat) & _all_finite(log_scale) & _finite(logit + rig)
    if camera == 0:
        every &= _finite_colors(colors, channels, background, i, inside)
    if tl.max((inside & ~every).to(tl.int32), axis=0) > 0:
        tl.store(broken, 1)

    unit, inv = _unit(quat)
    scale = (tl.exp(log_scale[0]), tl.exp(log_scale[1]), tl.exp(log_scale[2]))
    point = _camera_point(cam, mean)
    x, y, z = point
    _, _, _, cov0, det0 = _footprint(cam, _rotation(unit), scale, point, width, height)
    xx, xy, yy, det = cov0[0] + _BLUR, cov0[1], cov0[2] + _BLUR, _det_blurred(cov0, det0)
    seen = 1.0 / (1.0 + tl.exp(-logit))
    if ANTIALIAS:
        seen *= tl.sqrt(det0 / det)
    spread = 2.0 * tl.log(tl.maximum(seen / _ALPHA_MIN, 1.0))
    extent = tl.minimum(tl.sqrt(spread), _EXTENT_MAX)
    radius_x, radius_y = tl.ceil(extent * tl.sqrt(xx)), tl.ceil(extent * tl.sqrt(yy))
    px, py = cam[12] * x / z + cam[14], cam[13] * y / z + cam[15]
    kept = inside & (inv > 0.0) & (z > near) & (det < _INFINITY) & (seen >= _ALPHA_MIN)
    kept &= (radius_x <= _RADIUS_MAX) & (radius_y <= _RADIUS_MAX)
    kept &= (px + radius_x > 0) & (px - radius_x < width)
    kept &= (py + radius_y > 0) & (py - radius_y < height)

    row = camera * count + i
    tl.store(means2d + 2 * row, tl.where(kept, px, 0.0), mask=inside)
    tl.store(means2d + 2 * row + 1, tl.where(kept, py, 0.0), mask=inside)
    tl.store(shapes + 5 * row, tl.where(kept, yy / det, 0.0), mask=inside)
    tl.store(shapes + 5 * row + 1, tl.where(kept, -xy / det, 0.0), mask=inside)
    tl.store(shapes + 5 * row + 2, tl.where(kept, xx / det, 0.0), mask=inside)
    tl.store(shapes + 5 * row + 3, tl.where(kept, seen, 0.0), mask=inside)
    tl.store(shapes + 5 * row + 4, tl.where(kept, z, 0.0), mask=inside)
    tl.store(halves + 2 * row, tl.where(kept, tl.sqrt(spread * xx), 0.0), mask=inside)
    tl.store(halves + 2 * row + 1, tl.where(kept, tl.sqrt(spread * yy), 0.0), mask=inside)
    radius = tl.where(kept, tl.maximum(radius_x, radius_y), 0.0)
    tl.store(radii + row, radius.to(tl.int32), mask=inside)
