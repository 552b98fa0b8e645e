"""`npga track`: a capture -> `track.safetensors`, with a report to look at."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import npga
from npga.capture import Capture, open_capture
from npga.core.config import as_plain
from npga.core.errors import ConfigError
from npga.core.output import output_dir
from npga.core.progress import bar, say
from npga.core.store import write_json
from nphm_tracking.config import LandmarkSource, StageKind, TrackConfig
from nphm_tracking.frames import LandmarkMotion
from nphm_tracking.head import TrackableHead, canonical_landmarks, geometry_prior
from nphm_tracking.landmarks import Landmarks3D, used_landmarks
from nphm_tracking.model.head_model import Codes, HeadModel
from nphm_tracking.model.load import load_head_model
from nphm_tracking.observe import (
    MeanHead,
    Observed,
    first_poses,
    landmark_source,
    load_observed,
    observe_monocular,
    observe_sequence,
    save_observed,
    see_landmarks,
    triangulated,
)
from nphm_tracking.photometric import CapturePictures
from nphm_tracking.report import write_alignment, write_report
from nphm_tracking.result import TRACK_FILE, Track, load_track, save_track
from nphm_tracking.track import (
    Solution,
    finish_sequence,
    require_frames,
    require_points,
    solve_stages,
    start_solution,
)

MEAN_MESH_RESOLUTION = 48

MotionOf = Callable[[HeadModel, str | None], LandmarkMotion]


def run(config: TrackConfig, motion_of: MotionOf | None = None) -> None:
    """Track a capture as configured; see `track_capture`. Raises NpgaError in two lines.

    ``motion_of`` makes of the head model and ``config.prior`` (None: the open prior's F) what
    carries its surface, and its landmarks where a prior was asked for.
    """
    model = load_head_model(config.head_model)
    if config.prior is not None and motion_of is None:
        raise ConfigError(
            f"prior={config.prior} was given, but nothing here can read a forward prior.",
            "Use the command `npga track`, or pass motion_of.",
        )
    forward = None
    if motion_of is not None and (config.prior is not None or config.head_model is None):
        forward = motion_of(model, config.prior)
    capture = open_capture(config.capture, config.participant)
    names = chosen_sequences(capture, config)
    fingerprint = as_plain(config) | {"overwrite": None, "head_model": model.checksum()}
    with output_dir(
        config.out, overwrite=config.overwrite, fingerprint=fingerprint, resumable=True
    ) as folder:
        track = track_capture(capture, names, model, config, folder, forward)
    good = sum(int(s.ok.sum()) for s in track.sequences.values())
    count = sum(len(s) for s in track.sequences.values())
    say(f"track: {good} of {count} frames of {track.participant} -> {config.out}/{TRACK_FILE}")


def chosen_sequences(capture: Capture, config: TrackConfig) -> list[str]:
    """The sequences to track, by their full names; raises CaptureError for an unknown one."""
    if not config.sequences:
        names = [info.name for info in capture.sequences]
    else:
        names = [capture.sequence(name).name for name in config.sequences]
    if not names:
        raise ConfigError(f"{config.capture} has no sequences to track.", "Check the capture.")
    return list(dict.fromkeys(names))


def track_capture(
    capture: Capture,
    names: list[str],
    model: TrackableHead,
    config: TrackConfig,
    folder: Path,
    forward: LandmarkMotion | None = None,
) -> Track:
    """Observe, solve the stages, write track, summary and report into `folder`; returns the track.

    What is done already in `folder` (an interrupted run's) is taken up. Without `forward`, which
    carries the surface, no pictures are compared.
    """
    began = time.monotonic()
    torch.manual_seed(config.seed)
    observed, source = observe(capture, names, model, config, folder)
    alignment = write_alignment(observed, capture, model, config, folder) if config.report else None
    require_points(observed, config.points_min, alignment)
    seen = time.monotonic()
    start = start_solution(model, observed, None if config.prior is None else forward)
    pictures = comparable_pictures(capture, names, config, start, forward)
    solution = solve_stages(observed, start, config, folder, pictures)
    sequences = {one.name: finish_sequence(one, solution, config) for one in observed}
    landmarks = solution.person.landmarks
    require_frames(sequences, config.residual_max_mm, alignment)
    track = Track(
        z_geo=solution.person.z_geo,
        z_app=torch.zeros(model.app_size),
        sequences=sequences,
        head_model_checksum=model.checksum(),
        participant=capture.participant,
        provenance=provenance(capture, config, source),
        landmarks=landmarks if len(landmarks) else None,
    )
    save_track(track, folder / TRACK_FILE)
    times = {"observe_s": seen - began, "solve_s": time.monotonic() - seen}
    write_json(folder / "summary.json", summary(track, config, times))
    if config.report:
        write_report(track, observed, capture, model, config, folder)
    _clear_working_files(folder)
    return load_track(folder)


def comparable_pictures(
    capture: Capture,
    names: list[str],
    config: TrackConfig,
    start: Solution,
    forward: LandmarkMotion | None,
) -> CapturePictures | None:
    """The pictures of the stage of that name; None, with a note, where they cannot be compared."""
    wanted = any(stage.kind is StageKind.pictures for stage in config.stages)
    if not wanted or config.cameras_for_pictures == 0 or len(config.cameras) == 1:
        return None
    found, missing = None, "landmarks"
    if forward is None:
        missing = "a forward prior of this head model (prior=)"
    elif len(start.person.landmarks):
        found = CapturePictures.of(capture, names, config, forward)
        missing = "cameras that all sequences have and that are not held out (held_out_cameras=)"
    if found is None:
        say(f"track: pictures are not compared, which takes {missing}.")
    return found


def observe(
    capture: Capture, names: list[str], model: TrackableHead, config: TrackConfig, folder: Path
) -> tuple[list[Observed], LandmarkSource]:
    """Observations of every sequence, from the working folder where they are there."""
    kept = folder / "observed"
    kept.mkdir(parents=True, exist_ok=True)
    paths = [kept / f"{index}.pt" for index in range(len(names))]
    source = landmark_source(capture, names, model.landmark_count, config)
    mean = mean_head(model, with_landmarks=source is not LandmarkSource.none)
    if not all(path.exists() for path in paths):
        seen = {}
        if source is not LandmarkSource.none:
            seen = see_landmarks(capture, names, source, mean, config)
        if len(config.cameras) == 1:
            for name, path in zip(names, paths, strict=True):
                save_observed(observe_monocular(capture, name, seen[name], mean, config), path)
        else:
            _observe_clouds(capture, names, triangulated(seen, config), mean, config, paths)
    observed = [load_observed(path) for path in paths]
    frames = sum(len(one.frames) for one in observed)
    usable = sum(int(one.enough.sum()) for one in observed)
    say(
        f"track: {frames} frames of {len(names)} sequences, {usable} with enough to see, "
        f"landmarks: {source.value}"
    )
    return observed, source


def _observe_clouds(
    capture: Capture,
    names: list[str],
    landmarks: dict[str, Landmarks3D],
    mean: MeanHead,
    config: TrackConfig,
    paths: list[Path],
) -> None:
    poses = first_poses(capture, names, landmarks, mean, config)
    with bar("surface points", len(names)) as shown:
        for name, path in zip(names, paths, strict=True):
            one = observe_sequence(capture, name, landmarks.get(name), poses[name], mean, config)
            save_observed(one, path)
            shown.update()


def mean_head(model: TrackableHead, with_landmarks: bool) -> MeanHead:
    """The model's average neutral head: its landmarks, or else its surface."""
    geometry = geometry_prior(model).mean
    if with_landmarks:
        with torch.no_grad():
            landmarks = canonical_landmarks(model, geometry)
        return MeanHead(landmarks, used_landmarks(model.landmark_count), torch.zeros(0, 3))
    codes = Codes(
        geometry,
        geometry.new_zeros(model.app_size),
        torch.zeros_like(model.exp_stats.mean).clamp(model.exp_stats.lower, model.exp_stats.upper),
    )
    return MeanHead(torch.zeros(0, 3), (), model.mesh(codes, MEAN_MESH_RESOLUTION).vertices)


def provenance(capture: Capture, config: TrackConfig, source: LandmarkSource) -> dict[str, Any]:
    """What made the track, without machine paths."""
    settings = as_plain(config)
    for key in ("capture", "out", "cache", "overwrite", "report"):
        settings.pop(key)
    if settings["head_model"] is not None:
        settings["head_model"] = Path(settings["head_model"]).name
    return {
        "capture": capture.root.name,
        "layout": capture.layout.value,
        "landmarks": source.value,
        "settings": settings,
        "npga": npga.__version__,
    }


def summary(track: Track, config: TrackConfig, times: dict[str, float]) -> dict[str, Any]:
    """The figures of a run, for people."""
    rows = {
        name: {
            "frames": len(s),
            "ok": int(s.ok.sum()),
            "residual_mm": round(float(s.residual_mm[s.ok].median()), 3)
            if bool(s.ok.any())
            else None,
        }
        for name, s in track.sequences.items()
    }
    return {
        "participant": track.participant,
        "head_model": track.head_model_checksum,
        "metres_per_unit": float(next(iter(track.sequences.values())).world_from_head.scale[0]),
        "sequences": rows,
        "times_s": {key: round(value, 1) for key, value in times.items()},
        "every": config.every,
    }


def _clear_working_files(folder: Path) -> None:
    for name in ("state", "observed"):
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()
