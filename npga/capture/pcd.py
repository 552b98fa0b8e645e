"""Point clouds as PCD files, the way Open3D and the NeRSemble benchmark write them.

Binary little-endian records ``x y z normal_x normal_y normal_z rgb``; rgb is 0x00RRGGBB in 4 bytes.
"""

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from npga.capture.types import PointCloud, SequenceFiles
from npga.core.errors import CaptureError

KINDS = {"F": "f", "U": "u", "I": "i"}
POSITION, NORMAL = ("x", "y", "z"), ("normal_x", "normal_y", "normal_z")
RECORD = np.dtype([(name, "<f4") for name in (*POSITION, *NORMAL)] + [("rgb", "<u4")])
HEADER_LIMIT = 4096
AGAIN = "Copy or download it again, or delete the clouds of this sequence."


def cloud_path(folder: Path, frame: int) -> Path:
    """The file of one frame's cloud."""
    return folder / f"frame_{frame:05d}.pcd"


def read_cloud_of(files: SequenceFiles, frame: int) -> PointCloud:
    """A sequence's cloud of one frame; raises CaptureError if there is none."""
    if files.clouds is None:
        raise CaptureError(
            f"Sequence {files.name} brings no point clouds.",
            "Let the tracker make them (pycolmap), or add pointclouds/frame_00000.pcd and so on.",
        )
    path = cloud_path(files.clouds, frame)
    if not path.is_file():
        frames = sorted(files.clouds.glob("frame_*.pcd"))
        raise CaptureError(
            f"There is no cloud of frame {frame} in {files.clouds} ({len(frames)} clouds there).",
            "Ask for another frame, or download the clouds of all frames.",
        )
    return read_pcd(path)


def read_pcd(path: Path | str) -> PointCloud:
    """A cloud from a binary PCD file, without its non-finite points.

    Normals are 0 and colours 0.5 where the file has none. Raises CaptureError if truncated, longer
    than its header says, not binary, or without x y z.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CaptureError(f"The cloud {path} cannot be read ({error.strerror}).", AGAIN) from None
    record, count, start = _parse_header(data, path)
    body = data[start:]
    if len(body) != count * record.itemsize:
        raise CaptureError(
            f"The cloud {path} holds {len(body)} bytes of points; its header promises "
            f"{count} x {record.itemsize} = {count * record.itemsize}.",
            AGAIN,
        )
    rows = np.frombuffer(body, record, count)
    points = _columns(rows, POSITION)
    normals = np.zeros_like(points)
    if set(NORMAL) <= set(record.fields or {}):
        normals = _columns(rows, NORMAL)
    colors = np.full_like(points, 0.5)
    if "rgb" in (record.fields or {}):
        packed = np.ascontiguousarray(rows["rgb"]).view("<u4")
        levels = np.stack([(packed >> shift) & 255 for shift in (16, 8, 0)], 1)
        colors = levels.astype(np.float32) / np.float32(255)
    keep = np.isfinite(points).all(1)
    normals = np.nan_to_num(normals)
    return PointCloud(*(torch.from_numpy(a[keep].copy()) for a in (points, normals, colors)))


def write_pcd(path: Path | str, cloud: PointCloud) -> None:
    """Write a cloud as the benchmark has it, under a temporary name that is then renamed."""
    path = Path(path)
    count = len(cloud)
    rows = np.zeros(count, RECORD)
    for names, values in ((POSITION, cloud.points), (NORMAL, cloud.normals)):
        for axis, name in enumerate(names):
            rows[name] = values[:, axis].detach().cpu().numpy()
    levels = (cloud.colors.detach().cpu().clamp(0, 1) * 255).round().numpy().astype(np.uint32)
    rows["rgb"] = (levels[:, 0] << 16) | (levels[:, 1] << 8) | levels[:, 2]
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n"
        f"FIELDS {' '.join(RECORD.names or ())}\nSIZE 4 4 4 4 4 4 4\nTYPE F F F F F F U\n"
        f"COUNT 1 1 1 1 1 1 1\nWIDTH {count}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {count}\nDATA binary\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(header.encode("ascii") + rows.tobytes())
    os.replace(partial, path)


def _columns(rows: np.ndarray, names: tuple[str, ...]) -> NDArray[np.float32]:
    return np.stack([rows[name] for name in names], 1).astype(np.float32)


def _parse_header(data: bytes, path: Path) -> tuple[np.dtype, int, int]:
    """The record type, the number of points and where the points start."""
    entries: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in entries:
        end = data.find(b"\n", start, HEADER_LIMIT)
        if end < 0:
            raise CaptureError(f"{path} is no complete PCD file: its header has no DATA.", AGAIN)
        line = data[start:end].decode("ascii", "replace").strip()
        start = end + 1
        key, *values = line.split() or ["#"]
        entries[key.upper()] = values
    if entries["DATA"] != ["binary"]:
        raise CaptureError(
            f"The cloud {path} is stored as {' '.join(entries['DATA'])}; binary was expected.",
            "Convert it, for instance with Open3D: write_point_cloud(path, cloud).",
        )
    try:
        names, count = entries["FIELDS"], int(entries["POINTS"][0])
        repeat = entries.get("COUNT", ["1"] * len(names))
        kinds = [
            f"<{KINDS[kind]}{int(size)}" if times == "1" else f"({int(times)},)<u{int(size)}"
            for kind, size, times in zip(entries["TYPE"], entries["SIZE"], repeat, strict=True)
        ]
        record = np.dtype(list(zip(names, kinds, strict=True)))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise CaptureError(f"{path} has no proper PCD header: {error}.", AGAIN) from None
    if count < 0 or not set(POSITION) <= set(names):
        raise CaptureError(f"{path} has the fields {' '.join(names)}; x y z are needed.", AGAIN)
    return record, count, start
