"""A few threads over a list of clips, which stop soon when one fails or the user interrupts."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class StoppedError(Exception):
    """Raised inside a thread whose work is no longer wanted; never leaves this module."""


class Stop:
    """Lets long work end early: ``check`` raises once another item has failed."""

    def __init__(self) -> None:
        self._event = Event()

    def set(self) -> None:
        """From now on ``check`` raises."""
        self._event.set()

    def check(self) -> None:
        """Raises StoppedError if the work is no longer wanted."""
        if self._event.is_set():
            raise StoppedError


def in_threads(
    work: Callable[[Item, Stop], Result], items: Sequence[Item], workers: int
) -> list[Result]:
    """``work`` of all items in their order; the first failure stops the rest and is raised."""
    stop = Stop()
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(work, item, stop) for item in items]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            stop.set()
            for job in jobs:
                job.cancel()
            raise
