"""The largest face drives, then always the same one."""

from collections.abc import Iterator

import numpy as np
import pytest

from npga.drive.faces import JUMP_MAX, ChosenFace
from nphm_tracking.detectors import FoundFace

BLANK = np.zeros((8, 8, 3), np.uint8)


def face(column: float, width: float, row: float = 100.0) -> FoundFace:
    """Four corners of a square around a place."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32) * width / 2
    return FoundFace(corners + np.array([column, row], np.float32))


class Film:
    """Finds what it is told, picture after picture."""

    def __init__(self, *pictures: list[FoundFace]) -> None:
        self._pictures: Iterator[list[FoundFace]] = iter(pictures)

    def faces(self, image: np.ndarray) -> list[FoundFace]:
        return next(self._pictures)


def column(found: FoundFace | None) -> float | None:
    return None if found is None else float(found.points[:, 0].mean())


def watched(*pictures: list[FoundFace], **settings: int) -> list[float | None]:
    """Where the chosen face is in every picture."""
    chosen = ChosenFace(Film(*pictures), **settings)
    return [column(chosen(BLANK)) for _ in pictures]


@pytest.mark.parametrize(("rank", "where"), [(1, 300.0), (2, 100.0), (3, 500.0), (4, None)])
def test_ranks_are_by_size(rank: int, where: float | None) -> None:
    faces = [face(100, 60), face(500, 40), face(300, 90)]
    assert watched(faces, rank=rank) == [where]


def test_the_same_face_is_kept_while_another_grows_or_is_named_first() -> None:
    first = [face(100, 80), face(400, 60)]
    later = [[face(400, 60 + 20 * n), face(100 + 10 * n, 80 - 5 * n)] for n in range(6)]
    assert watched(first, *later) == [100.0, *(100.0 + 10 * n for n in range(6))]


def test_no_jump_to_another_face() -> None:
    """A face farther than JUMP_MAX widths is somebody else; the limit counts from the last place.

    The size is the kept face's, not that of the one which is near.
    """
    near, far = 100 + 50 * (JUMP_MAX - 0.05), 100 + 50 * (JUMP_MAX + 0.05)
    assert watched([face(100, 50)], [face(near, 50)]) == [100.0, pytest.approx(near)]
    assert watched([face(100, 50)], [face(far, 500)]) == [100.0, None]
    walk = [[face(100 + 40 * n, 50)] for n in range(10)]
    assert watched(*walk) == [100.0 + 40 * n for n in range(10)]


def test_a_lost_face_is_waited_for_and_then_given_up() -> None:
    gone, other = [], [face(400, 90)]
    back = [face(400, 90), face(105, 50)]
    waited = watched([face(100, 50)], gone, other, other, back, patience=3)
    assert waited == [100.0, None, None, None, 105.0]
    given_up = watched([face(100, 50)], gone, other, other, other, other, back, patience=3)
    assert given_up == [100.0, None, None, None, None, 400.0, 400.0]


def test_patience_begins_anew_with_every_sight() -> None:
    seen = [face(100, 50)]
    other = [face(400, 90)]
    pictures = [seen, other, other, seen, other, other, seen]
    assert watched(*pictures, patience=2) == [100.0, None, None, 100.0, None, None, 100.0]
