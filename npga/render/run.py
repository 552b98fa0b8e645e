"""`npga render`: an avatar driven by its own track along a camera path: video, PNGs, passes."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from npga.avatar.avatar import Avatar
from npga.avatar.store import avatar_file, load_avatar
from npga.core.cameras import Cameras
from npga.core.config import as_plain
from npga.core.device import resolve_device
from npga.core.errors import ConfigError
from npga.core.images import ImageArray
from npga.core.output import output_group
from npga.core.progress import say, track_progress
from npga.core.similarity import Similarity
from npga.core.store import write_json
from npga.render.camera_path import camera_path
from npga.render.config import Panel, RenderConfig
from npga.render.driver import driver_pictures
from npga.render.layers import draw_layers
from npga.render.outputs import (
    Output,
    checked_background,
    fitting,
    planned_outputs,
    result_base,
)
from npga.render.pictures import Look
from npga.render.render import Drive
from nphm_tracking import SequenceTrack, load_track

DEPTH_REACH = 0.8
"""Head units before and behind the head's centre that a depth picture spans."""


def run(config: RenderConfig) -> None:
    """Write `config.out` and what goes beside it; raises NpgaError subclasses.

    All results appear together when they are complete, or none does.
    """
    background = checked_background(config)
    base = result_base(config.out)
    summary = base.with_name(base.name + ".json")
    if Path(config.camera).resolve() == summary.resolve():
        raise ConfigError(
            f"The key frames {config.camera} lie where the description of {config.out} goes.",
            "Give another out=..., or rename the key frames.",
        )
    track = load_track(config.track)
    sequence = track.sequence(config.sequence)
    name = next(key for key, value in track.sequences.items() if value is sequence)
    avatar = load_avatar(avatar_file(config.avatar), track.head_model_checksum)
    drive = drive_of(sequence, every=config.every, still_head=config.still_head)
    frames = sequence.good().frames[:: config.every].tolist()
    path = camera_path(
        config.camera, len(drive), drive.fps, drive.world_from_torso, config.width, config.height,
        capture=config.capture, participant=config.participant, swing_deg=config.swing_deg,
    )  # fmt: skip
    look = Look(background, depth_range(drive, path))
    outputs = planned_outputs(config, look)
    paths = [base.with_name(output.name) for output in outputs]
    with output_group([*paths, summary], overwrite=config.overwrite) as stage:
        driver = None
        if Panel.driver in config.beside:
            assert config.capture is not None
            driver = driver_pictures(
                config.capture, config.participant, name, frames, config.camera, config.height
            )
        avatar = avatar.to(resolve_device(config.device))
        write_frames(config, avatar, drive, path, outputs, stage, driver)
        write_json(
            stage / summary.name, description(config, name, frames, drive.fps, path, outputs)
        )
    say(
        f"render: {', '.join(map(str, paths))}, {len(drive)} frames of "
        f"{config.width}x{config.height} at {drive.fps:.1f} per second, camera {config.camera}, "
        f"{outputs[0].format()}."
    )


def write_frames(
    config: RenderConfig,
    avatar: Avatar,
    drive: Drive,
    path: Cameras,
    outputs: list[Output],
    folder: Path,
    driver: list[ImageArray] | None,
) -> None:
    """Draw every frame once and append it to all outputs, in this folder."""
    with ExitStack() as stack:
        writers = [stack.enter_context(output.open(folder, drive.fps)) for output in outputs]
        for n in track_progress(range(len(drive)), "render"):
            layers = draw_layers(
                avatar, drive.z_exp[n], drive.world_from_head[n], drive.world_from_torso,
                path.select([n]), refine=config.refine, backend=config.backend,
            )  # fmt: skip
            theirs = None if driver is None else driver[n]
            for output, writer in zip(outputs, writers, strict=True):
                writer.write(fitting(output.draw(layers, theirs), output.container))


def depth_range(drive: Drive, path: Cameras) -> tuple[float, float]:
    """Nearest and farthest camera z of a depth picture, metres, the same for the whole video."""
    centres = drive.world_from_head.translation[:, :, None].to(path.cam_from_world)
    view = path.cam_from_world
    z = (view[:, 2:3, :3] @ centres)[:, 0, 0] + view[:, 2, 3]
    reach = DEPTH_REACH * float(drive.world_from_head.scale.max())
    near = max(0.0, float(z.min()) - reach)
    return near, max(float(z.max()) + reach, near + reach)


def description(
    config: RenderConfig,
    sequence: str,
    frames: list[int],
    fps: float,
    path: Cameras,
    outputs: list[Output],
) -> dict[str, Any]:
    """What the json beside the results says."""
    return {
        "outputs": {
            output.name: {"holds": output.holds, "format": output.format()} for output in outputs
        },
        "fps": round(fps, 4),
        "width": config.width,
        "height": config.height,
        "sequence": sequence,
        "frames": frames,
        "conventions": "K in pixels, pixel centres at +0.5; cam_from_world 4x4, metres, OpenCV "
        "axes (+x right, +y down, +z forward); one of each per frame",
        "K": path.K.tolist(),
        "cam_from_world": path.cam_from_world.tolist(),
        "settings": as_plain(config),
    }


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
