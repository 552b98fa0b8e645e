"""Hair: locks that grow from the scalp, each a narrow ribbon of triangles.

A lock starts at a root on the scalp inside the hairline, leaves along the normal, bends into a
combing direction and into gravity, and is pushed out of the head wherever it would enter it. The
head is taken as star-shaped about CENTRE (true for everything that hair can touch): its radius by
direction is one z-buffered map. All in head space of the person's neutral head; hair is rigid with
the head. s = 0 at the root, 1 at the tip.
"""

from dataclasses import dataclass

import numpy as np

from npga.capture.synthetic.noise import fbm, smoothstep
from npga.core.mesh_raster import rasterize_screen

CENTRE = np.array([0.0, 0.16, -0.16])
SHELL_WIDTH, SHELL_HEIGHT = 256, 128


@dataclass(frozen=True)
class HairLook:
    """A haircut; lengths in head units (250 mm), colour sRGB."""

    color: tuple[float, float, float] = (0.34, 0.22, 0.13)
    locks: int = 4800
    length: float = 0.16
    segments: int = 7
    width: float = 0.009
    lift: float = 0.026
    """How far the cut stands off the scalp."""
    gravity: float = 0.25
    parting: float = 0.06
    """x of the line from which hair is combed to both sides."""
    forward: float = 0.3
    """How much the top is combed to the front (negative: back)."""
    wave: float = 0.25
    hairline: float = 0.41
    """Template y where hair starts above the middle of the forehead."""
    seed: int = 0


@dataclass(frozen=True)
class Hair:
    """Ribbons in head space; r vertices, 2 per knot of every lock."""

    vertices: np.ndarray
    """[r 3]"""
    tangents: np.ndarray
    """[r 3] unit, root to tip."""
    along: np.ndarray
    """[r] s of every vertex."""
    shade: np.ndarray
    """[r] brightness of the lock, about 1."""
    faces: np.ndarray
    """[f 3] int32"""
    lock: np.ndarray
    """[f] which lock a face belongs to."""


def scalp_density(template: np.ndarray, look: HairLook) -> np.ndarray:
    """0..1, how much hair grows at template points [n 3]."""
    x, y, z = template.T
    azimuth = np.abs(np.arctan2(x, z + 0.12))
    edge = np.array([0.0, 0.35, 0.7, 0.95, 1.15, 1.32, 1.5, 1.75, 2.1, np.pi])
    line = np.array([0.0, 0.0, -0.03, -0.10, -0.21, -0.33, -0.29, -0.38, -0.55, -0.62])
    height = look.hairline + np.interp(azimuth, edge, line)
    height = height + 0.018 * fbm(template, 14, octaves=3, seed=look.seed + 3)
    return smoothstep(-0.012, 0.022, y - height)


def grow_hair(neutral: np.ndarray, template: np.ndarray, faces: np.ndarray, look: HairLook) -> Hair:
    """Comb a haircut onto one head.

    neutral, template [v 3]: the person's and the average's neutral vertices; faces [f 3] of the
    skin that may bear hair.
    """
    rng = np.random.default_rng(look.seed)
    roots, normals, grounds = _roots(neutral, template, faces, look, rng)
    shell = _radius_map(neutral, faces)
    knots = _comb(roots, normals, grounds, shell, look, rng)
    return _ribbons(knots, look, rng)


def _roots(
    neutral: np.ndarray,
    template: np.ndarray,
    faces: np.ndarray,
    look: HairLook,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random points on the hairy scalp: places, outward normals, template places."""
    corner = neutral[faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(cross, axis=1)
    density = scalp_density(template[faces].mean(1), look)
    chance = area * (density > 0.01)
    drawn = rng.choice(len(faces), size=3 * look.locks, p=chance / chance.sum())
    bary = rng.dirichlet([1, 1, 1], size=len(drawn))
    ground = (template[faces[drawn]] * bary[..., None]).sum(1)
    place = (neutral[faces[drawn]] * bary[..., None]).sum(1)
    kept = rng.uniform(size=len(drawn)) < scalp_density(ground, look)
    kept &= np.cumsum(kept) <= look.locks
    normal = cross[drawn] / np.maximum(area[drawn], 1e-12)[:, None]
    normal *= np.sign((normal * (place - CENTRE)).sum(1, keepdims=True))
    return place[kept], normal[kept], ground[kept]


def _angles(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the radius map for directions [n 3] from CENTRE."""
    unit = direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-9)
    column = (np.arctan2(unit[..., 0], -unit[..., 2]) / (2 * np.pi) + 0.5) * SHELL_WIDTH
    row = np.arccos(np.clip(unit[..., 1], -1, 1)) / np.pi * SHELL_HEIGHT
    return column, row


