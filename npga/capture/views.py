"""``Capture.views``: pictures and mattes of some frames by some cameras, out of the cache.

What the cache lacks is decoded first, one sequential pass per clip, two clips at a time. The cache
keeps every s-th frame, where s is the common stride of the frames that were asked for (0, 3, 6
-> 3), and serves any later request whose stride is a multiple of s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from npga.capture.cache import (
    Encode,
    Entry,
    checked_cache_dir,
    clip_stamp,
    decode_matte,
    decode_picture,
    encode_matte,
    encode_picture,
    fill,
    find_entry,
    read_entry,
)
from npga.capture.clips import list_stills, read_clip
from npga.capture.color import ColorCorrection
from npga.capture.mattes import matte_from_background, snap_matte
from npga.capture.parallel import Stop, in_threads
from npga.capture.rig import cameras_at
from npga.capture.types import CaptureFiles, MatteSource, SequenceFiles, SequenceInfo, Views
from npga.core.errors import CaptureError
from npga.core.images import read_image, resize_area
from npga.core.progress import bar

DECODERS = 2
"""Clips decoded at once; each decoder is single-threaded."""


@dataclass(frozen=True)
class Pass:
    """One sequential decoding of a clip, and the entries that come of it."""

    clip: Path
    targets: tuple[tuple[Entry, Encode], ...]


@dataclass(frozen=True)
class CameraEntries:
    """Where one camera's frames are, or will be, in the cache."""

    picture: Entry
    matte: Entry | None
    """None: every matte is one."""
    passes: tuple[Pass, ...]
    """What must be decoded first."""


def load_views(
    capture: CaptureFiles,
    files: SequenceFiles,
    info: SequenceInfo,
    frames: Sequence[int] | None,
    serials: Sequence[str] | None,
    width: int | None,
    height: int | None,
    cache_dir: Path | str | None,
) -> Views:
    """See ``Capture.views``."""
    wanted = _checked_frames(frames, info, capture)
    chosen = _checked_serials(serials, info, capture)
    if width is None and height is None:
        width, height = info.width, info.height
    cameras = cameras_at(capture, chosen, width, height)
    size = (cameras.width, cameras.height)
    folder = checked_cache_dir(cache_dir, capture.root) / capture.root.name
    folder = folder / capture.participant / info.name
    stride = common_stride(wanted)
    source = capture.matte_source_of(files)
    plan = [_plan(capture, files, s, size, folder, stride, source) for s in chosen]
    _decode([p for camera in plan for p in camera.passes], size, info)
    images = torch.zeros(len(wanted), len(chosen), size[1], size[0], 3, dtype=torch.uint8)
    mattes = torch.full(images.shape[:-1], 255, dtype=torch.uint8)

    def read(place: int, stop: Stop) -> None:
        entries, shape = plan[place], (size[1], size[0])
        for t, data in enumerate(read_entry(entries.picture, wanted)):
            stop.check()
            images[t, place] = torch.from_numpy(decode_picture(data, shape).copy())
        if entries.matte is not None:
            for t, data in enumerate(read_entry(entries.matte, wanted)):
                mattes[t, place] = torch.from_numpy(decode_matte(data, shape).copy())

    in_threads(read, range(len(chosen)), DECODERS)
    return Views(
        images, mattes, cameras, wanted, info.name, info.fps, source, capture.background_removed
    )


def common_stride(frames: Sequence[int]) -> int:
    """The largest s with every frame a multiple of s; 1 for a single frame."""
    return max(1, math.gcd(*frames)) if len(frames) > 1 else 1


def _checked_frames(
    frames: Sequence[int] | None, info: SequenceInfo, capture: CaptureFiles
) -> tuple[int, ...]:
    wanted = tuple(int(f) for f in (range(info.frame_count) if frames is None else frames))
    outside = [f for f in wanted if not 0 <= f < info.frame_count]
    if outside or not wanted:
        raise CaptureError(
            f"{f'Frame {outside[0]}' if outside else 'No frame'} of sequence {info.name} in "
            f"{capture.root} was asked for; it has frames 0 to {info.frame_count - 1}.",
            "Ask for frames in that range.",
        )
    return wanted


