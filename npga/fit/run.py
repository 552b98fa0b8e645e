"""`npga fit`: settings -> folder."""

import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from npga.avatar import AVATAR_FILE, Avatar, save_avatar
from npga.core.config import as_plain
from npga.core.device import (
    peak_gpu_memory_gb,
    peak_memory_gb,
    resolve_device,
    seed_everything,
    synchronize,
)
from npga.core.lpips import load_lpips
from npga.core.output import output_dir
from npga.core.progress import say
from npga.core.store import checksum, write_json
from npga.fit.batch import FitData, Sampling
from npga.fit.config import Corrected, FitConfig, RegionWeights
from npga.fit.corrections import Corrections
from npga.fit.debris import sweep
from npga.fit.densify import Densifier, DensityState
from npga.fit.drift import Drift, measure_drift, refined_track
from npga.fit.drift_page import write_drift
from npga.fit.graph import CanonicalGraph
from npga.fit.loop import fit
from npga.fit.preview import Preview
from npga.fit.regions import FaceRegions, PixelWeights, face_regions
from npga.fit.renderer import Renderer
from npga.fit.resume import STATE_FILE, load_state, save_state
from npga.fit.runlog import RunLog
from npga.fit.schedule import TURNS_EVERY, Schedule, build_optimizer
from npga.fit.setup import (
    Inputs,
    Split,
    load_inputs,
    load_training,
    split_of,
    start_avatar,
)
from npga.fit.terms import Scene, Terms
from nphm_tracking import HeadModel, Track
from nphm_tracking.model.head_model import CodeStatistics
from nphm_tracking.result import TRACK_FILE

WARM_UP = 3
"""Steps on a copy that the time estimate is measured on (after one that compiles)."""


@dataclass(frozen=True)
class Session:
    """Everything that the loop works with."""

    avatar: Avatar
    corrections: Corrections
    data: FitData
    renderer: Renderer
    terms: Terms
    densifier: Densifier
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    sampling: Sampling
    device: torch.device


def run(config: FitConfig) -> None:
    """Fit an avatar and write it to `config.out`; an interrupted run is resumed exactly."""
    began = time.perf_counter()
    device = resolve_device(config.device)
    fingerprint = {k: v for k, v in as_plain(config).items() if k not in ("out", "overwrite")}
    inputs = load_inputs(config)
    split = split_of(
        inputs.capture,
        inputs.track,
        config.sequences,
        config.held_out_sequence,
        config.held_out_cameras,
    )
    with output_dir(
        config.out, overwrite=config.overwrite, fingerprint=fingerprint, resumable=True
    ) as folder:
        data = load_training(config, inputs.capture, inputs.track, split).ready_for(device)
        seed_everything(config.seed)
        prior_checksum = checksum(inputs.prior.state_dict())
        avatar = start_avatar(
            config, inputs.capture, inputs.track, inputs.model, inputs.prior, data
        )
        session = open_session(
            config,
            avatar,
            data,
            build_terms(config, inputs, device),
            device,
            codes=inputs.model.exp_stats,
        )
        start = load_state(
            folder, session.avatar, session.corrections, session.optimizer, session.densifier
        )
        say(estimate(session, config, start))
        train(session, config, folder, start)
        save_avatar(
            folder / AVATAR_FILE,
            session.avatar,
            prior_checksum=prior_checksum,
            participant=inputs.capture.participant,
        )
        drift = keep_drift(folder, session, inputs)
        write_json(folder / "fit.json", _summary(config, session, split, began))
        (folder / STATE_FILE).unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    say(
        f"fit: {len(session.avatar)} Gaussians, {config.steps} steps, {seconds:.0f} s -> "
        f"{Path(config.out) / AVATAR_FILE}"
    )
    if drift is not None:
        say(_drift_line(drift, Path(config.out)))


def open_session(
    config: FitConfig,
    avatar: Avatar,
    data: FitData,
    terms: Terms,
    device: torch.device,
    density: type[Densifier] = Densifier,
    codes: CodeStatistics | None = None,
) -> Session:
    """Everything at step 0, for an avatar as it starts.

    `density` is the rule of its growth, `codes` what the head model knows of codes.
    """
    avatar = avatar.to(device)
    corrections = Corrections(
        data, config.corrections.of, codes, gauge=config.corrections.gauge
    ).to(device)
    densifier = density(
        config=config.densify,
        data=data,
        graph=CanonicalGraph(avatar.means, avatar.code_motion()),
        cap=config.max_gaussians,
        steps=config.steps,
        seed=config.seed,
        backend=config.backend,
        state=DensityState.blank(len(avatar), device),
    )
    return Session(
        avatar=avatar,
        corrections=corrections,
        data=data,
        renderer=Renderer(avatar, config.backend, data.background, terms.refines),
        terms=terms,
        densifier=densifier,
        optimizer=build_optimizer(avatar, corrections, config.optim),
        schedule=Schedule(
            config.optim,
            config.steps,
            config.prior_mode,
            corrections_from=config.corrections.start,
        ),
        sampling=Sampling(config.cameras_per_step, config.window, config.seed),
        device=device,
    )


