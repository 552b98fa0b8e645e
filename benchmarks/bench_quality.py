"""Is the avatar better than what it is built from, and than Gaussians bound to the mesh?

    python benchmarks/bench_quality.py [--capture ...] [--out runs/quality] [--jobs 2] [--seeds 0 1]

Fits every variant of ``benchmarks/baselines/variants.py`` with the same raster, data and steps, and
judges it from held-out cameras on training expressions (novel view) and on the held-out sequence
(self-reenactment); the avatar and mesh_bound also on that sequence with codes and poses that each
found in the training cameras' pictures of it, as `npga correct` does. Every fit runs in a process
of its own, ``--jobs`` at once; what is finished in ``--out`` with the same settings is not done
again, so an interrupted run goes on. The track is made where it is not given. Writes
``results/quality-<machine>.json`` and a picture grid.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._results import ROOT, machine, machine_name, row, write_results
from benchmarks.baselines.variants import CORRECTED, STANDARD, VARIANTS
from benchmarks.quality_job import Job
from benchmarks.quality_rows import Results, draw_grid, gain_rows, gap_rows, print_variants
from npga.avatar import AVATAR_FILE, load_avatar
from npga.capture import open_capture
from npga.core.config import compose_config
from npga.core.device import flush_denormals, resolve_device, synchronize
from npga.core.errors import CheckpointError
from npga.core.lpips import load_lpips
from npga.fit.config import FitConfig
from npga.fit.renderer import Renderer
from npga.raster import Backend, rasterize
from nphm_tracking import load_track

HELD_OUT = ("222200046", "222200037", "222200039")
FRONT = "222200037"
FRAMES = 40
"""Frames over which a rate is measured, after `WARM` others."""
WARM = 8
POLL = 0.2
REQUIRED = ("capture=.", "track=.", "out=.")
"""What settings ask for that are only looked at."""
LPIPS = 0.1
"""Weight of LPIPS in the loss of variants with a CNN, where its network is there."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--capture", default="../shared/captures/nersemble_like")
    add("--participant", default="031")
    add("--track", help="file or folder; made with npga track where not given")
    add("--prior", help="file or folder; the F that ships where not given")
    add("--preset", help="of npga fit; gpu on a CUDA machine, else standard")
    add("--width", type=int)
    add("--height", type=int)
    add("--steps", type=int)
    add("--sequences", nargs="*", default=[], help="to train on; all but FREE where not given")
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add("--variants", nargs="+", default=list(STANDARD), choices=list(VARIANTS))
    add("--jobs", type=int, default=1, help="fits at once")
    add("--out", type=Path, default=Path("runs/quality"))
    add("--every", type=int, default=1, help="track every n-th frame")
    add("--frame-stride", type=int, default=1, help="fit every n-th tracked frame")
    add("--judge-stride", type=int, default=2, help="judge every n-th frame of FREE")
    add("--novel-stride", type=int, default=9, help="judge every n-th training frame")
    add("--budget", type=float, help="minutes after which what still runs is stopped")
    add("--quick", action="store_true", help="time npga fit preset=quick too (alone)")
    add("--standard", type=int, help="GPU: steps alone with all Gaussians, scaled up")
    add("--lpips-weights")
    add("--set", nargs="*", default=[], help="more settings of npga fit for all variants")
    return parser.parse_args()


def npga(*words: str) -> float:
    """Run a command as a user would; seconds."""
    print("\n$ npga " + " ".join(words), flush=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "npga", *words], check=True)
    return time.perf_counter() - began


def tracked(args: argparse.Namespace) -> str:
    """The path of the track, made where it is not given."""
    person = [f"capture={args.capture}", f"participant={args.participant}"]
    track = args.track
    if track is None:
        track = str(args.out / "track")
        if not Path(track).exists():
            npga("track", *person, f"every={args.every}", f"out={track}")
    return track


def fit_settings(args: argparse.Namespace, track: str) -> list[str]:
    """What all variants share."""
    gpu = resolve_device("auto").type == "cuda"
    words = [
        f"capture={args.capture}",
        f"participant={args.participant}",
        f"track={track}",
        f"preset={args.preset or ('gpu' if gpu else 'standard')}",
        "held_out_cameras=[" + ",".join(HELD_OUT) + "]",
        f"frame_stride={args.frame_stride}",
        "save_every=1000000",
        "preview_every=1000000",
    ]
    size = (550, 802) if gpu else (206, 300)
    words.append(f"width={args.width or size[0]}")
    words.append(f"height={args.height or size[1]}")
    if args.steps or not gpu:
        words.append(f"steps={args.steps or 1200}")
    if lpips_there(args.lpips_weights):
        words.append(f"terms.lpips={LPIPS}")
        words += [f"lpips_weights={args.lpips_weights}"] if args.lpips_weights else []
    if args.prior:
        words.append(f"prior={args.prior}")
    if args.sequences:
        words.append("sequences=[" + ",".join(args.sequences) + "]")
    return [*words, *args.set]


