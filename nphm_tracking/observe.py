"""What the capture shows of every frame, in the form the solver wants.

Per sequence: landmarks (precomputed or detected, then triangulated), a first pose of every frame,
and a fixed number of surface points near the face. Observations are cached in the working folder,
so that a resumed run does not decode anything twice.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from npga.capture import Capture, PointCloud
from npga.core.cameras import Cameras
from npga.core.errors import CaptureError, TrackError
from npga.core.progress import bar, say
from npga.core.similarity import Similarity
from nphm_tracking.align import METRES_PER_UNIT, align_cloud, align_landmarks
from nphm_tracking.clouds import check_units, clean_cloud, draw_points, face_rows, reconstruct_cloud
from nphm_tracking.config import CloudSource, LandmarkSource, TrackConfig
from nphm_tracking.detectors import LandmarkDetector, open_detector
from nphm_tracking.frames import FrameData
from nphm_tracking.landmarks import (
    DETAIL_IDS,
    Landmarks3D,
    detect_landmarks,
    frontal_cameras,
    triangulate,
)
from nphm_tracking.monocular import lift_landmarks

DETECTION_WIDTH = 550
"""Pictures are shrunk to this width for detection: a quarter of NeRSemble's."""
HEAD_WEIGHT = 0.3
"""Weight of points outside the face (ears, hair line, below the jaw) against 1 for face points."""


@dataclass(frozen=True)
class Observed:
    """One sequence."""

    name: str
    fps: float
    frames: Int[Tensor, "t"]
    data: FrameData
    start: Similarity
    """world_from_head of every frame, before solving."""
    enough: Bool[Tensor, "t"]
    """Enough face points to be tracked."""


@dataclass(frozen=True)
class MeanHead:
    """The model's average head, for first poses and cropping."""

    landmarks: Float[Tensor, "l 3"]
    """Canonical; empty where none are used."""
    landmark_ids: tuple[int, ...]
    """Their numbers in the detector's order."""
    vertices: Float[Tensor, "v 3"]
    """Surface points; empty where landmarks are used."""


def frames_of(capture: Capture, name: str, config: TrackConfig) -> list[int]:
    """The frame numbers to track."""
    info = capture.sequence(name)
    return list(range(0, info.frame_count, config.every))[: config.frames_max]


def landmark_source(
    capture: Capture, names: list[str], known: int, config: TrackConfig
) -> LandmarkSource:
    """What `auto` means here; raises TrackError where what was asked for is absent.

    `known`: number of landmarks that the head model knows.
    """
    if len(config.cameras) == 1 and (known == 0 or config.landmarks is LandmarkSource.none):
        raise TrackError(
            "One camera alone is tracked by landmarks, and there are none.",
            "Use a head model that knows landmarks (the open prior) and landmarks=auto.",
        )
    if known == 0:
        if config.landmarks in (LandmarkSource.capture, LandmarkSource.mediapipe):
            raise TrackError(
                "The head model knows no landmarks (published checkpoints have none).",
                "Give landmarks=none, or track with the open prior.",
            )
        return LandmarkSource.none
    missing = [name for name in names if capture.landmarks(name) is None]
    if config.landmarks is LandmarkSource.capture and missing:
        raise TrackError(
            f"The capture has no precomputed landmarks for {', '.join(missing)}.",
            "Give landmarks=mediapipe to detect them, or landmarks=none.",
        )
    if config.landmarks is not LandmarkSource.auto:
        return config.landmarks
    if not missing:
        return LandmarkSource.capture
    if find_spec("mediapipe") is not None:
        return LandmarkSource.mediapipe
    say("track: no landmarks (mediapipe is not installed: pip install 'npga[tracking]'); lids and")
    say("       lips will follow the point clouds only")
    return LandmarkSource.none


@dataclass(frozen=True)
class SeenLandmarks:
    """Where the used landmarks are in the pictures of one sequence."""

    pixels: Float[Tensor, "t c l 2"]
    confidence: Float[Tensor, "t c l"]
    cameras: Cameras
    """At the pixels' size."""


def see_landmarks(
    capture: Capture, names: list[str], source: LandmarkSource, mean: MeanHead, config: TrackConfig
) -> dict[str, SeenLandmarks]:
    """The used landmarks of every sequence, stored or detected."""
    found: dict[str, SeenLandmarks] = {}
    detector: LandmarkDetector | None = None
    if source is LandmarkSource.mediapipe:
        detector = open_detector(config.landmarker)
    with bar(f"landmarks ({source.value})", len(names)) as shown:
        for name in names:
            frames = frames_of(capture, name, config)
            pixels, confidence, cameras = (
                _stored_pixels(capture, name, frames, config)
                if detector is None
                else _detected_pixels(capture, name, frames, detector, config)
            )
            used = list(mean.landmark_ids)
            if max(used) >= pixels.shape[2]:
                raise TrackError(
                    f"Sequence {name} has {pixels.shape[2]} landmarks, but the head model uses "
                    f"number {max(used)}.",
                    "Landmarks must be in MediaPipe's order of 478.",
                )
            found[name] = SeenLandmarks(pixels[:, :, used], confidence[:, :, used], cameras)
            shown.update()
    return found


