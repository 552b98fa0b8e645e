"""What else a capture holds of a filmed moment: a point cloud and 2D landmarks.

Both come from the exact surface, are kept only where cameras see them, and carry the noise of
real reconstructions. Visibility: a surface point is seen by a camera if its depth agrees with the
camera's depth picture to SEEN_M.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from npga.capture.synthetic import shading
from npga.capture.synthetic.actor import Shot, Stage
from npga.capture.types import PointCloud
from npga.core.cameras import Cameras

SEEN_M = 0.004
CLOUD_NOISE_M = 0.0004
OUTLIER_SHARE = 0.01
OUTLIER_M = 0.03
LANDMARK_NOISE_PX = 0.3
TORSO_SHARE = 0.35
"""Points on the torso are this much rarer, so that the head gets more of them."""
LANDMARKS_FILE = Path(__file__).with_name("landmarks478.npz")


@dataclass(frozen=True)
class LandmarkPlaces:
    """478 MediaPipe landmarks on the template's surface."""

    face: np.ndarray
    """[478] index into the template's triangles."""
    bary: np.ndarray
    """[478 3]"""

    def on(self, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Where they are on posed vertices [v 3] -> [478 3]."""
        return (vertices[faces[self.face]] * self.bary[..., None]).sum(1)


def load_landmark_places() -> LandmarkPlaces | None:
    """The places of the landmarks, or None where they are not known."""
    if not LANDMARKS_FILE.is_file():
        return None
    with np.load(LANDMARKS_FILE) as held:
        return LandmarkPlaces(held["face"], held["bary"].astype(np.float64))


def seen_by(points: np.ndarray, cameras: Cameras, depths: np.ndarray) -> tuple[np.ndarray, ...]:
    """Which cameras see which points: (seen [c n] bool, columns [c n], rows [c n]).

    points [n 3] world; depths [c h w], 0 = background.
    """
    pixels, depth = cameras.to(torch.float64).project(torch.tensor(points, dtype=torch.float64))
    column = np.floor(pixels[..., 0].numpy()).astype(int)
    row = np.floor(pixels[..., 1].numpy()).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < cameras.width) & (row < cameras.height)
    column, row = np.clip(column, 0, cameras.width - 1), np.clip(row, 0, cameras.height - 1)
    nearest = depths[np.arange(len(depths))[:, None], row, column]
    seen = inside & (nearest > 0) & (np.abs(nearest - depth.numpy()) < SEEN_M)
    return seen, column, row


def sample_cloud(
    stage: Stage, shots: list[Shot], cameras: Cameras, count: int, rng: np.random.Generator
) -> PointCloud:
    """`count` surface points that at least two cameras see, with noise and outliers."""
    surface = stage.surface
    corner = surface.vertices[surface.faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(cross, axis=1)
    low = surface.template[surface.faces[:, 0], 1] < -0.5
    body = surface.material != shading.HAIR
    chance = area * np.where(low & body, TORSO_SHARE, 1.0) * np.where(body, 1.0, 0.35)
    drawn = rng.choice(len(area), size=12 * count, p=chance / chance.sum())
    bary = rng.dirichlet([1, 1, 1], size=len(drawn))
    points = (corner[drawn] * bary[..., None]).sum(1)
    depths = np.stack([shot.depth for shot in shots])
    mattes = np.stack([shot.matte for shot in shots])
    seen, column, row = seen_by(points, cameras, depths)
    which = np.arange(len(shots))[:, None]
    seen &= mattes[which, row, column] == 255
    kept = np.flatnonzero(seen.sum(0) >= min(2, len(shots)))[:count]
    seen, column, row = seen[:, kept], column[:, kept], row[:, kept]
    pictures = np.stack([shot.color for shot in shots]).astype(np.float32) / 255
    share = seen / seen.sum(0)
    colors = (pictures[which, row, column] * share[..., None]).sum(0)
    normals = cross[drawn[kept]] / np.maximum(area[drawn[kept]], 1e-15)[:, None]
    centres = cameras.centres_world().double().numpy()
    toward = (centres[:, None] - points[kept][None]) * seen[..., None]
    normals *= np.sign((normals * toward.sum(0)).sum(1, keepdims=True))
    noisy = points[kept] + rng.normal(0, CLOUD_NOISE_M, (len(kept), 3))
    wild = rng.uniform(size=len(kept)) < OUTLIER_SHARE
    noisy[wild] += rng.normal(0, OUTLIER_M, (int(wild.sum()), 3))
    return PointCloud(
        torch.tensor(noisy, dtype=torch.float32),
        torch.tensor(normals, dtype=torch.float32),
        torch.tensor(colors, dtype=torch.float32),
    )


def observe_landmarks(
    places: LandmarkPlaces,
    vertices: np.ndarray,
    faces: np.ndarray,
    shots: list[Shot],
    cameras: Cameras,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy landmarks [c 478 2] in pixels and confidence [c 478] (1 = seen) of one moment."""
    points = places.on(vertices, faces)
    pixels, _ = cameras.to(torch.float64).project(torch.tensor(points))
    seen, _, _ = seen_by(points, cameras, np.stack([shot.depth for shot in shots]))
    noisy = pixels.numpy() + rng.normal(0, LANDMARK_NOISE_PX, pixels.shape)
    return noisy, seen.astype(np.float32)
