"""Does a driven head do what the driver did? 031 drives 054 and back, against exact ground truth.

    python benchmarks/drive_cross.py --tracks runs/track-031 runs/track-054

Driver: vertices of the rendered head (ICT-FaceKit's 68 landmarks), pose removed, minus the true
neutral head's. Driven: the avatar's head model landmarks under the driven codes (canonical place +
the model's slopes), minus those under its neutral code. Both in units of their own eye distance. A
figure is Pearson's correlation over all frames, landmarks of a region and coordinates. ``copies``:
the driver's codes taken over as they are. ``by_F``: the landmarks carried by the shipped F instead,
which cannot part landmarks that lie on each other in the closed mouth. Shut: on frames where the
driver's true lids or lips are shut, how far the driven ones are open (lids: share of their rest
opening; lips: eye distances). Letters: t frames, l landmarks, e expression size.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import torch
from _results import print_table, row
from jaxtyping import Float
from torch import Tensor
from tracking_truth import LOWER_LIDS, SAME, TRUTH, eye_distance, true_vertices

from npga.avatar.forward import SHIPPED_PRIOR
from npga.distill.landmarks import forward_landmarks
from npga.reenact.openings import EYE_CORNERS, Gaps
from npga.reenact.retarget import Face, Retargeting
from nphm_tracking import HeadModel, Track, load_head_model, load_track

BARS = {"mouth": ">= 0.85", "brows": ">= 0.75", "lids": ">= 0.85", "upper_lids": ""}
RESIDUAL = {"jawOpen": 0.15, "eyeBlinkLeft": 0.1, "eyeBlinkRight": 0.1, "browInnerUp": 0.15}
"""What a tracker might see in a driver's rest face; added to all their codes for one row."""
TRUE_PAIRS = (((37, 41), (38, 40)), ((43, 47), (44, 46)), ((61, 67), (62, 66), (63, 65)))
"""Upper and lower landmarks of both lids and of the lips."""
LIDS_SHUT = 0.15
"""Share of the way from the least gap to the neutral one."""
LIPS_SHUT = 0.01
"""Eye distances from the neutral gap."""
KINDS = ("retargeted", "copies", "retargeted.by_F", "copies.by_F")
"""The last two carry the landmarks by F."""
Codes = Float[Tensor, "t e"]


@dataclass(frozen=True)
class Person:
    """A tracked person whose exact heads are known."""

    track: Track
    codes: Codes
    """Of all tracked frames of all takes."""
    face: Face
    motion: Float[Tensor, "t 68 3"]
    """True displacements from the true neutral, head pose removed, eye distances."""
    shut: Float[Tensor, "t k"]
    """1 where lids (right, left) or lips are truly shut."""

    @staticmethod
    def of(model: HeadModel, track: Track) -> "Person":
        """Read the truth of every tracked frame."""
        takes = {name: take.good() for name, take in track.sequences.items()}
        codes = torch.cat([take.z_exp for take in takes.values()])
        with np.load(TRUTH / track.participant / "neutral.npz") as held:
            marks = torch.from_numpy(held["landmarks68"]).long()
            rest = torch.from_numpy(held["neutral"])[marks]
        posed = torch.stack(
            [
                true_vertices(track.participant, name, int(frame), "model")[marks]
                for name, take in takes.items()
                for frame in take.frames
            ]
        )
        unit = eye_distance(rest)
        face = Face.of_codes(codes, Gaps.of(model, track.z_geo))
        return Person(track, codes, face, (posed - rest) / unit, _shut(posed, rest, unit))


def _shut(posed: Tensor, rest: Tensor, unit: Tensor) -> Tensor:
    found = []
    for number, pairs in enumerate(TRUE_PAIRS):
        upper, lower = torch.tensor(pairs).T
        gap = (posed[:, upper, 1] - posed[:, lower, 1]).mean(1) / unit
        still = (rest[upper, 1] - rest[lower, 1]).mean() / unit
        least = gap.min()
        lids = gap < least + LIDS_SHUT * (still - least)
        found.append(lids if number < 2 else (gap - still).abs() < LIPS_SHUT)
    return torch.stack(found, 1).float()


class DrivenHead:
    """An avatar's landmarks under any codes, eye distances."""

    def __init__(self, model: HeadModel, track: Track) -> None:
        ids = sorted({mark for pairs in SAME.values() for mark in pairs.values()})
        self.index = {mark: n for n, mark in enumerate(ids)}
        self.canonical = model.landmarks(track.z_geo)[ids]
        self.z_geo = track.z_geo
        slopes = model.landmark_slopes
        assert slopes is not None
        self.slopes = slopes[ids]
        self.forward = forward_landmarks(model, str(SHIPPED_PRIOR))
        corners = [[self.index[mark] for mark in pair] for pair in EYE_CORNERS]
        self.unit = eye_distance(self.canonical, corners)

    def marks(self, codes: Codes, by_forward: bool) -> Float[Tensor, "t l 3"]:
        """Posed landmarks, in the order of `index`."""
        if by_forward:
            return self.forward(self.canonical, self.z_geo, codes).marks / self.unit
        return (self.canonical + torch.einsum("lce,te->tlc", self.slopes, codes)) / self.unit


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, over everything."""
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def agreement(driver: Person, head: DrivenHead, codes: Codes, rest: Tensor, by_forward: bool):
    """Correlation by region of the driver's true motion with the driven head's."""
    moved = head.marks(codes, by_forward) - head.marks(rest[None], by_forward)
    return {
        region: correlation(
            driver.motion[:, list(pairs)],
            moved[:, [head.index[mark] for mark in pairs.values()]],
        )
        for region, pairs in SAME.items()
    }


def with_true_lower_lids(driver: Person, head: DrivenHead, codes: Codes, rest: Tensor) -> float:
    """The correlation of all lids if the lower ones moved as the driver's."""
    pairs = SAME["lids"]
    moved = head.marks(codes, False) - head.marks(rest[None], False)
    moved = moved[:, [head.index[mark] for mark in pairs.values()]]
    true = driver.motion[:, list(pairs)]
    lower = torch.tensor([number in LOWER_LIDS for number in pairs])[:, None]
    return correlation(true, torch.where(lower, true, moved))