def _checked_serials(
    serials: Sequence[str] | None, info: SequenceInfo, capture: CaptureFiles
) -> tuple[str, ...]:
    chosen = tuple(info.serials if serials is None else serials)
    unknown = [serial for serial in chosen if serial not in info.serials]
    if unknown or not chosen:
        raise CaptureError(
            f"{f'Camera {unknown[0]!r}' if unknown else 'No camera'} was asked for in sequence "
            f"{info.name} of participant {capture.participant} in {capture.root}.",
            f"It has videos of {', '.join(info.serials)}.",
        )
    return chosen


def _plan(
    capture: CaptureFiles,
    files: SequenceFiles,
    serial: str,
    size: tuple[int, int],
    folder: Path,
    stride: int,
    source: MatteSource,
) -> CameraEntries:
    """The entries of one camera and the passes that make those which are missing."""
    clip, matrix = files.images[serial], capture.color_matrices.get(serial)
    label = f"{serial}-{size[0]}x{size[1]}"
    recipe = {"clip": clip_stamp(clip), "size": size}
    color = None if matrix is None else matrix.tolist()
    picture = find_entry(folder, f"{label}-picture", {**recipe, "color": color}, stride)
    correct = ColorCorrection(matrix)
    pending: list[tuple[Entry, Encode]] = []
    if not picture.exists():
        pending.append((picture, lambda frame: encode_picture(correct(frame))))
    if source is MatteSource.none:
        return CameraEntries(picture, None, _passes(clip, pending))
    if source is MatteSource.background:
        still = _background(capture, serial)
        recipe["background"] = clip_stamp(still)
        matte = find_entry(folder, f"{label}-matte", recipe, stride)
        if not matte.exists():
            empty = resize_area(read_image(still), *size)
            pending.append((matte, lambda f: encode_matte(matte_from_background(f, empty))))
        return CameraEntries(picture, matte, _passes(clip, pending))
    if serial not in files.mattes:
        raise CaptureError(
            f"Camera {serial} of sequence {files.name} in {capture.root} has no matte, though "
            f"{len(files.mattes)} cameras have.",
            "Add its matte, leave the camera out (serials), or remove all mattes.",
        )
    recipe = {"clip": clip_stamp(files.mattes[serial]), "size": size}
    matte = find_entry(folder, f"{label}-matte", recipe, stride)
    alpha: list[tuple[Entry, Encode]] = []
    if not matte.exists():
        alpha.append((matte, lambda frame: encode_matte(snap_matte(frame[..., 0]))))
    passes = _passes(clip, pending) + _passes(files.mattes[serial], alpha)
    return CameraEntries(picture, matte, passes)


def _passes(clip: Path, targets: list[tuple[Entry, Encode]]) -> tuple[Pass, ...]:
    """One pass per stride: an old picture entry may be finer than the matte that joins it."""
    strides = sorted({entry.stride for entry, _ in targets})
    return tuple(Pass(clip, tuple(t for t in targets if t[0].stride == s)) for s in strides)


def _background(capture: CaptureFiles, serial: str) -> Path:
    still = capture.backgrounds.get(serial)
    if still is not None and still.is_dir():
        still = next(iter(list_stills(still)), None)
    if still is None:
        raise CaptureError(
            f"Camera {serial} in {capture.root} has neither a matte nor a still of the empty "
            "stage, though others have.",
            "Add its BACKGROUND still, or leave the camera out (serials).",
        )
    return still


def _decode(passes: list[Pass], size: tuple[int, int], info: SequenceInfo) -> None:
    """Run all passes, two at a time, under one progress bar counted in frames."""
    if not passes:
        return
    counts = [-(-info.frame_count // p.targets[0][0].stride) for p in passes]
    with bar(f"decode {info.name}", sum(counts)) as shown:

        def run(place: int, stop: Stop) -> None:
            def advance() -> None:
                stop.check()
                shown.update()

            stride = passes[place].targets[0][0].stride
            clip, expected = passes[place].clip, counts[place]
            frames = read_clip(clip, *size, stop=info.frame_count, stride=stride)
            fill(frames, passes[place].targets, expected, clip, advance)

        in_threads(run, range(len(passes)), DECODERS)
