"""`npga reenact`: what a driver does on an avatar, to mp4 with the driver beside it, and a json."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from npga.avatar.avatar import Avatar
from npga.avatar.store import avatar_file, load_avatar
from npga.capture import Capture, open_capture
from npga.core.audio import AudioTrack, has_audio
from npga.core.cameras import Cameras
from npga.core.device import resolve_device
from npga.core.errors import ConfigError
from npga.core.images import ImageArray
from npga.core.progress import say, track_progress
from npga.core.store import write_json
from npga.core.video import VideoWriter
from npga.reenact.config import Mode, ReenactConfig
from npga.reenact.curves import read_codes
from npga.reenact.driven import (
    Driven,
    Manner,
    avatar_face,
    avatar_head_model,
    avatar_hull,
    drive_other,
    drive_own,
    retargeting_to,
)
from npga.reenact.pictures import composed, video_pictures
from npga.reenact.retarget import Face
from npga.reenact.source import Performance, take_of
from npga.render.camera_path import camera_path
from npga.render.driver import driver_pictures
from npga.render.render import Drive, render_frames, require_new
from npga.render.trajectory import front_camera, hold
from nphm_tracking import HeadModel, Track, load_track


@dataclass(frozen=True)
class Beside:
    """The driver's capture, take and camera, for the picture beside the result."""

    capture: Capture
    sequence: str
    serial: str


def run(config: ReenactConfig) -> None:
    """Write `config.out` and the json; raises NpgaError subclasses for what cannot be used."""
    out = checked_out(config)
    track = None if config.track is None else load_track(config.track)
    checksum = None if track is None else track.head_model_checksum
    avatar = load_avatar(avatar_file(config.avatar), checksum)
    model = None
    if config.head_model is not None or config.codes is not None or asks_openings(config):
        model = avatar_head_model(avatar, config.head_model)
    source = performance(config, track, avatar, model)
    audio = sound(config)
    unknown = int((~source.ok).sum())
    source = source.used(config.every, hold=audio is not None)
    driven = driven_by(config, source, avatar, model)
    beside = None if track is None else beside_of(config, track)
    path = result_path(config, avatar, driven.drive, beside)
    avatar = avatar.to(resolve_device(config.device))
    results = render_frames(
        avatar, driven.drive, path, refine=config.refine, backend=config.backend
    )
    drivers = pictures(config, source, beside)
    own = config.drives is Mode.self
    titles = (f"driver {source.name}", "avatar, own take" if own else "avatar, driven")
    frames = tuple(source.frames.tolist())
    with VideoWriter(out, driven.drive.fps, audio=source.sound(audio)) as video:
        for picture in track_progress(
            composed(results, drivers, titles, frames), "reenact", len(path)
        ):
            video.write(picture)
    write_json(out.with_suffix(".json"), summary(config, track, source, driven, unknown))
    outside = float((driven.hull_distance > 0).float().mean())
    say(
        f"reenact: {out}, {len(path)} frames at {driven.drive.fps:.1f} per second; "
        f"{100 * outside:.0f} % of them left the avatar's training hull "
        f"(largest distance {float(driven.hull_distance.max()):.2f})."
    )


def checked_out(config: ReenactConfig) -> Path:
    """The video's path; raises OutputError or ConfigError where something would be lost."""
    out = require_new(config.out, overwrite=config.overwrite)
    described = out.with_suffix(".json").resolve()
    for name in ("camera", "video", "audio"):
        given = getattr(config, name)
        if given is not None and Path(given).resolve() in (described, out.resolve()):
            raise ConfigError(
                f"{name}={given} lies where the result or its description goes.",
                "Give another out=...",
            )
    return out


def asks_openings(config: ReenactConfig) -> bool:
    """Whether lids and lips are to be kept."""
    return config.openings and config.drives is Mode.cross


def performance(
    config: ReenactConfig, track: Track | None, avatar: Avatar, model: HeadModel | None
) -> Performance:
    """What drives: the track's take, or the codes in a file."""
    if track is not None:
        return take_of(track, config.sequence, model if asks_openings(config) else None)
    assert config.codes is not None
    yaw, pitch, roll = config.head_signs
    size = avatar.prior.expression_size
    return read_codes(
        config.codes, model, size, fps=config.fps, head_signs=(yaw, pitch, roll)
    )  # fmt: skip


