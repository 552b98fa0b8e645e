"""`npga drive video=...`: a recording of a person drives an avatar, to mp4."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npga.core.audio import AudioTrack, has_audio
from npga.core.images import ImageArray, labelled, resize_area, side_by_side
from npga.core.output import output_group
from npga.core.progress import say, track_progress
from npga.core.store import write_json
from npga.core.video import VideoWriter
from npga.drive.config import DriveConfig
from npga.drive.driver import straight_pose
from npga.drive.puppet import Driven
from npga.drive.source import frame_rate
from npga.drive.stage import Stage, driver_face
from npga.drive.track import TrackedVideo, frames_of, track_video
from npga.render.camera_path import camera_path
from npga.render.render import require_new
from nphm_tracking import save_track
from nphm_tracking.follow import Followed

OUT = "runs/drive.mp4"


def drive_video(config: DriveConfig) -> tuple[TrackedVideo, list[Driven]]:
    """Write the mp4, its json and the driver's track, and return what they were made of.

    Raises NpgaError subclasses.
    """
    assert config.video is not None
    out = require_new(config.out or OUT, overwrite=config.overwrite)
    frame_rate(config.video)  # what is no video is refused before anything is loaded
    track = out.with_name(out.stem + "_track.safetensors")
    files = [out, out.with_suffix(".json"), *([track] if config.save_track else [])]
    with output_group(files, overwrite=config.overwrite) as folder:
        stage = Stage.open(config)
        tracked = track_video(config, stage.equipment)
        driven = performed(stage, tracked)
        write_video(stage, tracked, driven, folder / out.name)
        if config.save_track:
            save_track(tracked.track, folder / track.name)
        write_json(folder / files[1].name, summary(config, tracked, driven))
    found = sum(one.found for one in driven)
    say(
        f"drive: {out}, {len(driven)} frames at {tracked.take.fps:.1f} per second, a face in "
        f"{found}; tracked {tracked.fps_tracking:.0f} frames a second after "
        f"{tracked.seconds['calibrate']:.1f} s of calibration; largest distance to the training "
        f"hull {max(one.hull_distance for one in driven):.2f}."
    )
    return tracked, driven


def write_video(stage: Stage, tracked: TrackedVideo, driven: list[Driven], out: Path) -> None:
    """Draw every frame, with the video's sound where it has some."""
    config, fps = stage.config, tracked.take.fps
    assert config.video is not None
    sound = AudioTrack(Path(config.video), config.start_s) if config.audio else None
    sound = sound if sound is not None and has_audio(sound.path) else None
    path = camera_path(
        config.view, len(driven), fps, stage.rest, config.width, config.height,
        capture=config.capture, participant=config.participant,
    )  # fmt: skip
    pictures = (stage.picture(one, path.select([n])) for n, one in enumerate(driven))
    with VideoWriter(out, fps, audio=sound) as video:
        for picture in track_progress(shown(config, pictures, tracked), "draw", len(driven)):
            video.write(picture)


def performed(stage: Stage, tracked: TrackedVideo) -> list[Driven]:
    """Every frame of the video as the avatar does it."""
    take = tracked.take
    good = take.good()
    face = driver_face(good.z_exp, tracked.track.z_geo, stage.equipment)
    puppet = stage.puppet(face, straight_pose(good.world_from_head))
    return [
        puppet(
            Followed(take.z_exp[n], take.world_from_head[n], float(take.residual_mm[n]),
                     bool(take.ok[n])),
            tracked.seen.seconds[n],
        )
        for n in range(len(take))
    ]  # fmt: skip


def shown(
    config: DriveConfig, pictures: Iterator[ImageArray], tracked: TrackedVideo
) -> Iterator[ImageArray]:
    """The avatar, with the driver beside it where that is wanted."""
    if not config.beside:
        yield from pictures
        return
    drivers = frames_of(config)[0]
    for n, (picture, frame) in enumerate(zip(pictures, drivers, strict=False)):
        yield beside(frame.image, picture, bool(tracked.take.ok[n]))


def beside(driver: ImageArray, avatar: ImageArray, found: bool = True) -> ImageArray:
    """The driver at the avatar's height, left of it; grey where no face was found."""
    height = avatar.shape[0]
    width = max(2, round(height * driver.shape[1] / driver.shape[0]))
    small = resize_area(driver, width, height)
    if not found:
        small = np.broadcast_to(small.mean(-1, keepdims=True), small.shape).astype(np.uint8)
    title = "driver" if found else "driver: no face"
    return side_by_side([labelled(small, title), labelled(avatar, "avatar")])


def summary(config: DriveConfig, tracked: TrackedVideo, driven: list[Driven]) -> dict[str, object]:
    """What the json beside the video says."""
    assert config.video is not None
    return {
        "video": os.path.basename(config.video),
        "mode": config.mode.value,
        "fps": round(tracked.take.fps, 3),
        "size": [tracked.seen.width, tracked.seen.height],
        "focal_px": tracked.track.provenance["focal_px"],
        "focal_given": config.focal is not None,
        "frames": len(driven),
        "frames_without_face": [n for n, one in enumerate(driven) if not one.found],
        "tracking_fps": round(tracked.fps_tracking, 1),
        "seconds": {name: round(value, 2) for name, value in tracked.seconds.items()},
        "head_motion": config.head_motion.value,
        "clamped": config.clamp,
        "hull_distance_unit": "widths of the control that overshoots most",
        "hull_distance": [round(one.hull_distance, 4) for one in driven],
        "landmark_residual_mm": [
            round(float(r), 3) if r < 1e6 else None for r in tracked.take.residual_mm
        ],
    }
