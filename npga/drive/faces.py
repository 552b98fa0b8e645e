"""Which of the faces in a picture drives: the largest at first, then always the same one.

l landmarks, pixels.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from npga.core.images import ImageArray
from nphm_tracking.detectors import FoundFace

JUMP_MAX = 1.2
"""A face farther than this many of its widths from its last place is another one."""


@runtime_checkable
class FaceFinder(Protocol):
    """What finds faces: `nphm_tracking.detectors` has MediaPipe in two forms."""

    def faces(self, image: ImageArray) -> list[FoundFace]:
        """Every face in a picture."""
        ...


class ChosenFace:
    """Keeps to one face through a take.

    `rank` 1 is the largest where it first appears, 2 the second largest, and so on; from then on
    the face nearest to the last place. After `patience` pictures without it one is chosen anew.
    """

    def __init__(self, finder: FaceFinder, rank: int = 1, patience: int = 15) -> None:
        self.finder, self.rank, self.patience = finder, rank, patience
        self._last: FoundFace | None = None
        self._missed = 0

    def __call__(self, image: ImageArray) -> FoundFace | None:
        """The chosen face, None where it is not in the picture."""
        found = self.finder.faces(image)
        chosen = self._nearest(found) if self._last is not None else self._ranked(found)
        if chosen is None:
            self._missed += 1
            if self._missed > self.patience:
                self._last = None
            return None
        self._missed, self._last = 0, chosen
        return chosen

    def _ranked(self, found: list[FoundFace]) -> FoundFace | None:
        order = sorted(found, key=_width, reverse=True)
        return order[self.rank - 1] if len(order) >= self.rank else None

    def _nearest(self, found: list[FoundFace]) -> FoundFace | None:
        assert self._last is not None
        if not found:
            return None
        last = self._last.points.mean(0)
        apart = [np.linalg.norm(one.points.mean(0) - last) for one in found]
        nearest = int(np.argmin(apart))
        return found[nearest] if apart[nearest] < JUMP_MAX * _width(self._last) else None


def _width(face: FoundFace) -> float:
    return float(np.ptp(face.points, axis=0).max())
