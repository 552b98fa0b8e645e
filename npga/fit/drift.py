"""How far the fit moved the track it was given, and in which direction it would have gone on.

Corrections that scatter around zero mend single frames. Corrections of one sign are drift: the
avatar then speaks other codes than the tracker, and held-out takes, which keep their tracked codes,
mean something else than what was learned. The gauge (`corrections.py`) takes constant offsets of a
take and common factors out after every step; what it took out is told here too, because it shows
where the tracker itself is biased. Ours.

Letters: `t` training frames, `k` takes, `e` expression size, `l` landmarks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar import Avatar
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.fit.batch import FitData
from npga.fit.config import Corrected
from npga.fit.corrections import Corrections
from npga.fit.regions import FaceRegions
from nphm_tracking import SequenceTrack, Track

WORST = 5
"""Frames that are named."""
OFFSET_DEG, OFFSET_MM = 0.2, 0.5
"""A mean pose correction of a take above this is systematic."""
OFFSET_CODE, FACTOR = 0.1, 0.05
"""So is a mean code correction above this many standard deviations, and such a common factor."""


@dataclass(frozen=True)
class Range:
    """A magnitude over the frames."""

    median: float
    p95: float
    max: float

    @staticmethod
    def of(values: Float[Tensor, " t"]) -> "Range":
        """Of one value per frame."""
        middle, high = torch.quantile(values.double(), torch.tensor([0.5, 0.95]).double()).tolist()
        return Range(round(middle, 4), round(high, 4), round(float(values.max()), 4))


@dataclass(frozen=True)
class FrameDrift:
    """One frame's correction."""

    sequence: str
    frame: int
    turn_deg: float
    shift_mm: float
    landmarks_mm: float
    """Mean distance that the face's landmarks moved, by pose and code."""


@dataclass(frozen=True)
class TakeDrift:
    """A take's mean correction: what is left, and what was taken out over all steps."""

    sequence: str
    frames: int
    turn_deg: float
    shift_mm: float
    taken_turn_deg: float
    taken_shift_mm: float


@dataclass(frozen=True)
class ControlDrift:
    """One number of z_exp over all training frames."""

    name: str
    mean: float
    """Signed: the systematic part."""
    rms: float
    take: str
    """The take whose mean is largest, and that mean."""
    take_mean: float
    factor: float
    """How much more than tracked it moves (0.1 = 10 %)."""
    taken_from: str
    """The take that most was taken out of, and how much over all steps."""
    taken: float
    taken_factor: float
    unit: float
    """The head model's standard deviation of it."""


@dataclass(frozen=True)
class Drift:
    """The report; `frames` is in the data's order."""

    of: Corrected
    gauge: bool
    turn_deg: Range
    shift_mm: Range
    landmarks_mm: Range
    code_landmarks_mm: Range
    """By the code alone."""
    worst: tuple[FrameDrift, ...]
    takes: tuple[TakeDrift, ...]
    controls: tuple[ControlDrift, ...]
    """Those that drifted most first; empty where codes are not corrected."""
    warnings: tuple[str, ...]
    frames: tuple[FrameDrift, ...]


@torch.no_grad()
def measure_drift(
    corrections: Corrections,
    data: FitData,
    regions: FaceRegions,
    avatar: Avatar,
    names: Sequence[str] = (),
) -> Drift:
    """The report on finished corrections; `names` of the head model's controls where it has any."""
    moves, codes = corrections.moves.detach().cpu(), corrections.codes.detach().cpu()
    scales = torch.cat([q.world_from_head.scale for q in data.sequences])
    turns, shifts = _sizes(moves, scales)
    landmarks, by_code = _landmark_motion(moves, codes, data, regions, avatar)
    frames = tuple(
        FrameDrift(
            data.sequences[s].name,
            data.sequences[s].frames[row],
            *(round(float(values[t]), 4) for values in (turns, shifts, landmarks)),
        )
        for t, (s, row) in enumerate(data.places)
    )
    drift = Drift(
        of=corrections.what,
        gauge=corrections.gauge,
        turn_deg=Range.of(turns),
        shift_mm=Range.of(shifts),
        landmarks_mm=Range.of(landmarks),
        code_landmarks_mm=Range.of(by_code),
        worst=tuple(sorted(frames, key=lambda one: -one.landmarks_mm)[:WORST]),
        takes=_takes(corrections, data, float(scales.mean())),
        controls=_controls(corrections, data, names),
        warnings=(),
        frames=frames,
    )
    return replace(drift, warnings=tuple(_pose_warnings(drift) + _code_warnings(drift)))