def triangulated(seen: dict[str, SeenLandmarks], config: TrackConfig) -> dict[str, Landmarks3D]:
    """World points of the landmarks of every sequence."""
    return {
        name: triangulate(
            one.pixels,
            one.confidence,
            one.cameras,
            error_max_px=config.landmark_error_px * one.cameras.width,
        )
        for name, one in seen.items()
    }


def used_cameras(serials: tuple[str, ...], config: TrackConfig) -> tuple[str, ...]:
    """Those of ``config.cameras``, or all; raises TrackError where none is left."""
    used = tuple(s for s in serials if s in config.cameras) if config.cameras else tuple(serials)
    if not used:
        raise TrackError(
            f"None of the cameras {', '.join(config.cameras)} has a video here.",
            f"Choose from {', '.join(serials)}.",
        )
    return used


def _detected_pixels(
    capture: Capture, name: str, frames: list[int], detector: LandmarkDetector, config: TrackConfig
) -> tuple[Tensor, Tensor, Cameras]:
    info = capture.sequence(name)
    width = min(info.width, DETECTION_WIDTH)
    height = round(info.height * width / info.width)
    usable = used_cameras(info.serials, config)
    serials = frontal_cameras(capture.cameras(usable), config.cameras_for_landmarks)
    views = capture.views(name, frames, serials, width, height, config.cache)
    pixels, confidence = detect_landmarks(views.images, detector)
    return pixels, confidence, views.cameras


def _stored_pixels(
    capture: Capture, name: str, frames: list[int], config: TrackConfig
) -> tuple[Tensor, Tensor, Cameras]:
    stored = capture.landmarks(name)
    if stored is None:
        raise TrackError(f"Sequence {name} has no precomputed landmarks.", "Use landmarks=none.")
    place = {frame: row for row, frame in enumerate(stored.frames)}
    rows = torch.tensor([place.get(frame, -1) for frame in frames])
    confidence = stored.confidence[rows] * (rows >= 0)[:, None, None]
    usable = used_cameras(tuple(stored.serials), config)
    column = [stored.serials.index(serial) for serial in usable]
    cameras = capture.cameras(usable, stored.width, stored.height)
    return stored.points[rows][:, column], confidence[:, column], cameras


def first_poses(
    capture: Capture,
    names: list[str],
    landmarks: dict[str, Landmarks3D],
    mean: MeanHead,
    config: TrackConfig,
) -> dict[str, Similarity]:
    """world_from_head of every frame, with one scale for the person."""
    if landmarks:
        points = torch.cat([landmarks[name].points for name in names])
        valid = torch.cat([landmarks[name].valid for name in names]).float()
        poses, _ = align_landmarks(points, valid, mean.landmarks)
        counts = [len(landmarks[name].points) for name in names]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        return {n: poses[s : s + c] for n, s, c in zip(names, starts, counts, strict=True)}
    result = {}
    cameras = capture.cameras()
    for name in names:
        frames = frames_of(capture, name, config)
        cloud = clean_cloud(frame_cloud(capture, name, frames[0], config))
        result[name] = Similarity.stack(
            [align_cloud(cloud.points, mean.vertices, cameras)] * len(frames)
        )
    scale = torch.stack([pose.scale[0] for pose in result.values()]).median()
    return {
        name: Similarity(scale.expand(len(p)), p.rotation, p.translation)
        for name, p in result.items()
    }


def observe_sequence(
    capture: Capture,
    name: str,
    landmarks: Landmarks3D | None,
    start: Similarity,
    mean: MeanHead,
    config: TrackConfig,
) -> Observed:
    """Landmarks and the face's surface points of every frame."""
    frames = frames_of(capture, name, config)
    count = max(stage.points for stage in config.stages)
    points, normals = torch.zeros(2, len(frames), count, 3)
    weight = torch.zeros(len(frames), count)
    enough = torch.zeros(len(frames), dtype=torch.bool)
    for row, frame in enumerate(frames):
        try:
            cloud = clean_cloud(frame_cloud(capture, name, frame, config))
        except CaptureError as error:  # a missing or broken file: this frame only
            say(f"track: {name} frame {frame} has no usable cloud ({error.what})")
            continue
        local = start[row].inverse().apply(cloud.points)
        face, head = face_rows(local, _face_reference(mean, landmarks, start[row], row))
        rows = draw_points(face, head, count, config.seed + frame)
        used = len(rows)
        points[row, :used], normals[row, :used] = cloud.points[rows], cloud.normals[rows]
        weight[row, :used] = torch.where(face[rows], 1.0, HEAD_WEIGHT)
        enough[row] = int(face.sum()) >= config.points_min
    if landmarks is None:
        seen = torch.zeros(len(frames), 0, 3), torch.zeros(len(frames), 0)
    else:
        importance = landmark_weights(mean.landmark_ids, config.detail_weight)
        seen = landmarks.points, landmarks.valid.float() * importance
    together = (enough[1:] & enough[:-1]) / config.every
    data = FrameData(
        points, normals, weight * enough[:, None], *seen, together, torch.ones(len(frames))
    )
    fps = capture.sequence(name).fps
    return Observed(name, fps, torch.tensor(frames), data, start, enough)