def lpips_there(weights: str | None) -> bool:
    """Whether LPIPS can be trained on and measured."""
    try:
        load_lpips("alex", weights)
    except CheckpointError:
        return False
    return True


def plan(args: argparse.Namespace, settings: list[str]) -> dict[tuple[str, int], Job]:
    """All jobs, the most telling first: every variant of a seed before the next seed."""
    jobs = {}
    for seed in args.seeds:
        for variant in args.variants:
            out = args.out / f"{variant}-{seed}"
            jobs[variant, seed] = Job(
                variant=variant,
                seed=seed,
                settings=[*settings, f"seed={seed}", f"out={out}"],
                out=str(out),
                judge_stride=args.judge_stride,
                novel_stride=args.novel_stride,
                front=FRONT,
                at_once=args.jobs,
                lpips_weights=args.lpips_weights,
                correct=variant in CORRECTED,
            )
    return jobs


def run_jobs(jobs: list[Job], at_once: int, budget_s: float) -> list[str]:
    """Run what is not finished; returns what was stopped, failed or not begun."""
    waiting = [job for job in jobs if not finished(job)]
    running: dict[str, tuple[subprocess.Popen, float]] = {}
    unfinished = []
    end = time.perf_counter() + budget_s
    while waiting or running:
        over = time.perf_counter() > end
        while waiting and len(running) < at_once and not over:
            job = waiting.pop(0)
            running[job.out] = (start(job), time.perf_counter())
        for out, (process, began) in list(running.items()):
            code = process.poll()
            if code is None and over:
                process.terminate()
                code = process.wait()
            if code is not None:
                del running[out]
                took = time.perf_counter() - began
                how = "done" if code == 0 else "stopped" if over else "FAILED, see its log.txt"
                print(f"{Path(out).name}: {how}, {took:.0f} s", flush=True)
                if code:
                    unfinished.append(Path(out).name)
        if over:
            unfinished += [Path(job.out).name for job in waiting]
            waiting = []
        time.sleep(POLL)
    return unfinished


def start(job: Job) -> subprocess.Popen:
    """A process for the job; what it says goes to ``log.txt`` in its folder."""
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    for stale in ("result.json", "metrics.jsonl"):
        (out / stale).unlink(missing_ok=True)
    (out / "job.json").write_text(json.dumps(asdict(job), indent=1))
    script = str(ROOT / "benchmarks" / "quality_job.py")
    with (out / "log.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, script, str(out / "job.json")], stdout=log, stderr=subprocess.STDOUT
        )


def finished(job: Job) -> bool:
    """Whether the folder holds the result of this very job, however many ran beside it."""
    out = Path(job.out)
    if not (out / "result.json").is_file() or not (out / "job.json").is_file():
        return False
    found = Job(**json.loads((out / "job.json").read_text()))
    return replace(found, at_once=job.at_once) == job


@torch.no_grad()
def frames_per_second(avatar_file: Path, capture: str, participant: str, track: str) -> list[float]:
    """Decoding and drawing one camera with and without the CNN, every frame another expression."""
    device = resolve_device("auto")
    width, height = (550, 802) if device.type == "cuda" else (275, 401)
    avatar = load_avatar(avatar_file).to(device)
    motion = load_track(track).sequence("FREE")
    cameras = open_capture(capture, participant).cameras([FRONT])
    cameras = cameras.resized(width, height).to(torch.float32).to(device)
    rows = torch.nonzero(motion.ok).flatten().tolist()
    codes, poses = motion.z_exp.float().to(device), motion.world_from_head.to(torch.float32)
    poses, torso = poses.to(device), motion.torso.to(torch.float32).to(device)
    refined = Renderer(avatar, Backend.auto, 1.0, refine=True)
    white = torch.ones(3, device=device)

    def with_cnn(row: int) -> None:
        refined(avatar.decode(codes[row], poses[row], torso), cameras)

    def raw(row: int) -> None:
        gaussians = avatar.pose(codes[row], poses[row], torso, with_features=False)
        rasterize(gaussians, cameras, background=white)

    rates = []
    for way in (with_cnn, raw):
        for turn in range(WARM + FRAMES):
            if turn == WARM:
                synchronize(device)
                began = time.perf_counter()
            way(rows[turn % len(rows)])
        synchronize(device)
        rates.append(FRAMES / (time.perf_counter() - began))
    return rates


