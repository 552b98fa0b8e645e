"""Does it help to refine the track with the avatar? `corrections.of` = none, pose, both.

    python benchmarks/bench_refine.py [--track-031 runs/track-031] [--out runs/refine]

Two people: 101 of the shipped capture, tracked here, and 031 of the rendered captures, whose track
is given (left out where it is not there). `101-worse` is 101 with noise on the poses and codes of
all training frames: what a worse tracker would give. Every variant is fitted with the same seed and
judged by `npga evaluate` with the tracked codes and poses; novel views once more with the refined
track. `both_free` (101 only) is `both` without the gauge. What --out holds already is not done
again.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from _results import row, write_results

from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from nphm_tracking import load_track, save_track
from nphm_tracking.result import TRACK_FILE

VARIANTS = {
    "none": ["corrections.of=none"],
    "pose": ["corrections.of=pose"],
    "both": ["corrections.of=both"],
    "both_free": ["corrections.of=both", "corrections.gauge=false"],
}
DEMO = ("preset=demo",)
NOISE_DEG, NOISE_MM, NOISE_CODE = 0.5, 1.0, 0.05
"""Standard deviations of the worse track's noise; of codes only where they are not 0."""
METRICS = ("psnr_matte_db", "psnr_face_db", "psnr_mouth_db", "psnr_eyes_db", "ssim_matte")
METRICS += ("lpips_alex_matte",)
JUDGED = ["flicker_frames=0", "vgg_pictures=0", "landmarks=false"]
HELD_OUT = "held_out_cameras=[222200037,222200046,222200039]"


@dataclass(frozen=True)
class Person:
    """Whose avatar is fitted, from what."""

    name: str
    participant: str
    capture: str
    track: Path
    size: tuple[int, int]
    settings: tuple[str, ...]
    judged_stride: int = 2
    variants: tuple[str, ...] = ("none", "pose", "both")


