"""One shape for all measurements: ``results/<benchmark>-<machine>.json``.

A row is one number with its unit and, where one was promised, its bar ("<= 0.2", ">= 25").
"""

import json
import operator
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from npga.core.device import resolve_device

ROOT = Path(__file__).resolve().parents[1]
_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def row(name: str, value: float | None, unit: str, bar: str = "", note: str = "") -> dict:
    """One measured number; ``holds`` says whether it meets the bar (None without one).

    The value is None where it could not be measured; the note then says why.
    """
    holds = None
    if bar and value is not None:
        sign, limit = bar.split()
        holds = _COMPARISONS[sign](value, float(limit))
    return {
        "id": name,
        "value": None if value is None else float(f"{value:.4g}"),
        "unit": unit,
        "bar": bar,
        "holds": holds,
        "note": note,
    }


def machine() -> dict:
    """Processor, the cores this process may use, and the GPU's name (None without one)."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", info.read_text()) if info.is_file() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": cores,
        "gpu": _gpu_name(),
    }


def _gpu_name() -> str | None:
    if resolve_device("auto").type != "cuda":
        return None
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def machine_name(info: dict) -> str:
    """Short name for files: ``2core-cpu``, or ``nvidia-h100-80gb-hbm3``."""
    if info["gpu"]:
        return re.sub(r"[^a-z0-9]+", "-", info["gpu"].lower()).strip("-")
    return f"{info['cores']}core-cpu"


def _commit() -> str:
    """The commit that was measured, with ``+`` where tracked files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        edited = git("status", "--porcelain", "--untracked-files=no", "--", "npga", "nphm_tracking")
        return git("rev-parse", "--short", "HEAD") + ("+" if edited else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def print_table(rows: list[dict]) -> None:
    """The rows, aligned, with their bars."""
    wide = max((len(r["id"]) for r in rows), default=0)
    verdicts = {None: "", True: "holds", False: "MISSED"}
    for r in rows:
        bar = f"{r['bar']:>10s} {verdicts[r['holds']]}" if r["bar"] else ""
        value = "-" if r["value"] is None else f"{r['value']:.4g}"
        print(f"{r['id']:{wide}s} {value:>10s} {r['unit']:6s} {bar:18s} {r['note']}".rstrip())


def kept_rows(path: Path, measured: set[str]) -> list[dict]:
    """The rows of an earlier results file that are not measured now, each with its commit."""
    if not path.is_file():
        return []
    held = json.loads(path.read_text())
    return [{"commit": held["commit"], **one} for one in held["rows"] if one["id"] not in measured]


def write_results(name: str, protocol: dict, rows: list[dict], *, keep: bool = False) -> Path:
    """Print the table and write ``results/<name>-<machine>.json``; returns its path.

    With ``keep``, rows of that file that are not measured now stay, and say of which commit.
    """
    where = machine()
    path = ROOT / "benchmarks" / "results" / f"{name}-{machine_name(where)}.json"
    if keep:
        rows = rows + kept_rows(path, {one["id"] for one in rows})
    results = {
        "benchmark": name,
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": where,
        "protocol": protocol,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print_table(rows)
    print(f"\nwritten to {path.relative_to(ROOT)}")
    return path
