"""What `camera=` means, for every command that draws an avatar along a path of cameras."""

from pathlib import Path

from npga.capture import open_capture
from npga.core.cameras import Cameras
from npga.core.errors import ConfigError
from npga.core.similarity import Similarity
from npga.render.keyframes import keyframed_path, read_keyframes
from npga.render.trajectory import front_camera, hold, orbit, rig_path

CAMERA_HELP = (
    "orbit, front, <file>.json of key frames (npga/render/keyframes.py describes it), and with "
    "capture=: path (through the rig) or a camera's serial"
)


def camera_path(
    camera: str,
    count: int,
    fps: float,
    head: Similarity,
    width: int,
    height: int,
    *,
    capture: str | None,
    participant: str | None,
    swing_deg: float = 40.0,
) -> Cameras:
    """One camera of width x height pixels for each of `count` frames at `fps` per second.

    `camera` is `orbit` (sways +-`swing_deg` in front of the head), `front` (stands still there),
    the name of a .json of key frames, `path` (through the capture's rig and back), or the serial of
    one of its cameras. `head` is one world_from_head, the pose that orbit, front and key frames in
    head space are about. World space, metres. Raises ConfigError for another word, a malformed
    file, or where `capture` is needed and absent; CaptureError for an unknown serial.
    """
    if camera == "orbit":
        return orbit(head, count, width, height, swing_deg=swing_deg)
    if camera == "front":
        return hold(front_camera(head, width, height), count)
    if Path(camera).suffix == ".json":
        keys = read_keyframes(camera, fps, width, height)
        return keyframed_path(keys, count, fps, head, width, height)
    if capture is None:
        raise ConfigError(
            f"camera={camera} needs a calibration, but no capture was given.",
            "Give capture=<folder>, or camera=orbit, front or a .json of key frames.",
        )
    opened = open_capture(capture, participant)
    if camera == "path":
        return rig_path(opened.cameras(None, width, height), count)
    return hold(opened.cameras([camera], width, height), count)