def npga(*words: str) -> None:
    """One command, in a process of its own."""
    print(f"\n$ npga {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "npga", *words], check=True)


def write_worse_track(source: Path, folder: Path) -> None:
    """The track with noise on all but FREE; seeded."""
    generator = torch.Generator().manual_seed(1)
    track = load_track(source)
    sequences = dict(track.sequences)
    for name, one in track.sequences.items():
        if name.startswith("FREE"):
            continue
        noise = torch.randn(len(one), 6, generator=generator)
        turn = noise[:, :3] * math.radians(NOISE_DEG)
        shift = noise[:, 3:] * NOISE_MM / 1000 / one.world_from_head.scale[:, None]
        step = Similarity(torch.ones(len(one)), matrix_from_rotvec(turn), shift)
        codes = NOISE_CODE * torch.randn(one.z_exp.shape, generator=generator)
        z_exp = (one.z_exp + codes * (one.z_exp > 0)).clamp(0, 1)
        pose = one.world_from_head.to(torch.float32).compose(step)
        sequences[name] = replace(one, z_exp=z_exp, world_from_head=pose)
    folder.mkdir(parents=True, exist_ok=True)
    save_track(replace(track, sequences=sequences), folder / TRACK_FILE)


def left_errors(given: Path, refined: Path, true: Path) -> dict[str, float]:
    """How much of the worse track's noise is left after the fit: refined / given, rms."""
    tracks = [load_track(path) for path in (given, refined, true)]
    errors = {"turn": [0.0, 0.0], "shift": [0.0, 0.0], "code": [0.0, 0.0]}
    for name in tracks[0].sequences:
        if name.startswith("FREE"):
            continue
        *both, truth = (track.sequences[name] for track in tracks)
        for k, one in enumerate(both):
            apart = truth.world_from_head.inverse().compose(one.world_from_head)
            turn = torch.stack([rotvec_from_matrix(matrix) for matrix in apart.rotation])
            errors["turn"][k] += float(turn.square().sum())
            errors["shift"][k] += float(apart.translation.square().sum())
            errors["code"][k] += float((one.z_exp - truth.z_exp).square().sum())
    return {name: math.sqrt(after / before) for name, (before, after) in errors.items()}


def fitted(person: Person, variant: str, seed: int, steps: int, out: Path) -> Path:
    """Fit and judge one variant, where that is still to do; returns its folder."""
    folder = out / f"{person.name}-{variant}-{seed}"
    me = [f"capture={person.capture}", f"participant='{person.participant}'", HELD_OUT]
    me += [f"width={person.size[0]}", f"height={person.size[1]}", f"cache_dir={out / 'cache'}"]
    if not folder.exists():
        npga(
            "fit", *person.settings, *me, f"track={person.track}", f"steps={steps}",
            f"seed={seed}", *VARIANTS[variant], f"out={folder}",
        )  # fmt: skip
    tracks = {"evaluate": person.track}
    if variant != "none":
        tracks["evaluate-refined"] = folder
    for name, track in tracks.items():
        judged = out / f"{folder.name}-{name}"
        if not judged.exists():
            stride = f"frame_stride={person.judged_stride}"
            npga(
                "evaluate", f"avatar={folder}", *me, f"track={track}", *JUDGED, stride,
                f"out={judged}",
            )  # fmt: skip
    return folder


def figures(folder: Path) -> dict[str, float | None]:
    """What `npga evaluate` found: self-reenactment and novel views, tracked and refined."""
    found: dict[str, float | None] = {}
    for name, prefix in (("evaluate", ""), ("evaluate-refined", "refined_track.")):
        path = folder.with_name(f"{folder.name}-{name}") / "metrics.json"
        if not path.exists():
            continue
        values = {r["id"]: r["value"] for r in json.loads(path.read_text())["rows"]}
        questions = ("novel_view",) if prefix else ("novel_view", "self_reenactment")
        for question in questions:
            for metric in METRICS:
                found[f"{prefix}{question}.{metric}"] = values[f"{question}.avatar.{metric}"]
    return found


def drift_rows(folder: Path, prefix: str) -> list[dict]:
    """How far the corrections went."""
    path = folder / "drift.json"
    if not path.exists():
        return []
    drift = json.loads(path.read_text())
    units = {"turn_deg": "deg", "shift_mm": "mm", "landmarks_mm": "mm", "code_landmarks_mm": "mm"}
    return [
        row(f"{prefix}.drift.{name}.{kind}", drift[name][kind], unit)
        for name, unit in units.items()
        for kind in ("median", "p95")
    ]


def mean(values: list[float | None]) -> float | None:
    """Over seeds; None where one has none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def rows_of(person: Person, folders: dict[str, list[Path]], true_track: Path) -> list[dict]:
    """Figures of each variant, means over seeds, and the differences to `none`."""
    rows, base = [], {}
    for variant, seeds in folders.items():
        each = [figures(folder) for folder in seeds]
        found = {key: mean([one[key] for one in each]) for key in each[0]}
        if variant == "none":
            base = found
        for key, value in found.items():
            unit = "dB" if key.endswith("_db") else ""
            rows.append(row(f"{person.name}.{variant}.{key}", value, unit))
            before = base.get(key.removeprefix("refined_track."))
            if variant != "none" and value is not None and before is not None:
                rows.append(row(f"{person.name}.{variant}.{key}.over_none", value - before, unit))
        rows += drift_rows(seeds[0], f"{person.name}.{variant}")
        if person.name.endswith("worse") and variant != "none":
            left = left_errors(person.track, seeds[0], true_track)
            rows += [row(f"{person.name}.{variant}.left.{k}", v, "") for k, v in left.items()]
    return rows


def main() -> None:
    """Run, print the table, write benchmarks/results/refine-<machine>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capture", default="../shared/captures/nersemble_like")
    parser.add_argument("--track-031", type=Path, default=Path("runs/track-031"))
    parser.add_argument("--track-101", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/refine"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--people", nargs="+", default=["101", "101-worse", "031"])
    args = parser.parse_args()
    shipped = "npga/assets/demo/capture"
    track = args.track_101 or args.out / "track-101"
    if not track.exists():
        npga(
            "track", f"capture={shipped}", "participant='101'", "points_min=60",
            f"cache={args.out / 'cache'}", f"out={track}",
        )  # fmt: skip
    if "101-worse" in args.people:
        write_worse_track(track, args.out / "track-101-worse")
    people = [
        Person("101", "101", shipped, track, (200, 292), DEMO, 2, tuple(VARIANTS)),
        Person("101-worse", "101", shipped, args.out / "track-101-worse", (200, 292), DEMO),
        Person(
            "031", "031", args.capture, args.track_031, (138, 200), (*DEMO, "frame_stride=3"), 3
        ),
    ]
    rows, told = [], []
    for person in people:
        if person.name not in args.people or not person.track.exists():
            continue
        folders = {
            variant: [fitted(person, variant, seed, args.steps, args.out) for seed in args.seeds]
            for variant in person.variants
            if variant in args.variants
        }
        rows += rows_of(person, folders, track)
        size = f"{person.size[1]}x{person.size[0]}"
        stride = f"every {person.judged_stride}. frame judged"
        told.append(f"{person.name}: {size}, {' '.join(person.settings)}, {stride}")
    protocol = {
        "people": told,
        "steps": args.steps,
        "seeds": args.seeds,
        "split": f"FREE and {HELD_OUT} held out",
        "judged": JUDGED,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "over_none": "difference to the variant none of the same run; higher dB is better",
        "worse": f"noise of {NOISE_DEG} deg, {NOISE_MM} mm per axis, {NOISE_CODE} on codes above 0 "
        "in training frames; left = rms error against the good track, after / before the fit",
        "refined_track": "novel views of training frames drawn with the refined track",
    }
    write_results("refine", protocol, rows)


if __name__ == "__main__":
    main()
