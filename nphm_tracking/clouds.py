"""Surface points of every frame: cleaned clouds of the capture, or sparse points by pycolmap.

Cleaning: a point whose k-th neighbour is far, compared with the cloud's median, is an outlier.
Cropping works in head space, given a first alignment: points inside a box around the mean head's
landmarks, so that torso and most of the hair go.
"""

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from npga.capture.types import PointCloud
from npga.core.cameras import Cameras
from npga.core.errors import CaptureError, TrackError
from npga.core.graph import knn

CLOUD_SIZE_M = (0.05, 4.0)
"""What a cloud of a person measures, without its farthest tenth."""
FACE_REACH_UNITS = 0.14
"""A point this near to a landmark (35 mm) belongs to the face."""


def clean_cloud(cloud: PointCloud, neighbours: int = 8, factor: float = 3.0) -> PointCloud:
    """Without non-finite points, and without points whose neighbours are `factor` times too far."""
    finite = cloud.points.isfinite().all(1)
    cloud = select_points(cloud, finite)
    if len(cloud) <= neighbours:
        return cloud
    _, distance = knn(cloud.points, neighbours)
    reach = distance[:, -1]
    return select_points(cloud, reach <= factor * reach.median())


def check_units(cloud: PointCloud, where: str) -> None:
    """Refuse a cloud whose size is not that of a person in metres; an empty one passes.

    Raises TrackError that says which unit it looks like.
    """
    points = cloud.points[cloud.points.isfinite().all(1)]
    if len(points) < 2:
        return
    size = float((points.quantile(0.95, 0) - points.quantile(0.05, 0)).amax())
    if CLOUD_SIZE_M[0] <= size <= CLOUD_SIZE_M[1]:
        return
    units = {"millimetres": 1e-3, "centimetres": 1e-2, "kilometres": 1e3}
    looks = [u for u, f in units.items() if CLOUD_SIZE_M[0] <= size * f <= CLOUD_SIZE_M[1]]
    guess = f"looks like {looks[-1 if size < 1 else 0]}" if looks else "is no head"
    raise TrackError(
        f"The cloud of {where} is {size:.4g} wide, which {guess}; metres were expected.",
        "Give clouds in the calibration's unit, metres, or clouds=colmap to make them.",
    )


def select_points(cloud: PointCloud, rows: Bool[Tensor, "n"] | Tensor) -> PointCloud:
    """The points of a mask or index."""
    return PointCloud(cloud.points[rows], cloud.normals[rows], cloud.colors[rows])