def driven_by(
    config: ReenactConfig, source: Performance, avatar: Avatar, model: HeadModel | None
) -> Driven:
    """The avatar's codes and poses; all frames of `source` are known."""
    manner = Manner(config.head_motion, config.smooth_frames, config.clamp)
    if config.drives is Mode.self:
        return drive_own(source, avatar, manner)
    own = None if config.avatar_track is None else load_track(config.avatar_track)
    face = avatar_face(avatar, model, own)
    driver = source.face if config.openings else Face(source.face.neutral)
    retargeting = retargeting_to(avatar_hull(avatar), driver, face, model, clamp=config.clamp)
    return drive_other(source, avatar, retargeting, manner)


def sound(config: ReenactConfig) -> AudioTrack | None:
    """What is heard: `audio`, else the sound of `video` where it has some."""
    if config.audio is not None:
        return AudioTrack(Path(config.audio))
    if config.video is not None and has_audio(config.video):
        return AudioTrack(Path(config.video))
    return None


def beside_of(config: ReenactConfig, track: Track) -> Beside | None:
    """The driver's camera: the one given, else the most frontal of the take's."""
    if config.capture is None:
        return None
    capture = open_capture(config.capture, config.participant)
    take = track.sequence(config.sequence)
    name = next(key for key, value in track.sequences.items() if value is take)
    if config.serial is not None:
        return Beside(capture, name, config.serial)
    cameras = capture.cameras(capture.sequence(name).serials)
    return Beside(capture, name, cameras.ids[cameras.frontal()])


def pictures(
    config: ReenactConfig, source: Performance, beside: Beside | None
) -> Iterator[ImageArray]:
    """The driver's pictures of all used frames; none where there is nothing to show."""
    if config.video is not None:
        return video_pictures(config.video, source.frames / source.fps, config.height)
    if beside is None:
        return iter(())
    assert config.capture is not None
    return iter(
        driver_pictures(
            config.capture, config.participant, beside.sequence, source.frames.tolist(),
            beside.serial, config.height,
        )
    )  # fmt: skip


def result_path(
    config: ReenactConfig, avatar: Avatar, drive: Drive, beside: Beside | None
) -> Cameras:
    """The result's cameras, one per frame.

    Where `camera` says nothing: the driver's own for a take of the same person; the same serial of
    the avatar's capture, if given, for another's; else one in front of the avatar.
    """
    shown, person = config.capture, config.participant
    if config.drives is Mode.cross:
        shown, person = config.avatar_capture, config.avatar_participant
    full = None
    if shown is not None:
        capture = open_capture(shown, person)
        serial = None if beside is None else beside.serial
        full = capture.cameras(None if serial is None else [serial])
    aspect = 0.75 if full is None else full.width / full.height
    width = round(config.height * aspect)
    if config.camera is not None:
        return camera_path(
            config.camera, len(drive), drive.fps, drive.world_from_torso, width, config.height,
            capture=shown, participant=person, swing_deg=config.swing_deg,
        )  # fmt: skip
    if full is None or beside is None:
        return hold(front_camera(avatar.torso.rest, width, config.height), len(drive))
    return hold(full.resized(width, config.height), len(drive))


def summary(
    config: ReenactConfig,
    track: Track | None,
    source: Performance,
    driven: Driven,
    unknown: int,
) -> dict[str, object]:
    """What the json beside the video says."""
    good = driven.hull_distance <= 0
    return {
        "mode": config.drives.value,
        "driver": source.name if track is None else track.participant,
        "sequence": None if track is None else source.name.removeprefix(f"{track.participant} "),
        "frames": source.frames.tolist(),
        "fps": round(driven.drive.fps, 3),
        "frames_not_tracked": unknown,
        "clamped": config.clamp,
        "head_motion": config.head_motion.value,
        "smooth_frames": config.smooth_frames,
        "openings_kept": asks_openings(config) and source.face.openings is not None,
        "camera": config.camera,
        "hull_inside_percent": round(100 * float(good.float().mean()), 2),
        "hull_distance_unit": "widths of the control that overshoots most",
        "hull_distance": [round(float(d), 4) for d in driven.hull_distance],
    }
