"""Random ARKit weights that a face could show; ours.

A sixth neutral, a quarter single actions, the rest several at once, mostly symmetric. Actions that
exclude each other are not combined, and mouthClose never exceeds jawOpen.
"""

import numpy as np
from jaxtyping import Float

from npga.capture.synthetic.people import EXPRESSIONS

NEUTRAL_SHARE, SINGLE_SHARE = 0.15, 0.25
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
JAW, CLOSE, TONGUE = (EXPRESSIONS.index(n) for n in ("jawOpen", "mouthClose", "tongueOut"))


def sample_expressions(rng: np.random.Generator, count: int) -> Float[np.ndarray, "n 52"]:
    """``count`` weight vectors in 0..1, in the order of EXPRESSIONS."""
    weights = np.zeros((count, len(EXPRESSIONS)))
    kind = rng.random(count)
    for row, chance in zip(weights, kind, strict=True):
        if chance < NEUTRAL_SHARE:
            continue
        if chance < NEUTRAL_SHARE + SINGLE_SHARE:
            action = rng.integers(len(EXPRESSIONS))
            row[action] = rng.uniform(0.2, 1.0)
            if rng.random() < 0.6:
                row[MIRROR[action]] = row[action]
        else:
            _combine(rng, row)
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
    for group in EXCLUSIVE:
        for side in ("Left", "Right", ""):
            members = [
                i for i, n in enumerate(EXPRESSIONS) if n.startswith(group) and n.endswith(side)
            ]
            heads = {next(g for g in group if EXPRESSIONS[i].startswith(g)) for i in members}
            kept = rng.choice(sorted(heads)) if len(heads) > 1 else None
            for i in members:
                if kept is not None and not EXPRESSIONS[i].startswith(kept):
                    row[i] *= 0.0 if row[i] < 0.15 else 0.15
    row[TONGUE] = row[TONGUE] if rng.random() < 0.3 else 0.0
