"""A dressed figure: from expression weights and poses to pictures.

    Figure + SkinLook + HairLook ──► Actor ──(weights, gaze, poses)──► Stage ──(camera)──► Shot

A Stage is everything of one moment that no camera changes: posed surfaces in the world, shadows,
ambient light, wrinkles. A Shot is one camera's picture with its matte, from SAMPLES x SAMPLES
samples per pixel, averaged in sRGB-encoded values so that picture = alpha * head + (1 - alpha) *
background holds for the stored values.
"""

from dataclasses import dataclass

import numpy as np

from npga.capture.synthetic import shading
from npga.capture.synthetic.figure import Figure
from npga.capture.synthetic.hair import Hair, HairLook, grow_hair, scalp_density
from npga.capture.synthetic.light import Lamps, Shadows, ambient_light, cast_shadows
from npga.capture.synthetic.shading import Paint, Surface
from npga.capture.synthetic.skin import (
    SkinLook,
    SkinMaps,
    paint_skin,
    unwrap,
    wrinkle_activation,
)
from npga.core.cameras import Cameras
from npga.core.images import srgb_from_linear
from npga.core.mesh_raster import zbuffer
from npga.core.similarity import Similarity

SAMPLES = 2
CLOTH_THICKNESS_M = 0.004


@dataclass(frozen=True)
class Look:
    """All that is not geometry."""

    skin: SkinLook
    hair: HairLook
    iris: tuple[float, float, float]
    cloth: tuple[float, float, float]
    collar: float = -0.74


@dataclass(frozen=True)
class Stage:
    """One moment, lit."""

    surface: Surface
    slope_map: np.ndarray
    shadows: Shadows
    figure_vertices: np.ndarray
    """[v 3] world metres of the figure alone, without the cloth's thickness."""


@dataclass(frozen=True)
class Shot:
    """One camera's view of a stage."""

    color: np.ndarray
    """[h w 3] uint8, over the background."""
    matte: np.ndarray
    """[h w] uint8, 255 = person."""
    depth: np.ndarray
    """[h w] nearest depth in a pixel's samples, metres, 0 = background."""
    face: np.ndarray
    """[H W] int32 faces of the supersampled picture."""
    bary: np.ndarray
    """[H W 3]"""


