"""Progress with time left, and the lines that a stage prints about what it made."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def say(text: str) -> None:
    """One line for the person who runs the command (stdout, above any progress bar)."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def bar(label: str, total: int, initial: int = 0) -> "tqdm[Any]":
    """A bar with time left on stderr; a line every ten seconds where that is no terminal."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total,
        initial=initial,
        desc=label,
        mininterval=interval,
        maxinterval=interval,
        dynamic_ncols=True,
        file=sys.stderr,
        leave=sys.stderr.isatty(),
    )


def track_progress(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar that moves as they are taken."""
    if total is None:
        total = len(items)  # pyright: ignore[reportArgumentType]
    with bar(label, total) as shown:
        for item in items:
            yield item
            shown.update()
