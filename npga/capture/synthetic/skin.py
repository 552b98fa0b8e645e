"""Painted skin: colour, gloss, relief and wrinkles on a cylinder around the template head.

Everything is painted once per person, in template coordinates p = (x, y, z) (head space of the
average neutral head), so features follow the vertices of every identity and expression. A texel of
the maps is (u, v) = (atan2(x, z - AXIS_Z), y). Wrinkle maps are relief that a frame adds with its
activations, which are functions of the expression weights; mesh and head model know none of this.
"""

from dataclasses import dataclass

import numpy as np

from npga.capture.synthetic.noise import fbm, smoothstep
from npga.core.mesh_raster import rasterize_screen

AXIS_Z = -0.15
"""Where the cylinder's axis stands in the template."""
V_LOW, V_HIGH = -0.95, 0.65
MAP_WIDTH, MAP_HEIGHT = 1024, 768

WRINKLES = (
    "foreheadLeft", "foreheadRight", "glabella", "crowLeft", "crowRight",
    "nasolabialLeft", "nasolabialRight", "nose", "chin", "lips",
)  # fmt: skip


@dataclass(frozen=True)
class SkinLook:
    """What a person's skin looks like; colours are sRGB in 0..1."""

    tone: tuple[float, float, float] = (0.80, 0.61, 0.52)
    lip: tuple[float, float, float] = (0.70, 0.40, 0.38)
    brow: tuple[float, float, float] = (0.28, 0.19, 0.13)
    freckles: int = 250
    moles: int = 7
    stubble: float = 0.0
    """Strength of the beard shadow, 0..1."""
    seed: int = 0


@dataclass(frozen=True)
class SkinMaps:
    """The painted maps, rows from V_HIGH downwards, columns from u = -pi."""

    color: np.ndarray
    """[h w 4] linear colour, and what multiplies the highlight."""
    relief: np.ndarray
    """[h w] height in head units."""
    wrinkles: np.ndarray
    """[len(WRINKLES) h w] height in head units at activation 1 (negative: a furrow)."""

    def bumped(self, activation: np.ndarray) -> np.ndarray:
        """One frame: [h w 4] = (dh/ds along u, along v, darkening, 0)."""
        height = self.relief + np.tensordot(activation.astype(np.float32), self.wrinkles, 1)
        radius = 0.33
        along_u = np.gradient(height, 2 * np.pi / MAP_WIDTH * radius, axis=1)
        along_v = -np.gradient(height, (V_HIGH - V_LOW) / MAP_HEIGHT, axis=0)
        furrow = np.tensordot(activation.astype(np.float32), np.minimum(self.wrinkles, 0), 1)
        dark = 1.0 - np.clip(-furrow * 60.0, 0.0, 0.45)
        return np.stack([along_u, along_v, dark, 0 * dark], axis=-1).astype(np.float32)


def wrinkle_activation(weights: dict[str, float]) -> np.ndarray:
    """How strongly each of WRINKLES is folded, from ARKit weights (missing names count as 0)."""

    def w(name: str) -> float:
        return float(weights.get(name, 0.0))

    def side(s: str) -> tuple[float, float, float]:
        smile = w(f"mouthSmile{s}")
        squint = 0.5 * w(f"eyeSquint{s}") + 0.6 * w(f"cheekSquint{s}")
        forehead = 0.55 * w("browInnerUp") + 0.6 * w(f"browOuterUp{s}")
        crow = squint + 0.35 * smile + 0.25 * w(f"eyeBlink{s}") * squint
        nasolabial = 0.8 * smile + 0.7 * w(f"noseSneer{s}") + 0.3 * w(f"mouthUpperUp{s}")
        return forehead, crow, nasolabial

    left, right = side("Left"), side("Right")
    frown = 0.5 * (w("browDownLeft") + w("browDownRight"))
    nose = 0.5 * (w("noseSneerLeft") + w("noseSneerRight"))
    chin = 0.7 * w("mouthShrugLower") + 0.25 * (w("mouthFrownLeft") + w("mouthFrownRight"))
    lips = w("mouthPucker") + 0.4 * w("mouthFunnel")
    values = [
        left[0], right[0], frown + 0.3 * nose, left[1], right[1], left[2], right[2],
        nose, chin, lips,
    ]  # fmt: skip
    return np.clip(np.array(values), 0.0, 1.15)


