"""`npga reenact`: a driver's take on an avatar, to mp4 with the driver beside it, and a json."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar.avatar import Avatar
from npga.avatar.store import load_avatar
from npga.capture import Capture, open_capture
from npga.core.cameras import Cameras
from npga.core.device import resolve_device
from npga.core.images import ImageArray, labelled, side_by_side
from npga.core.progress import say, track_progress
from npga.core.store import write_json
from npga.core.video import VideoWriter
from npga.reenact.config import Mode, ReenactConfig
from npga.reenact.retarget import (
    SHARE,
    Hull,
    neutral_code,
    retarget_codes,
    retarget_motion,
    smooth,
    smooth_poses,
)
from npga.render.render import Drive, avatar_file, render_frames, require_new
from npga.render.run import drive_of
from npga.render.trajectory import front_camera, hold
from nphm_tracking import Track, load_track


@dataclass(frozen=True)
class Performance:
    """A take made ready for an avatar."""

    drive: Drive
    frames: tuple[int, ...]
    """Frame numbers of the driver's videos."""
    hull_distance: Float[Tensor, "t"]
    """Before clamping; see `Hull.distance`."""


def run(config: ReenactConfig) -> None:
    """Write `config.out` and the json; raises NpgaError subclasses for what cannot be used."""
    out = require_new(config.out, overwrite=config.overwrite)
    track = load_track(config.track)
    avatar = load_avatar(avatar_file(config.avatar), track.head_model_checksum)
    performance = prepare(config, avatar, track)
    capture = None
    if config.capture is not None:
        capture = open_capture(config.capture, config.participant)
    chosen = track.sequence(config.sequence)
    name = next(key for key, value in track.sequences.items() if value is chosen)
    serial = chosen_serial(capture, name, config.serial)
    camera = result_camera(config, avatar, capture, serial)
    avatar = avatar.to(resolve_device(config.device))
    path = hold(camera, len(performance.drive))
    results = render_frames(
        avatar, performance.drive, path, refine=config.refine, backend=config.backend
    )
    drivers = driver_pictures(capture, name, serial, performance.frames, config.height)
    titles = (
        f"driver {track.participant} {name}",
        "avatar, own take" if config.mode is Mode.self else "avatar, driven by another person",
    )
    with VideoWriter(out, performance.drive.fps) as video:
        for picture in track_progress(
            composed(results, drivers, titles, performance.frames), "reenact", len(path)
        ):
            video.write(picture)
    write_json(out.with_suffix(".json"), summary(config, track, name, performance))
    outside = float((performance.hull_distance > 0).float().mean())
    say(
        f"reenact: {out}, {len(path)} frames at {performance.drive.fps:.1f} per second; "
        f"{100 * outside:.0f} % of them left the avatar's training hull "
        f"(largest distance {float(performance.hull_distance.max()):.2f})."
    )


def prepare(config: ReenactConfig, avatar: Avatar, track: Track) -> Performance:
    """Retarget, smooth and clamp the driver's take."""
    sequence = track.sequence(config.sequence)
    drive = drive_of(sequence, every=config.every)
    frames = tuple(sequence.good().frames[:: config.every].tolist())
    known = avatar.expressions
    if config.mode is Mode.cross:
        rest, mine = avatar.torso.rest, known.neutral
        if config.avatar_track is not None:
            own = load_track(config.avatar_track)
            own.require_model(track.head_model_checksum)
            mine = rest_face(own)
        drive = replace(
            drive,
            z_exp=retarget_codes(drive.z_exp, rest_face(track), mine),
            world_from_head=retarget_motion(
                drive.world_from_head, sequence.torso, rest, SHARE[config.head_motion]
            ),
            world_from_torso=rest,
        )
    drive = replace(
        drive,
        z_exp=smooth(drive.z_exp, config.smooth_frames),
        world_from_head=smooth_poses(
            drive.world_from_head, drive.world_from_torso, config.smooth_frames
        ),
    )
    hull = Hull(known.lower, known.upper)
    distance = hull.distance(drive.z_exp)
    if config.clamp:
        drive = replace(drive, z_exp=hull.clamp(drive.z_exp))
    return Performance(drive, frames, distance)


def rest_face(track: Track) -> Float[Tensor, "e"]:
    """A person's neutral code, from all their tracked takes."""
    return neutral_code(torch.cat([take.good().z_exp for take in track.sequences.values()]))


def chosen_serial(capture: Capture | None, sequence: str, serial: str | None) -> str | None:
    """The camera of the driver's picture: the one given, else the most frontal of the sequence."""
    if capture is None or serial is not None:
        return serial
    cameras = capture.cameras(capture.sequence(sequence).serials)
    frontal = cameras.axes_world()[:, 2].argmin()
    return cameras.ids[int(frontal)]


def result_camera(
    config: ReenactConfig, avatar: Avatar, capture: Capture | None, serial: str | None
) -> Cameras:
    """One camera for the result.

    The driver's own for a take of the same person; the same serial of the avatar's capture, if
    given, for another's; else one in front of the avatar.
    """
    source = capture if config.mode is Mode.self else None
    if config.mode is Mode.cross and config.avatar_capture is not None:
        source = open_capture(config.avatar_capture, config.avatar_participant)
    if source is None or serial is None:
        width = round(config.height * 0.75)
        return front_camera(avatar.torso.rest, width, config.height)
    full = source.cameras([serial])
    return full.resized(round(config.height * full.width / full.height), config.height)


def driver_pictures(
    capture: Capture | None,
    sequence: str,
    serial: str | None,
    frames: tuple[int, ...],
    height: int,
) -> Iterator[ImageArray]:
    """The driver's frames at this height; none where there is no capture."""
    if capture is None or serial is None:
        return
    full = capture.cameras([serial])
    width = round(height * full.width / full.height)
    views = capture.views(sequence, frames, [serial], width, height)
    for image in views.images[:, 0]:
        yield image.numpy()


def composed(
    results: Iterator[ImageArray],
    drivers: Iterator[ImageArray],
    titles: tuple[str, str],
    frames: tuple[int, ...],
) -> Iterator[ImageArray]:
    """Driver left, result right, each under its title; the result alone where there is no driver.

    All frames have the size of the first.
    """
    for result, frame in zip(results, frames, strict=True):
        right = labelled(result, titles[1])
        left = next(drivers, None)
        if left is None:
            yield right
        else:
            yield side_by_side([labelled(left, f"{titles[0]} #{frame}"), right])


def summary(
    config: ReenactConfig, track: Track, sequence: str, performance: Performance
) -> dict[str, object]:
    """What the json beside the video says."""
    good = performance.hull_distance <= 0
    return {
        "mode": config.mode.value,
        "driver": track.participant,
        "sequence": sequence,
        "frames": list(performance.frames),
        "fps": round(performance.drive.fps, 3),
        "frames_not_tracked": int((~track.sequence(sequence).ok).sum()),
        "clamped": config.clamp,
        "head_motion": config.head_motion.value,
        "smooth_frames": config.smooth_frames,
        "hull_inside_percent": round(100 * float(good.float().mean()), 2),
        "hull_distance_unit": "widths of the control that overshoots most",
        "hull_distance": [round(float(d), 4) for d in performance.hull_distance],
    }
