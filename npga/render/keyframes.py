"""Camera paths from a file of key frames.

    {"space": "head",
     "keys": [{"time": 0, "eye": [0, 0, 4.4], "target": [0, -0.12, 0]},
              {"time": 2, "eye": [3, 0, 3], "target": [0, -0.12, 0], "fov": 20}]}

`space` is `head` (the default: head units of 250 mm about the head's mean pose in the take, face to
+z, +x the subject's left, +y up) or `world` (metres). Every key has a `time` in seconds or a
`frame` of the video, an `eye` and a `target`; it may have an `up` (default +y of that space), and a
`fov` (degrees over the picture's height) or a `focal` (pixels of the drawn picture). Without either
it takes the lens of `camera=orbit`.

What is interpolated are the target, the direction and distance from it to the eye, up and the
focal length, so that the target stays in the middle and a path around a head keeps its distance.
Each is a cubic Hermite spline through all keys with the slopes of a Catmull-Rom spline over time
(weighted by the spacing of the keys), zero at both ends and wherever a key repeats its neighbour,
which then is held exactly. The camera stands still before the first key and after the last.

Letters: k keys, t frames of the video, d numbers of a key.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicHermiteSpline

from npga.core.cameras import Cameras, look_at
from npga.core.errors import ConfigError
from npga.core.similarity import Similarity
from npga.render.trajectory import framed_intrinsics

SPACES = ("head", "world")
_FILE_FIELDS = {"space", "keys"}
_KEY_FIELDS = {"time", "frame", "eye", "target", "up", "fov", "focal"}
_TURN_MIN = 0.2
"""Least length of an interpolated direction: neighbours are less than 157 degrees apart."""
_UPRIGHT_MIN = 0.02
"""Least sine of the angle between the viewing direction and up."""


@dataclass(frozen=True)
class KeyFrames:
    """The keys of one file."""

    space: str
    """head (head units) or world (metres)."""
    times: Float[np.ndarray, "k"]
    """Seconds, increasing."""
    eyes: Float[np.ndarray, "k 3"]
    targets: Float[np.ndarray, "k 3"]
    ups: Float[np.ndarray, "k 3"]
    """Unit."""
    focals: Float[np.ndarray, "k"]
    """Pixels."""

    def __len__(self) -> int:
        return len(self.times)


def read_keyframes(path: str | Path, fps: float, width: int, height: int) -> KeyFrames:
    """The keys of a file for a video of this rate and size; raises ConfigError for a bad file."""
    path = Path(path)
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The key frames {path} cannot be read ({type(error).__name__}).",
            "Give camera=<file>.json, a file of key frames.",
        ) from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"The key frames {path} are no JSON: {error.msg} in line {error.lineno}.",
            "Correct that line.",
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("keys"), list):
        raise _malformed(path, 'it is no object with a list "keys"')
    _known(path, content, _FILE_FIELDS, "the file")
    space = content.get("space", "head")
    if space not in SPACES:
        raise _malformed(path, f'"space" is {space!r}, not head or world')
    if not content["keys"]:
        raise _malformed(path, '"keys" is empty')
    standard = float(framed_intrinsics(width, height)[0, 0])
    rows = [
        _read_key(path, number, key, fps, height, standard)
        for number, key in enumerate(content["keys"], 1)
    ]
    times, eyes, targets, ups, focals = (np.array(column) for column in zip(*rows, strict=True))
    late = np.flatnonzero(np.diff(times) <= 0)
    if len(late):
        raise _malformed(path, f"key {late[0] + 2} is not later than key {late[0] + 1}")
    return KeyFrames(space, times, eyes, targets, ups, focals)


def keyframed_path(
    keys: KeyFrames, count: int, fps: float, head: Similarity, width: int, height: int
) -> Cameras:
    """One camera for each of `count` frames, frame n at n / fps seconds.

    `head` is one world_from_head, used where the keys are in head space. Raises ConfigError where
    neighbouring keys look from opposite sides, or where the path looks along its up direction.
    """
    at = np.arange(count) / fps
    away = keys.eyes - keys.targets
    distances = np.linalg.norm(away, axis=1, keepdims=True)
    targets = smooth(keys.times, keys.targets, at)
    directions = _unit(smooth(keys.times, away / distances, at), at, "looks from opposite sides")
    ups = _unit(smooth(keys.times, keys.ups, at), at, "has opposite up directions")
    eyes = targets + directions * np.exp(smooth(keys.times, np.log(distances), at))
    upright = np.linalg.norm(np.cross(directions, ups), axis=1)
    if upright.min() < _UPRIGHT_MIN:
        raise ConfigError(
            f"The key-framed camera looks along its up direction at {at[upright.argmin()]:.2f} s.",
            'Give the keys around that time another "up", or move the path aside.',
        )
    world = Similarity.identity() if keys.space == "world" else head.to("cpu").to(torch.float64)
    world = world.to(torch.float64)
    turned = torch.from_numpy(ups) @ world.rotation.T
    poses = torch.stack([
        look_at(eye, target, up)
        for eye, target, up in zip(
            world.apply(torch.from_numpy(eyes)), world.apply(torch.from_numpy(targets)), turned,
            strict=True,
        )
    ])  # fmt: skip
    focal = torch.from_numpy(np.exp(smooth(keys.times, np.log(keys.focals)[:, None], at)[:, 0]))
    intrinsics = torch.zeros(count, 3, 3)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal.float()
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1.0
    ids = tuple(f"keys {n}" for n in range(count))
    return Cameras(intrinsics, poses.float(), width, height, ids)


def smooth(
    times: Float[np.ndarray, "k"], values: Float[np.ndarray, "k d"], at: Float[np.ndarray, "t"]
) -> Float[np.ndarray, "t d"]:
    """The spline of the module docstring through `values`, continuous in value and slope."""
    if len(times) == 1:
        return np.repeat(values, len(at), axis=0)
    gaps = np.diff(times)[:, None]
    speeds = np.diff(values, axis=0) / gaps
    slopes = np.zeros_like(values)
    slopes[1:-1] = (gaps[1:] * speeds[:-1] + gaps[:-1] * speeds[1:]) / (gaps[1:] + gaps[:-1])
    held = np.abs(np.diff(values, axis=0)).max(axis=1) < 1e-12
    slopes[:-1][held] = 0
    slopes[1:][held] = 0
    return CubicHermiteSpline(times, values, slopes)(np.clip(at, times[0], times[-1]))


def _unit(
    vectors: Float[np.ndarray, "t 3"], at: Float[np.ndarray, "t"], trouble: str
) -> Float[np.ndarray, "t 3"]:
    """The vectors at length 1; raises ConfigError where neighbouring keys cancel."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if lengths.min() < _TURN_MIN:
        raise ConfigError(
            f"The key-framed camera {trouble} just before and after {at[lengths.argmin()]:.2f} s.",
            "Put a key between them, so that the way around is clear.",
        )
    return vectors / lengths


