"""From the results of ``bench_quality``'s jobs to rows, a table of variants and a picture grid."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._results import row
from benchmarks.baselines.variants import ABLATIONS, ON_REQUEST
from npga.core.images import (
    ImageArray,
    contact_sheet,
    read_image,
    resize_area,
    side_by_side,
    write_image,
)

TILE_HEIGHT = 240
ERROR_GAIN = 4
"""Absolute errors are shown so many times as bright."""


@dataclass(frozen=True)
class Results:
    """The finished jobs: ``found[variant][seed]`` is a job's result."""

    found: dict[str, dict[int, dict[str, Any]]]

    @staticmethod
    def read(folders: dict[tuple[str, int], Path]) -> "Results":
        """What is finished among the jobs' folders."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for (variant, seed), folder in folders.items():
            path = folder / "result.json"
            if path.is_file():
                found.setdefault(variant, {})[seed] = json.loads(path.read_text())
        return Results(found)

    def values(self, variant: str, question: str, metric: str) -> dict[int, float]:
        """{seed: value} of the seeds that have it; ``frozen`` is the full avatar standing still."""
        if variant == "frozen":
            variant, question = "full", "frozen"
        jobs = self.found.get(variant, {})
        scores = {seed: job["scores"].get(question, {}) for seed, job in jobs.items()}
        return {seed: score[metric] for seed, score in scores.items() if metric in score}

    def of_full(self, *path: str) -> list[float]:
        """One number of every finished full avatar."""
        numbers = []
        for result in self.found.get("full", {}).values():
            value: Any = result
            for key in path:
                value = value[key]
            numbers.append(value)
        return [number for number in numbers if number is not None]


def paired(
    name: str, left: dict[int, float], right: dict[int, float], unit: str, bar: str = ""
) -> dict:
    """The mean over seeds of left - right (or left / right for a unit of 1)."""
    seeds = sorted(left.keys() & right.keys())
    if not seeds:
        return row(name, None, unit, bar, "not measured: a variant is absent")
    each = [left[s] / right[s] if unit == "1" else left[s] - right[s] for s in seeds]
    told = ", ".join(f"{value:.3g}" for value in each)
    note = f"seeds {told}; {np.mean([left[s] for s in seeds]):.4g} against "
    note += f"{np.mean([right[s] for s in seeds]):.4g}"
    return row(name, float(np.mean(each)), unit, bar, note)


def gain_rows(results: Results) -> list[dict]:
    """Quality against baselines and ablations, in self-reenactment."""

    def face(variant: str, region: str = "face") -> dict[int, float]:
        return results.values(variant, "self_reenactment", f"{region}_psnr_db")

    full = face("full")
    lpips = [results.values(v, "self_reenactment", "face_lpips") for v in ("full", "mesh_bound")]
    bound = [face("mesh_bound", region) for region in ("mouth", "eyes")]
    rows = [
        paired("gain_over_mesh_bound_db", full, face("mesh_bound"), "dB", ">= 2.0"),
        paired("lpips_ratio_to_mesh_bound", *lpips, "1", "<= 0.75"),
        paired("gain_over_frozen_db", full, face("frozen"), "dB", ">= 4"),
        paired("gain_over_vanilla_db", full, face("vanilla"), "dB", ">= 0.5"),
        paired("mouth_gain_db", face("full", "mouth"), bound[0], "dB", "> 0"),
        paired("eyes_gain_db", face("full", "eyes"), bound[1], "dB", "> 0"),
    ]
    if not lpips[0]:
        rows[1]["note"] = "no LPIPS weights on this machine"
    rows += corrected_rows(results)
    for name in ABLATIONS:
        rows.append(paired(f"ablation_{name}_db", full, face(name), "dB", ">= 0"))
    for name in ON_REQUEST:
        if face(name):
            rows.append(paired(f"gain_over_{name}_db", full, face(name), "dB"))
            other = results.values(name, "self_reenactment", "face_lpips")
            rows.append(paired(f"lpips_ratio_to_{name}", lpips[0], other, "1"))
    return rows


def corrected_rows(results: Results) -> list[dict]:
    """The same against mesh_bound, each with the track of FREE that it corrected itself."""

    def of(metric: str, variant: str = "full") -> dict[int, float]:
        return results.values(variant, "corrected", metric)

    tracked = results.values("full", "self_reenactment", "face_psnr_db")
    rows = [paired("correction_gain_db", of("face_psnr_db"), tracked, "dB")]
    for region in ("face", "mouth", "eyes"):
        metric, name = f"{region}_psnr_db", "" if region == "face" else f"{region}_"
        bar = ">= 2.0" if region == "face" else "> 0"
        pair = of(metric), of(metric, "mesh_bound")
        rows.append(paired(f"corrected_{name}gain_over_mesh_bound_db", *pair, "dB", bar))
    pair = of("face_lpips"), of("face_lpips", "mesh_bound")
    rows.append(paired("corrected_lpips_ratio_to_mesh_bound", *pair, "1", "<= 0.75"))
    return rows


def gap_rows(results: Results) -> list[dict]:
    """How much is lost from training expressions to new ones, with and without regularisers.

    Of the seeds that have both, so that the two gaps can be compared.
    """
    rows = []
    full, free_seeds = (results.found.get(v, {}).keys() for v in ("full", "unregularised"))
    seeds = (full & free_seeds) or full
    for name, variant in (
        ("generalisation_gap_db", "full"),
        ("generalisation_gap_unregularised_db", "unregularised"),
    ):
        novel = results.values(variant, "novel_view", "face_psnr_db")
        reenacted = results.values(variant, "self_reenactment", "face_psnr_db")
        novel = {seed: value for seed, value in novel.items() if seed in seeds}
        rows.append(paired(name, novel, reenacted, "dB"))
    regularised, free = (r["value"] for r in rows)
    if regularised is not None and free is not None:
        rows[0]["bar"] = f"< {free}"
        rows[0]["holds"] = regularised < free
    return rows


def print_variants(results: Results) -> None:
    """Means over seeds of every variant."""
    metrics = [
        ("self_reenactment", "face_psnr_db", "face"),
        ("self_reenactment", "mouth_psnr_db", "mouth"),
        ("self_reenactment", "eyes_psnr_db", "eyes"),
        ("self_reenactment", "matte_psnr_db", "matte"),
        ("self_reenactment", "face_lpips", "lpips"),
        ("corrected", "face_psnr_db", "corrected"),
        ("novel_view", "face_psnr_db", "novel face"),
    ]
    print(f"\n{'variant':18s}" + "".join(f"{m[2]:>12s}" for m in metrics) + "   Gaussians   min")
    for variant in [*results.found, "frozen"]:
        cells = ""
        for question, metric, _ in metrics:
            values = list(results.values(variant, question, metric).values())
            shown = f"{np.mean(values):12.3f}" if values else f"{'-':>12s}"
            asked = variant != "frozen" or question == "self_reenactment"
            cells += shown if asked else f"{'-':>12s}"
        end = ""
        if variant in results.found:
            jobs = list(results.found[variant].values())
            minutes = np.mean([job["seconds"]["fit"] for job in jobs]) / 60
            end = f"{jobs[0]['gaussians']:12d}{minutes:6.1f}"
        print(f"{variant:18s}{cells}{end}")
    print()


def draw_grid(results: Results, folders: dict[tuple[str, int], Path], out: Path) -> None:
    """[truth | full | baselines | ablations] of every chosen frame, and their errors below."""
    seed = min((s for v, s in folders if (folders[v, s] / "result.json").is_file()), default=0)
    names = [name for name in results.found if seed in results.found[name]]
    if "full" not in names:
        return
    columns = ["full", *(n for n in ("mesh_bound",) if n in names), "frozen"]
    columns += [n for n in names if n not in columns]
    shown = results.found["full"][seed]["shown"]
    rows: list[ImageArray] = []
    for number, frame in enumerate(shown):
        home = folders["full", seed]
        truth = _tile(home / f"tile_{number}_truth.png")
        pictures = [
            _tile(home / f"tile_{number}_frozen.png")
            if name == "frozen"
            else _tile(folders[name, seed] / f"tile_{number}_drawn.png")
            for name in columns
        ]
        blank = np.full_like(truth, 255)
        errors = [_error(picture, truth) for picture in pictures]
        labels = [f"truth: {frame['title']}", *columns]
        rows.append(contact_sheet([truth, *pictures], len(labels), labels))
        rows.append(side_by_side([blank, *errors]))
    width = max(r.shape[1] for r in rows)
    padded = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255)
              for r in rows]  # fmt: skip
    write_image(out, np.concatenate(padded, 0))


def _tile(path: Path) -> ImageArray:
    picture = read_image(path)
    height, width = picture.shape[:2]
    return resize_area(picture, round(width * TILE_HEIGHT / height), TILE_HEIGHT)


def _error(picture: ImageArray, truth: ImageArray) -> ImageArray:
    """Absolute difference, made `ERROR_GAIN` times as large, dark where both agree."""
    apart = np.abs(picture.astype(np.int32) - truth.astype(np.int32)) * ERROR_GAIN
    return apart.clip(0, 255).astype(np.uint8)
