"""First poses: the similarity from world to head space, before any head model is evaluated.

With landmarks: Umeyama's fit of each frame's triangulated points to the mean head's canonical
landmarks, reweighted robustly so that moving lips do not tilt the head; one scale per person (the
median), then rigid fits with that scale. Without landmarks: the topmost part of the cloud is taken
as the head, upright and facing the cameras, and fitted to the mean head's vertices by iterated
closest points (ICP).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.errors import TrackError
from npga.core.similarity import Similarity, fit_similarity

METRES_PER_UNIT = 0.25
"""The scale of an average head: head space is FLAME metres x 4."""
SCALE_RANGE = (0.17, 0.34)
"""Metres per unit that a human head can have; anything else is a failed alignment."""
ROBUST_UNITS = 0.03
"""Scale of the reweighting of landmarks, 7.5 mm."""


def align_landmarks(
    points_world: Float[Tensor, "t l 3"],
    weight: Float[Tensor, "t l"],
    canonical: Float[Tensor, "l 3"],
    landmarks_min: int = 12,
) -> tuple[Similarity, Tensor]:
    """world_from_head of every frame [t], one scale, and which frames had enough landmarks.

    Frames without enough get the pose of the nearest frame that had. Raises TrackError where no
    frame has enough, or where the scale is not that of a head.
    """
    enough = (weight > 0).sum(1) >= landmarks_min
    if not bool(enough.any()):
        raise TrackError(
            f"No frame has {landmarks_min} triangulated landmarks, so the head cannot be aligned.",
            "Try npga capture check, a larger landmark_error_px, or landmarks=none.",
        )
    scales = [
        fit_robust(canonical, points_world[t], weight[t]).scale
        for t in torch.nonzero(enough).flatten()
    ]
    scale = torch.stack(scales).median()
    check_scale(float(scale))
    poses = []
    for t in range(len(points_world)):
        near = int(nearest_true(enough, t))
        fit = fit_robust(canonical * scale, points_world[near], weight[near], with_scale=False)
        poses.append(Similarity(scale.clone(), fit.rotation, fit.translation))
    return Similarity.stack(poses), enough


def fit_robust(
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "n 3"],
    weight: Float[Tensor, "n"],
    with_scale: bool = True,
    rounds: int = 5,
) -> Similarity:
    """Umeyama's target_from_source with Geman-McClure reweighting."""
    fit = fit_similarity(source, target, weight, with_scale)
    reach = (target[weight > 0] - target[weight > 0].mean(0)).norm(dim=1).median()
    for _ in range(rounds):
        error = (fit.apply(source) - target).norm(dim=1) / (2 * reach)
        robust = weight / (1 + (error / ROBUST_UNITS).square()).square()
        if float((robust > 1e-3 * weight.amax()).sum()) < 4:
            break
        fit = fit_similarity(source, target, robust, with_scale)
    return fit


def align_cloud(
    points_world: Float[Tensor, "n 3"],
    vertices: Float[Tensor, "v 3"],
    cameras: Cameras,
    rounds: int = 40,
) -> Similarity:
    """world_from_head from one cleaned cloud and the mean head's vertices, without landmarks.

    Assumes the subject upright (+y) and facing the cameras' mean centre. Trimmed ICP: the nearer 70
    % of the points count. Raises TrackError where the scale leaves the range of heads.
    """
    from sklearn.neighbors import KDTree

    if len(points_world) < 100:
        raise TrackError(
            f"A cloud of {len(points_world)} points cannot be aligned.",
            "Give clouds of at least 100 points, or landmarks.",
        )
    points = points_world.double()
    pose = _upright_guess(points, vertices.double(), cameras)
    tree_source = vertices.double()
    tree = KDTree(tree_source.numpy())
    low = vertices[:, 1].amin().double()
    for step in range(rounds):
        head = pose.inverse().apply(points)
        use = head[:, 1] > low
        if int(use.sum()) < 50:
            break
        found, index = tree.query(head[use].numpy())
        distance = torch.from_numpy(found[:, 0])
        near = distance <= distance.quantile(0.7)
        source = tree_source[torch.from_numpy(index[:, 0])][near]
        pose = fit_similarity(source, points[use][near], None, with_scale=step >= rounds // 4)
        scale = pose.scale if step >= rounds // 4 else torch.tensor(METRES_PER_UNIT).double()
        if step < rounds // 4:
            rigid = fit_similarity(source * scale, points[use][near], None, with_scale=False)
            pose = Similarity(scale, rigid.rotation, rigid.translation)
    check_scale(float(pose.scale))
    return pose.to(points_world.dtype)


def _upright_guess(points: Tensor, vertices: Tensor, cameras: Cameras) -> Similarity:
    """The mean head, upright, facing the cameras, its top and front where the cloud's are."""
    centre = points.median(0).values
    to_cameras = cameras.centres_world().double().mean(0) - centre
    forward = to_cameras * torch.tensor([1.0, 0.0, 1.0]).double()
    forward = forward / forward.norm().clamp_min(1e-9)
    up = torch.tensor([0.0, 1.0, 0.0]).double()
    rotation = torch.stack([torch.linalg.cross(up, forward), up, forward], 1)
    scale = torch.tensor(METRES_PER_UNIT).double()
    local = points @ rotation
    top = local[:, 1].quantile(0.995)
    head = local[local[:, 1] > top - 0.22]
    placed = scale * vertices
    target = torch.stack(
        [
            head[:, 0].median(),
            top - placed[:, 1].amax(),
            head[:, 2].quantile(0.98) - placed[:, 2].amax(),
        ]
    )
    target[0] -= placed[:, 0].mean()
    return Similarity(scale, rotation, rotation @ target)


def check_scale(metres_per_unit: float) -> None:
    """Refuse a scale that no human head has: units or calibration are wrong."""
    low, high = SCALE_RANGE
    if not low < metres_per_unit < high:
        looks = ", which looks like millimetres" if 100 < metres_per_unit < 500 else ""
        raise TrackError(
            f"Aligning gives {metres_per_unit:.4g} metres per head unit{looks}, "
            f"not {low} to {high}.",
            "The calibration must be in metres (npga capture check shows the head's place).",
        )


def nearest_true(mask: Tensor, index: int) -> int:
    """The place nearest to `index` where `mask` holds."""
    places = torch.nonzero(mask).flatten()
    return int(places[(places - index).abs().argmin()])
