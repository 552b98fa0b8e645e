"""`npga demo`: the whole path, from a capture to a head that another person drives.

Each stage is the command of that name with its own preset; this file only puts them in order,
skips what an interrupted run has finished, and gathers pictures and figures.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from npga.capture.config import CaptureCheckConfig
from npga.capture.open import DEMO_CAPTURE
from npga.capture.run import run_check
from npga.core.config import as_plain, compose_config, knob
from npga.core.device import peak_memory_gb
from npga.core.images import ImageArray, contact_sheet, write_image
from npga.core.output import output_dir
from npga.core.progress import say
from npga.core.store import write_json
from npga.core.video import read_video
from npga.distill.landmarks import track as run_track
from npga.fit.config import EvaluateConfig, FitConfig
from npga.fit.report import run_evaluate
from npga.fit.run import run as run_fit
from npga.reenact.config import ReenactConfig
from npga.reenact.run import run as run_reenact
from npga.render.config import RenderConfig
from npga.render.run import run as run_render
from nphm_tracking.config import TrackConfig


@dataclass(frozen=True)
class DemoConfig:
    """The whole path on one capture."""

    out: str = knob("runs/demo", "folder to write")
    overwrite: bool = knob(False, "replace an existing result")
    capture: str = knob(str(DEMO_CAPTURE), "capture root (default: the shipped one)")
    participant: str = knob("101", "whose avatar is made")
    driver: str = knob("102", "who drives it in cross-reenactment")
    held_out: str = knob("FREE", "sequence never trained on; it drives the avatar afterwards")
    driver_sequence: str = knob("FREE", "the driver's sequence")
    track_every: int = knob(1, "track every n-th frame")
    points_min: int = knob(60, "face points that a frame needs (shipped clouds are sparse)")
    fit_preset: str = knob("demo", "settings of the fit: see configs/preset")
    evaluate_stride: int = knob(2, "evaluate every n-th tracked frame")


@dataclass(frozen=True)
class Stage:
    """One command of the path and the file or folder it leaves."""

    name: str
    result: str
    run: Callable[[Path], None]


def run(config: DemoConfig) -> None:
    """Run all stages into `config.out`; an interrupted demo goes on at its first missing stage."""
    began = time.perf_counter()
    out = Path(config.out)
    fingerprint = {k: v for k, v in as_plain(config).items() if k not in ("out", "overwrite")}
    with output_dir(
        out, overwrite=config.overwrite, fingerprint=fingerprint, resumable=True
    ) as folder:
        times = folder / "times.json"
        seconds: dict[str, float] = json.loads(times.read_text()) if times.exists() else {}
        stages = path_stages(config)
        for number, stage in enumerate(stages, 1):
            if stage.name in seconds and (folder / stage.result).exists():
                say(f"[{number}/{len(stages)}] {stage.name}: done before the interruption.")
                continue
            say(f"[{number}/{len(stages)}] {stage.name}")
            start = time.perf_counter()
            stage.run(folder)
            seconds[stage.name] = round(time.perf_counter() - start, 1)
            write_json(times, seconds)
        write_image(folder / "contact_sheet.png", sheet(folder))
        write_json(folder / "summary.json", summary(config, folder, seconds))
        times.unlink()
    minutes = (time.perf_counter() - began) / 60
    say(f"demo: {minutes:.1f} min, peak {peak_memory_gb():.1f} GB. Look at {out}:")
    for name in ("contact_sheet.png", "self_reenactment.mp4", "cross_reenactment.mp4"):
        say(f"  {out / name}")
    say(f"  {out / 'novel_view.mp4'}\n  {out / 'summary.json'}")


def path_stages(config: DemoConfig) -> list[Stage]:
    """The path in order: capture, track, fit, evaluate, reenact, render; F is the shipped one."""
    me, driver = f"track-{config.participant}", f"track-{config.driver}"
    return [
        Stage("capture check", "capture", lambda f: _check(config, f)),
        Stage(f"track {config.participant}", me, lambda f: _track(config, f, me)),
        Stage(f"track {config.driver}", driver, lambda f: _track(config, f, driver)),
        Stage("fit", "avatar", lambda f: _fit(config, f, me)),
        Stage("evaluate", "evaluate", lambda f: _evaluate(config, f, me)),
        Stage("reenact self", "self_reenactment.mp4", lambda f: _self(config, f, me)),
        Stage("reenact cross", "cross_reenactment.mp4", lambda f: _cross(config, f, me, driver)),
        Stage("render", "novel_view.mp4", lambda f: _render(config, f, me)),
    ]


def _check(config: DemoConfig, folder: Path) -> None:
    settings = [f"capture={config.capture}", f"participant={config.participant}"]
    run_check(
        compose_config(
            CaptureCheckConfig, "capture_check", [*settings, f"out={folder / 'capture'}"]
        )
    )


def _track(config: DemoConfig, folder: Path, name: str) -> None:
    participant = name.removeprefix("track-")
    settings = [
        f"capture={config.capture}",
        f"participant='{participant}'",
        f"every={config.track_every}",
        f"points_min={config.points_min}",
        f"cache={folder / 'cache'}",
        f"out={folder / name}",
    ]
    if participant == config.driver:
        settings.append(f"sequences=[{config.driver_sequence}]")
    run_track(compose_config(TrackConfig, "track", settings))


def _fit(config: DemoConfig, folder: Path, track: str) -> None:
    settings = [
        f"preset={config.fit_preset}",
        f"capture={config.capture}",
        f"participant='{config.participant}'",
        f"track={folder / track}",
        f"held_out_sequence={config.held_out}",
        f"cache_dir={folder / 'cache'}",
        f"out={folder / 'avatar'}",
    ]
    run_fit(compose_config(FitConfig, "fit", settings))


def _evaluate(config: DemoConfig, folder: Path, track: str) -> None:
    size = _picture_size(config)
    settings = [
        f"avatar={folder / 'avatar'}",
        f"capture={config.capture}",
        f"participant='{config.participant}'",
        f"track={folder / track}",
        f"held_out_sequence={config.held_out}",
        f"frame_stride={config.evaluate_stride}",
        f"width={size[0]}",
        f"height={size[1]}",
        f"cache_dir={folder / 'cache'}",
        f"out={folder / 'evaluate'}",
    ]
    run_evaluate(compose_config(EvaluateConfig, "evaluate", settings))


def _picture_size(config: DemoConfig) -> tuple[int, int]:
    """Width and height that the fit's preset works at."""
    needed = ["capture=.", "track=.", "out=."]
    fit = compose_config(FitConfig, "fit", [f"preset={config.fit_preset}", *needed])
    return fit.width, fit.height


