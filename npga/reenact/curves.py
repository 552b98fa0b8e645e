"""Codes from files: a Live Link Face CSV, a CSV written by hand, or a safetensors file.

A CSV's header names controls in any order and case: the head model's expression names (the open
prior's are ARKit's 52), or z0, z1, ... for the code's numbers; what it does not name is 0. Times:
a column `Timecode` (hh:mm:ss:ff.sss, Live Link Face) or `time` (seconds); else rows follow at a
given rate. HeadYaw, HeadPitch and HeadRoll are radians about the head's own axes, right-handed:
yaw about y (the nose to the person's own left), pitch about x (the nose down), roll about z (the
head to the own right shoulder), applied as yaw * pitch * roll. So ARKit's face anchor turns, and so
Unreal's AppleARKit plugin hands it on for a face that is not mirrored; ours is the reading of it.

A Live Link recording is a person's, whose rest face is calibrated on it. A curve without timecodes
says what it means: 0 is neutral.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from npga.core.errors import ConfigError
from npga.core.progress import say
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.reenact.openings import Gaps, Openings
from npga.reenact.retarget import Face, neutral_code
from npga.reenact.source import Performance
from nphm_tracking import HeadModel

HEAD = ("headyaw", "headpitch", "headroll")
SILENT = {"timecode", "blendshapecount", "time", *HEAD} | {
    f"{side}eye{angle}" for side in ("left", "right") for angle in ("yaw", "pitch", "roll")
}
"""Columns that are no controls; gaze is in the eyeLook* controls already."""
TIMECODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)")
RATES = (24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 120.0)
ROW_RATE = 30.0
"""Rows per second where nothing says it."""
GAP_S = 0.25
"""Farther than this from any row of the file, a frame is not known."""


@dataclass(frozen=True)
class Curve:
    """What a file holds; rows as in the file, numpy."""

    z_exp: np.ndarray
    """[n e]"""
    head: np.ndarray
    """[n 3]: yaw, pitch, roll."""
    seconds: np.ndarray
    """[n], rising."""
    fps: float
    """The rate that the file speaks of."""
    recorded: bool
    """From a person (timecodes), not written."""


def read_codes(
    path: str | Path,
    model: HeadModel | None,
    size: int,
    *,
    fps: float | None = None,
    head_signs: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Performance:
    """A driver's codes of `size` numbers at a constant rate (`fps`, or the file's own).

    `model` gives the controls' names; without it only z0, z1, ... are known. `head_signs` multiply
    yaw, pitch and roll. Raises ConfigError for what cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.", "Give codes=<a .csv or .safetensors file>.")
    if path.suffix == ".safetensors":
        curve = _read_tensor(path, size, fps)
    elif path.suffix.lower() == ".csv":
        curve = _read_csv(path, model, size, fps)
    else:
        raise ConfigError(
            f"codes={path} is neither .csv nor .safetensors.",
            "Give one of these; a tracked take is given as track=.",
        )
    return _evenly(path.stem, curve, model, curve.fps if fps is None else fps, head_signs)


def _read_tensor(path: Path, size: int, fps: float | None) -> Curve:
    try:
        with safe_open(path, framework="pt") as file:
            codes = file.get_tensor("z_exp") if "z_exp" in file.keys() else None
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).", "Write it again.") from None
    if codes is None or codes.ndim != 2 or codes.shape[1] != size or len(codes) == 0:
        found = "no z_exp" if codes is None else f"z_exp of shape {tuple(codes.shape)}"
        raise ConfigError(
            f"{path} holds {found}; a tensor z_exp [frames {size}] was expected.",
            "Save one; a track.safetensors is given as track=.",
        )
    codes = codes.double().numpy()
    if not np.isfinite(codes).all():
        raise ConfigError(f"{path} has NaN or infinity in z_exp.", "Give finite codes.")
    rate = fps or ROW_RATE
    return Curve(codes, np.zeros((len(codes), 3)), np.arange(len(codes)) / rate, rate, False)


def _read_csv(path: Path, model: HeadModel | None, size: int, fps: float | None) -> Curve:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).", "Save it as UTF-8 text.") from None
    rows = [row for row in csv.reader(lines)]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    columns = _columns(path, rows[0] if rows else [], model, size)
    kept = [
        (n, row)
        for n, row in enumerate(rows[1:], 2)
        if len(row) == len(header) and _count(row, header) != "0"
    ]
    short = sum(1 for row in rows[1:] if row) - len(kept)
    if short:
        say(f"{path}: {short} rows hold no face or lack cells and are left out.")
    if not kept:
        raise ConfigError(f"{path} has no row with codes.", "Give a header and one row or more.")
    codes = np.zeros((len(kept), size))
    for at, number in columns.items():
        codes[:, number] = _numbers(path, kept, at, rows[0][at])
    head = np.zeros((len(kept), 3))
    for axis, name in enumerate(HEAD):
        if name in header:
            head[:, axis] = _numbers(path, kept, header.index(name), name)
    rate = fps or ROW_RATE
    seconds = np.arange(len(kept)) / rate
    if "timecode" in header:
        seconds, rate = _timecodes(path, kept, header.index("timecode"))
    elif "time" in header:
        seconds = _numbers(path, kept, header.index("time"), "time")
    if (np.diff(seconds) < 0).any():
        line = kept[int(np.argmax(np.diff(seconds) < 0)) + 1][0]
        raise ConfigError(f"Time runs backwards in line {line} of {path}.", "Sort the rows.")
    first = np.concatenate([[True], np.diff(seconds) > 0])
    return Curve(codes[first], head[first], seconds[first], rate, "timecode" in header)