def face_rows(
    points_head: Float[Tensor, "n 3"], landmarks: Float[Tensor, "l 3"]
) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Which points belong to the face, and which at least to the head's front half.

    `landmarks` are the mean head's canonical ones. Face: within FACE_REACH_UNITS of a landmark.
    Head: in the landmarks' box widened by 0.25 units, not below the chin by more than 0.15, not
    behind the ears.
    """
    distance = torch.cdist(points_head, landmarks).amin(1)
    low, high = landmarks.amin(0), landmarks.amax(0)
    low = low - torch.tensor([0.25, 0.15, 0.35]).to(low)
    high = high + torch.tensor([0.25, 0.15, 0.15]).to(high)
    inside = ((points_head > low) & (points_head < high)).all(1)
    return (distance < FACE_REACH_UNITS) & inside, inside


def draw_points(face: Bool[Tensor, "n"], head: Bool[Tensor, "n"], count: int, seed: int) -> Tensor:
    """Up to `count` rows in random order: face points first, a sixth from the rest of the head.

    Any first part of them is a fair draw (see ``track.thinned``).
    """
    generator = torch.Generator().manual_seed(seed)
    inner, outer = torch.nonzero(face).flatten(), torch.nonzero(head & ~face).flatten()
    inner = inner[torch.randperm(len(inner), generator=generator)]
    outer = outer[torch.randperm(len(outer), generator=generator)]
    spare = min(len(outer), max(count // 6, count - len(inner)))
    rows = torch.cat([inner[: count - spare], outer[:spare]])
    return rows[torch.randperm(len(rows), generator=generator)]


def reconstruct_cloud(
    images: UInt8[Tensor, "c h w 3"],
    cameras: Cameras,
    mattes: UInt8[Tensor, "c h w"] | None = None,
    *,
    error_max_px: float = 2.0,
) -> PointCloud:
    """A cloud by pycolmap: SIFT, exhaustive matching, triangulation with the known cameras.

    Where pycolmap was built with CUDA, dense stereo and fusion follow; else the points are sparse.
    Pictures and cameras must have one size. Points seen outside the mattes go. Normals are zero
    (sparse points have none). Raises TrackError without pycolmap or with empty mattes, CaptureError
    where nothing was matched.
    """
    try:
        pycolmap: Any = importlib.import_module("pycolmap")
    except ImportError as error:
        raise TrackError(
            f"Points from pictures need pycolmap: {error}.",
            "pip install 'npga[tracking]', or use a capture that brings point clouds.",
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        return _reconstruct(pycolmap, Path(folder), images, cameras, mattes, error_max_px)


def _reconstruct(
    pycolmap: Any,  # noqa: ANN401  the lazily imported module
    folder: Path,
    images: Tensor,
    cameras: Cameras,
    mattes: Tensor | None,
    error_max_px: float,
) -> PointCloud:
    pictures = folder / "images"
    pictures.mkdir()
    names = [f"{index:03d}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image.numpy()).save(pictures / name)
    database = folder / "database.db"
    pycolmap.logging.minloglevel = 3
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = 1
    options.sift.peak_threshold = 0.002
    options.sift.max_num_features = 6000
    pycolmap.extract_features(
        database, pictures, camera_mode=pycolmap.CameraMode.PER_IMAGE, extraction_options=options
    )
    known = _known_reconstruction(pycolmap, database, names, cameras)
    pycolmap.match_exhaustive(database)
    found = pycolmap.triangulate_points(known, database, pictures, folder / "out")
    points = [
        p for p in found.points3D.values() if p.error <= error_max_px and p.track.length() >= 2
    ]
    if points and pycolmap.has_cuda:
        points = _dense_points(pycolmap, folder, pictures) or points
    if not points:
        raise CaptureError(
            f"pycolmap triangulated no point from {len(names)} pictures of {cameras.width} x "
            f"{cameras.height}.",
            "Use larger pictures, more cameras, or a capture that brings point clouds.",
        )
    xyz = torch.from_numpy(np.stack([p.xyz for p in points])).float()
    rgb = torch.from_numpy(np.stack([p.color for p in points])).float() / 255
    cloud = PointCloud(xyz, torch.zeros_like(xyz), rgb)
    return cloud if mattes is None else _without_background(cloud, cameras, mattes)


def _dense_points(pycolmap: Any, folder: Path, pictures: Path) -> list[Any]:  # noqa: ANN401
    """Points of patch-match stereo between the triangulated pictures, fused over all of them."""
    workspace = folder / "dense"
    pycolmap.undistort_images(workspace, folder / "out", pictures)
    pycolmap.patch_match_stereo(workspace)
    fused = pycolmap.stereo_fusion(folder / "fused", workspace)
    return list(fused.points3D.values())


def _without_background(cloud: PointCloud, cameras: Cameras, mattes: Tensor) -> PointCloud:
    empty = [s for s, m in zip(cameras.ids, mattes, strict=True) if not bool((m >= 128).any())]
    if empty:
        raise TrackError(
            f"The mattes of camera {', '.join(empty)} show nobody: every pixel is background.",
            "Check them with npga capture check, or remove the matte files.",
        )
    return select_points(cloud, inside_mattes(cloud.points, cameras, mattes))


def _known_reconstruction(
    pycolmap: Any,  # noqa: ANN401  the lazily imported module
    database: Path,
    names: list[str],
    cameras: Cameras,
) -> Any:  # noqa: ANN401  pycolmap.Reconstruction
    """Cameras and poses as pycolmap wants them, under the database's own numbers."""
    known = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as table:
        rows = {image.name: image for image in table.read_all_images()}
        for index, name in enumerate(names):
            row, K = rows[name], cameras.K[index].double().numpy()
            camera = pycolmap.Camera(
                camera_id=row.camera_id,
                model="PINHOLE",
                width=cameras.width,
                height=cameras.height,
                params=[K[0, 0], K[1, 1], K[0, 2], K[1, 2]],
            )
            table.update_camera(camera)
            known.add_camera_with_trivial_rig(camera)
            pose = pycolmap.Rigid3d(cameras.cam_from_world[index, :3].double().numpy())
            image = pycolmap.Image(name=name, camera_id=row.camera_id, image_id=row.image_id)
            known.add_image_with_trivial_frame(image, pose)
    return known


def inside_mattes(
    points: Float[Tensor, "n 3"], cameras: Cameras, mattes: UInt8[Tensor, "c h w"]
) -> Bool[Tensor, "n"]:
    """Points that fall outside the matte of no camera that has them in its picture."""
    pixels, depth = cameras.to(points.dtype).project(points)
    column, row = pixels[..., 0].floor().long(), pixels[..., 1].floor().long()
    height, width = mattes.shape[1:]
    seen = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.arange(len(mattes))[:, None].expand_as(column)
    value = mattes[index, row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return ~(seen & (value < 128)).any(0)
