"""`npga submit`: an avatar's videos for the NeRSemble benchmark, and the zip when all are there.

One run draws one participant from the task's hidden cameras into the submission's folder; the run
that completes the folder packs it. Letters: `t` frames.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import MISSING

from npga.avatar.store import avatar_file, load_avatar
from npga.capture import open_capture
from npga.capture.sequences import match_sequence
from npga.core.config import knob
from npga.core.device import resolve_device
from npga.core.errors import ConfigError, OutputError, TrackError
from npga.core.progress import say, track_progress
from npga.core.video import VideoWriter
from npga.raster import Backend
from npga.render.render import Drive, render_frames
from npga.render.submission import CRF, TASKS, Task, TaskName, missing_videos, pack, video_path
from npga.render.trajectory import hold
from nphm_tracking import SequenceTrack, load_track


@dataclass(frozen=True)
class SubmitConfig:
    """Videos of one participant into a submission; the zip when it is complete."""

    task: TaskName = knob(TaskName.nvs, "nvs or mono_flame_avatar")
    out: str = knob(MISSING, "folder of the submission; <out>.zip is made when it is complete")
    avatar: str | None = knob(None, "avatar of one participant; null = only check and pack")
    track: str | None = knob(None, "the track of that participant, of every frame")
    capture: str | None = knob(None, "the benchmark's folder, for the hidden cameras")
    participant: str | None = knob(None, "participant of the avatar")
    overwrite: bool = knob(False, "replace videos and zip that exist")
    refine: bool = knob(True, "apply the screen-space refiner")
    device: str = knob("auto", "auto, cpu or cuda")
    backend: Backend = knob(Backend.auto, "auto, cpu, gsplat or reference")

    def __post_init__(self) -> None:
        """Refuse an avatar without what it takes to draw it; raises ConfigError."""
        given = (self.avatar, self.track, self.capture)
        if any(value is not None for value in given) and None in given:
            raise ConfigError(
                "npga submit draws an avatar with its track and its capture, but not all three "
                "were given.",
                "Give avatar=, track= and capture=, or none of them to check and pack.",
            )


def run(config: SubmitConfig) -> None:
    """Draw what is asked for, then pack or say what is missing.

    Raises OutputError for a folder that the benchmark would refuse.
    """
    folder, task = Path(config.out), TASKS[config.task]
    archive = folder.with_name(folder.name + ".zip")
    if archive.exists() and not config.overwrite:
        raise OutputError(
            f"{archive} exists already, and results are never silently replaced.",
            "Give another out=..., or overwrite=true to replace it.",
        )
    if config.avatar is not None:
        draw_participant(config, folder, task)
    absent = missing_videos(folder, task)
    if absent and config.avatar is not None:
        people = sorted({path.parents[1].name for path in absent})
        say(f"submit: {len(absent)} videos are missing, of participants {', '.join(people)}.")
        return
    pack(folder, task, archive)
    size = archive.stat().st_size / 1e6
    say(f"submit: {archive}, {len(task.videos())} videos, {size:.1f} MB.")


def draw_participant(config: SubmitConfig, folder: Path, task: Task) -> None:
    """All videos of one participant."""
    assert config.avatar is not None and config.track is not None and config.capture is not None
    capture = open_capture(config.capture, config.participant)
    participant = capture.participant
    if participant not in task.sequences:
        raise ConfigError(
            f"Participant {participant} is not in the task {config.task.value}.",
            f"It has {', '.join(task.sequences)}.",
        )
    track = load_track(config.track)
    avatar = load_avatar(avatar_file(config.avatar), track.head_model_checksum)
    avatar = avatar.to(resolve_device(config.device))
    drives = {}
    for name in task.sequences[participant]:
        known = match_sequence(name, tuple(track.sequences), Path(config.track))
        drives[name] = every_frame(track.sequences[known], name, task.fps)
    total = sum(len(drive) for drive in drives.values())
    if total != task.frames[participant]:
        raise TrackError(
            f"The track of {participant} has {total} frames of {', '.join(drives)}; the benchmark "
            f"expects {task.frames[participant]}.",
            "Track every frame of the benchmark's own videos.",
        )
    for name, drive in drives.items():
        for serial in task.serials:
            path = video_path(folder, participant, name, serial)
            if path.exists() and not config.overwrite:
                raise OutputError(
                    f"{path} exists already, and results are never silently replaced.",
                    "Give another out=..., or overwrite=true to replace it.",
                )
            camera = capture.cameras([serial], task.width, task.height)
            frames = render_frames(
                avatar, drive, hold(camera, len(drive)), refine=config.refine,
                backend=config.backend,
            )  # fmt: skip
            with VideoWriter(path, task.fps, crf=CRF) as video:
                for picture in track_progress(frames, f"{name} {serial}", len(drive)):
                    video.write(picture)


def every_frame(sequence: SequenceTrack, name: str, fps: float) -> Drive:
    """The whole take, frame by frame; one that was not tracked repeats its nearest that was.

    Raises TrackError where the track leaves frames out.
    """
    frames = sequence.frames
    if not torch.equal(frames.cpu(), torch.arange(len(frames))):
        raise TrackError(
            f"The track of {name} holds {len(frames)} frames up to {int(frames.max())}, "
            "not every one.",
            "The benchmark wants every frame: track with every=1.",
        )
    good = torch.nonzero(sequence.ok).flatten()
    if len(good) == 0:
        raise TrackError(f"No frame of {name} was tracked.", "Track it again.")
    nearest = good[(torch.arange(len(frames))[:, None] - good[None]).abs().argmin(1)]
    return Drive(sequence.z_exp[nearest], sequence.world_from_head[nearest], sequence.torso, fps)
