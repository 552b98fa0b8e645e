"""Head model and tracker against exact ground truth: one table, one JSON.

    python benchmarks/bench_tracking.py [--rows cloud,images,monocular,repeat,...] [--every 1]

Every track is made by ``npga track`` in a process of its own, as a user would run it, on the
rendered captures 031 and 054; landmarks are MediaPipe's on the pictures. Needs ../shared and the
extras ``tracking`` and ``synth``.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._results import row, write_results
from benchmarks.tracking_lids import lid_rows
from benchmarks.tracking_prior import prior_rows
from benchmarks.tracking_query import query_rows
from benchmarks.tracking_truth import (
    AS_IT_IS,
    CAPTURE,
    Scaling,
    between_tracks_mm,
    frame_distances_mm,
    monocular_scaling,
    pose_errors,
    truth_available,
)
from npga.capture import open_capture
from npga.core.device import flush_denormals
from npga.core.progress import track_progress
from nphm_tracking.model.load import load_head_model
from nphm_tracking.result import Track, load_track

PEOPLE = ("031", "054")
FRONT_CAMERA = "222200037"
MEASURE_EVERY = 3
"""Surfaces are measured in every so many-th tracked frame, poses in all."""


@dataclass(frozen=True)
class Run:
    """A finished ``npga track``."""

    track: Track
    seconds: float
    frames: int


@dataclass(frozen=True)
class Surfaces:
    """Millimetres from true face vertices to the tracked surface."""

    seen: torch.Tensor
    """Of vertices that two cameras see."""
    hidden: torch.Tensor


def run_track(out: Path, participant: str, *settings: str) -> Run:
    """Run the command as a user would; its result is read back."""
    words = ["track", f"capture={CAPTURE}", f"participant={participant}", "landmarks=mediapipe"]
    words += [f"out={out}", f"cache={out.parent / 'cache'}", "overwrite=true", *settings]
    print("\n$ npga " + " ".join(words[2:]), flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "npga", *words], check=True)
    seconds = time.perf_counter() - start
    track = load_track(out)
    return Run(track, seconds, sum(len(s) for s in track.sequences.values()))


def cloud_rows(folder: Path, every: int) -> list[dict]:
    """Surfaces and poses of both people from the capture's clouds, and the time it takes."""
    surfaces, hidden, degrees, millimetres = [], [], [], []
    seconds, frames, failed = 0.0, 0, 0
    details = []
    for participant in PEOPLE:
        run = run_track(folder / f"cloud-{participant}", participant, f"every={every}")
        seconds, frames = seconds + run.seconds, frames + run.frames
        failed += sum(int((~s.ok).sum()) for s in run.track.sequences.values())
        found = track_surfaces(run.track)
        surfaces.append(found.seen)
        hidden.append(found.hidden)
        for name, sequence in run.track.sequences.items():
            errors = pose_errors(participant, name, sequence)
            degrees.append(errors.degrees)
            millimetres.append(errors.millimetres)
        details.append(f"{participant}: median {found.seen.median():.3f}")
    all_surfaces, unseen = torch.cat(surfaces), torch.cat([*surfaces, *hidden])
    note = f"{frames} frames, {failed} failed; " + ", ".join(details)
    return [
        row("cloud_surface_median_mm", float(all_surfaces.median()), "mm", "<= 1.0", note),
        row("cloud_surface_p95_mm", quantile(all_surfaces, 0.95), "mm", "<= 3.5"),
        row("cloud_surface_with_hidden_median_mm", float(unseen.median()), "mm"),
        row("cloud_surface_with_hidden_p95_mm", quantile(unseen, 0.95), "mm"),
        row("pose_rotation_deg", float(torch.cat(degrees).median()), "deg", "<= 0.8"),
        row("pose_translation_mm", float(torch.cat(millimetres).median()), "mm", "<= 1.5"),
        row("seconds_per_frame_cloud", seconds / frames, "s", "<= 6", "detection included"),
    ]


def track_surfaces(
    track: Track, every: int = MEASURE_EVERY, scaling: Scaling = AS_IT_IS
) -> Surfaces:
    """Distances of true face vertices of good frames."""
    model = load_head_model()
    jobs = [
        (name, r)
        for name, sequence in track.sequences.items()
        for r in torch.nonzero(sequence.ok).flatten().tolist()[::every]
    ]
    seen, hidden = [], []
    for name, r in track_progress(jobs, f"truth of {track.participant}"):
        distance, visible = frame_distances_mm(model, track, name, r, scaling)
        seen.append(distance[visible])
        hidden.append(distance[~visible])
    return Surfaces(torch.cat(seen), torch.cat(hidden))


def quantile(values: torch.Tensor, share: float) -> float:
    """Of any number of values (torch.quantile takes 16 million)."""
    return float(values.sort().values[int(share * (len(values) - 1))])