def cost_rows(
    args: argparse.Namespace, results: Results, avatar: Path, settings: list[str], track: str
) -> list[dict]:
    """Time, memory, rates and size of the full avatar."""
    absent = "the full avatar was not fitted"
    peak = results.of_full("peak_gpu_gb")
    gpu = resolve_device("auto").type == "cuda"
    rates: list[float | None] = [None, None]
    if avatar.is_file():
        rates = list(frames_per_second(avatar, args.capture, args.participant, track))
    size = avatar.stat().st_size / 1e6 if avatar.is_file() else None
    rows = [row("avatar_mb", size, "MB", "<= 12", absent if size is None else "")]
    if gpu:
        at = "550x802, one camera, a new expression every frame"
        minutes, note = None, "not asked for: --standard"
        if args.standard:
            preset = compose_config(FitConfig, "fit", ["preset=gpu", *REQUIRED])
            minutes, own_peak = standard_minutes(args, settings, preset)
            peak.append(own_peak)
            note = f"{args.standard} steps alone with {preset.max_gaussians} Gaussians from the "
            note += f"start, scaled to {preset.steps}"
        rows += [
            row("gpu_standard_minutes", minutes, "min", "<= 30", note),
            row("gpu_peak_gb", max(peak, default=None), "GB", "<= 8", "tensors of one fit"),
            row("gpu_fps_cnn", rates[0], "1/s", ">= 60", at),
            row("gpu_fps_raw", rates[1], "1/s", ">= 200", at),
        ]
        return rows
    quick = npga_quick(args, settings) if args.quick else None
    told = "npga fit preset=quick at 275x401, alone" if quick else "not asked for: --quick"
    rows += [
        row("cpu_quick_minutes", quick, "min", "<= 10", told),
        row("cpu_fps", rates[0], "1/s", ">= 5", "275x401, with the CNN"),
        row("cpu_fps_raw", rates[1], "1/s", "", "275x401, without"),
    ]  # fmt: skip
    return rows


def standard_minutes(
    args: argparse.Namespace, settings: list[str], preset: FitConfig
) -> tuple[float, float]:
    """Minutes and GB of a preset with all Gaussians that it may have, from some steps."""
    out, most = args.out / "standard", preset.max_gaussians
    size = [f"initial_gaussians={most}", f"max_gaussians={most}"]
    job = Job(
        variant="full",
        seed=0,
        settings=[*settings, *size, f"steps={args.standard}", "seed=0", f"out={out}"],
        out=str(out),
        judge_stride=1000,
        novel_stride=1000,
        front=FRONT,
        at_once=1,
        lpips_weights=args.lpips_weights,
        correct=False,
    )
    if run_jobs([job], 1, float("inf")):
        raise SystemExit(f"{out}/log.txt says why the standard fit failed.")
    result = json.loads((out / "result.json").read_text())
    scale = preset.steps / args.standard
    return scale * result["seconds"]["fit"] / 60, result["peak_gpu_gb"]


def npga_quick(args: argparse.Namespace, settings: list[str]) -> float:
    """Minutes of the quick preset at the size of the bar, run alone as a user would."""
    own = ("capture=", "participant=", "track=", "prior=", "held_out_cameras=")
    words = [word for word in settings if word.startswith(own)]
    out = args.out / "quick"
    size = ("width=275", "height=401")
    return npga("fit", *words, "preset=quick", *size, f"out={out}", "overwrite=true") / 60


def main() -> None:
    """Run all, print both tables, write the JSON and the grid."""
    args = arguments()
    flush_denormals()
    budget_s = 60 * args.budget if args.budget else float("inf")
    began = time.perf_counter()
    track = tracked(args)
    settings = fit_settings(args, track)
    jobs = plan(args, settings)
    spent = time.perf_counter() - began
    unfinished = run_jobs(list(jobs.values()), args.jobs, budget_s - spent)
    folders = {key: Path(job.out) for key, job in jobs.items() if finished(job)}
    results = Results.read(folders)
    print_variants(results)
    avatar = args.out / f"full-{args.seeds[0]}" / AVATAR_FILE
    rows = gain_rows(results) + gap_rows(results)
    rows += cost_rows(args, results, avatar, settings, track)
    protocol = {
        "data": f"rendered capture {args.participant} (see README, credits)",
        "split": "FREE held out; cameras " + ", ".join(HELD_OUT) + " held out",
        "judged": f"every {args.judge_stride}. frame of FREE, every {args.novel_stride}. training "
        "frame, from the held-out cameras; means over pictures",
        "regions": "hulls of the tracked head's landmarks (npga/fit/regions.py); dB of the face "
        "where a row names no region; LPIPS-Alex weighted by the face",
        "corrected": "codes and poses of FREE sought by each variant in the training cameras' "
        "pictures (npga/fit/correct.py, default search), judged from the held-out cameras",
        "seeds": args.seeds,
        "settings": [word for word in settings if "/" not in word],
        "variants": {n: list(VARIANTS[n].settings) for n in args.variants},
        "at_once": args.jobs,
        "unfinished": unfinished,
        "scores": {
            variant: {str(seed): r["scores"] for seed, r in seeds.items()}
            for variant, seeds in results.found.items()
        },
    }
    path = write_results("quality", protocol, rows)
    grid = path.parent / f"quality-{machine_name(machine())}.png"
    draw_grid(results, folders, grid)
    print(f"grid: {grid.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
