"""A video of one person -> a track: what the driver did, as `npga reenact` can use it too.

Frames without a face are marked, their codes mean nothing.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import torch

import npga
from npga.core.cameras import Cameras
from npga.core.device import torch_threads
from npga.core.errors import TrackError
from npga.core.progress import track_progress
from npga.core.similarity import Similarity
from npga.drive.accurate import solve_take
from npga.drive.config import DriveConfig, DriveMode
from npga.drive.driver import (
    Equipment,
    KnownDriver,
    Seen,
    calibration_of,
    face_chooser,
)
from npga.drive.source import Frame, constant_rate, frame_rate, read_frames
from nphm_tracking import SequenceTrack, Track
from nphm_tracking.follow import Calibration, Followed

FACES_MIN = 5
"""Frames with a face that a video needs."""


@dataclass(frozen=True)
class TrackedVideo:
    """A video's track and what it took."""

    track: Track
    take: SequenceTrack
    seen: Seen
    calibration: Calibration
    seconds: dict[str, float]
    """Of decoding and detection, calibration, and solving."""

    @property
    def fps_tracking(self) -> float:
        """Frames per second of tracking alone, without the calibration at the start."""
        return len(self.take) / max(self.seconds["detect"] + self.seconds["solve"], 1e-9)


def frames_of(config: DriveConfig) -> tuple[Iterator[Frame], float]:
    """The used part of the video at a constant rate, numbered from its first second; the rate."""
    assert config.video is not None
    rate = frame_rate(config.video)
    frames = constant_rate(read_frames(config.video), rate)
    skipped = islice(frames, round(config.start_s * rate), None)
    if config.end_s is None:
        return skipped, rate
    end = config.end_s
    return takewhile(lambda frame: frame.seconds < end - 1e-6, skipped), rate


def track_video(config: DriveConfig, equipment: Equipment) -> TrackedVideo:
    """Detect, calibrate, follow; raises TrackError where there is no face to follow."""
    assert config.video is not None
    began = time.perf_counter()
    frames, rate = frames_of(config)
    seen = see(frames, config)
    detected = time.perf_counter()
    camera = seen.camera(config.focal, config.centre)
    known = KnownDriver.load(config.driver_track, equipment)
    size = {} if known is None else {"metres_per_unit": known.metres_per_unit}
    observed = seen.observed(equipment, camera, rate, **size)
    with torch_threads(1):
        calibration = calibration_of(equipment, observed, known)
    person = calibration.person
    calibrated = time.perf_counter()
    if config.mode is DriveMode.accurate:
        pictures = frames_of(config)[0]
        followed = solve_take(equipment, calibration, observed, pictures, camera)
    else:
        with torch_threads(1):
            followed = follow_take(equipment, calibration, seen, camera)
    solved = time.perf_counter()
    take = take_from(followed, seen, rate)
    name = Path(config.video).stem
    track = Track(
        z_geo=person.z_geo,
        z_app=torch.zeros(equipment.model.app_size),
        sequences={name: take},
        head_model_checksum=equipment.model.checksum(),
        participant="driver",
        provenance={"video": Path(config.video).name, "mode": config.mode.value,
                    "focal_px": float(camera.K[0, 0, 0]) / seen.shrunk, "npga": npga.__version__},
        landmarks=person.landmarks,
    )  # fmt: skip
    seconds = {"detect": detected - began, "calibrate": calibrated - detected,
               "solve": solved - calibrated}  # fmt: skip
    return TrackedVideo(track, take, seen, calibration, seconds)


def follow_take(
    equipment: Equipment, calibration: Calibration, seen: Seen, camera: Cameras
) -> list[Followed]:
    """Every frame from where the last one ended, as live."""
    follower = equipment.follower(calibration, camera)
    return [equipment.follow(follower, face) for face in track_progress(seen.faces, "follow")]


def see(frames: Iterator[Frame], config: DriveConfig) -> Seen:
    """The landmarks of every frame; raises TrackError for a video without a face."""
    chooser = face_chooser(config.landmarker, config.face)
    faces, seconds, size, shrunk = [], [], (0, 0), 1.0
    for frame in track_progress(frames, "detect", 0):
        faces.append(chooser(frame.image))
        seconds.append(frame.seconds)
        size, shrunk = (frame.image.shape[1], frame.image.shape[0]), frame.shrunk
    found = sum(one is not None for one in faces)
    if found < FACES_MIN:
        raise TrackError(
            f"video={config.video}: face {config.face} was found in {found} of {len(faces)} "
            f"frames; {FACES_MIN} are needed.",
            "Give a video in which the driver looks into the camera, or another face=, start_s=.",
        )
    return Seen(faces, seconds, *size, shrunk)


def take_from(followed: list[Followed], seen: Seen, rate: float) -> SequenceTrack:
    """The frames as a track; failed ones stand where the last good one was."""
    first = round(seen.seconds[0] * rate)
    return SequenceTrack(
        frames=torch.arange(first, first + len(followed)),
        z_exp=torch.stack([one.z_exp for one in followed]),
        world_from_head=Similarity.stack([one.world_from_head for one in followed]),
        residual_mm=torch.tensor([one.residual_mm for one in followed]),
        ok=torch.tensor([one.found for one in followed]),
        fps=rate,
    )
