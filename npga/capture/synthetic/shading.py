"""The colour of every sample of a picture: skin, eyes, mouth, hair and cloth under studio light.

Per sample: p place, n normal, v to the camera, L to a lamp, h half-way, q template coordinate.
Skin: wrapped diffuse (red wraps furthest, the look of light under skin), Blinn-Phong with Fresnel,
relief from the painted maps. Eyes: iris and pupil by the angle to the eye's own axis in the
template, so they turn with the vertices. Hair: Kajiya and Kay 1989 along the lock. All linear.
"""

from dataclasses import dataclass

import numba
import numpy as np

from npga.capture.synthetic.light import Lamps, Shadows, lit
from npga.capture.synthetic.noise import value_noise
from npga.capture.synthetic.skin import AXIS_Z, V_HIGH, V_LOW

SKIN, MOUTH, TEETH, TONGUE, EYE_LEFT, EYE_RIGHT, SOCKET, HAIR = range(8)

PAINT_NAMES = ("iris", "sclera", "mouth", "teeth", "tongue", "socket", "hair", "cloth")
"""The rows of `Paint.table`, in order."""
IRIS_RAD, PUPIL_RAD = 0.43, 0.155


@dataclass(frozen=True)
class Surface:
    """Everything drawn in one frame, world metres; v vertices, f faces."""

    vertices: np.ndarray
    """[v 3] float64"""
    normals: np.ndarray
    """[v 3]; tangents on hair."""
    template: np.ndarray
    """[v 3] template coordinates; (s, shade, 0) on hair."""
    ambient: np.ndarray
    """[v 3]"""
    faces: np.ndarray
    """[f 3] int32"""
    material: np.ndarray
    """[f] uint8"""
    world_from_head: np.ndarray
    """[3 3] rotation, carries the relief's directions."""


@dataclass(frozen=True)
class Paint:
    """One person's colours."""

    color_map: np.ndarray
    """[h w 4] linear skin and its gloss."""
    table: np.ndarray
    """[8 3] linear colours by PAINT_NAMES."""
    eye_centres: np.ndarray
    """[2 3] in the template."""
    collar: float
    """Skin becomes cloth where y + 0.45 z falls below this."""


def shade(
    face: np.ndarray,
    bary: np.ndarray,
    surface: Surface,
    paint: Paint,
    slope_map: np.ndarray,
    lamps: Lamps,
    shadows: Shadows,
    eye: np.ndarray,
) -> np.ndarray:
    """Linear radiance [h w 3] of every sample; 0 where there is no face.

    face [h w], bary [h w 3] from the z-buffer; slope_map [h w 4] from `SkinMaps.bumped`; eye [3]
    the camera's centre.
    """
    mesh = (
        surface.vertices.astype(np.float32),
        surface.normals.astype(np.float32),
        surface.template.astype(np.float32),
        surface.ambient,
        surface.faces,
        surface.material,
    )
    maps = (paint.color_map, slope_map, paint.table, paint.eye_centres)
    studio = (lamps.toward, lamps.color, shadows.lamp_from_world, shadows.depth)
    rotation = surface.world_from_head.astype(np.float64)
    return _shade(face, bary, mesh, maps, studio, rotation, paint.collar, eye.astype(np.float64))


@numba.njit(cache=True, fastmath=True)
def _mix(
    face: np.ndarray, w: np.ndarray, values: np.ndarray, normalise: bool
) -> tuple[float, float, float]:
    """Interpolate rows of values at the corners of a face."""
    x = w[0] * values[face[0], 0] + w[1] * values[face[1], 0] + w[2] * values[face[2], 0]
    y = w[0] * values[face[0], 1] + w[1] * values[face[1], 1] + w[2] * values[face[2], 1]
    z = w[0] * values[face[0], 2] + w[1] * values[face[1], 2] + w[2] * values[face[2], 2]
    if normalise:
        size = np.sqrt(x * x + y * y + z * z) + 1e-12
        return x / size, y / size, z / size
    return x, y, z