def build_terms(config: FitConfig, inputs: Inputs, device: torch.device) -> Terms:
    """The loss terms with what they look at besides the step."""
    perceptual = None
    if config.terms.lpips > 0:
        perceptual = load_lpips(config.lpips_net, config.lpips_weights).to(device)
    weights = pixel_weights(config.regions, inputs.model, inputs.track)
    return Terms(asdict(config.terms), weights, perceptual)


def pixel_weights(weights: RegionWeights, model: HeadModel, track: Track) -> PixelWeights | None:
    """More weight for a tracked person's mouth and eyes; None where they count as the rest."""
    if max(weights.mouth, weights.eyes) == 0:
        return None
    return PixelWeights(face_regions(model, track.z_geo.float()), weights.mouth, weights.eyes)


def train(session: Session, config: FitConfig, folder: Path, start: int) -> None:
    """Run the loop with its log, previews and saved states, then sweep debris away."""

    def save(done: int) -> None:
        save_state(
            folder, done, session.avatar, session.corrections, session.optimizer, session.densifier
        )

    preview = Preview(folder, session.data, session.renderer, session.corrections)
    every = -(-config.save_every // TURNS_EVERY) * TURNS_EVERY
    hooks = ((every, save), (config.preview_every, preview))
    fit(
        session.avatar,
        session.corrections,
        session.data.stream(start, session.sampling, session.device),
        session.renderer,
        session.terms,
        session.densifier,
        session.optimizer,
        session.schedule,
        RunLog(folder, config.steps, start, hooks),
        steps=config.steps,
        start=start,
    )
    swept = sweep(session.avatar, session.optimizer, session.data)
    if swept:
        say(f"fit: {swept} Gaussians that hung in the air where few cameras look are gone.")


def regions_of(terms: Terms, model: HeadModel, track: Track) -> FaceRegions:
    """The face regions that the terms weigh by; made anew where they weigh by none."""
    weights = terms.pixel_weights
    return weights.regions if weights else face_regions(model, track.z_geo.float())


def keep_drift(folder: Path, session: Session, inputs: Inputs) -> Drift | None:
    """The track as the fit refined it, and how far it moved.

    None, and nothing written, where the track was not corrected.
    """
    corrections = session.corrections
    if corrections.what is Corrected.none:
        return None
    regions = regions_of(session.terms, inputs.model, inputs.track)
    names = inputs.model.expression_names
    drift = measure_drift(corrections, session.data, regions, session.avatar, names)
    refined = refined_track(inputs.track, session.data, corrections)
    write_drift(folder, drift, refined, inputs.capture.participant)
    return drift


def _drift_line(drift: Drift, out: Path) -> str:
    """What was corrected, and every warning on a line of its own."""
    turn, shift, marks = drift.turn_deg, drift.shift_mm, drift.landmarks_mm
    line = (
        f"fit: track corrected by {turn.median:.2f} deg and {shift.median:.2f} mm (median; 95 % "
        f"below {turn.p95:.2f} and {shift.p95:.2f}), landmarks by {marks.median:.2f} mm -> "
        f"{out / TRACK_FILE}, {out / 'drift.html'}"
    )
    return "\n".join([line, *(f"  drift: {text}" for text in drift.warnings)])


def estimate(session: Session, config: FitConfig, start: int) -> str:
    """A line with expected time and memory, from a few steps on a copy of the avatar."""
    avatar = copy.deepcopy(session.avatar)
    renderer = Renderer(avatar, config.backend, session.data.background, session.renderer.refine)
    seconds = []
    field = avatar.field()
    for number in range(WARM_UP + 1):
        synchronize(session.device)
        began = time.perf_counter()
        batch = session.data.at_step(number, session.sampling, session.device)
        posed = avatar.decode(batch.z_exp, batch.world_from_head, batch.torso, field=field)
        rendered = renderer(posed, batch.cameras, batch.window)
        scene = Scene(rendered, batch, avatar, posed, session.densifier.graph, None)
        torch.stack(list(session.terms(scene).values())).sum().backward()
        synchronize(session.device)
        seconds.append(time.perf_counter() - began)
    step = sum(seconds[1:]) / WARM_UP
    growth = (1 + config.max_gaussians / len(avatar)) / 2
    minutes = step * growth**0.5 * (config.steps - start) / 60
    data = session.data
    return (
        f"fit: {len(data)} frames of {len(data.sequences)} sequences "
        f"({data.bytes / 1e9:.2f} GB of pictures), {1000 * step:.0f} ms per step, about "
        f"{minutes:.1f} min for {config.steps - start} steps, {peak_memory_gb():.1f} GB so far."
    )


def _summary(config: FitConfig, session: Session, split: Split, began: float) -> dict[str, Any]:
    return {
        "settings": as_plain(config),
        "split": as_plain(split),
        "frames": len(session.data),
        "gaussians": len(session.avatar),
        "density_changes": [list(change) for change in session.densifier.changes],
        "seconds": round(time.perf_counter() - began, 1),
        "peak_memory_gb": round(peak_memory_gb(), 2),
        "peak_gpu_memory_gb": peak_gpu_memory_gb(session.device),
    }