def images_rows(folder: Path) -> list[dict]:
    """Without the capture's clouds: landmarks, mattes and features that COLMAP triangulates."""
    settings = ["clouds=colmap", "every=12", "points_min=60"]
    found, frames, failed = [], 0, 0
    for participant in PEOPLE:
        run = run_track(folder / f"images-{participant}", participant, *settings)
        frames += run.frames
        failed += sum(int((~s.ok).sum()) for s in run.track.sequences.values())
        found.append(track_surfaces(run.track, 1).seen)
    note = f"every 12. frame of all sequences: {frames}, {failed} failed; 16 cameras"
    return [row("images_surface_median_mm", float(torch.cat(found).median()), "mm", "<= 2.0", note)]


def monocular_rows(folder: Path, every: int) -> list[dict]:
    """One front camera, after one scale factor per person."""
    model = load_head_model()
    surfaces, degrees, seconds, frames, failed, details = [], [], 0.0, 0, 0, []
    for participant in PEOPLE:
        settings = [f"cameras=[{FRONT_CAMERA}]", f"every={every}"]
        run = run_track(folder / f"monocular-{participant}", participant, *settings)
        camera = open_capture(str(CAPTURE), participant).cameras([FRONT_CAMERA])
        scaling = monocular_scaling(model, run.track, camera.centres_world()[0].float())
        seconds, frames = seconds + run.seconds, frames + run.frames
        failed += sum(int((~s.ok).sum()) for s in run.track.sequences.values())
        found = track_surfaces(run.track, 2 * MEASURE_EVERY, scaling)
        surfaces.append(found.seen)
        details.append(f"{participant}: {found.seen.median():.2f}, factor {scaling.factor:.3f}")
        for name, sequence in run.track.sequences.items():
            degrees.append(pose_errors(participant, name, sequence).degrees)
    note = f"camera {FRONT_CAMERA}, {frames} frames, {failed} failed; " + "; ".join(details)
    median, turned = torch.cat(surfaces).median(), torch.cat(degrees).median()
    return [
        row("monocular_surface_median_mm", float(median), "mm", "<= 3.5", note),
        row("monocular_rotation_deg", float(turned), "deg", "<= 2.5"),
        row("seconds_per_frame_monocular", seconds / frames, "s", "<= 2", "detection included"),
    ]


def repeat_rows(folder: Path) -> list[dict]:
    """Two runs with other seeds."""
    model = load_head_model()
    settings = ["sequences=[EXP-4,FREE]", "every=3"]
    found = []
    for participant in PEOPLE:
        one, other = (
            run_track(folder / f"seed{s}-{participant}", participant, *settings, f"seed={s}").track
            for s in (0, 1)
        )
        for name, first in one.sequences.items():
            rows = torch.nonzero(first.ok & other.sequences[name].ok).flatten().tolist()[::2]
            found += [between_tracks_mm(model, one, other, name, r) for r in rows]
    note = "seeds 0 and 1; EXP-4 and FREE of both people, every third frame"
    return [row("repeatability_mm", float(torch.cat(found).mean()), "mm", "<= 0.3", note)]


def memory_rows(folder: Path) -> list[dict]:
    """The largest process that tracking 60 frames of 16 cameras makes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    run = run_track(folder / "memory", "031", "sequences=[FREE]", "cameras_for_landmarks=16")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    note = f"{run.frames} frames x 16 cameras, 550x802"
    if peak * 1024**2 <= before:
        note += " (no more than an earlier child)"
    return [row("peak_memory_gb", peak, "GB", "<= 4", note)]


def main() -> None:
    """Run the chosen rows, print the table, write benchmarks/results/tracking-<machine>.json."""
    groups = {
        "memory": lambda folder, every: memory_rows(folder),
        "cloud": cloud_rows,
        "images": lambda folder, every: images_rows(folder),
        "monocular": monocular_rows,
        "repeat": lambda folder, every: repeat_rows(folder),
        "prior": lambda folder, every: prior_rows(args.people, args.expressions),
        "query": lambda folder, every: query_rows(),
        "lids": lambda folder, every: lid_rows(args.landmarker),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(groups), help="others keep what they had")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--people", type=int, default=20, help="unseen people of prior_*")
    parser.add_argument("--expressions", type=int, default=10, help="of each of them")
    parser.add_argument("--out", type=Path, default=None, help="keep the tracks here")
    parser.add_argument("--landmarker", help="of lids: a .task file; Face Mesh where not given")
    args = parser.parse_args()
    if not truth_available():
        sys.exit("bench_tracking: ../shared with captures, ground truth and ICT heads is not here.")
    flush_denormals()
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        for name in args.rows.split(","):
            rows += groups[name](folder, args.every)
    protocol = {
        "data": "rendered captures 031 and 054 (see README, credits)",
        "frames": f"every {args.every}. of all sequences for cloud_*, pose_* and seconds",
        "surface": "true vertices of ICT's face_narrow that two cameras see to the tracked "
        f"surface, by walking down the SDF's gradient; every {MEASURE_EVERY}. tracked frame",
        "pose": "after one constant alignment per sequence; position of the face's middle",
        "landmarks": "MediaPipe face mesh on pictures, 8 cameras",
        "head_model": load_head_model().checksum(),
        "seed": 0,
        "rows": args.rows,
    }
    results = write_results("tracking", protocol, rows, keep=args.rows != ",".join(groups))
    print(json.dumps([r["id"] for r in rows if r["holds"] is False]) + " missed", results)


if __name__ == "__main__":
    main()
