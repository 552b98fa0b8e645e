"""What driven heads do and whose they are, for ``bench_drive``.

Motion is that of the avatar's landmarks in the world, in its eye distances. AKD compares a
detector's landmarks on lips, lids, brows and irises in the driven and in the true picture after the
best similarity of the plane on eye corners and nose, so that it is expression that counts.
CSIM is the cosine of dlib's face embeddings (CC0) to the mean of the avatar's own renders.
t frames, l landmarks.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _results import row
from tracking_truth import CAPTURE, eye_distance

from npga.core.cameras import Cameras
from npga.core.images import ImageArray
from npga.drive.config import DriveConfig
from npga.drive.puppet import Driven
from npga.drive.source import read_frames
from npga.drive.stage import Stage
from npga.drive.track import TrackedVideo, track_video
from npga.drive.video import performed
from npga.reenact.openings import EYE_CORNERS
from npga.render.camera_path import camera_path
from nphm_tracking import Track, load_track
from nphm_tracking.detectors import MediaPipeDetector, open_detector
from nphm_tracking.landmarks import DETAIL_IDS

FRONT = "222200037"
RIGID = (33, 133, 362, 263, 1, 2, 6, 168)
"""Eye corners and the nose, MediaPipe's numbers."""
DLIB_FIVE = (263, 362, 33, 133, 2)
"""dlib's five points: corners of the left eye, of the right eye, below the nose."""
EVERY = 4
LAG = 5
"""Frames by which a filter may answer late to what the driver did (a clip has a cut)."""
CHIP = 150
Settings = Callable[..., DriveConfig]


@dataclass(frozen=True)
class Motion:
    """Of one clip on one avatar."""

    jump: float
    """Largest step beyond the driver's, over the median step."""
    step_ratio: float
    """Largest over median step."""
    jitter: float
    """Mean second difference, eye distances."""


def motion_rows(
    stage: Stage, tracked: TrackedVideo, driven: list[Driven], own: Track
) -> Motion:  # fmt: skip
    """How the driven landmarks move from frame to frame."""
    model = stage.equipment.model
    slopes = model.landmark_slopes
    assert slopes is not None
    places = model.landmarks(own.z_geo)
    codes = torch.stack([one.z_exp for one in driven])
    posed = places + torch.einsum("lce,te->tlc", slopes, codes)
    poses = [one.world_from_head for one in driven]
    world = torch.stack([pose.apply(points) for pose, points in zip(poses, posed, strict=True)])
    unit = float(eye_distance(places, EYE_CORNERS)) * float(poses[0].scale)
    seen = world[..., :2]  # as a camera before the face sees it, like the driver's
    mine = (seen[1:] - seen[:-1]).norm(dim=-1).mean(1).numpy() / unit
    pixels = [None if face is None else face.points for face in tracked.seen.faces]
    theirs = np.array([
        np.inf if a is None or b is None
        else np.linalg.norm(b - a, axis=1).mean()
        / float(eye_distance(torch.from_numpy(a), EYE_CORNERS))
        for a, b in pairwise(pixels)
    ])  # fmt: skip
    padded = np.pad(theirs, (LAG, 1), mode="edge")
    near = np.lib.stride_tricks.sliding_window_view(padded, LAG + 2).max(1)
    median = np.median(mine)
    bend = (world[2:] - 2 * world[1:-1] + world[:-2]).norm(dim=-1).mean() / unit
    return Motion(
        float(np.maximum(mine - near, 0).max() / median), float(mine.max() / median), float(bend)
    )


def face_rows(args: argparse.Namespace, settings: Settings) -> list[dict]:
    """AKD of a person driven by their own front video, and CSIM of driven heads."""
    detector = open_detector(args.landmarker)
    network = None if args.dlib is None else DlibIdentity(args.dlib)
    apart, likeness, beyond, others = [], [], [], []
    for number, (avatar, own) in enumerate(zip(args.avatars, args.tracks, strict=True)):
        track, foreign = load_track(own), load_track(args.tracks[1 - number])
        stage, pictures = own_video(args, settings, avatar, track)
        apart += [akd(detector, drawn, true) for drawn, true in pictures]
        if network is None:
            continue
        camera = front_of(stage)
        mean = network.mean(detector, renders(stage, track, "EXP-4", camera))
        itself = network.likeness(detector, renders(stage, track, "FREE", camera), mean)
        driven = network.likeness(detector, clip_renders(args, settings, avatar, own, camera), mean)
        likeness.append(driven / itself)
        other = Stage.open(settings(f"avatar={args.avatars[1 - number]}", "video=-"))
        wrong = network.likeness(detector, renders(other, foreign, "FREE", front_of(other)), mean)
        others.append(wrong)
        beyond.append((driven - wrong) / (itself - wrong))
    found = [value for value in apart if value is not None]
    akd_note = f"{len(found)} of {len(apart)} pictures; aligned on eyes and nose; mode=fast"
    ratio = float(np.mean(likeness)) if likeness else None
    return [
        row("akd_same_person", float(np.mean(found)), "% of eyes", "", akd_note),
        row("csim_ratio", ratio, "", ">= 0.95",
            "dlib's embeddings; avatars driven by the clips" if likeness else "no --dlib"),
        row("csim_ratio_beyond_other", float(np.mean(beyond)) if beyond else None, "", "",
            "the same ratio after the other avatar's cosine is subtracted from both"),
        row("csim_other_person", float(np.mean(others)) if others else None, "", "",
            "cosine of the other avatar's renders: what a wrong face would get"),
    ]  # fmt: skip