class Actor:
    """A person who can be filmed."""

    def __init__(self, figure: Figure, look: Look, lamps: Lamps) -> None:
        """Paints the skin and combs the hair (about a second)."""
        self.figure, self.look, self.lamps = figure, look, lamps
        skin = figure.faces[figure.material == shading.SKIN]
        position = unwrap(figure.template, skin)
        self.maps: SkinMaps = paint_skin(position, look.skin)
        self._darken_scalp(position)
        self.hair: Hair = grow_hair(
            figure.neutral, figure.template, figure.faces[figure.hairy], look.hair
        )
        self._faces = np.concatenate([figure.faces, self.hair.faces + len(figure.neutral)])
        thin = self.hair.faces[self.hair.lock % 2 == 0]
        self._sky_faces = np.concatenate([figure.faces, thin + len(figure.neutral)])
        self._material = np.concatenate(
            [figure.material, np.full(len(self.hair.faces), shading.HAIR, np.uint8)]
        )
        along = np.stack([self.hair.along, self.hair.shade, 0 * self.hair.along], axis=1)
        self._template = np.concatenate([figure.template, along])
        self._paint = Paint(
            self.maps.color, _table(look), np.ascontiguousarray(figure.eye_centres), look.collar
        )

    def _darken_scalp(self, position: np.ndarray) -> None:
        """Roots and shadow under the hair, so that no bare scalp shines through."""
        density = scalp_density(position.reshape(-1, 3), self.look.hair).reshape(position.shape[:2])
        roots = 0.55 * np.array(self.look.hair.color) ** 2.2
        share = 0.92 * density[..., None]
        color = self.maps.color
        color[..., :3] = color[..., :3] * (1 - share) + roots * share
        color[..., 3] *= 1 - 0.9 * density

    def stage(
        self, weights: np.ndarray, gaze: np.ndarray, head: Similarity, torso: Similarity
    ) -> Stage:
        """Pose, shadow and wrinkle one moment; weights [52], gaze [2 2]."""
        posed = self.figure.posed(weights, gaze).astype(np.float64)
        body = blend_neck(posed, self.figure.torso_weight, head, torso)
        hair = _applied(head, self.hair.vertices)
        rotation = head.rotation.numpy().astype(np.float64)
        normals = vertex_normals(body, self.figure.faces)
        thick = self.look.collar - self.figure.template[:, 1] - 0.45 * self.figure.template[:, 2]
        thick = CLOTH_THICKNESS_M * np.clip(thick / 0.01, 0, 1)
        dressed = body + normals * thick[:, None]
        vertices = np.concatenate([dressed, hair])
        centre = head.translation.numpy().astype(np.float64)
        outward = (self.hair.vertices - np.array([0.0, 0.1, -0.16])) @ rotation.T
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        facing = np.concatenate([normals, outward])
        ambient = ambient_light(vertices, facing, self._sky_faces, self.lamps, centre)
        surface = Surface(
            vertices=vertices,
            normals=np.concatenate([normals, self.hair.tangents @ rotation.T]),
            template=self._template,
            ambient=ambient,
            faces=self._faces,
            material=self._material,
            world_from_head=rotation,
        )
        named = dict(zip(self.figure.names, weights.tolist(), strict=True))
        return Stage(
            surface,
            self.maps.bumped(wrinkle_activation(named)),
            cast_shadows(vertices, self._faces, self.lamps, centre),
            body,
        )

    def shoot(self, stage: Stage, cameras: Cameras, index: int, background: np.ndarray) -> Shot:
        """One picture over `background` [h w 3] (sRGB 0..1)."""
        width, height = SAMPLES * cameras.width, SAMPLES * cameras.height
        intrinsics = cameras.K[index].double().numpy() * np.array([[SAMPLES], [SAMPLES], [1.0]])
        pose = cameras.cam_from_world[index].double().numpy()
        face, bary, depth = zbuffer(
            stage.surface.vertices, stage.surface.faces, intrinsics, pose, width, height
        )
        eye = -pose[:3, :3].T @ pose[:3, 3]
        radiance = shading.shade(
            face, bary, stage.surface, self._paint, stage.slope_map, self.lamps, stage.shadows, eye
        )
        covered = (face >= 0).astype(np.float32)
        color = _pooled(_tone(radiance) * covered[..., None])
        alpha = _pooled(covered[..., None])
        picture = color + (1 - alpha) * background
        near = np.where(depth > 0, depth, np.inf).reshape(
            cameras.height, SAMPLES, cameras.width, SAMPLES
        )
        nearest = near.min(axis=(1, 3))
        return Shot(
            np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8),
            (alpha[..., 0] * 255 + 0.5).astype(np.uint8),
            np.where(np.isfinite(nearest), nearest, 0.0),
            face,
            bary,
        )


def blend_neck(
    posed: np.ndarray, torso_weight: np.ndarray, head: Similarity, torso: Similarity
) -> np.ndarray:
    """World vertices: (1 - w) * world_from_head(p) + w * world_from_torso(p)."""
    share = torso_weight[:, None]
    return (1 - share) * _applied(head, posed) + share * _applied(torso, posed)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals [v 3]."""
    corner = vertices[faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.stack(
        [
            sum(np.bincount(faces[:, k], cross[:, axis], len(vertices)) for k in range(3))
            for axis in range(3)
        ],
        axis=1,
    )
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-15)


def _applied(similarity: Similarity, points: np.ndarray) -> np.ndarray:
    rotation = similarity.rotation.numpy().astype(np.float64)
    return float(similarity.scale) * points @ rotation.T + similarity.translation.numpy()


def _tone(radiance: np.ndarray) -> np.ndarray:
    """sRGB 0..1 with a soft shoulder above 0.7."""
    soft = np.where(radiance > 0.7, 0.7 + 0.3 * np.tanh((radiance - 0.7) / 0.3), radiance)
    return srgb_from_linear(np.clip(soft, 0, 1)).astype(np.float32)


def _pooled(image: np.ndarray) -> np.ndarray:
    height, width, channels = image.shape
    blocks = image.reshape(height // SAMPLES, SAMPLES, width // SAMPLES, SAMPLES, channels)
    return blocks.mean(axis=(1, 3))


def _table(look: Look) -> np.ndarray:
    """Linear colours in the order of `shading.PAINT_NAMES`."""
    rows = {
        "iris": look.iris,
        "sclera": (0.86, 0.83, 0.80),
        "mouth": (0.40, 0.16, 0.15),
        "teeth": (0.88, 0.84, 0.76),
        "tongue": (0.72, 0.40, 0.39),
        "socket": (0.66, 0.40, 0.36),
        "hair": look.hair.color,
        "cloth": look.cloth,
    }
    return np.array([rows[name] for name in shading.PAINT_NAMES]) ** 2.2
