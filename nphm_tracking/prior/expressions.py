"""Random ARKit weights that a face could show; ours.

A tenth neutral, half a few actions at a time, the rest many at once, mostly symmetric. Actions that
exclude each other are not combined, mouthClose never exceeds jawOpen, and a lid that blinks cannot
go down with the eye as well.
"""

import numpy as np
from jaxtyping import Float

from npga.capture.synthetic.people import EXPRESSIONS

NEUTRAL_SHARE, FEW_SHARE = 0.12, 0.45
FEW = 4
"""At most so many actions in the second kind, at high weight: every action is learned by itself."""
MIRROR = np.array(
    [
        EXPRESSIONS.index(n.replace("Left", "#").replace("Right", "Left").replace("#", "Right"))
        for n in EXPRESSIONS
    ]
)
"""The same action on the other side (look in/out: the same eye movement mirrored)."""
EXCLUSIVE = (
    ("eyeBlink", "eyeWide", "eyeSquint"),
    ("eyeLookUp", "eyeLookDown"),
    ("eyeLookIn", "eyeLookOut"),
    ("mouthSmile", "mouthFrown"),
    ("mouthPucker", "mouthStretch", "mouthSmile"),
    ("mouthFunnel", "mouthPress", "mouthRoll"),
    ("browDown", "browOuterUp"),
)
HUSHED = 0.1
LOOK_DOWN, BLINK = (
    [EXPRESSIONS.index(kind + side) for side in ("Left", "Right")]
    for kind in ("eyeLookDown", "eyeBlink")
)
JAW, CLOSE, TONGUE = (EXPRESSIONS.index(n) for n in ("jawOpen", "mouthClose", "tongueOut"))


def sample_expressions(rng: np.random.Generator, count: int) -> Float[np.ndarray, "n 52"]:
    """``count`` weight vectors in 0..1, in the order of EXPRESSIONS."""
    weights = np.zeros((count, len(EXPRESSIONS)))
    kind = rng.random(count)
    for row, chance in zip(weights, kind, strict=True):
        if chance < NEUTRAL_SHARE:
            continue
        if chance < NEUTRAL_SHARE + FEW_SHARE:
            chosen = rng.choice(len(row), rng.integers(1, FEW + 1), replace=False)
            row[chosen] = rng.uniform(0.2, 1.0, len(chosen))
            if rng.random() < 0.6:
                row[:] = np.maximum(row, row[MIRROR])
        else:
            _combine(rng, row)
        _exclude(row)
        row[LOOK_DOWN] = np.minimum(row[LOOK_DOWN], 1 - row[BLINK])
        row[CLOSE] = min(row[CLOSE], row[JAW])
        if row[TONGUE] > 0:
            row[JAW] = max(row[JAW], 0.4 * row[TONGUE])
    return weights


def _combine(rng: np.random.Generator, row: np.ndarray) -> None:
    active = rng.random(len(row)) < rng.uniform(0.05, 0.22)
    row[active] = rng.beta(1.2, 1.4, active.sum())
    if rng.random() < 0.7:
        row[:] = np.maximum(row, row[MIRROR]) if rng.random() < 0.8 else row[MIRROR]
    row[JAW] = rng.beta(1.0, 1.4) if rng.random() < 0.5 else row[JAW]
    row[TONGUE] = row[TONGUE] if rng.random() < 0.3 else 0.0


def _exclude(row: np.ndarray) -> None:
    """Of actions that exclude each other on one side, keep the strongest kind, hush the others."""
    for group in EXCLUSIVE:
        for side in ("Left", "Right"):
            kinds = {kind: _members(kind, side) for kind in group}
            strongest = max(group, key=lambda kind: row[kinds[kind]].max())
            for kind, members in kinds.items():
                if kind != strongest:
                    row[members] *= HUSHED


def _members(kind: str, side: str) -> list[int]:
    """Actions of a kind that act on a side: its own and those of both sides."""
    other = "Right" if side == "Left" else "Left"
    found = [i for i, n in enumerate(EXPRESSIONS) if n.startswith(kind)]
    return [i for i in found if not EXPRESSIONS[i].endswith(other)]