def front_of(stage: Stage) -> Cameras:
    """One camera before the avatar."""
    return camera_path("front", 1, 25.0, stage.rest, 412, 550, capture=None, participant=None)


def renders(stage: Stage, track: Track, sequence: str, camera: Cameras) -> list[ImageArray]:
    """Every few frames of the avatar's own take."""
    take = track.sequence(sequence).good()
    return [
        stage.picture(Driven(take.z_exp[n], take.world_from_head[n], take.torso, 0.0, True), camera)
        for n in range(0, len(take), EVERY)
    ]


def clip_renders(
    args: argparse.Namespace, settings: Settings, avatar: str, own: str, camera: Cameras
) -> list[ImageArray]:
    """The avatar driven by the first clip."""
    clip = sorted(args.clips.glob("*.mp4"))[0]
    stage = Stage.open(settings(f"video={clip}", f"avatar={avatar}", f"avatar_track={own}"))
    driven = performed(stage, track_video(stage.config, stage.equipment))
    return [stage.picture(one, camera) for one in driven[:: 4 * EVERY]]


def own_video(
    args: argparse.Namespace, settings: Settings, avatar: str, track: Track
) -> tuple[Stage, list[tuple[ImageArray, ImageArray]]]:
    """A person's held-out front video on their own avatar, each frame beside the true one."""
    person = track.participant
    video = CAPTURE / person / "sequences" / "FREE" / "images" / f"cam_{FRONT}.mp4"
    true = [frame.image for frame in read_frames(video)]
    config = settings(
        f"video={video}", f"avatar={avatar}", f"avatar_track={track_path(args, person)}"
    )
    stage = Stage.open(config)
    driven = performed(stage, track_video(config, stage.equipment))
    height, width = true[0].shape[:2]
    camera = camera_path(FRONT, 1, 25.0, stage.rest, width, height, capture=str(CAPTURE),
                         participant=person)  # fmt: skip
    rows = range(0, len(driven), EVERY)
    return stage, [(stage.picture(driven[n], camera), true[n]) for n in rows]


def track_path(args: argparse.Namespace, person: str) -> str:
    """The track of a person among those given."""
    return next(path for path in args.tracks if load_track(path).participant == person)


def akd(detector: MediaPipeDetector, drawn: ImageArray, true: ImageArray) -> float | None:
    """In % of the eye distance; None where a face was not found."""
    one, other = detector.detect(drawn), detector.detect(true)
    if one is None or other is None:
        return None
    a, b = (points @ (1, 1j) for points in (one.astype(float), other.astype(float)))
    middle_a, middle_b = a[list(RIGID)].mean(), b[list(RIGID)].mean()
    from_a, to_b = a[list(RIGID)] - middle_a, b[list(RIGID)] - middle_b
    turn = (from_a.conj() * to_b).sum() / (abs(from_a) ** 2).sum()
    used = sorted(DETAIL_IDS)
    apart = abs(turn * (a[used] - middle_a) + middle_b - b[used]).mean()
    return float(100 * apart / eye_distance(torch.from_numpy(other), EYE_CORNERS))


class DlibIdentity:
    """dlib's face recognition network on faces that MediaPipe found."""

    def __init__(self, path: str) -> None:
        import dlib  # pyright: ignore[reportMissingImports]

        self._dlib: Any = dlib
        self._network = dlib.face_recognition_model_v1(str(Path(path)))

    def embeddings(self, detector: MediaPipeDetector, pictures: list[ImageArray]) -> np.ndarray:
        """Unit vectors of those in which a face is found."""
        found = []
        for picture in pictures:
            points = detector.detect(picture)
            if points is None:
                continue
            five = [self._dlib.point(int(x), int(y)) for x, y in points[list(DLIB_FIVE)]]
            low, high = points.min(0).astype(int), points.max(0).astype(int)
            box = self._dlib.rectangle(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
            shape = self._dlib.full_object_detection(box, self._dlib.points(five))
            chip = self._dlib.get_face_chip(np.ascontiguousarray(picture), shape, CHIP, 0.25)
            found.append(np.array(self._network.compute_face_descriptor(chip)))
        vectors = np.stack(found)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def mean(self, detector: MediaPipeDetector, pictures: list[ImageArray]) -> np.ndarray:
        """The unit mean."""
        total = self.embeddings(detector, pictures).mean(0)
        return total / np.linalg.norm(total)

    def likeness(
        self, detector: MediaPipeDetector, pictures: list[ImageArray], mean: np.ndarray
    ) -> float:
        """Mean cosine to `mean`."""
        return float((self.embeddings(detector, pictures) @ mean).mean())
