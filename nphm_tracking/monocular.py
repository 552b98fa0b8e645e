"""First poses and lifted landmarks from one camera, without clouds and without triangulation.

One camera sees rays. A landmark's observation is its ray together with a point on it; the solver
measures across the ray (see ``solve.LandmarkMiss``), so the guessed depth of the point carries no
weight. The size of the head cannot be seen: a head unit is taken to be 0.25 m.

Letters: t frames, l landmarks. Pose from n points: POSIT (DeMenthon & Davis 1995), reweighted as in
``align.fit_robust`` so that moving lips do not tilt the head.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.errors import TrackError
from npga.core.similarity import Similarity
from nphm_tracking.align import METRES_PER_UNIT, ROBUST_UNITS, nearest_true

POSIT_ROUNDS = 12


@dataclass(frozen=True)
class Lifted:
    """What one camera saw of every frame."""

    points: Float[Tensor, "t l 3"]
    """On each landmark's ray, as deep as the mean head's landmark there; world metres."""
    ray: Float[Tensor, "t l 3"]
    """Unit directions from the camera, world."""
    weight: Float[Tensor, "t l"]
    """Confidence; 0 in frames without a face."""
    start: Similarity
    """world_from_head of every frame; frames without a face stand where their neighbour does."""
    found: Bool[Tensor, "t"]


def lift_landmarks(
    pixels: Float[Tensor, "t l 2"],
    confidence: Float[Tensor, "t l"],
    camera: Cameras,
    canonical: Float[Tensor, "l 3"],
    metres_per_unit: float = METRES_PER_UNIT,
    start: Similarity | None = None,
) -> Lifted:
    """Poses, rays and guessed depths of all frames; ``camera`` is one camera at the pixels' size.

    ``metres_per_unit`` is the size of the head, which one camera cannot see. ``start`` [t] are
    poses that are known already, else each frame's is sought. Raises TrackError where no frame
    shows a face.
    """
    found = (confidence > 0).sum(1) >= 12
    if not bool(found.any()):
        raise TrackError(
            f"No face was found in any of {len(pixels)} frames of camera {camera.ids[0]}.",
            "Give a camera that looks at the face, or larger pictures.",
        )
    K = camera.K[0].to(pixels)
    flat = torch.stack(
        [(pixels[..., 0] - K[0, 2]) / K[0, 0], (pixels[..., 1] - K[1, 2]) / K[1, 1]], dim=-1
    )
    world_from_camera = _inverse(camera.cam_from_world[0].to(pixels))
    if start is None:
        model = canonical * metres_per_unit
        near = [int(nearest_true(found, t)) for t in range(len(pixels))]
        poses = [posit(flat[t], confidence[t], model) for t in near]
        start = Similarity.stack(
            [
                Similarity(
                    pixels.new_tensor(metres_per_unit),
                    world_from_camera[:3, :3] @ rotation,
                    world_from_camera[:3, :3] @ translation + world_from_camera[:3, 3],
                )
                for rotation, translation in poses
            ]
        )
    ray = torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1)
    ray = torch.nn.functional.normalize(ray, dim=-1) @ world_from_camera[:3, :3].T
    centre = world_from_camera[:3, 3]
    posed = start.apply(canonical.expand(len(pixels), -1, -1))
    depth = ((posed - centre) * ray).sum(-1, keepdim=True)
    return Lifted(centre + depth * ray, ray, confidence * found[:, None], start, found)


def posit(
    flat: Float[Tensor, "l 2"], weight: Float[Tensor, "l"], model: Float[Tensor, "l 3"]
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Rotation and translation of camera_from_model from normalised image coordinates (K removed).

    ``model`` in metres. Raises TrackError where the points fix no pose.
    """
    share = weight.double() / weight.double().sum()
    middle = share @ model.double()
    away, seen = model.double() - middle, flat.double()
    stretch = torch.ones_like(seen[:, :1])
    reach = away.norm(dim=1).median()
    robust = share.clone()
    rotation, depth, offset = _weak_perspective(away, seen, robust)
    for _ in range(POSIT_ROUNDS):
        stretch = 1 + (away @ rotation[2])[:, None] / depth
        rotation, depth, offset = _weak_perspective(away, seen * stretch, robust)
        posed = away @ rotation.T + depth * offset
        miss = (posed[:, :2] / posed[:, 2:] - seen).norm(dim=1) * depth / (2 * reach)
        robust = share / (1 + (miss / ROBUST_UNITS).square()).square()
    translation = depth * offset - rotation @ middle
    if not bool(translation.isfinite().all()) or float(depth) <= 0:
        raise TrackError(
            "The landmarks of a frame fix no head pose.",
            "Check the camera's intrinsics: focal lengths are in pixels of the picture's size.",
        )
    return rotation.to(flat), translation.to(flat)


def _weak_perspective(
    away: Float[Tensor, "l 3"], seen: Float[Tensor, "l 2"], weight: Float[Tensor, "l"]
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, ""], Float[Tensor, "3"]]:
    """Rotation, depth and viewing direction (z = 1) of the least-squares affine camera."""
    root = weight.sqrt()[:, None]
    rows = torch.cat([away, torch.ones_like(away[:, :1])], dim=1)
    found = torch.linalg.lstsq(rows * root, seen * root).solution.T
    left, size, right = torch.linalg.svd(found[:, :3], full_matrices=False)
    first = left @ right
    third = torch.linalg.cross(first[0], first[1])
    offset = torch.cat([found[:, 3], found.new_ones(1)])
    return torch.stack([first[0], first[1], third]), 1 / size.mean(), offset


def _inverse(cam_from_world: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    return torch.linalg.inv(cam_from_world.double()).to(cam_from_world)
