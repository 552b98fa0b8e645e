"""Gaussians -> screen-space ellipses, and the gradients back; one compiled pass each.

Per camera (W, t) and Gaussian (mean, R, s, o):

    x = W mean + t               camera space          N = W R diag(s)      [3 3]
    J = d pixel / d x at x       [2 3], clamped        U = J N              [2 3]
    C0 = U U^T, C = C0 + BLUR I                        conic (a, b, c) = C^-1
    rho = sqrt(det C0 / det C)   antialias only        opacity = sigmoid(logit) rho

Arithmetic is in double, whatever the arrays hold; a prefix ``v_`` is the gradient of the loss.
"""
# ruff: noqa: ANN001, ANN202 (numba infers the types of kernels)

import math

import numpy as np
from numba import njit

from npga.raster.semantics import ALPHA_MIN, BLUR, EXTENT_MAX, FRUSTUM_MARGIN, RADIUS_MAX

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def _spread(quats, log_scales, i):
    """R (rows), s and 1 / |q| (0 for a quaternion of length 0) of Gaussian i."""
    w, x, y, z = (
        np.float64(quats[i, 0]),
        np.float64(quats[i, 1]),
        np.float64(quats[i, 2]),
        np.float64(quats[i, 3]),
    )
    length = math.sqrt(w * w + x * x + y * y + z * z)
    inv = 1.0 / length if length > 0.0 else 0.0
    w, x, y, z = w * inv, x * inv, y * inv, z * inv
    rotation = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    scale = (
        math.exp(np.float64(log_scales[i, 0])),
        math.exp(np.float64(log_scales[i, 1])),
        math.exp(np.float64(log_scales[i, 2])),
    )
    return rotation, scale, inv


@njit(**_OPTIONS)
def _camera_point(camera, means, i):
    """W mean + t; ``camera`` [16] = W row by row (9), t (3), fx, fy, cx, cy."""
    m0, m1, m2 = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
    return (
        camera[0] * m0 + camera[1] * m1 + camera[2] * m2 + camera[9],
        camera[3] * m0 + camera[4] * m1 + camera[5] * m2 + camera[10],
        camera[6] * m0 + camera[7] * m1 + camera[8] * m2 + camera[11],
    )


@njit(**_OPTIONS)
def _slope(ratio, size, focal, centre):
    """The ratio x / z clamped to the widened frustum, and whether it was inside."""
    margin = FRUSTUM_MARGIN * 0.5 * size / focal
    high, low = (size - centre) / focal + margin, -(centre / focal + margin)
    return min(high, max(low, ratio)), low <= ratio <= high


@njit(**_OPTIONS)
def _footprint(camera, rotation, scale, point, width, height):
    """N (9), U (6), the slopes of the Jacobian and C0 = (xx, xy, yy)."""
    x, y, z = point
    fx, fy = camera[12], camera[13]
    slope_x, inside_x = _slope(x / z, width, fx, camera[14])
    slope_y, inside_y = _slope(y / z, height, fy, camera[15])
    r0, r1, r2 = rotation
    n0 = _turned_row((camera[0], camera[1], camera[2]), r0, r1, r2, scale)
    n1 = _turned_row((camera[3], camera[4], camera[5]), r0, r1, r2, scale)
    n2 = _turned_row((camera[6], camera[7], camera[8]), r0, r1, r2, scale)
    gx, gy = fx / z, fy / z
    u = (
        gx * (n0[0] - slope_x * n2[0]),
        gx * (n0[1] - slope_x * n2[1]),
        gx * (n0[2] - slope_x * n2[2]),
    )
    v = (
        gy * (n1[0] - slope_y * n2[0]),
        gy * (n1[1] - slope_y * n2[1]),
        gy * (n1[2] - slope_y * n2[2]),
    )
    xx = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
    xy = u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
    yy = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
    return (n0, n1, n2), (u, v), (slope_x, inside_x, slope_y, inside_y), (xx, xy, yy)


@njit(**_OPTIONS)
def _turned_row(row, r0, r1, r2, scale):
    """One row of W R diag(s), from that row of W."""
    a, b, c = row
    return (
        (a * r0[0] + b * r1[0] + c * r2[0]) * scale[0],
        (a * r0[1] + b * r1[1] + c * r2[1]) * scale[1],
        (a * r0[2] + b * r1[2] + c * r2[2]) * scale[2],
    )


@njit(**_OPTIONS)
def _sigmoid(logit):
    return 1.0 / (1.0 + math.exp(-logit))


@njit(**_OPTIONS)
def _compensation(cov0, det, antialias):
    """sqrt(det C0 / det C) with antialias, else 1."""
    if not antialias:
        return 1.0
    return math.sqrt(max(0.0, (cov0[0] * cov0[2] - cov0[1] * cov0[1]) / det))


