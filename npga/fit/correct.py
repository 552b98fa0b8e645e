"""`npga correct`: codes and poses of a take, corrected until the avatar looks like the pictures.

Analysis by synthesis: the avatar stands still, every frame's expression code and pose move. What no
landmark and no cloud tells (a brow that slides over bone, a gaze, half a blink) shows in the
picture, and the avatar knows how this person looks there. Frames follow each other: each starts
from the correction of the one before, and has an Adam of its own. Nothing here looks at cameras
that are held out. Ours.

Letters: `t` frames.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from npga.avatar import Avatar, avatar_file, load_avatar
from npga.capture import Capture, open_capture
from npga.core.config import as_plain
from npga.core.device import resolve_device
from npga.core.images import ImageArray, contact_sheet, to_uint8, write_image
from npga.core.output import output_dir
from npga.core.progress import bar, say
from npga.core.store import load_tensors, save_tensors
from npga.fit.batch import FitBatch, FitData
from npga.fit.config import CorrectConfig, Corrected, SearchConfig
from npga.fit.corrections import Corrections, FrameTrack
from npga.fit.drift import Drift, measure_drift, refined_track
from npga.fit.drift_page import write_drift
from npga.fit.graph import CanonicalGraph
from npga.fit.renderer import Renderer
from npga.fit.run import pixel_weights, regions_of
from npga.fit.setup import load_takes, split_of
from npga.fit.terms import Scene, Terms
from nphm_tracking import HeadModel, Track, load_head_model, load_track
from nphm_tracking.result import TRACK_FILE

STATE_FORMAT = "npga.correct.state"
STATE_FILE = "state.safetensors"
BETAS = (0.8, 0.95)
"""Of Adam: a frame has few steps."""

SHOWN, PER_ROW = 6, 2
"""Frames on the sheet."""

Done = Callable[[int], None]


def correct(
    renderer: Renderer,
    data: FitData,
    terms: Terms,
    corrections: Corrections,
    search: SearchConfig,
    *,
    seed: int = 0,
    start: int = 0,
    done: Done = lambda frames: None,
) -> None:
    """Move the corrections of frames `start`.. of `data`; calls `done` after every frame.

    The avatar is not changed. Raises NpgaError from what draws.
    """
    avatar = renderer.avatar.eval()
    learns = [parameter.requires_grad for parameter in avatar.parameters()]
    avatar.requires_grad_(False)
    graph = CanonicalGraph(avatar.means, avatar.code_motion())
    try:
        for index in range(start, len(data)):
            _hand_on(corrections, data, index)
            _search(renderer, data, terms, corrections, search, graph, index, seed)
            done(index + 1)
    finally:
        for parameter, learned in zip(avatar.parameters(), learns, strict=True):
            parameter.requires_grad_(learned)


@torch.no_grad()
def _hand_on(corrections: Corrections, data: FitData, index: int) -> None:
    """Frame `index` (and the next, its other neighbour) starts where the one before ended."""
    take, row = data.places[index]
    if row == 0:
        return
    until = index + min(2, len(data.sequences[take]) - row)
    for values in (corrections.moves, corrections.codes):
        values[index:until] = values[index - 1]
    corrections.settle()


def _search(
    renderer: Renderer,
    data: FitData,
    terms: Terms,
    corrections: Corrections,
    search: SearchConfig,
    graph: CanonicalGraph,
    index: int,
    seed: int,
) -> None:
    """Adam on one frame, whose rate falls to a tenth; a few cameras at a time."""
    avatar = renderer.avatar
    optimizer = torch.optim.Adam(
        [
            {"params": [corrections.moves], "lr": search.moves},
            {"params": [corrections.codes], "lr": search.codes},
        ],
        betas=BETAS,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    field = avatar.field()
    for step in range(search.steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.1 ** (step / search.steps)
        batch = _some_cameras(data, index, search.cameras, generator, avatar)
        frame = corrections.of(batch)
        posed = avatar.decode(frame.z_exp, frame.world_from_head, batch.torso, field=field)
        rendered = renderer(posed, batch.cameras)
        losses = terms(Scene(rendered, batch, avatar, posed, graph, frame.correction))
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        corrections.settle()


def _some_cameras(
    data: FitData, index: int, count: int, generator: torch.Generator, avatar: Avatar
) -> FitBatch:
    cameras = len(data.sequences[data.places[index][0]].cameras)
    chosen = torch.randperm(cameras, generator=generator)[:count].tolist()
    return data.batch(index, chosen, avatar.means.device)


def search_terms(config: SearchConfig, model: HeadModel, track: Track) -> Terms:
    """What a correction is judged by."""
    return Terms(asdict(config.terms), pixel_weights(config.regions, model, track))


def run(config: CorrectConfig) -> None:
    """Correct a track and write it to `config.out`; an interrupted run is resumed exactly."""
    device = resolve_device(config.device)
    capture = open_capture(config.capture, config.participant)
    track, model = load_track(config.track), load_head_model(config.head_model)
    avatar = load_avatar(avatar_file(config.avatar), track.head_model_checksum).to(device)
    fingerprint = {k: v for k, v in as_plain(config).items() if k not in ("out", "overwrite")}
    with output_dir(
        config.out, overwrite=config.overwrite, fingerprint=fingerprint, resumable=True
    ) as folder:
        data = takes_of(config, capture, track).ready_for(device)
        corrections = Corrections(data, Corrected.both, model.exp_stats, gauge=False).to(device)
        renderer = Renderer(avatar, config.backend, data.background, config.refine)
        terms = search_terms(config.search, model, track)
        _correct_and_keep(config, folder, renderer, data, terms, corrections)
        regions = regions_of(terms, model, track)
        drift = measure_drift(corrections, data, regions, avatar, model.expression_names)
        drift = replace(drift, warnings=())  # an offset of a whole take is what is sought here
        write_drift(folder, drift, refined_track(track, data, corrections), capture.participant)
        write_image(folder / "corrected.png", corrected_sheet(renderer, data, corrections, drift))
        (folder / STATE_FILE).unlink(missing_ok=True)
    say(_line(drift, Path(config.out)))


def _correct_and_keep(
    config: CorrectConfig,
    folder: Path,
    renderer: Renderer,
    data: FitData,
    terms: Terms,
    corrections: Corrections,
) -> None:
    """With a bar; what is done is kept every `save_every` frames and taken up again."""
    state = folder / STATE_FILE
    start = 0
    if state.exists():
        tensors, meta = load_tensors(state, format=STATE_FORMAT, version=1)
        corrections.load_state_dict(tensors)
        start = int(meta["frames"])
    with bar("correct", len(data), start) as shown:

        def done(frames: int) -> None:
            shown.update()
            if frames % config.save_every == 0:
                meta = {"frames": frames}
                kept = corrections.state_dict()
                save_tensors(state, kept, format=STATE_FORMAT, version=1, meta=meta)

        correct(
            renderer, data, terms, corrections, config.search,
            seed=config.seed, start=start, done=done,
        )  # fmt: skip


def takes_of(config: CorrectConfig, capture: Capture, track: Track) -> FitData:
    """The takes to correct, seen by all cameras but the held-out ones; raises as `split_of`."""
    split = split_of(capture, track, config.sequences, "", config.held_out_cameras)
    return load_takes(config, capture, track, split.training_sequences, split.training_cameras)


@torch.no_grad()
def corrected_sheet(
    renderer: Renderer, data: FitData, corrections: Corrections, drift: Drift
) -> ImageArray:
    """[truth | as tracked | corrected] of the frames whose landmarks moved most, from the front."""
    moved = [one.landmarks_mm for one in drift.frames]
    order = sorted(range(len(data)), key=lambda index: -moved[index])
    tiles, labels = [], []
    for index in order[:SHOWN]:
        cameras = data.sequences[data.places[index][0]].cameras
        front = cameras.frontal()
        batch = data.batch(index, [front], renderer.avatar.means.device)
        tiles.append(to_uint8(batch.image[0]))
        for frame in (FrameTrack.tracked(batch), corrections.of(batch)):
            posed = renderer.avatar.decode(frame.z_exp, frame.world_from_head, batch.torso)
            tiles.append(to_uint8(renderer(posed, batch.cameras).refined[0]))
        labels += [f"{batch.sequence} {batch.frame}", "as tracked", f"by {moved[index]:.1f} mm"]
    return contact_sheet(tiles, 3 * PER_ROW, labels)


def _line(drift: Drift, out: Path) -> str:
    marks, turn = drift.landmarks_mm, drift.turn_deg
    return (
        f"correct: {len(drift.frames)} frames, landmarks moved by {marks.median:.2f} mm (median; "
        f"95 % below {marks.p95:.2f}), heads turned by {turn.median:.2f} deg -> {out / TRACK_FILE}"
    )