def _self(config: DemoConfig, folder: Path, track: str) -> None:
    settings = [
        "mode=self",
        f"avatar={folder / 'avatar'}",
        f"track={folder / track}",
        f"sequence={config.held_out}",
        f"capture={config.capture}",
        f"participant='{config.participant}'",
        f"out={folder / 'self_reenactment.mp4'}",
    ]
    run_reenact(compose_config(ReenactConfig, "reenact", settings))


def _cross(config: DemoConfig, folder: Path, track: str, driver: str) -> None:
    settings = [
        "mode=cross",
        f"avatar={folder / 'avatar'}",
        f"track={folder / driver}",
        f"sequence={config.driver_sequence}",
        f"capture={config.capture}",
        f"participant='{config.driver}'",
        f"avatar_capture={config.capture}",
        f"avatar_participant='{config.participant}'",
        f"avatar_track={folder / track}",
        f"out={folder / 'cross_reenactment.mp4'}",
    ]
    run_reenact(compose_config(ReenactConfig, "reenact", settings))


def _render(config: DemoConfig, folder: Path, track: str) -> None:
    settings = [
        f"avatar={folder / 'avatar'}",
        f"track={folder / track}",
        f"sequence={config.held_out}",
        "camera=orbit",
        f"out={folder / 'novel_view.mp4'}",
    ]
    run_render(compose_config(RenderConfig, "render", settings))


def sheet(folder: Path, columns: int = 6) -> ImageArray:
    """Frames of the three videos, one video per row."""
    names = ("self_reenactment", "cross_reenactment", "novel_view")
    tiles: list[ImageArray] = []
    labels: list[str] = []
    for name in names:
        frames = list(read_video(folder / f"{name}.mp4"))
        chosen = [round(i * (len(frames) - 1) / (columns - 1)) for i in range(columns)]
        tiles += [frames[i][::2, ::2] for i in chosen]
        labels += [f"{name} {i}" for i in chosen]
    return contact_sheet(tiles, columns, labels)


def summary(config: DemoConfig, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """Metrics, times and protocol of the whole path."""
    metrics = json.loads((folder / "evaluate" / "metrics.json").read_text())
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return {
        "metrics": metrics,
        "cross_reenactment": json.loads((folder / "cross_reenactment.json").read_text()),
        "seconds": seconds,
        "seconds_total": round(sum(seconds.values()), 1),
        "peak_memory_gb": round(peak_memory_gb(), 2),
        "frames_compared": _video_lengths(folder),
        "settings": as_plain(config),
    }


def _video_lengths(folder: Path) -> dict[str, int]:
    return {
        p.name: sum(1 for _ in islice(read_video(p), 100000)) for p in sorted(folder.glob("*.mp4"))
    }
