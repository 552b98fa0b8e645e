"""How far the head model's actions move a face, against scan-based ones of the same names.

    python benchmarks/bench_ranges.py [--head-model runs/prior/head_model.safetensors]

Landmarks of mouth, brows and lids under each ARKit action at weight 1: the head model's slopes
against the offsets of ICT-FaceKit's action, both in eye distances. A range is the root mean square
motion over ICT's (below 1 the head model cannot follow such a face to the end), alike the cosine of
the two motions. Actions that move a region by less than LEAST in ICT-FaceKit are left out there.
"""

import argparse

import numpy as np
import torch
from _results import row, write_results
from jaxtyping import Float
from torch import Tensor
from tracking_truth import ICT, SAME, eye_distance

from npga.reenact.openings import EYE_CORNERS
from nphm_tracking import HeadModel, load_head_model

REGIONS = ("mouth", "brows", "lids")
LEAST = 0.01
"""Eye distances (0.6 mm), root mean square over a region's landmarks."""


def scanned_motion(names: tuple[str, ...]) -> dict[str, Float[Tensor, "68 3"]]:
    """What ICT-FaceKit's actions do to its 68 landmarks, by ARKit's names, eye distances."""
    with np.load(ICT) as held:
        marks = held["landmarks68"]
        rest = torch.from_numpy(held["neutral"][marks]).float()
        moved = torch.from_numpy(held["expression"][:, marks].astype(np.float32))
        known = [str(name) for name in held["expression_names"]]
    moved = moved / eye_distance(rest)
    theirs = {name: name.replace("Left", "_L").replace("Right", "_R") for name in names}
    theirs |= {name: name for name in names if name in known}
    found = {n: moved[known.index(their)] for n, their in theirs.items() if their in known}
    found["browInnerUp"] = sum(moved[known.index(f"browInnerUp_{side}")] for side in "LR")
    return found


def modelled_motion(model: HeadModel) -> Float[Tensor, "l 3 e"]:
    """What the head model's actions do to its landmarks, eye distances of the mean head."""
    slopes, places = model.landmark_slopes, model.landmarks(model.geo_mean)
    assert slopes is not None
    return slopes / eye_distance(places, EYE_CORNERS)


def range_rows(model: HeadModel) -> list[dict]:
    """Medians by region, then every action."""
    ours = modelled_motion(model)
    medians, rows = [], []
    for region in REGIONS:
        pairs, ranges, alike = SAME[region], [], []
        for name, motion in scanned_motion(model.expression_names).items():
            wanted = motion[list(pairs)]
            if wanted.square().sum(-1).mean().sqrt() < LEAST:
                continue
            got = ours[list(pairs.values()), :, model.expression_names.index(name)]
            ranges.append(float(got.norm() / wanted.norm()))
            alike.append(float((got * wanted).sum() / (got.norm() * wanted.norm())))
            rows.append(
                row(f"range.{region}.{name}", ranges[-1], "", note=f"alike {alike[-1]:.2f}")
            )
        medians.append(row(f"range_median.{region}", float(np.median(ranges)), ""))
        medians.append(row(f"alike_median.{region}", float(np.median(alike)), ""))
    return medians + rows


def main() -> None:
    """Measure the shipped prior, or another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head-model")
    args = parser.parse_args()
    protocol = {"head_model": args.head_model or "shipped", "least_eye_distances": LEAST}
    write_results("ranges", protocol, range_rows(load_head_model(args.head_model)))


if __name__ == "__main__":
    main()
