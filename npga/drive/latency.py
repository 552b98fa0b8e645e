"""How old an avatar's picture is when it is shown, and where the time went.

All times are seconds of ``time.perf_counter``; reports are in milliseconds.
"""

from collections import deque
from dataclasses import dataclass, fields

import numpy as np

WINDOW_S = 2.0
"""What is told while it runs is of so many seconds."""


@dataclass(frozen=True)
class Parts:
    """One picture's seconds, from the camera to the output."""

    wait: float
    """For the tracker to take it, and for the drawing to begin."""
    detect: float
    """Finding the face."""
    solve: float
    """Code and pose, filters, retargeting."""
    draw: float
    """The avatar."""
    show: float
    """Text, the driver beside it, handing over to the outputs."""

    @property
    def total(self) -> float:
        """The latency."""
        return sum(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds."""

    p50: float | None
    p95: float | None

    @staticmethod
    def of(seconds: list[float]) -> "Percentiles":
        """None where nothing was measured."""
        if not seconds:
            return Percentiles(None, None)
        p50, p95 = np.percentile(1000 * np.array(seconds), (50, 95))
        return Percentiles(round(float(p50), 1), round(float(p95), 1))


@dataclass(frozen=True)
class Latency:
    """Of many pictures, in all and by parts."""

    total: Percentiles
    wait: Percentiles
    detect: Percentiles
    solve: Percentiles
    draw: Percentiles
    show: Percentiles

    @staticmethod
    def of(pictures: list[Parts]) -> "Latency":
        """Percentiles of each part on its own: they need not add up."""
        names = ("total", *(one.name for one in fields(Parts)))
        columns = {n: Percentiles.of([getattr(one, n) for one in pictures]) for n in names}
        return Latency(**columns)

    def __str__(self) -> str:
        parts = ", ".join(
            f"{one.name} {_told(getattr(self, one.name).p50)}" for one in fields(Parts)
        )
        return f"latency p50 {_told(self.total.p50)}, p95 {_told(self.total.p95)} ms ({parts})"


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


class Meter:
    """Gathers the latency of pictures as they are shown."""

    def __init__(self) -> None:
        self.pictures: list[Parts] = []
        """All of them."""
        self._recent: deque[tuple[float, Parts]] = deque()
        self._first = self._last = 0.0

    def add(self, shown: float, parts: Parts) -> None:
        """A picture that was handed to the outputs at this time."""
        self._first = self._first if self.pictures else shown
        self._last = shown
        self.pictures.append(parts)
        self._recent.append((shown, parts))
        while self._recent[0][0] < shown - WINDOW_S:
            self._recent.popleft()

    @property
    def seconds(self) -> float:
        """From the first picture to the last."""
        return self._last - self._first

    @property
    def fps(self) -> float:
        """Pictures per second, of all."""
        return (len(self.pictures) - 1) / self.seconds if self.seconds > 0 else 0.0

    @property
    def recent_fps(self) -> float:
        """Of the last `WINDOW_S` seconds."""
        if len(self._recent) < 2:
            return 0.0
        return (len(self._recent) - 1) / max(self._recent[-1][0] - self._recent[0][0], 1e-9)

    def recent(self) -> Latency:
        """Of the last `WINDOW_S` seconds."""
        return Latency.of([parts for _, parts in self._recent])

    def total(self) -> Latency:
        """Of everything."""
        return Latency.of(self.pictures)