@njit(**_OPTIONS)
def project_forward(
    first, last, cameras, size, near, antialias,
    means, quats, log_scales, logits,
    means2d, conics, opacities, depths, radii,
) -> None:  # fmt: skip
    """Fill the last five arrays for Gaussians first..last-1; radius 0 and zeros for the culled."""
    width, height = size
    for i in range(first, last):
        rotation, scale, inv = _spread(quats, log_scales, i)
        opacity = _sigmoid(np.float64(logits[i]))
        for cam in range(cameras.shape[0]):
            camera = cameras[cam]
            radii[cam, i] = 0
            means2d[cam, i, 0] = means2d[cam, i, 1] = 0
            conics[cam, i, 0] = conics[cam, i, 1] = conics[cam, i, 2] = 0
            opacities[cam, i] = depths[cam, i] = 0
            point = _camera_point(camera, means, i)
            if not point[2] > near or inv == 0.0:
                continue
            _, _, _, cov0 = _footprint(camera, rotation, scale, point, width, height)
            xx, xy, yy = cov0[0] + BLUR, cov0[1], cov0[2] + BLUR
            det = xx * yy - xy * xy
            if not (det > 0.0 and det < np.inf):
                continue
            seen = opacity * _compensation(cov0, det, antialias)
            if not seen >= ALPHA_MIN:
                continue
            extent = min(EXTENT_MAX, math.sqrt(2.0 * math.log(seen / ALPHA_MIN)))
            radius_x = math.ceil(extent * math.sqrt(xx))
            radius_y = math.ceil(extent * math.sqrt(yy))
            if not max(radius_x, radius_y) <= RADIUS_MAX:
                continue
            px = camera[12] * point[0] / point[2] + camera[14]
            py = camera[13] * point[1] / point[2] + camera[15]
            if px + radius_x <= 0 or px - radius_x >= width:
                continue
            if py + radius_y <= 0 or py - radius_y >= height:
                continue
            radii[cam, i] = int(max(radius_x, radius_y))
            means2d[cam, i, 0], means2d[cam, i, 1] = px, py
            conics[cam, i, 0], conics[cam, i, 1] = yy / det, -xy / det
            conics[cam, i, 2] = xx / det
            opacities[cam, i], depths[cam, i] = seen, point[2]


@njit(**_OPTIONS)
def _footprint_backward(cov0, antialias, v_conic, v_seen, opacity):
    """(v_xx, v_xy / 2, v_yy) of C0, and v_opacity, from v_conic and v_(opacity rho)."""
    xx, xy, yy = cov0[0] + BLUR, cov0[1], cov0[2] + BLUR
    det = xx * yy - xy * xy
    a, b, c = yy / det, -xy / det, xx / det
    ga, gb, gc = v_conic[0], 0.5 * v_conic[1], v_conic[2]
    top0, top1 = ga * a + gb * b, ga * b + gb * c
    low0, low1 = gb * a + gc * b, gb * b + gc * c
    v_xx, v_xy, v_yy = -(a * top0 + b * low0), -(a * top1 + b * low1), -(b * top1 + c * low1)
    if not antialias:
        return v_xx, v_xy, v_yy, v_seen
    ratio = (cov0[0] * cov0[2] - cov0[1] * cov0[1]) / det
    rho = math.sqrt(max(0.0, ratio))
    v_ratio = 0.5 * v_seen * opacity / rho / det
    v_xx += v_ratio * (cov0[2] - ratio * yy)
    v_yy += v_ratio * (cov0[0] - ratio * xx)
    v_xy -= v_ratio * xy * (1.0 - ratio)
    return v_xx, v_xy, v_yy, v_seen * rho


@njit(**_OPTIONS)
def _slope_backward(v_slope, slope, inside, z):
    """Gradients to x and z of the clamped ratio x / z."""
    if inside:
        return v_slope / z, -v_slope * slope / z
    return 0.0, 0.0


