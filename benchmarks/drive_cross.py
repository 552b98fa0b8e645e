"""Does a driven head do what the driver did? 031 drives 054 and back, against exact ground truth.

    python benchmarks/drive_cross.py --tracks runs/track-031 runs/track-054

Driver: vertices of the rendered head (ICT-FaceKit's 68 landmarks), pose removed, minus the true
neutral head's. Driven: the avatar's head model landmarks under the driven codes (canonical place +
F), minus those under its neutral code. Both in units of their own eye distance. A figure is
Pearson's correlation over all frames, landmarks of a region and coordinates; ``copies`` is the same
with the driver's codes taken over as they are. Letters: t frames, l landmarks, e expression size.
"""

import argparse
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from _results import print_table, row
from jaxtyping import Float
from torch import Tensor
from tracking_truth import ICT, TRUTH, _rebuild

from npga.avatar.forward import SHIPPED_PRIOR
from npga.distill.landmarks import forward_landmarks
from npga.reenact.retarget import neutral_code, retarget_codes
from nphm_tracking import HeadModel, Track, load_head_model, load_track

SAME = {
    "mouth": {
        48: 61, 49: 39, 50: 37, 51: 0, 52: 267, 53: 269, 54: 291, 55: 321, 56: 314, 57: 17,
        58: 84, 59: 91, 60: 78, 61: 81, 62: 13, 63: 311, 64: 308, 65: 402, 66: 14, 67: 178,
    },
    "brows": {17: 70, 18: 63, 19: 105, 20: 66, 21: 107, 22: 336, 23: 296, 24: 334, 25: 293, 26: 300},
    "lids": {
        36: 33, 37: 160, 38: 158, 39: 133, 40: 153, 41: 144,
        42: 362, 43: 385, 44: 387, 45: 263, 46: 373, 47: 380,
    },
}  # fmt: skip
"""iBUG's 68 landmarks and the same places among MediaPipe's 478."""
BARS = {"mouth": ">= 0.85", "brows": ">= 0.75", "lids": ">= 0.85"}
EYE_CORNERS = ((36, 39), (42, 45))
Codes = Float[Tensor, "t e"]


def good_codes(track: Track) -> Codes:
    """All tracked frames of all takes."""
    return torch.cat([take.good().z_exp for take in track.sequences.values()])


@cache
def true_motion(participant: str, frames: tuple[tuple[str, int], ...]) -> Float[Tensor, "t 68 3"]:
    """Landmarks' displacements from the true neutral, head pose removed, eye distances."""
    with np.load(TRUTH / participant / "neutral.npz") as held:
        marks = held["landmarks68"]
        rest = torch.from_numpy(held["neutral"][marks]).double()
    found = []
    for sequence, frame in frames:
        place = str(TRUTH / participant)
        vertices, _ = _rebuild().rebuild(str(ICT), place, sequence, frame, "model")
        found.append(torch.from_numpy(vertices[marks]).double())
    eyes = [rest[list(corners)].mean(0) for corners in EYE_CORNERS]
    return ((torch.stack(found) - rest) / (eyes[0] - eyes[1]).norm()).float()


def good_frames(track: Track) -> tuple[tuple[str, int], ...]:
    """(sequence, frame) of `good_codes`."""
    return tuple(
        (name, int(frame))
        for name, take in track.sequences.items()
        for frame in take.good().frames
    )


class DrivenHead:
    """An avatar's landmarks under any codes, eye distances."""

    def __init__(self, model: HeadModel, track: Track) -> None:
        ids = sorted({mark for pairs in SAME.values() for mark in pairs.values()})
        self.index = {mark: n for n, mark in enumerate(ids)}
        self.canonical = model.landmarks(track.z_geo)[ids]
        self.z_geo = track.z_geo
        self.motion = forward_landmarks(model, str(SHIPPED_PRIOR))
        eyes = [
            self.canonical[[self.index[SAME["lids"][n]] for n in corners]].mean(0)
            for corners in EYE_CORNERS
        ]
        self.unit = (eyes[0] - eyes[1]).norm()

    def marks(self, codes: Codes) -> Float[Tensor, "t l 3"]:
        """Posed landmarks, in the order of `index`."""
        return self.motion(self.canonical, self.z_geo, codes).marks / self.unit


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, over everything."""
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def agreement(
    driver: Track, head: DrivenHead, codes: Codes, neutral: Float[Tensor, "e"]
) -> dict[str, float]:
    """Correlation by region of the driver's true motion with the driven head's."""
    true = true_motion(driver.participant, good_frames(driver))
    moved = head.marks(codes) - head.marks(neutral[None])
    return {
        region: correlation(
            true[:, list(pairs)], moved[:, [head.index[mark] for mark in pairs.values()]]
        )
        for region, pairs in SAME.items()
    }


Retargeting = Callable[[Track, Track], Codes]
"""Driver's and avatar's track -> the avatar's codes for every good frame of the driver."""


def retargeted(driver: Track, avatar: Track) -> Codes:
    """As `npga reenact mode=cross` does."""
    codes, own = good_codes(driver), good_codes(avatar)
    return retarget_codes(codes, neutral_code(codes), neutral_code(own))


def cross_rows(one: Track, other: Track, retargeting: Retargeting = retargeted) -> list[dict]:
    """Rows of both directions, their means with bars, and the gain over copied codes."""
    model = load_head_model()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for driver, avatar in ((one, other), (other, one)):
        head, neutral = DrivenHead(model, avatar), neutral_code(good_codes(avatar))
        found[f"{driver.participant}_to_{avatar.participant}"] = {
            "retargeted": agreement(driver, head, retargeting(driver, avatar), neutral),
            "copies": agreement(driver, head, good_codes(driver), neutral),
        }
    rows = []
    means = {
        kind: {r: sum(way[kind][r] for way in found.values()) / len(found) for r in SAME}
        for kind in ("retargeted", "copies")
    }
    for region, bar in BARS.items():
        rows.append(row(f"cross_{region}_corr", means["retargeted"][region], "", bar))
        rows.append(row(f"cross_{region}_corr.copies", means["copies"][region], ""))
    gain = sum(means["retargeted"].values()) - sum(means["copies"].values())
    rows.append(row("retarget_gain", gain / len(SAME), "", "> 0"))
    for way, kinds in found.items():
        for kind, regions in kinds.items():
            rows += [row(f"{way}.{kind}.{r}", value, "") for r, value in regions.items()]
    return rows


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", nargs=2, default=["runs/track-031", "runs/track-054"])
    args = parser.parse_args()
    print_table(cross_rows(*(load_track(path) for path in args.tracks)))


if __name__ == "__main__":
    main()