def unwrap(template: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Template position behind every texel [h w 3]; a plain cylinder where there is no surface.

    template [v 3], faces [f 3] of the outer skin. Faces across the seam at the back are left out.
    """
    angle = np.arctan2(template[:, 0], template[:, 2] - AXIS_Z)
    radius = np.hypot(template[:, 0], template[:, 2] - AXIS_Z)
    screen = np.zeros((len(template), 4))
    screen[:, 0] = (angle / (2 * np.pi) + 0.5) * MAP_WIDTH
    screen[:, 1] = (V_HIGH - template[:, 1]) / (V_HIGH - V_LOW) * MAP_HEIGHT
    screen[:, 2] = 2.0 - radius
    screen[:, 3] = 1.0 / screen[:, 2]
    spread = np.ptp(angle[faces], axis=1)
    kept = np.ascontiguousarray(faces[spread < np.pi], dtype=np.int32)
    face, bary, _ = rasterize_screen(screen, kept, MAP_WIDTH, MAP_HEIGHT)
    position = (template[kept[face]] * bary[..., None]).sum(-2)
    u = (np.arange(MAP_WIDTH) + 0.5) / MAP_WIDTH * 2 * np.pi - np.pi
    v = V_HIGH - (np.arange(MAP_HEIGHT) + 0.5) / MAP_HEIGHT * (V_HIGH - V_LOW)
    around = np.stack([0.3 * np.sin(u), np.zeros_like(u), 0.3 * np.cos(u) + AXIS_Z], axis=-1)
    fallback = np.broadcast_to(around, (MAP_HEIGHT, MAP_WIDTH, 3)).copy()
    fallback[..., 1] = v[:, None]
    return np.where((face >= 0)[..., None], position, fallback)


def paint_skin(position: np.ndarray, look: SkinLook) -> SkinMaps:
    """All maps of one person from the template positions [h w 3] of `unwrap`."""
    color = _base_color(position, look)
    color = _spots(position, color, look)
    lip = lip_mask(position)
    lines = fbm(position * np.array([6.0, 1.0, 1.0]), 40, octaves=2, seed=look.seed + 9)
    lip_color = np.array(look.lip) * (1 + 0.10 * lines[..., None])
    color = color * (1 - lip[..., None]) + lip_color * lip[..., None]
    lash = lash_line(position)[..., None]
    color = color * (1 - lash) + 0.35 * np.array(look.brow) * lash
    brow = brow_mask(position, look.seed)
    color = color * (1 - brow[..., None]) + np.array(look.brow) * brow[..., None]
    x, y, z = np.moveaxis(position, -1, 0)
    gloss = 0.75 + 0.5 * _blob(x, y, (0, -0.02), 0.06) + 0.35 * smoothstep(0.22, 0.34, y) * (z > 0)
    gloss = gloss * (1 - brow) + 0.9 * lip
    pores = fbm(position, 260, octaves=2, gain=0.7, seed=look.seed + 3)
    relief = 0.00035 * pores * (1 - lip) + 0.0005 * lip * lines
    relief += 0.0012 * fbm(position, 30, octaves=3, seed=look.seed + 4)
    relief += 0.0011 * brow * fbm(position * np.array([1, 2.5, 1]), 160, octaves=2, seed=5)
    linear = np.clip(color, 0.01, 1.0) ** 2.2
    return SkinMaps(
        np.concatenate([linear, np.maximum(gloss, 0)[..., None]], -1).astype(np.float32),
        relief.astype(np.float32),
        _wrinkle_maps(position, look.seed).astype(np.float32),
    )


def _blob(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], size: float) -> np.ndarray:
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / size**2)


def _base_color(position: np.ndarray, look: SkinLook) -> np.ndarray:
    """Skin tone with redder cheeks, nose, ears and lids, mottling and a beard shadow."""
    x, y, z = np.moveaxis(position, -1, 0)
    side = np.abs(x)
    front = smoothstep(-0.05, 0.1, z)
    mottle = fbm(position, 12, octaves=4, seed=look.seed) * 0.05
    fine = fbm(position, 90, octaves=2, seed=look.seed + 1) * 0.035
    red = 0.5 * _blob(side, y, (0.17, -0.04), 0.085) + 0.6 * _blob(x, y, (0, -0.06), 0.05)
    red = front * (red + 0.45 * _blob(x, y, (0, -0.30), 0.06))
    red += 0.7 * _blob(z, y, (-0.16, 0.0), 0.14) * (side > 0.29)
    red *= 1 + 2.0 * fbm(position, 25, octaves=2, seed=look.seed + 2)
    under_eye = front * _blob(side, 1.6 * (y - 0.055), (0.12, 0.0), 0.05)
    lids = front * _blob(side, 1.3 * (y - 0.125), (0.125, 0.0), 0.045)
    tone = np.array(look.tone) * (1 + (mottle + fine)[..., None])
    tone *= 1 + red[..., None] * np.array([0.03, -0.11, -0.10])
    tone *= 1 + under_eye[..., None] * np.array([-0.09, -0.10, -0.06])
    tone *= 1 + lids[..., None] * np.array([-0.05, -0.12, -0.10])
    beard = smoothstep(-0.10, -0.20, y) * smoothstep(-0.50, -0.42, y) * smoothstep(-0.15, -0.02, z)
    moustache = _blob(0.6 * x, 1.5 * (y + 0.125), (0, 0), 0.04) * front
    grain = 0.5 + 0.9 * np.clip(fbm(position, 330, octaves=1, seed=look.seed + 7), 0, 1)
    shadow = look.stubble * np.clip(np.maximum(beard, moustache), 0, 1) * grain
    return tone * (1 - shadow[..., None] * np.array([0.42, 0.36, 0.28]))


def _spots(position: np.ndarray, color: np.ndarray, look: SkinLook) -> np.ndarray:
    """Freckles (faint, on cheeks and nose) and moles (dark, anywhere on the face and neck)."""
    rng = np.random.default_rng(look.seed + 17)
    out = color.copy()
    flat = position.reshape(-1, 3)
    candidates = flat[(flat[:, 2] > -0.1) & (flat[:, 1] > -0.45) & (flat[:, 1] < 0.38)]
    cheeks = candidates[(np.abs(candidates[:, 1] + 0.02) < 0.1) & (candidates[:, 2] > 0.05)]
    for index in range(look.freckles + look.moles):
        mole = index >= look.freckles
        centre = candidates[rng.integers(len(candidates))]
        if not mole:
            centre = cheeks[rng.integers(len(cheeks))]
        size = rng.uniform(0.0035, 0.0055) if mole else rng.uniform(0.0025, 0.0055)
        strength = rng.uniform(0.55, 0.8) if mole else rng.uniform(0.08, 0.26)
        rows, columns = _window(centre, 3 * size)
        near = position[rows, columns]
        away = np.linalg.norm(near - centre, axis=-1)
        dot = strength * smoothstep(1.35 * size, 0.5 * size, away)[..., None]
        out[rows, columns] *= 1 - dot * np.array([0.62, 0.85, 0.95])
    return out


def _window(centre: np.ndarray, reach: float) -> tuple[slice, slice]:
    """Texels that may lie within `reach` of a template point (never across the seam)."""
    column = (np.arctan2(centre[0], centre[2] - AXIS_Z) / (2 * np.pi) + 0.5) * MAP_WIDTH
    row = (V_HIGH - centre[1]) / (V_HIGH - V_LOW) * MAP_HEIGHT
    wide = int(np.ceil(reach / 0.25 / (2 * np.pi) * MAP_WIDTH)) + 1
    tall = int(np.ceil(reach / (V_HIGH - V_LOW) * MAP_HEIGHT)) + 1
    return (
        slice(max(0, int(row) - tall), int(row) + tall + 1),
        slice(max(0, int(column) - wide), int(column) + wide + 1),
    )


def lip_mask(position: np.ndarray) -> np.ndarray:
    """1 on the red of the lips of the template (corners at x = +-0.098, y = -0.184)."""
    x, y, z = np.moveaxis(position, -1, 0)
    t = np.clip(np.abs(x) / 0.100, 0, 1)
    top = -0.184 + 0.038 * (1 - t**1.7) - 0.006 * np.exp(-((x / 0.018) ** 2))
    bottom = -0.186 - 0.036 * (1 - t**2.2)
    inside = smoothstep(0.005, -0.003, y - top) * smoothstep(-0.006, 0.003, y - bottom)
    return inside * smoothstep(0.103, 0.094, np.abs(x)) * (z > 0.1)


def lash_line(position: np.ndarray) -> np.ndarray:
    """Upper lashes (and faint lower ones) as lines along the rims of the template's eyes."""
    x, y, z = np.moveaxis(position, -1, 0)
    side = np.abs(x)
    knots = [0.066, 0.083, 0.10, 0.12, 0.14, 0.16, 0.178, 0.188]
    upper = np.interp(side, knots, [0.097, 0.101, 0.112, 0.1195, 0.1205, 0.1175, 0.107, 0.103])
    lower = np.interp(side, knots, [0.095, 0.092, 0.0895, 0.088, 0.088, 0.092, 0.101, 0.103])
    span = smoothstep(0.068, 0.085, side) * smoothstep(0.196, 0.182, side) * (z > 0.05)
    thick = 0.0035 + 0.003 * smoothstep(0.10, 0.17, side)
    top = smoothstep(-0.004, 0.0, y - upper) * smoothstep(2 * thick, 0.4 * thick, y - upper)
    bottom = 0.35 * smoothstep(0.003, 0.0, y - lower) * smoothstep(-0.006, -0.001, y - lower)
    return np.clip(span * (0.9 * top + bottom), 0, 0.9)


def brow_mask(position: np.ndarray, seed: int) -> np.ndarray:
    """Eyebrow hair density: slanted strokes inside an arch above each eye."""
    x, y, z = np.moveaxis(position, -1, 0)
    side = np.abs(x)
    t = np.clip((side - 0.045) / 0.165, 0, 1)
    middle = 0.183 + 0.030 * np.sin(np.pi * np.minimum(t * 0.62 + 0.02, 1)) - 0.012 * t**3
    half = 0.017 * (1 - 0.75 * t**1.5) + 0.002
    body = smoothstep(1.25, 0.55, np.abs(y - middle) / half)
    body *= smoothstep(0.035, 0.06, side) * smoothstep(0.222, 0.195, side) * (z > 0)
    slanted = np.stack([side * 1.0 + 0.9 * (y - middle) * np.sign(t - 1.2), y * 0.25, z * 0], -1)
    strokes = fbm(slanted, 170, octaves=2, seed=seed + 23)
    return np.clip(body * (0.78 + 0.9 * strokes), 0, 0.95)


def _furrow(distance: np.ndarray, width: float) -> np.ndarray:
    """A furrow with raised shoulders across its signed distance."""
    t = distance / width
    return -np.exp(-(t**2)) + 0.35 * np.exp(-(((np.abs(t) - 1.9) / 1.0) ** 2))


def _wrinkle_maps(position: np.ndarray, seed: int) -> np.ndarray:
    """[len(WRINKLES) h w] relief at activation 1, units of head space."""
    x, y, z = np.moveaxis(position, -1, 0)
    front = smoothstep(-0.12, 0.0, z)
    warp = 0.010 * fbm(position, 9, octaves=3, seed=seed + 31)
    left, right = smoothstep(-0.03, 0.04, x), smoothstep(0.03, -0.04, x)
    forehead = np.zeros_like(x)
    for k in range(5):
        line = 0.262 + 0.029 * k - 0.25 * x**2 + 0.008 * np.cos(18 * x)
        fade = smoothstep(0.225 - 0.012 * abs(k - 1), 0.12, np.abs(x))
        forehead += (0.9 - 0.12 * k) * fade * _furrow(y - line - warp, 0.0055)
    forehead *= front * smoothstep(0.24, 0.256, y) * smoothstep(0.42, 0.395, y)
    glabella = np.zeros_like(x)
    for offset in (-0.033, -0.015, 0.017, 0.034):
        rise = smoothstep(0.125, 0.155, y) * smoothstep(0.26, 0.21, y)
        glabella += rise * _furrow(x - offset * (1 + 2 * (y - 0.17)) - 0.5 * warp, 0.005)
    crows, folds = [], []
    for sign in (1.0, -1.0):
        dx, dy = sign * x - 0.178, y - 0.104
        angle, radius = np.arctan2(dy, dx), np.hypot(dx, dy)
        ring = smoothstep(0.016, 0.034, radius) * smoothstep(0.105, 0.07, radius)
        fan = sum(
            _furrow(radius * (angle - a) - 0.6 * warp, 0.0042) for a in (-0.75, -0.3, 0.15, 0.6)
        )
        crows.append(0.8 * ring * smoothstep(1.2, 0.8, np.abs(angle)) * fan * front)
        t = np.clip((-0.045 - y) / 0.17, 0, 1)
        curve = 0.066 + 0.066 * t**0.8
        span = smoothstep(-0.03, -0.06, y) * smoothstep(-0.235, -0.19, y)
        folds.append(1.1 * span * _furrow(sign * x - curve - 0.5 * warp, 0.0095) * front)
    bridge = (
        smoothstep(0.0, 0.02, y) * smoothstep(0.12, 0.09, y) * smoothstep(0.062, 0.03, np.abs(x))
    )
    nose = sum(_furrow(y - c - 0.8 * np.abs(x) - warp * 0.4, 0.005) for c in (0.01, 0.033, 0.056))
    nose = 0.7 * nose
    chin = _blob(x, y, (0, -0.295), 0.055) * fbm(position, 55, octaves=2, seed=seed + 37) * 1.6
    lips = lip_mask(position) * np.cos(x / 0.0062 * (1 + warp)) * 0.8
    return 0.0046 * np.stack(
        [
            forehead * left,
            forehead * right,
            glabella * front,
            *crows,
            *folds,
            nose * bridge,
            chin,
            lips,
        ]
    )
