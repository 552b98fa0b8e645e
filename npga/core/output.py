"""Results appear whole or not at all.

A command works in ``<out>.partial`` and the folder is renamed to ``<out>`` when it is complete. A
resumable command keeps its partial folder when it is interrupted; ``fingerprint.json`` in it says
which settings it belongs to.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from npga.core.errors import OutputError
from npga.core.progress import say

FINGERPRINT = "fingerprint.json"
LEAST_FREE_BYTES = 100_000_000
"""No command starts with less room than this for its output."""


@contextmanager
def output_dir(
    out: str | Path, *, overwrite: bool, fingerprint: dict[str, Any], resumable: bool = False
) -> Iterator[Path]:
    """A folder to work in that becomes ``out`` on success; ours.

    ``fingerprint`` holds the settings that decide the result (JSON-able). Raises OutputError where
    ``out`` exists and ``overwrite`` is false, or where an interrupted run with other settings is in
    the way. With ``overwrite`` the old result stays until the new one is complete.
    """
    out = Path(out)
    partial = out.with_name(out.name + ".partial")
    if out.exists() and not overwrite:
        raise OutputError(
            f"{out} exists already, and results are never silently replaced.",
            "Give another out=..., or overwrite=true to replace it.",
        )
    require_space(out.parent, LEAST_FREE_BYTES, str(out))
    wanted = json.loads(json.dumps(fingerprint, sort_keys=True, default=str))
    _prepare(partial, wanted, overwrite=overwrite, resumable=resumable)
    try:
        yield partial
    except BaseException:
        if resumable and partial.exists():
            say(f"Interrupted: what is done is kept in {partial}; run the same command to resume.")
        else:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    (partial / FINGERPRINT).unlink(missing_ok=True)
    if out.exists():
        retired = out.with_name(out.name + ".old")
        shutil.rmtree(retired, ignore_errors=True)
        os.replace(out, retired)
        os.replace(partial, out)
        shutil.rmtree(retired, ignore_errors=True)
    else:
        os.replace(partial, out)


@contextmanager
def output_group(paths: Sequence[Path], *, overwrite: bool) -> Iterator[Path]:
    """A folder to make several files and folders in, which appear beside each other on success.

    Yields the folder; what is made there under the names of ``paths`` (all of one parent) moves to
    them when the block ends well, else all of it is removed. Raises OutputError where one of them
    exists and ``overwrite`` is false; with ``overwrite`` the old ones stay until all are complete.
    """
    parent = paths[0].parent
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputError(
                f"{path} exists already, and results are never silently replaced.",
                "Give another out=..., or overwrite=true to replace it.",
            )
    require_space(parent, LEAST_FREE_BYTES, str(paths[0]))
    stage = parent / f".{paths[0].name}.partial"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        (stage / ".old").mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f"The folder {parent} cannot be written ({error.strerror}).",
            "Give an out=... in a folder that can be written.",
        ) from None
    try:
        yield stage
        _publish(stage, paths)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _publish(stage: Path, paths: Sequence[Path]) -> None:
    """Move what is complete to its place; if that fails, all is as it was before."""
    begun: list[Path] = []
    try:
        for path in paths:
            if path.exists():
                os.replace(path, stage / ".old" / path.name)
            begun.append(path)
            os.replace(stage / path.name, path)
    except BaseException:
        for path in begun:
            if path.exists():
                os.replace(path, stage / path.name)
            if (stage / ".old" / path.name).exists():
                os.replace(stage / ".old" / path.name, path)
        raise


def _prepare(
    partial: Path, fingerprint: dict[str, Any], *, overwrite: bool, resumable: bool
) -> None:
    """Make the partial folder, or take up the one that an interrupted run left."""
    stamp = partial / FINGERPRINT
    if partial.exists():
        same = stamp.exists() and json.loads(stamp.read_text()) == fingerprint
        if resumable and same:
            say(f"Resuming from {partial}.")
            return
        if resumable and not overwrite:
            raise OutputError(
                f"{partial} is an interrupted run with other settings.",
                "Run it again with its own settings to resume, or overwrite=true to start afresh.",
            )
        shutil.rmtree(partial)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f"The folder {partial} cannot be made ({error.strerror}).",
            "Give an out=... in a folder that can be written.",
        ) from None
    stamp.write_text(json.dumps(fingerprint, sort_keys=True))


def require_space(folder: str | Path, needed_bytes: int, what: str) -> None:
    """Raise OutputError unless ``folder``'s disk has room for ``needed_bytes``."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise OutputError(
            f"{what} needs {needed_bytes / 1e9:.2f} GB, but the disk of {folder} has "
            f"{free / 1e9:.2f} GB free.",
            "Free some space, or name a folder on another disk.",
        )