def _face_reference(
    mean: MeanHead, landmarks: Landmarks3D | None, start: Similarity, row: int
) -> Float[Tensor, "l 3"]:
    """Where a frame's face is, head units: the average one and, as jaws open, what was seen."""
    if landmarks is None or not len(mean.landmarks):
        return mean.landmarks if len(mean.landmarks) else mean.vertices
    seen = start.inverse().apply(landmarks.points[row][landmarks.valid[row]])
    return torch.cat([mean.landmarks, seen])


def observe_monocular(
    capture: Capture, name: str, seen: SeenLandmarks, mean: MeanHead, config: TrackConfig
) -> Observed:
    """Landmarks of one camera: rays, no points; poses by POSIT, a head unit taken as 0.25 m."""
    frames = torch.tensor(frames_of(capture, name, config))
    fps = capture.sequence(name).fps
    pixels, confidence = seen.pixels[:, 0], seen.confidence[:, 0]
    return observed_rays(
        name, fps, frames, pixels, confidence, seen.cameras, mean, config.detail_weight
    )


def observed_rays(
    name: str,
    fps: float,
    frames: Int[Tensor, "t"],
    pixels: Float[Tensor, "t l 2"],
    confidence: Float[Tensor, "t l"],
    camera: Cameras,
    mean: MeanHead,
    detail_weight: float,
    metres_per_unit: float = METRES_PER_UNIT,
) -> Observed:
    """What one camera saw of a take: rays of landmarks, first poses, no points.

    `confidence` is 0 where nothing was found. Raises TrackError where no frame shows a face.
    """
    lifted = lift_landmarks(pixels, confidence, camera, mean.landmarks, metres_per_unit)
    empty = torch.zeros(len(frames), 0)
    apart = (frames[1:] - frames[:-1]).clamp_min(1)
    data = FrameData(
        points=torch.zeros(len(frames), 0, 3),
        normals=torch.zeros(len(frames), 0, 3),
        point_weight=empty,
        landmarks=lifted.points,
        landmark_weight=lifted.weight * landmark_weights(mean.landmark_ids, detail_weight),
        linked=(lifted.found[1:] & lifted.found[:-1]) / apart,
        code_weight=torch.ones(len(frames)),
        landmark_ray=lifted.ray,
    )
    return Observed(name, fps, frames, data, lifted.start, lifted.found)


def landmark_weights(ids: tuple[int, ...], detail: float) -> Float[Tensor, "l"]:
    """1, and `detail` for lips, lids, brows and irises, which clouds show badly."""
    return torch.tensor([detail if index in DETAIL_IDS else 1.0 for index in ids])


def frame_cloud(capture: Capture, name: str, frame: int, config: TrackConfig) -> PointCloud:
    """The capture's cloud of a frame, or pycolmap's."""
    wanted = config.clouds
    if wanted is not CloudSource.colmap and capture.has_clouds(name):
        cloud = capture.cloud(name, frame)
        check_units(cloud, f"{name} frame {frame}")
        return cloud
    if wanted is CloudSource.capture:
        raise TrackError(
            f"The capture has no point clouds for {name}.", "Give clouds=auto or clouds=colmap."
        )
    serials = used_cameras(capture.sequence(name).serials, config)
    views = capture.views(name, [frame], serials, None, None, config.cache)
    return reconstruct_cloud(views.images[0], views.cameras, views.mattes[0])


def save_observed(observed: Observed, path: Path) -> None:
    """Keep a sequence's observations in the working folder."""
    partial = path.with_name(path.name + ".partial")
    torch.save(_plain(observed), partial)
    partial.replace(path)


def _plain(observed: Observed) -> dict[str, object]:
    return {
        "name": observed.name,
        "fps": observed.fps,
        "frames": observed.frames,
        "enough": observed.enough,
        "data": {key: getattr(observed.data, key) for key in observed.data.__dataclass_fields__},
        "start": (observed.start.scale, observed.start.rotation, observed.start.translation),
    }


def load_observed(path: Path) -> Observed:
    """What `save_observed` kept."""
    kept = torch.load(path, weights_only=True)
    return Observed(
        kept["name"],
        kept["fps"],
        kept["frames"],
        FrameData(**kept["data"]),
        Similarity(*kept["start"]),
        kept["enough"],
    )