def _count(row: list[str], header: list[str]) -> str:
    return row[header.index("blendshapecount")].strip() if "blendshapecount" in header else ""


def _columns(path: Path, header: list[str], model: HeadModel | None, size: int) -> dict[int, int]:
    """Column -> number in the code; says what is missing and what is unknown."""
    names = () if model is None else model.expression_names
    known = {name.lower(): number for number, name in enumerate(names)}
    known |= {f"z{number}": number for number in range(size)}
    lowered = [cell.strip().lower() for cell in header]
    found = {at: known[name] for at, name in enumerate(lowered) if name in known}
    if not found:
        examples = ", ".join((names or ("z0", "z1"))[:3])
        raise ConfigError(
            f"No column of {path} names a control of the head model.",
            f"The first line must hold names like {examples}.",
        )
    twice = sorted({header[at] for at in found if lowered.count(lowered[at]) > 1})
    if twice or len(set(found.values())) < len(found):
        raise ConfigError(
            f"{path} gives a control twice ({', '.join(twice) or 'by name and by number'}).",
            "Keep one of the columns.",
        )
    unknown = [cell for cell, name in zip(header, lowered, strict=True)
               if name not in known and name not in SILENT]  # fmt: skip
    if unknown:
        say(f"{path}: no control is called {', '.join(unknown)}; left out.")
    if "timecode" in lowered:
        absent = [name for number, name in enumerate(names) if number not in found.values()]
        if absent:
            say(f"{path}: no column for {', '.join(absent)}; 0 throughout.")
    return found


def _numbers(path: Path, rows: list[tuple[int, list[str]]], at: int, name: str) -> np.ndarray:
    found = np.zeros(len(rows))
    for n, (line, row) in enumerate(rows):
        try:
            found[n] = float(row[at])
        except ValueError:
            found[n] = np.nan
        if not np.isfinite(found[n]):
            raise ConfigError(
                f"Line {line} of {path} has {row[at]!r} for {name}; a number was expected.",
                "Write numbers with a point, cells apart by commas.",
            )
    return found


def _timecodes(path: Path, rows: list[tuple[int, list[str]]], at: int) -> tuple[np.ndarray, float]:
    """Seconds since the first row, and the rate at which the timecode counts frames."""
    parts = []
    for line, row in rows:
        match = TIMECODE.fullmatch(row[at].strip())
        if match is None:
            raise ConfigError(
                f"Line {line} of {path} has the timecode {row[at]!r}; hh:mm:ss:ff or "
                "hh:mm:ss:ff.sss was expected.",
                "Export the recording again.",
            )
        parts.append([float(cell) for cell in match.groups()])
    table = np.array(parts)
    rate = next((r for r in RATES if r > np.floor(table[:, 3].max())), RATES[-1])
    seconds = table[:, :3] @ np.array([3600.0, 60.0, 1.0]) + table[:, 3] / rate
    midnight = np.concatenate([[0.0], np.cumsum(np.diff(seconds) < -43200.0) * 86400.0])
    seconds = seconds + midnight
    return seconds - seconds[0], rate


def _evenly(
    name: str,
    curve: Curve,
    model: HeadModel | None,
    fps: float,
    signs: tuple[float, float, float],
) -> Performance:
    """The curve at a constant rate from its first row on."""
    began = curve.seconds[0]
    count = int(np.floor((curve.seconds[-1] - began) * fps + 1e-6)) + 1
    times = began + np.arange(count) / fps
    after = np.searchsorted(curve.seconds, times).clip(0, len(curve.seconds) - 1)
    before = (after - 1).clip(0)
    apart = np.minimum(abs(curve.seconds[after] - times), abs(curve.seconds[before] - times))
    written = np.concatenate([curve.z_exp, np.unwrap(curve.head, axis=0) * np.array(signs)], 1)
    even = np.stack([np.interp(times, curve.seconds, column) for column in written.T], 1)
    values = torch.from_numpy(even).float()
    codes, angles = values[:, :-3], values[:, -3:]
    one = torch.ones(count)
    poses = Similarity(one, turn(angles), torch.zeros(count, 3))
    ok = torch.from_numpy(apart <= GAP_S + 1e-6) if curve.recorded else torch.ones(count).bool()
    return Performance(
        name,
        torch.arange(count),
        codes,
        poses,
        poses[ok].mean() if curve.recorded else Similarity.identity(),
        ok,
        _face(codes[ok], curve.recorded, model),
        fps,
        placed=False,
    )


def turn(angles: Tensor) -> Tensor:
    """[t 3] yaw, pitch, roll -> [t 3 3]: yaw about y after pitch about x after roll about z."""
    made = []
    for column, axis in ((0, 1), (1, 0), (2, 2)):
        vector = torch.zeros_like(angles)
        vector[:, axis] = angles[:, column]
        made.append(matrix_from_rotvec(vector))
    return made[0] @ made[1] @ made[2]


def _face(codes: Tensor, recorded: bool, model: HeadModel | None) -> Face:
    """The mean head's, whose lids are shut where their strongest control is at its bound."""
    neutral = neutral_code(codes) if recorded else torch.zeros(codes.shape[1])
    gaps = None if model is None else Gaps.of(model)
    if model is None or gaps is None:
        return Face(neutral)
    closed = gaps.by_strongest(model.exp_upper)
    calibrated = Openings.calibrated(gaps, neutral, codes if recorded else None, closed)
    return Face(neutral, calibrated)