def _radius_map(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Outermost distance of the head from CENTRE by direction; the seam lies on the face side."""
    away = vertices - CENTRE
    radius = np.linalg.norm(away, axis=1)
    column, row = _angles(away)
    screen = np.stack([column, row, 3.0 - radius, 1.0 / (3.0 - radius)], axis=1)
    kept = faces[np.ptp(column[faces], axis=1) < SHELL_WIDTH / 2]
    face, _, depth = rasterize_screen(screen, kept.astype(np.int32), SHELL_WIDTH, SHELL_HEIGHT)
    return np.where(face >= 0, 3.0 - depth, 0.3)


def _push_out(points: np.ndarray, shell: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Move points [n 3] outwards until they are `gap` away from the head."""
    away = points - CENTRE
    radius = np.linalg.norm(away, axis=1)
    column, row = _angles(away)
    ground = shell[
        np.clip(row.astype(int), 0, SHELL_HEIGHT - 1),
        np.clip(column.astype(int), 0, SHELL_WIDTH - 1),
    ]
    lacking = np.maximum(ground + gap - radius, 0.0)
    return points + away / np.maximum(radius, 1e-6)[:, None] * lacking[:, None]


def _comb(
    roots: np.ndarray,
    normals: np.ndarray,
    grounds: np.ndarray,
    shell: np.ndarray,
    look: HairLook,
    rng: np.random.Generator,
) -> np.ndarray:
    """Knots of every lock [n segments+1 3]."""
    count = len(roots)
    x, y, _ = grounds.T
    low = smoothstep(0.30, -0.1, y)
    length = look.length * rng.uniform(0.75, 1.1, count) * (1 - 0.45 * low * (look.length < 0.3))
    away = np.sign(x - look.parting) * smoothstep(0.0, 0.05, np.abs(x - look.parting))
    flow = np.stack([0.75 * away, -0.15 - 1.1 * low, look.forward * (1 - low) - 0.25 * low], axis=1)
    for axis in range(3):
        flow[:, axis] += look.wave * fbm(grounds, 7, octaves=2, seed=look.seed + 41 + axis)
    flow += rng.normal(0, 0.11, flow.shape)
    gap = look.lift * rng.uniform(0.1, 1.0, count)
    knots = [roots - 0.004 * normals]
    direction = normals.copy()
    for segment in range(look.segments):
        s = (segment + 1) / look.segments
        tangent = flow - (flow * normals).sum(1, keepdims=True) * normals * 0.6
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
        lift = np.exp(-2.2 * segment * length / look.segments / look.lift)[:, None]
        falling = np.clip(1.5 * look.gravity * s, 0, 1)
        combed = (1 - falling) * tangent + falling * np.array([0.0, -1.0, 0.0])
        direction = 0.35 * direction + lift * normals + (1 - lift) * 1.2 * combed
        direction += rng.normal(0, 0.06, direction.shape)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        step = knots[-1] + direction * (length / look.segments)[:, None]
        knots.append(_push_out(step, shell, gap * min(1.0, 2.5 * s)))
    return np.stack(knots, axis=1)


def _ribbons(knots: np.ndarray, look: HairLook, rng: np.random.Generator) -> Hair:
    """Two vertices per knot, across the lock and along the head."""
    count, levels, _ = knots.shape
    tangent = np.gradient(knots, axis=1)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-9)
    outward = knots - CENTRE
    across = np.cross(tangent, outward)
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-9)
    twist = rng.uniform(-0.8, 0.8, (count, 1, 1))
    across = across * np.cos(twist) + np.cross(tangent, across) * np.sin(twist)
    s = np.linspace(0, 1, levels)
    half = 0.5 * look.width * (1 - 0.8 * s**2)[None, :, None] * rng.uniform(0.6, 1.3, (count, 1, 1))
    vertices = np.stack([knots - half * across, knots + half * across], axis=2)
    shade = np.clip(rng.normal(1.0, 0.16, (count, 1, 1)), 0.55, 1.5)
    first = (np.arange(count)[:, None] * levels + np.arange(levels - 1)[None]) * 2
    quads = first.reshape(-1)
    faces = np.concatenate(
        [np.stack([quads, quads + 1, quads + 2], 1), np.stack([quads + 1, quads + 3, quads + 2], 1)]
    )
    return Hair(
        vertices=vertices.reshape(-1, 3),
        tangents=np.repeat(tangent.reshape(-1, 3), 2, axis=0),
        along=np.repeat(np.tile(s, count), 2),
        shade=np.broadcast_to(shade, (count, levels, 2)).reshape(-1).copy(),
        faces=faces.astype(np.int32),
        lock=np.tile(np.repeat(np.arange(count), levels - 1), 2),
    )