@njit(**_OPTIONS)
def _quat_backward(quats, i, inv, v_r, v_quats):
    """Add the gradient of R(q / |q|) to v_quats[i]."""
    w, x, y, z = quats[i, 0] * inv, quats[i, 1] * inv, quats[i, 2] * inv, quats[i, 3] * inv
    vw = 2 * (
        x * (v_r[2, 1] - v_r[1, 2]) + y * (v_r[0, 2] - v_r[2, 0]) + z * (v_r[1, 0] - v_r[0, 1])
    )
    vx = 2 * (
        -2 * x * (v_r[1, 1] + v_r[2, 2])
        + y * (v_r[0, 1] + v_r[1, 0])
        + z * (v_r[0, 2] + v_r[2, 0])
        + w * (v_r[2, 1] - v_r[1, 2])
    )
    vy = 2 * (
        x * (v_r[0, 1] + v_r[1, 0])
        - 2 * y * (v_r[0, 0] + v_r[2, 2])
        + z * (v_r[1, 2] + v_r[2, 1])
        + w * (v_r[0, 2] - v_r[2, 0])
    )
    vz = 2 * (
        x * (v_r[0, 2] + v_r[2, 0])
        + y * (v_r[1, 2] + v_r[2, 1])
        - 2 * z * (v_r[0, 0] + v_r[1, 1])
        + w * (v_r[1, 0] - v_r[0, 1])
    )
    along = vw * w + vx * x + vy * y + vz * z
    v_quats[i, 0] = (vw - along * w) * inv
    v_quats[i, 1] = (vx - along * x) * inv
    v_quats[i, 2] = (vy - along * y) * inv
    v_quats[i, 3] = (vz - along * z) * inv


@njit(**_OPTIONS)
def _view_backward(camera, geometry, point, cov_grads, v_pixel, v_depth, v_m, v_mean):
    """Add one camera's share to v_m = v_(R diag(s)) [3 3] and v_mean [3]."""
    (n0, n1, n2), (u, v), (slope_x, inside_x, slope_y, inside_y), _ = geometry
    v_xx, v_xy, v_yy = cov_grads
    x, y, z = point
    gx, gy = camera[12] / z, camera[13] / z
    v_gx = v_gy = v_slope_x = v_slope_y = 0.0
    for j in range(3):
        v_u = 2 * (v_xx * u[j] + v_xy * v[j])
        v_v = 2 * (v_xy * u[j] + v_yy * v[j])
        v_gx += v_u * (n0[j] - slope_x * n2[j])
        v_gy += v_v * (n1[j] - slope_y * n2[j])
        v_slope_x -= v_u * gx * n2[j]
        v_slope_y -= v_v * gy * n2[j]
        v_n0, v_n1 = v_u * gx, v_v * gy
        v_n2 = -v_u * gx * slope_x - v_v * gy * slope_y
        for row in range(3):
            v_m[row, j] += camera[row] * v_n0 + camera[3 + row] * v_n1 + camera[6 + row] * v_n2
    along_x, away_x = _slope_backward(v_slope_x, slope_x, inside_x, z)
    along_y, away_y = _slope_backward(v_slope_y, slope_y, inside_y, z)
    v_x = along_x + v_pixel[0] * gx
    v_y = along_y + v_pixel[1] * gy
    v_z = v_depth + away_x + away_y - (v_gx * gx + v_gy * gy) / z
    v_z -= (v_pixel[0] * gx * x + v_pixel[1] * gy * y) / z
    for row in range(3):
        v_mean[row] += camera[row] * v_x + camera[3 + row] * v_y + camera[6 + row] * v_z


@njit(**_OPTIONS)
def project_backward(
    first, last, cameras, size, antialias,
    means, quats, log_scales, logits, radii,
    v_means2d, v_conics, v_opacities, v_depths,
    v_means, v_quats, v_log_scales, v_logits,
) -> None:  # fmt: skip
    """Fill the last four arrays for Gaussians first..last-1, summed over cameras in order."""
    width, height = size
    v_m, v_r, v_mean = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3)
    for i in range(first, last):
        rotation, scale, inv = _spread(quats, log_scales, i)
        opacity = _sigmoid(np.float64(logits[i]))
        v_m[:] = 0.0
        v_mean[:] = 0.0
        v_opacity = 0.0
        for cam in range(cameras.shape[0]):
            if radii[cam, i] == 0:
                continue
            camera = cameras[cam]
            point = _camera_point(camera, means, i)
            geometry = _footprint(camera, rotation, scale, point, width, height)
            v_conic = (v_conics[cam, i, 0], v_conics[cam, i, 1], v_conics[cam, i, 2])
            v_xx, v_xy, v_yy, v_sigmoid = _footprint_backward(
                geometry[3], antialias, v_conic, v_opacities[cam, i], opacity
            )
            v_pixel = (np.float64(v_means2d[cam, i, 0]), np.float64(v_means2d[cam, i, 1]))
            _view_backward(
                camera, geometry, point, (v_xx, v_xy, v_yy), v_pixel, v_depths[cam, i], v_m, v_mean
            )
            v_opacity += v_sigmoid
        for j in range(3):
            v_scale = 0.0
            for row in range(3):
                v_scale += rotation[row][j] * v_m[row, j]
                v_r[row, j] = v_m[row, j] * scale[j]
            v_log_scales[i, j] = v_scale * scale[j]
            v_means[i, j] = v_mean[j]
        v_logits[i] = v_opacity * opacity * (1.0 - opacity)
        _quat_backward(quats, i, inv, v_r, v_quats)