def shut_openings(driver: Person, avatar: Person, codes: Codes) -> dict[str, float]:
    """Mean opening of the driven lids and lips where the driver's are truly shut."""
    assert avatar.face.openings is not None
    opening = avatar.face.openings.of(codes).clamp_min(0) * driver.shut
    mean = opening.sum(0) / driver.shut.sum(0)
    return {"lids": float(mean[:2].mean()), "lips": float(mean[2])}


def retargeted(model: HeadModel, driver: Person, avatar: Person) -> Codes:
    """As `npga reenact mode=cross clamp=false` does."""
    return Retargeting(driver.face, avatar.face, model.exp_lower, model.exp_upper)(driver.codes)[0]


def direction(model: HeadModel, driver: Person, avatar: Person) -> tuple[dict, dict]:
    """Correlations by kind and region, shut openings by kind and place."""
    head, rest = DrivenHead(model, avatar.track), avatar.face.neutral
    both = {"retargeted": retargeted(model, driver, avatar), "copies": driver.codes}
    found = {
        kind: agreement(driver, head, both[kind.split(".")[0]], rest, kind.endswith("by_F"))
        for kind in KINDS
    }
    bound = with_true_lower_lids(driver, head, both["retargeted"], rest)
    found["if_lower_lids_true"] = {"lids": bound}
    return found, {kind: shut_openings(driver, avatar, codes) for kind, codes in both.items()}


def with_residual(model: HeadModel, person: Person) -> Person:
    """The person as a tracker with a biased rest face would have seen them."""
    codes = person.codes.clone()
    for name, value in RESIDUAL.items():
        codes[:, model.expression_names.index(name)] += value
    face = Face.of_codes(codes, Gaps.of(model, person.track.z_geo))
    return replace(person, codes=codes, face=face)


def gain(ways: dict[str, tuple[dict, dict]]) -> float:
    """Retargeted minus copied codes, mean of directions and of regions with a bar."""
    regions = [region for region, bar in BARS.items() if bar]
    gains = [
        found["retargeted"][region] - found["copies"][region]
        for found, _ in ways.values()
        for region in regions
    ]
    return sum(gains) / len(gains)


def cross_rows(one: Track, other: Track) -> list[dict]:
    """Rows: means of both directions with bars, the gain over copies, then each direction."""
    model = load_head_model()
    people = [Person.of(model, track) for track in (one, other)]
    ways, biased = {}, {}
    for driver, avatar in (people, people[::-1]):
        name = f"{driver.track.participant}_to_{avatar.track.participant}"
        ways[name] = direction(model, driver, avatar)
        biased[name] = direction(model, with_residual(model, driver), avatar)

    def mean(kind: str, region: str) -> float:
        return sum(found[kind][region] for found, _ in ways.values()) / len(ways)

    rows = [row(f"cross_{region}_corr", mean("retargeted", region), "", bar)
            for region, bar in BARS.items()]  # fmt: skip
    rows.append(row("cross_lids_corr.if_lower_lids_true", mean("if_lower_lids_true", "lids"), ""))
    rows.append(row("retarget_gain", gain(ways), "", "> 0"))
    note = "driver's codes + " + ", ".join(f"{name} {value}" for name, value in RESIDUAL.items())
    rows.append(row("retarget_gain.residual", gain(biased), "", note=note))
    for kind in ("retargeted", "copies"):
        for place, unit in (("lids", "rest"), ("lips", "eyes")):
            values = [shut[kind][place] for _, shut in biased.values()]
            mean_shut = sum(values) / len(values)
            rows.append(row(f"cross_shut_{place}.{kind}.residual", mean_shut, unit))
    for place, unit in (("lids", "rest"), ("lips", "eyes")):
        for kind in ("retargeted", "copies"):
            values = [shut[kind][place] for _, shut in ways.values()]
            rows.append(row(f"cross_shut_{place}.{kind}", sum(values) / len(values), unit))
    for name, (found, _) in ways.items():
        for kind in KINDS:
            rows += [row(f"{name}.{kind}.{r}", value, "") for r, value in found[kind].items()]
    return rows


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", nargs=2, default=["runs/track-031", "runs/track-054"])
    args = parser.parse_args()
    print_table(cross_rows(*(load_track(path) for path in args.tracks)))


if __name__ == "__main__":
    main()
