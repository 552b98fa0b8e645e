"""The decode-once cache: one file of encoded frames per clip, picture size and frame stride.

    magic | frame 0 | frame s | frame 2s ... | footer (JSON: offsets) | footer size | magic

Pictures are JPEG (quality 95, 4:4:4), mattes deflated bytes (lossless): at 275x401 about 40 kB and
5 kB a frame against 331 kB and 110 kB raw, and a millisecond to read. A file appears under its name
only when it is complete, so an interrupted run loses at most the cameras that were being decoded.
"""

import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from npga.capture.clips import list_stills
from npga.core.errors import CaptureError

MAGIC = b"npgaframes1\n"
VERSION = 1
JPEG_QUALITY = 95
Encode = Callable[[NDArray[np.uint8]], bytes]


@dataclass(frozen=True)
class Entry:
    """One file of the cache."""

    path: Path
    stride: int
    """It holds frames 0, stride, 2 stride, ..."""

    def exists(self) -> bool:
        """Whether it was completed."""
        return self.path.is_file()


def default_cache_dir(root: Path) -> Path:
    """``<root>/../derived/cache`` where that may be written, else the user's cache folder.

    A folder without write permission bits is left alone even by the superuser.
    """
    package = Path(__file__).resolve().parents[1]
    parent = root.parent
    writable = os.access(parent, os.W_OK) and bool(parent.stat().st_mode & 0o222)
    if writable and package not in root.parents:
        return parent / "derived" / "cache"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    mark = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    return Path(home) / "npga" / f"capture-{mark}"


def checked_cache_dir(cache_dir: Path | str | None, root: Path) -> Path:
    """The folder to use; raises CaptureError for one inside the capture."""
    if cache_dir is None:
        return default_cache_dir(root)
    chosen = Path(cache_dir).expanduser().resolve()
    if chosen == root or root in chosen.parents:
        raise CaptureError(
            f"The cache folder {chosen} lies inside the capture {root}, which must stay as it is.",
            "Give a cache folder elsewhere, or none for the one beside the capture.",
        )
    return chosen


def clip_stamp(path: Path) -> list[object]:
    """What changes when a clip does: path, size and time of its file or files."""
    files = list_stills(path) if path.is_dir() else [path]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return [str(path), *([list(s) for s in stats])]


def find_entry(folder: Path, label: str, recipe: Mapping[str, object], stride: int) -> Entry:
    """The complete entry that serves every ``stride``-th frame, else the one to be made.

    ``recipe`` is everything (JSON-able) that the bytes depend on but the stride.
    """
    text = json.dumps({"version": VERSION, **recipe}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    for step in sorted(d for d in range(1, stride + 1) if stride % d == 0):
        entry = Entry(folder / f"{label}-{key}-s{step}.frames", step)
        if entry.exists():
            return entry
    return Entry(folder / f"{label}-{key}-s{stride}.frames", stride)


def fill(
    frames: Iterable[NDArray[np.uint8]],
    targets: Sequence[tuple[Entry, Encode]],
    expected: int,
    source: Path,
    advance: Callable[[], object] = lambda: None,
) -> None:
    """Encode one pass over a clip into one or more entries, which appear when all is done.

    Raises CaptureError if fewer than ``expected`` frames come, or the disk is full.
    """
    partials = [e.path.with_name(f".{e.path.name}.{os.getpid()}.partial") for e, _ in targets]
    try:
        for partial, (entry, _) in zip(partials, targets, strict=True):
            partial.parent.mkdir(parents=True, exist_ok=True)
            _sweep(entry.path)
        with ExitStack() as stack:
            files = [stack.enter_context(partial.open("wb")) for partial in partials]
            offsets = [_start(file) for file in files]
            count = 0
            for frame in frames:
                for file, places, (_, encode) in zip(files, offsets, targets, strict=True):
                    file.write(encode(frame))
                    places.append(file.tell())
                count += 1
                advance()
            if count < expected:
                raise CaptureError(
                    f"{source} breaks off: {count} of {expected} wanted frames can be decoded.",
                    "Copy or download it again; a truncated file cannot be repaired.",
                )
            for file, places in zip(files, offsets, strict=True):
                footer = json.dumps({"offsets": places}).encode()
                file.write(footer + struct.pack("<Q", len(footer)) + MAGIC)
        for partial, (entry, _) in zip(partials, targets, strict=True):
            os.replace(partial, entry.path)
    except OSError as error:
        raise CaptureError(
            f"The cache {targets[0][0].path.parent} cannot be written ({error.strerror}).",
            "Make room or choose another folder for the cache, with a smaller picture size.",
        ) from None
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def read_entry(entry: Entry, frames: Sequence[int]) -> Iterator[bytes]:
    """The encoded bytes of some frames; raises CaptureError if the file was damaged."""
    try:
        with entry.path.open("rb") as file:
            offsets = _read_footer(file)
            for frame in frames:
                place = frame // entry.stride
                file.seek(offsets[place])
                yield file.read(offsets[place + 1] - offsets[place])
    except (OSError, ValueError, IndexError, KeyError, struct.error) as error:
        raise CaptureError(
            f"The cache file {entry.path} is damaged ({type(error).__name__}).",
            "Delete it; it will be made again from the video.",
        ) from None


def encode_picture(image: NDArray[np.uint8]) -> bytes:
    """JPEG, near lossless."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_picture(data: bytes, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB [h w 3] of ``encode_picture``."""
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    if image.shape[:2] != shape:
        raise CaptureError(
            f"A cached picture is {image.shape[:2]}, not {shape}.", "Delete the cache folder."
        )
    return image


def encode_matte(matte: NDArray[np.uint8]) -> bytes:
    """Deflated bytes, lossless."""
    return zlib.compress(matte.tobytes(), 1)


def decode_matte(data: bytes, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """[h w] of ``encode_matte``."""
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape)


def _sweep(path: Path) -> None:
    """Remove what killed runs left half-made of this entry."""
    for stale in path.parent.glob(f".{path.name}.*.partial"):
        owner = stale.name.split(".")[-2]
        if owner.isdigit() and not _runs(int(owner)):
            stale.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start(file: io.BufferedWriter) -> list[int]:
    file.write(MAGIC)
    return [file.tell()]


def _read_footer(file: io.BufferedReader) -> list[int]:
    tail = len(MAGIC) + 8
    file.seek(-tail, os.SEEK_END)
    size, magic = struct.unpack("<Q", file.read(8))[0], file.read(len(MAGIC))
    if magic != MAGIC:
        raise ValueError("no footer")
    file.seek(-(tail + size), os.SEEK_END)
    return json.loads(file.read(size))["offsets"]
