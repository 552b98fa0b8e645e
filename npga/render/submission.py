"""What the NeRSemble benchmark takes: which videos, of what size and length, in which zip.

    <zip>/<PPP>/<SEQ>/cam_<SERIAL>.mp4      H.264 (the official writer uses crf 14)

Source: nersemble-benchmark 0.2.0 (constants, submission_data). It also asks its server for the
lengths of the monocular task's single videos; here only their sum per participant is known.
"""

import os
import zipfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from npga.core.errors import CaptureError, OutputError

CRF = 14


class TaskName(str, Enum):
    """The benchmark's tasks that are submitted as videos."""

    nvs = "nvs"
    mono_flame_avatar = "mono_flame_avatar"


@dataclass(frozen=True)
class Task:
    """What one task asks of every submission."""

    width: int
    height: int
    fps: float
    serials: tuple[str, ...]
    sequences: dict[str, tuple[str, ...]]
    """Of every participant."""
    frames: dict[str, int]
    """Frames of all sequences of a participant together, per camera."""

    def videos(self) -> list[tuple[str, str, str]]:
        """(participant, sequence, serial) of every video."""
        return [
            (participant, sequence, serial)
            for participant, sequences in self.sequences.items()
            for sequence in sequences
            for serial in self.serials
        ]


_MONO = ("FREE", "EMO-1-shout+laugh", "SEN-09-frown_events_bad", "SEN-10-port_strong_smokey")

TASKS = {
    TaskName.nvs: Task(
        width=1100,
        height=1604,
        fps=73.0,
        serials=("222200046", "222200037", "222200039"),
        sequences={
            "388": ("GLASSES",),
            "422": ("EXP-2-eyes",),
            "443": ("FREE",),
            "445": ("EXP-6-tongue-1",),
            "475": ("HAIR",),
        },
        frames={"388": 1118, "422": 517, "443": 1108, "445": 514, "475": 259},
    ),
    TaskName.mono_flame_avatar: Task(
        width=512,
        height=512,
        fps=24.3,
        serials=("222200037", "222200046", "220700191", "222200039"),
        sequences=dict.fromkeys(("393", "404", "461", "477", "486"), _MONO),
        frames={"393": 816, "404": 665, "461": 486, "477": 530, "486": 608},
    ),
}


def video_path(folder: Path, participant: str, sequence: str, serial: str) -> Path:
    """Where a video of a submission lies."""
    return folder / participant / sequence / f"cam_{serial}.mp4"


@dataclass(frozen=True)
class VideoFacts:
    """What a video file is."""

    codec: str
    width: int
    height: int
    fps: float
    frames: int
    """Counted, not claimed."""


def video_facts(path: Path) -> VideoFacts:
    """Read a video's packets without decoding them; raises CaptureError for no video."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = sum(1 for packet in container.demux(stream) if packet.size)
            rate = float(stream.average_rate or 0)
            return VideoFacts(stream.codec_context.name, stream.width, stream.height, rate, frames)
    except (FFmpegError, OSError, IndexError) as error:
        raise CaptureError(
            f"The video {path} cannot be read ({type(error).__name__}).", "Make it again."
        ) from None


def missing_videos(folder: Path, task: Task) -> list[Path]:
    """Videos that the task asks for and the folder lacks."""
    paths = (video_path(folder, *video) for video in task.videos())
    return [path for path in paths if not path.is_file()]


def refusals(folder: Path, task: Task) -> list[str]:
    """All reasons to refuse the videos that are there, and the files that do not belong there."""
    wanted = {video_path(folder, *video): video for video in task.videos()}
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    reasons = [f"{path.relative_to(folder)} is asked for by nobody" for path in found
               if path not in wanted]  # fmt: skip
    lengths: dict[tuple[str, str], dict[str, int]] = {}
    for path, (participant, sequence, serial) in wanted.items():
        if not path.is_file():
            continue
        facts = video_facts(path)
        lengths.setdefault((participant, serial), {})[sequence] = facts.frames
        name = path.relative_to(folder)
        if facts.codec != "h264":
            reasons.append(f"{name} is {facts.codec}, not h264")
        if (facts.width, facts.height) != (task.width, task.height):
            reasons.append(
                f"{name} has {facts.width}x{facts.height} pixels, not {task.width}x{task.height}"
            )
        if abs(facts.fps - task.fps) > 0.01 * task.fps:
            reasons.append(f"{name} runs at {facts.fps:.2f} frames per second, not {task.fps}")
    for (participant, serial), counted in lengths.items():
        total, expected = sum(counted.values()), task.frames[participant]
        if len(counted) == len(task.sequences[participant]) and total != expected:
            reasons.append(
                f"participant {participant}, camera {serial} has {total} frames, not {expected}"
            )
    return reasons


def pack(folder: Path, task: Task, out: Path) -> None:
    """Write the zip; raises OutputError for what the benchmark would refuse."""
    absent = missing_videos(folder, task)
    wrong = refusals(folder, task)
    if absent:
        wrong.insert(0, f"{absent[0].relative_to(folder)} and {len(absent) - 1} more are missing")
    if wrong:
        raise OutputError(
            f"{folder} is no complete submission: {'; '.join(wrong[:4])}"
            + (f"; and {len(wrong) - 4} more." if len(wrong) > 4 else "."),
            "Make these videos (npga submit avatar=...) and remove what does not belong there.",
        )
    partial = out.with_name("." + out.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for video in task.videos():
            archive.write(video_path(folder, *video), "/".join(video[:2]) + f"/cam_{video[2]}.mp4")
    os.replace(partial, out)