def _sizes(moves: Float[Tensor, "t 6"], scales: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees and millimetres of each row."""
    turns = moves[:, :3].norm(dim=1) * (180 / math.pi)
    return turns, moves[:, 3:].norm(dim=1) * 1000 * scales


def _landmark_motion(
    moves: Tensor, codes: Tensor, data: FitData, regions: FaceRegions, avatar: Avatar
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """Mean millimetres that a frame's landmarks went, in all and by the code alone."""
    whole, by_code = [], []
    for t, (s, row) in enumerate(data.places):
        z_exp = data.sequences[s].z_exp[row]
        mm = 1000 * data.sequences[s].world_from_head.scale[row]
        before = regions.posed(z_exp, avatar.prior, avatar.identity)
        after = regions.posed(z_exp + codes[t], avatar.prior, avatar.identity)
        step = Similarity(torch.ones(()), matrix_from_rotvec(moves[t, :3]), moves[t, 3:])
        whole.append(mm * (step.apply(after) - before).norm(dim=1).mean())
        by_code.append(mm * (after - before).norm(dim=1).mean())
    return torch.stack(whole), torch.stack(by_code)


def _takes(corrections: Corrections, data: FitData, scale: float) -> tuple[TakeDrift, ...]:
    left = corrections.offsets()[0].cpu()
    pairs = [_sizes(m, torch.tensor(scale)) for m in (left, corrections.taken_moves.cpu())]
    return tuple(
        TakeDrift(
            sequence.name,
            len(sequence),
            *(round(float(values[k]), 4) for pair in pairs for values in pair),
        )
        for k, sequence in enumerate(data.sequences)
    )


def _controls(
    corrections: Corrections, data: FitData, names: Sequence[str]
) -> tuple[ControlDrift, ...]:
    if corrections.what is not Corrected.both:
        return ()
    codes, left = corrections.codes.detach().cpu(), corrections.offsets()[1].cpu()
    taken, unit = corrections.taken_codes.cpu(), corrections.unit.cpu()
    factors, taken_factors = corrections.factors().cpu(), corrections.taken_factors.cpu()
    found = []
    for e in range(codes.shape[1]):
        most, source = int(left[:, e].abs().argmax()), int(taken[:, e].abs().argmax())
        found.append(
            ControlDrift(
                name=names[e] if e < len(names) else f"z_exp[{e}]",
                mean=_short(codes[:, e].mean()),
                rms=_short(codes[:, e].square().mean().sqrt()),
                take=data.sequences[most].name,
                take_mean=_short(left[most, e]),
                factor=_short(factors[e]),
                taken_from=data.sequences[source].name,
                taken=_short(taken[source, e]),
                taken_factor=_short(taken_factors[e]),
                unit=_short(unit[e]),
            )
        )
    return tuple(sorted(found, key=lambda one: -max(abs(one.take_mean), abs(one.taken)) / one.unit))


def _short(value: Tensor) -> float:
    return round(float(value), 5)


def _pose_warnings(drift: Drift) -> list[str]:
    found = []
    for take in drift.takes:
        if take.turn_deg > OFFSET_DEG or take.shift_mm > OFFSET_MM:
            found.append(
                f"{take.sequence}: poses are off their track by {take.turn_deg:.2f} deg and "
                f"{take.shift_mm:.2f} mm on average, {_remains(drift.gauge)}"
            )
        elif take.taken_turn_deg > OFFSET_DEG or take.taken_shift_mm > OFFSET_MM:
            found.append(
                f"{take.sequence}: the pictures asked for poses turned by "
                f"{take.taken_turn_deg:.2f} deg and moved by {take.taken_shift_mm:.2f} mm "
                "throughout; this was taken out."
            )
    return found


def _code_warnings(drift: Drift) -> list[str]:
    left = [c for c in drift.controls if abs(c.take_mean) > OFFSET_CODE * c.unit]
    grown = [c for c in drift.controls if abs(c.factor) > FACTOR]
    taken = [c for c in drift.controls if abs(c.taken) > OFFSET_CODE * c.unit]
    found = []
    if left:
        told = _listed([f"{c.name} {c.take_mean:+.3f} in {c.take}" for c in left])
        found.append(f"codes are off their track on average: {told}; {_remains(drift.gauge)}")
    if grown:
        told = _listed([f"{c.name} {100 * c.factor:+.0f} %" for c in grown])
        found.append(f"codes move more or less than tracked: {told}; {_remains(drift.gauge)}")
    if taken:
        told = _listed([f"{c.name} {c.taken:+.3f} in {c.taken_from}" for c in taken])
        found.append(
            f"the pictures asked for codes that are off throughout a take: {told}; this was taken "
            "out: the tracker may read them wrongly there."
        )
    return found


def _remains(gauge: bool) -> str:
    if not gauge:
        return "because corrections.gauge=false; held-out codes mean something else."
    return "which the codes' bounds kept alive; held-out codes mean something else there."


def _listed(items: Sequence[str], most: int = 4) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


@torch.no_grad()
def refined_track(track: Track, data: FitData, corrections: Corrections) -> Track:
    """The track with its training frames corrected, and good frames between them in between.

    Sequences that were not trained on, and failed frames, stay as they are; so do residuals, which
    tell of the track that was given.
    """
    sequences = dict(track.sequences)
    start = 0
    for sequence in data.sequences:
        part = slice(start, start + len(sequence))
        sequences[sequence.name] = _refined(
            track.sequences[sequence.name], sequence.frames, corrections, part
        )
        start += len(sequence)
    told = {"of": corrections.what.value, "gauge": corrections.gauge}
    return replace(track, sequences=sequences, provenance={**track.provenance, "corrections": told})


def _refined(
    tracked: SequenceTrack, frames: Sequence[int], corrections: Corrections, part: slice
) -> SequenceTrack:
    """One sequence, whose training frames are rows `part` of the corrections."""

    def everywhere(values: Tensor) -> Tensor:
        columns = values.detach()[part].double().cpu().numpy().T
        spread = np.stack([np.interp(tracked.frames.numpy(), frames, c) for c in columns], axis=1)
        spread[~tracked.ok.numpy()] = 0.0
        return torch.from_numpy(spread).to(tracked.z_exp.dtype)

    moves = everywhere(corrections.moves)
    pose = tracked.world_from_head
    steps = Similarity(
        torch.ones_like(pose.scale),
        matrix_from_rotvec(moves[:, :3]).to(pose.rotation.dtype),
        moves[:, 3:].to(pose.translation.dtype),
    )
    codes = tracked.z_exp
    if corrections.what is Corrected.both:
        lower = torch.minimum(corrections.lower.cpu().to(codes), codes)
        upper = torch.maximum(corrections.upper.cpu().to(codes), codes)
        codes = (codes + everywhere(corrections.codes)).clamp(lower, upper)
    return replace(tracked, z_exp=codes, world_from_head=pose.compose(steps))