@numba.njit(cache=True, fastmath=True)
def _texel(image: np.ndarray, x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """A [h w 4] cylinder map at a template point, bilinear."""
    height, width = image.shape[0], image.shape[1]
    u = (np.arctan2(x, z - AXIS_Z) / (2 * np.pi) + 0.5) * width - 0.5
    v = (V_HIGH - y) / (V_HIGH - V_LOW) * height - 0.5
    v = min(max(v, 0.0), height - 1.001)
    i, j = int(v), int(np.floor(u))
    a, b = v - i, u - j
    left, right = j % width, (j + 1) % width
    out0 = out1 = out2 = out3 = 0.0
    for row, share in ((i, 1 - a), (i + 1, a)):
        for column, part in ((left, 1 - b), (right, b)):
            weight = share * part
            out0 += weight * image[row, column, 0]
            out1 += weight * image[row, column, 1]
            out2 += weight * image[row, column, 2]
            out3 += weight * image[row, column, 3]
    return out0, out1, out2, out3


@numba.njit(cache=True, fastmath=True)
def _eye_color(
    q: tuple[float, float, float], centre: np.ndarray, table: np.ndarray
) -> tuple[float, float, float]:
    """Pupil, iris with radial fibres and a dark rim, sclera with faint veins."""
    dx, dy, dz = q[0] - centre[0], q[1] - centre[1], q[2] - centre[2]
    size = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-12
    angle = np.arccos(min(1.0, max(-1.0, dz / size)))
    turn = np.arctan2(dy, dx)
    if angle < IRIS_RAD:
        t = angle / IRIS_RAD
        fibre = 0.85 + 0.35 * value_noise(turn * 9.0, t * 2.5, 0.0, 5)
        rim = 1.0 - 0.75 * min(1.0, max(0.0, (t - 0.80) / 0.2)) ** 1.5
        inner = 1.0 + 0.35 * max(0.0, 0.7 - t)
        dark = min(1.0, max(0.0, (angle - PUPIL_RAD + 0.02) / 0.04))
        k = fibre * rim * inner * dark
        return (table[0, 0] * k + 0.004, table[0, 1] * k + 0.004, table[0, 2] * k + 0.004)
    vein = max(0.0, value_noise(turn * 7.0, angle * 9.0, 1.0, 11)) ** 2
    red = min(1.0, max(0.0, (angle - 0.55) / 0.7)) * (0.25 + 0.5 * vein)
    edge = min(1.0, max(0.0, (angle - IRIS_RAD) / 0.05))
    k = 0.35 + 0.65 * edge
    return (table[1, 0] * k, table[1, 1] * k * (1 - 0.35 * red), table[1, 2] * k * (1 - 0.4 * red))


@numba.njit(cache=True, fastmath=True)
def _cloth_color(
    q: tuple[float, float, float], below: float, cloth: np.ndarray
) -> tuple[float, float, float]:
    """Knitted cloth with a ribbed collar band."""
    rib = 0.93 + 0.07 * np.sin(np.arctan2(q[0], q[2] + 0.4) * 160.0)
    knit = 0.94 + 0.1 * value_noise(q[0] * 90.0, q[1] * 90.0, q[2] * 90.0, 3)
    k = rib if below < 0.045 else knit
    if 0.045 <= below < 0.052:
        k *= 0.75
    return cloth[0] * k, cloth[1] * k, cloth[2] * k


@numba.njit(cache=True, fastmath=True)
def _hair_light(
    t: tuple[float, float, float],
    v: tuple[float, float, float],
    toward: np.ndarray,
    base: tuple[float, float, float],
) -> tuple[float, float, float]:
    """Kajiya-Kay: what a lock with tangent t sends to v from one lamp of colour 1."""
    along = t[0] * toward[0] + t[1] * toward[1] + t[2] * toward[2]
    diffuse = 0.75 * np.sqrt(max(0.0, 1 - along * along))
    hx, hy, hz = v[0] + toward[0], v[1] + toward[1], v[2] + toward[2]
    size = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
    tilt = (t[0] * hx + t[1] * hy + t[2] * hz) / size
    sharp = max(0.0, 1 - (tilt - 0.06) ** 2) ** 45.0 * 0.055
    broad = max(0.0, 1 - (tilt + 0.12) ** 2) ** 9.0 * 0.40
    k = diffuse + broad
    return base[0] * k + sharp, base[1] * k + sharp, base[2] * k + sharp


@numba.njit(cache=True, fastmath=True)
def _bump(
    n: tuple[float, float, float],
    q: tuple[float, float, float],
    slope_u: float,
    slope_v: float,
    rotation: np.ndarray,
) -> tuple[float, float, float]:
    """Tilt a normal against the relief's slope, whose directions ride on the head's rotation."""
    u = np.arctan2(q[0], q[2] - AXIS_Z)
    cu, su = np.cos(u), np.sin(u)
    gx, gy, gz = slope_u * cu, slope_v, -slope_u * su
    wx = rotation[0, 0] * gx + rotation[0, 1] * gy + rotation[0, 2] * gz
    wy = rotation[1, 0] * gx + rotation[1, 1] * gy + rotation[1, 2] * gz
    wz = rotation[2, 0] * gx + rotation[2, 1] * gy + rotation[2, 2] * gz
    inward = wx * n[0] + wy * n[1] + wz * n[2]
    x, y, z = n[0] - wx + inward * n[0], n[1] - wy + inward * n[1], n[2] - wz + inward * n[2]
    size = np.sqrt(x * x + y * y + z * z) + 1e-12
    return x / size, y / size, z / size


@numba.njit(cache=True, fastmath=True)
def _surface_light(
    n: tuple[float, float, float],
    v: tuple[float, float, float],
    toward: np.ndarray,
    seen: float,
    base: tuple[float, float, float],
    wrap: float,
    gloss: float,
    power: float,
) -> tuple[float, float, float]:
    """Wrapped diffuse plus highlight from one lamp of colour 1."""
    cosine = n[0] * toward[0] + n[1] * toward[1] + n[2] * toward[2]
    edge = min(1.0, max(0.0, (cosine + 0.05) / 0.25))
    shown = 1.0 - edge * (1.0 - seen)
    red = max(0.0, (cosine + 1.2 * wrap) / (1 + 1.2 * wrap)) * (1 - edge * (1 - seen) * 0.92)
    green = max(0.0, (cosine + 0.45 * wrap) / (1 + 0.45 * wrap)) * shown
    blue = max(0.0, (cosine + 0.25 * wrap) / (1 + 0.25 * wrap)) * shown
    shine = 0.0
    if cosine > 0 and gloss > 0:
        hx, hy, hz = v[0] + toward[0], v[1] + toward[1], v[2] + toward[2]
        size = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        peak = max(0.0, (n[0] * hx + n[1] * hy + n[2] * hz) / size)
        facing = max(0.0, (v[0] * hx + v[1] * hy + v[2] * hz) / size)
        fresnel = 0.03 + 0.97 * (1 - facing) ** 5
        shine = gloss * seen * cosine * fresnel * (power + 8) / 25.0 * peak**power
    return base[0] * red + shine, base[1] * green + shine, base[2] * blue + shine


@numba.njit(cache=True, fastmath=True)
def _material(
    kind: int,
    q: tuple[float, float, float],
    color_map: np.ndarray,
    table: np.ndarray,
    eye_centres: np.ndarray,
) -> tuple[float, float, float, float, float, float]:
    """Base colour, gloss, highlight power and wrap of everything but hair and cloth."""
    if kind == SKIN:
        r, g, b, gloss = _texel(color_map, q[0], q[1], q[2])
        return r, g, b, gloss, 22.0, 0.32
    if kind == EYE_LEFT or kind == EYE_RIGHT:
        r, g, b = _eye_color(q, eye_centres[kind - EYE_LEFT], table)
        return r, g, b, 1.6, 420.0, 0.15
    row = 2 if kind == MOUTH else (3 if kind == TEETH else (4 if kind == TONGUE else 5))
    k = 1.0
    if kind == TONGUE:
        k = 0.92 + 0.16 * value_noise(q[0] * 130.0, q[1] * 130.0, q[2] * 130.0, 21)
    if kind == SOCKET and q[1] > eye_centres[0, 1] - 0.008:
        k = 0.12
    if kind == TEETH:
        k = 1.0 - 0.35 * max(0.0, np.cos(q[0] / 0.0165 * np.pi)) ** 14
    gloss = 0.9 if kind == TEETH else 0.8
    return table[row, 0] * k, table[row, 1] * k, table[row, 2] * k, gloss, 60.0, 0.25


@numba.njit(cache=True, fastmath=True)
def _gathered(
    kind: int,
    p: tuple[float, float, float],
    n: tuple[float, float, float],
    v: tuple[float, float, float],
    base: tuple[float, float, float],
    shape: tuple[float, float, float],
    studio: tuple[np.ndarray, ...],
) -> tuple[float, float, float]:
    """Light of all lamps with their shadows; shape = (gloss, highlight power, wrap)."""
    toward, color, projection, depth = studio
    lift = 0.0 if kind == HAIR else 0.0015
    out0 = out1 = out2 = 0.0
    for lamp in range(len(toward)):
        tow = toward[lamp]
        if kind != HAIR and n[0] * tow[0] + n[1] * tow[1] + n[2] * tow[2] < -0.4:
            continue
        x, y, z = p[0] + lift * n[0], p[1] + lift * n[1], p[2] + lift * n[2]
        seen = lit(depth[lamp], projection[lamp], x, y, z, 2 if lamp == 0 else 1)
        if kind == HAIR:
            c = _hair_light(n, v, tow, base)
            c = (c[0] * seen, c[1] * seen, c[2] * seen)
        else:
            c = _surface_light(n, v, tow, seen, base, shape[2], shape[0], shape[1])
        out0 += color[lamp, 0] * c[0]
        out1 += color[lamp, 1] * c[1]
        out2 += color[lamp, 2] * c[2]
    return out0, out1, out2


@numba.njit(cache=True, parallel=True, fastmath=True)
def _shade(
    face: np.ndarray,
    bary: np.ndarray,
    mesh: tuple[np.ndarray, ...],
    maps: tuple[np.ndarray, ...],
    studio: tuple[np.ndarray, ...],
    rotation: np.ndarray,
    collar: float,
    eye: np.ndarray,
) -> np.ndarray:
    """The loop over samples behind `shade`."""
    vertices, normals, template, ambient, faces, material = mesh
    color_map, slope_map, table, eye_centres = maps
    height, width = face.shape
    out = np.zeros((height, width, 3), np.float32)
    for row in numba.prange(height):
        for column in range(width):
            f = face[row, column]
            if f < 0:
                continue
            corner, w, kind = faces[f], bary[row, column], int(material[f])
            p = _mix(corner, w, vertices, False)
            n = _mix(corner, w, normals, True)
            q = _mix(corner, w, template, False)
            sky = _mix(corner, w, ambient, False)
            vx, vy, vz = eye[0] - p[0], eye[1] - p[1], eye[2] - p[2]
            away = np.sqrt(vx * vx + vy * vy + vz * vz)
            v = (vx / away, vy / away, vz / away)
            cavity = 1.0
            below = collar - q[1] - 0.45 * q[2]
            if kind == HAIR:
                k = q[1] * (0.55 + 0.45 * min(1.0, 1.6 * q[0]))
                base = (table[6, 0] * k, table[6, 1] * k, table[6, 2] * k)
                shape = (0.0, 0.0, 0.0)
            elif kind == SKIN and below > 0:
                base = _cloth_color(q, below, table[7])
                shape = (0.12, 6.0, 0.1)
            else:
                r, g, b, gloss, power, wrap = _material(kind, q, color_map, table, eye_centres)
                base = (r, g, b)
                shape = (gloss, power, wrap)
                if kind == SKIN:
                    slope_u, slope_v, cavity, _ = _texel(slope_map, q[0], q[1], q[2])
                    n = _bump(n, q, slope_u, slope_v, rotation)
            light = _gathered(kind, p, n, v, base, shape, studio)
            for k3 in range(3):
                out[row, column, k3] = cavity * (base[k3] * sky[k3] + light[k3])
    return out
