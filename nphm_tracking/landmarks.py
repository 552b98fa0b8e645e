"""3D face landmarks of every frame: a detector per picture, then triangulation over the cameras.

t frames, c cameras, l landmarks. A detector (`detectors`) returns pixels of one picture;
`triangulate` joins the pixels of all cameras into world points by the direct linear transform
(DLT), drops the camera with the largest reprojection error while that error is above a threshold,
and solves again. Nothing is invented: a landmark that fewer than `cameras_min` cameras agree on is
marked invalid. Sources: Hartley & Zisserman 12.2 (DLT).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from npga.core.cameras import Cameras, nearest_point
from npga.core.errors import TrackError
from nphm_tracking.detectors import MEDIAPIPE_COUNT, LandmarkDetector

LIP_IDS = frozenset(
    [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
    + [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]
)
"""Outer and inner lip contours in MediaPipe's order of 478."""
LID_IDS = frozenset(
    [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246]
    + [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466]
)
"""Edges of the lids."""
BROW_IDS = frozenset(
    [70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285]
)
IRIS_IDS = frozenset(range(468, 478))
OVAL_IDS = frozenset(
    [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152]
    + [148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
)
"""The outline, which detectors slide along the face as the view turns."""
DETAIL_IDS = LIP_IDS | LID_IDS | BROW_IDS | IRIS_IDS


def used_landmarks(count: int) -> tuple[int, ...]:
    """Which of a model's landmarks the tracker uses: all, or a third of the plain ones of 478."""
    if count != MEDIAPIPE_COUNT:
        return tuple(range(count))
    plain = [i for i in range(count) if i not in DETAIL_IDS | OVAL_IDS]
    return tuple(sorted(DETAIL_IDS | set(plain[::3])))


@dataclass(frozen=True)
class Landmarks3D:
    """Triangulated landmarks of `t` frames."""

    points: Float[Tensor, "t l 3"]
    """World metres; zeros where not valid."""
    valid: Bool[Tensor, "t l"]
    """At least `cameras_min` cameras agree."""
    error_px: Float[Tensor, "t l"]
    """Root mean square reprojection error over the cameras that were kept."""


def frontal_cameras(cameras: Cameras, count: int) -> tuple[str, ...]:
    """Serials of the `count` cameras nearest to the middle of the rig, in the rig's order.

    The subject faces the middle; detectors fail or are biased in strongly turned views.
    """
    directions = cameras.centres_world() - nearest_point(cameras)
    directions = directions / directions.norm(dim=1, keepdim=True)
    middle = directions.mean(0)
    order = (directions @ middle).argsort(descending=True, stable=True)[:count]
    return tuple(cameras.ids[i] for i in sorted(order.tolist()))


def detect_landmarks(
    images: UInt8[Tensor, "t c h w 3"], detector: LandmarkDetector
) -> tuple[Float[Tensor, "t c l 2"], Float[Tensor, "t c l"]]:
    """Pixels and confidence (1 found, 0 not) of every picture; pixels are zero where not found."""
    frames, cameras = images.shape[:2]
    pixels = torch.zeros(frames, cameras, detector.count, 2)
    confidence = torch.zeros(frames, cameras, detector.count)
    for t in range(frames):
        for c in range(cameras):
            found = detector.detect(images[t, c].numpy())
            if found is not None:
                pixels[t, c] = torch.from_numpy(np.asarray(found, dtype=np.float32))
                confidence[t, c] = 1.0
    return pixels, confidence


def triangulate(
    pixels: Float[Tensor, "t c l 2"],
    confidence: Float[Tensor, "t c l"],
    cameras: Cameras,
    *,
    error_max_px: float = 6.0,
    cameras_min: int = 2,
) -> Landmarks3D:
    """World points of landmarks seen by calibrated cameras, with outlier cameras dropped.

    `pixels` belong to the size of `cameras`. Per landmark the worst camera is dropped and the point
    solved again while the worst reprojection error exceeds `error_max_px`.
    """
    if cameras_min < 2:
        raise TrackError(
            f"cameras_min={cameras_min} cannot fix a point", "use cameras_min=2 or more"
        )
    frames, count, landmarks = confidence.shape
    observed = pixels.permute(0, 2, 1, 3).reshape(-1, count, 2).double()
    weight = confidence.permute(0, 2, 1).reshape(-1, count).double()
    weight = torch.where(observed.isfinite().all(-1), weight, 0.0).clamp(min=0.0)
    observed = observed.nan_to_num(0.0)
    projection = cameras.K.double() @ cameras.cam_from_world[:, :3].double()
    size = float(max(cameras.width, cameras.height))
    points = _dlt(observed, weight, projection, size)
    for _ in range(max(count - cameras_min, 0)):
        error = torch.where(weight > 0, _reprojection_error(points, observed, projection), -1.0)
        worst, index = error.max(-1)
        drop = (worst > error_max_px) & ((weight > 0).sum(-1) > cameras_min)
        if not bool(drop.any()):
            break
        weight[drop, index[drop]] = 0.0
        points[drop] = _dlt(observed[drop], weight[drop], projection, size)
    error = _reprojection_error(points, observed, projection)
    kept = weight > 0
    mean_square = (error.square() * kept).sum(-1) / kept.sum(-1).clamp(min=1)
    worst = torch.where(kept, error, 0.0).amax(-1)
    valid = (kept.sum(-1) >= cameras_min) & (worst <= error_max_px) & points.isfinite().all(-1)
    points = torch.where(valid[:, None], points, 0.0)
    shape = (frames, landmarks)
    return Landmarks3D(
        points.float().reshape(*shape, 3),
        valid.reshape(shape),
        mean_square.sqrt().float().reshape(shape),
    )


def _dlt(
    observed: Float[Tensor, "n c 2"], weight: Float[Tensor, "n c"], projection: Tensor, size: float
) -> Float[Tensor, "n 3"]:
    rows = observed[..., None] * projection[None, :, 2:3] - projection[None, :, :2]  # [n c 2 4]
    system = (rows * (weight[..., None, None] / size)).flatten(1, 2)
    return _homogeneous(torch.linalg.svd(system.transpose(1, 2) @ system).U[..., -1])


def _homogeneous(points: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3"]:
    last = points[:, 3:]
    last = torch.where(last.abs() < 1e-12, torch.full_like(last, 1e-12), last)
    return points[:, :3] / last


def _reprojection_error(
    points: Tensor, observed: Tensor, projection: Tensor
) -> Float[Tensor, "n c"]:
    image = torch.einsum("cij,nj->nci", projection[:, :, :3], points) + projection[None, :, :, 3]
    depth = image[..., 2]
    pixel = (
        image[..., :2]
        / torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)[..., None]
    )
    error = (pixel - observed).norm(dim=-1)
    return torch.where(depth > 0, error, torch.full_like(error, 1e6))