def _read_key(
    path: Path, number: int, key: object, fps: float, height: int, standard: float
) -> tuple[float, list[float], list[float], list[float], float]:
    """Time, eye, target, up and focal length of one key."""
    where = f"key {number}"
    if not isinstance(key, dict):
        raise _malformed(path, f"{where} is no object")
    _known(path, key, _KEY_FIELDS, where)
    if ("time" in key) == ("frame" in key):
        raise _malformed(path, f'{where} needs either "time" (seconds) or "frame"')
    time = _number(path, where, key, "time") if "time" in key else None
    time = _number(path, where, key, "frame") / fps if time is None else time
    eye, target = (_vector(path, where, key, name) for name in ("eye", "target"))
    up = _vector(path, where, key, "up") if "up" in key else [0.0, 1.0, 0.0]
    view = np.subtract(target, eye)
    across = np.linalg.norm(np.cross(view, up))
    if across < _UPRIGHT_MIN * np.linalg.norm(view) * np.linalg.norm(up) or across == 0:
        raise _malformed(path, f'{where} looks nowhere, or along its "up"')
    if "fov" in key and "focal" in key:
        raise _malformed(path, f'{where} has both "fov" and "focal"')
    focal = standard
    if "fov" in key:
        fov = _number(path, where, key, "fov")
        if not 0 < fov < 180:
            raise _malformed(path, f'{where} has "fov" {fov:g}, not between 0 and 180 degrees')
        focal = height / 2 / math.tan(math.radians(fov) / 2)
    elif "focal" in key:
        focal = _number(path, where, key, "focal")
        if focal <= 0:
            raise _malformed(path, f'{where} has "focal" {focal:g}, which must be above 0')
    return time, eye, target, (np.array(up) / np.linalg.norm(up)).tolist(), focal


def _number(path: Path, where: str, key: Mapping[str, Any], name: str) -> float:
    value = key[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _malformed(path, f'{where} has "{name}" {value!r}, which is no number')
    return float(value)


def _vector(path: Path, where: str, key: Mapping[str, Any], name: str) -> list[float]:
    value = key.get(name)
    if not isinstance(value, list) or len(value) != 3:
        raise _malformed(path, f'{where} needs "{name}": [x, y, z]')
    return [_number(path, f"{where}, {name},", dict(zip("xyz", value, strict=True)), c)
            for c in "xyz"]  # fmt: skip


def _known(path: Path, found: Mapping[str, Any], fields: set[str], where: str) -> None:
    unknown = sorted(set(found) - fields)
    if unknown:
        raise _malformed(path, f'{where} has an unknown field "{unknown[0]}"')


def _malformed(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"The key frames {path} cannot be used: {what}.",
        'Each key needs "time" or "frame", "eye" and "target"; "up", "fov" or "focal" may follow.',
    )
