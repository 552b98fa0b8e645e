"""The whole path on the rendered captures: how long, how much memory, what it gains.

    python benchmarks/bench_path.py [--capture ../shared/captures/nersemble_like] [--out runs/path]

Participant 031 is tracked, fitted at 275x401 and driven by the held-out FREE of 031 and by the
FREE of 054; every command runs in a process of its own, as a user would run it. The
baseline is the same avatar frozen in its mean expression, with the same poses, in the same run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from _results import row, write_results

HELD_OUT = ["222200037", "222200046", "222200039"]


def commands(capture: str, out: Path, every: int) -> list[tuple[str, list[str]]]:
    """(name, command line) in order."""
    me = [f"capture={capture}", "participant=031"]
    other = [f"capture={capture}", "participant=054"]
    track, driver, avatar = out / "track-031", out / "track-054", out / "avatar"
    thin = [f"every={every}"]
    held = "held_out_cameras=[" + ",".join(HELD_OUT) + "]"
    reenact = ["reenact", f"avatar={avatar}", "sequence=FREE"]
    return [
        ("capture check", ["capture", "check", *me, f"out={out / 'check'}"]),
        ("track 031", ["track", *me, *thin, f"out={track}"]),
        ("track 054", ["track", *other, *thin, f"out={driver}"]),
        (
            "fit",
            ["fit", *me, f"track={track}"]
            + [held, "width=275", "height=401", "steps=2200", f"out={avatar}"],
        ),
        (
            "evaluate",
            ["evaluate", *me, f"avatar={avatar}", f"track={track}", held, "frame_stride=2"]
            + ["sequences=[EXP-4,EMO-1]", "width=275", "height=401", f"out={out / 'evaluate'}"],
        ),
        (
            "reenact self",
            [*reenact, "mode=self", f"track={track}", *me, f"out={out / 'self.mp4'}"],
        ),
        (
            "reenact cross",
            [*reenact, "mode=cross", f"track={driver}", *other]
            + [f"avatar_capture={capture}", "avatar_participant=031", f"avatar_track={track}"]
            + [f"out={out / 'cross.mp4'}"],
        ),
    ]


def main() -> None:
    """Run, print the table, write benchmarks/results/path-<machine>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capture", default="../shared/captures/nersemble_like")
    parser.add_argument("--out", type=Path, default=Path("runs/path"))
    parser.add_argument("--every", type=int, default=1)
    args = parser.parse_args()
    seconds: dict[str, float] = {}
    lines = commands(args.capture, args.out, args.every)
    for name, words in lines:
        print(f"\n$ npga {' '.join(words)}", flush=True)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "npga", *words], check=True)
        seconds[name] = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    metrics = json.loads((args.out / "evaluate" / "metrics.json").read_text())
    found = {r["id"]: r for r in metrics["rows"]}
    rows = [
        row("total_minutes", sum(seconds.values()) / 60, "min", "<= 25"),
        row("peak_memory_gb", peak, "GB", "<= 6"),
    ]
    rows += [row(f"{n.replace(' ', '_')}_seconds", value, "s") for n, value in seconds.items()]
    for key, value in found.items():
        bar = ">= 1.5" if key == "self_reenactment.gain_over_frozen_db" else ""
        rows.append(row(key, value["value"], value["unit"], bar))
    protocol = {
        "data": "rendered captures 031 and 054 (see README, credits)",
        "split": "FREE held out; cameras " + ", ".join(HELD_OUT) + " held out",
        "resolution": [401, 275],
        "frames": f"every {args.every}. frame tracked and fitted; every 2. of FREE evaluated",
        "cameras": "13 for training",
        "seed": 0,
        "commands": ["npga " + " ".join(words) for _, words in lines],
        "evaluate": metrics["protocol"],
    }
    write_results("path", protocol, rows)


if __name__ == "__main__":
    main()
