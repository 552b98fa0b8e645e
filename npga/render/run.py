"""`npga render`: an avatar driven by its own track along a camera path, to mp4."""

import torch

from npga.avatar.store import load_avatar
from npga.core.device import resolve_device
from npga.core.errors import ConfigError
from npga.core.progress import say, track_progress
from npga.core.similarity import Similarity
from npga.core.video import VideoWriter
from npga.render.camera_path import camera_path
from npga.render.config import RenderConfig
from npga.render.render import Drive, avatar_file, render_frames, require_new
from nphm_tracking import SequenceTrack, load_track


def run(config: RenderConfig) -> None:
    """Write `config.out`; raises NpgaError subclasses for what cannot be used."""
    out = require_new(config.out, overwrite=config.overwrite)
    track = load_track(config.track)
    sequence = track.sequence(config.sequence)
    avatar = load_avatar(avatar_file(config.avatar), track.head_model_checksum)
    avatar = avatar.to(resolve_device(config.device))
    drive = drive_of(sequence, every=config.every, still_head=config.still_head)
    path = camera_path(
        config.camera, len(drive), drive.fps, drive.world_from_torso, config.width, config.height,
        capture=config.capture, participant=config.participant, swing_deg=config.swing_deg,
    )  # fmt: skip
    frames = render_frames(avatar, drive, path, refine=config.refine, backend=config.backend)
    with VideoWriter(out, drive.fps) as video:
        for picture in track_progress(frames, "render", len(drive)):
            video.write(picture)
    say(
        f"render: {out}, {len(drive)} frames of {config.width}x{config.height} "
        f"at {drive.fps:.1f} per second, camera {config.camera}."
    )


def drive_of(sequence: SequenceTrack, *, every: int = 1, still_head: bool = False) -> Drive:
    """A tracked take as it was: every n-th frame of those that could be tracked.

    The rate follows the frames' spacing, so that the video runs at the take's speed.
    """
    good = sequence.good()
    if len(good) == 0:
        raise ConfigError(
            "The sequence has no frame that was tracked.",
            "Track it again, or name another sequence.",
        )
    rows = torch.arange(0, len(good), every)
    frames = good.frames[rows]
    spacing = float((frames[1:] - frames[:-1]).double().median()) if len(rows) > 1 else 1.0
    poses = good.world_from_head[rows]
    if still_head:
        poses = Similarity.stack([sequence.torso] * len(rows))
    return Drive(good.z_exp[rows], poses, sequence.torso, good.fps / max(1.0, spacing))
