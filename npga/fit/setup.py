"""From settings to what the loop needs: pictures, a starting avatar, the head model's word.

Letters: `t` frames, `v` vertices, `h` hyper coordinates, `e` expression size.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.avatar import Avatar, AvatarSizes, ExpressionStats, ForwardPrior, load_prior
from npga.avatar.forward import prior_file
from npga.capture import Capture, open_capture
from npga.core.errors import CaptureError, TrackError
from npga.core.mesh import Mesh
from npga.core.progress import say
from npga.core.similarity import Similarity
from npga.fit.batch import FitBatch, FitData, FitSequence
from npga.fit.config import FitConfig
from npga.fit.seeds import CloudFrame, seed_avatar
from nphm_tracking import Codes, HeadModel, Track, load_head_model, load_track

SURFACE_RESOLUTION = 96
"""Cells along the head model's box for the surface that Gaussians start on (about 5 mm)."""
CLOUD_FRAMES = 24
"""Frames whose clouds bring hair and clothes."""


@dataclass(frozen=True)
class Split:
    """Which sequences and cameras are trained on, and which are kept apart."""

    training_sequences: tuple[str, ...]
    held_out_sequence: str | None
    training_cameras: tuple[str, ...]
    held_out_cameras: tuple[str, ...]


def split_of(
    capture: Capture,
    track: Track,
    sequences: Sequence[str],
    held_out_sequence: str,
    held_out_cameras: Sequence[str],
) -> Split:
    """The split of a capture; names may be prefixes.

    Raises TrackError where no sequence, and CaptureError where no camera, is left to train on.
    """
    held_out = None
    if held_out_sequence:
        held_out = capture.sequence(held_out_sequence).name
    if sequences:
        training = tuple(capture.sequence(name).name for name in sequences)
        if held_out in training:
            raise TrackError(
                f"Sequence {held_out} is asked for in training, but it is the held-out sequence.",
                "Leave it out of sequences=, or name another held_out_sequence=.",
            )
    else:
        tracked = (name for name in capture.sequence_names if name in track.sequences)
        training = tuple(name for name in tracked if name != held_out)
    missing = [name for name in training if name not in track.sequences]
    if missing or not training:
        raise TrackError(
            f"The track has no sequence {missing[0]}." if missing else "No sequence is left.",
            f"Tracked are {', '.join(track.sequences)}; one of them is held out ({held_out}).",
        )
    serials = capture.sequence(training[0]).serials
    apart = tuple(serial for serial in held_out_cameras if serial in serials)
    seen = tuple(serial for serial in serials if serial not in apart)
    if not seen:
        raise CaptureError(
            f"All cameras of {capture.participant} are held out ({', '.join(apart)}).",
            "Name fewer held_out_cameras=.",
        )
    return Split(training, held_out, seen, apart)


def load_sequence(
    capture: Capture,
    track: Track,
    name: str,
    serials: Sequence[str],
    *,
    stride: int,
    width: int,
    height: int,
    cache_dir: str | None,
    rows: Int[Tensor, " t"] | None = None,
) -> FitSequence:
    """Pictures, codes and poses of the good frames of one sequence, every `stride`-th of them.

    Or of these `rows` of the track. Raises TrackError where no frame of it was tracked.
    """
    tracked = track.sequence(name)
    if rows is None:
        rows = torch.nonzero(tracked.ok).flatten()[::stride]
    if len(rows) == 0:
        raise TrackError(
            f"No frame of {name} was tracked.", "Leave the sequence out, or track it again."
        )
    frames = tuple(int(frame) for frame in tracked.frames[rows])
    known = capture.sequence(name).serials
    present = [serial for serial in serials if serial in known]
    views = capture.views(name, frames, present, width, height, cache_dir)
    return FitSequence(
        name=name,
        images=views.images,
        mattes=views.mattes,
        cameras=views.cameras.to(torch.float32),
        frames=frames,
        z_exp=tracked.z_exp[rows].float(),
        world_from_head=tracked.world_from_head[rows].to(torch.float32),
        torso=tracked.torso.to(torch.float32),
        background_removed=views.background_removed,
    )


@runtime_checkable
class Wanted(Protocol):
    """What the settings of a command say of the pictures that it wants."""

    @property
    def frame_stride(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def cache_dir(self) -> str | None: ...


def load_takes(
    wanted: Wanted, capture: Capture, track: Track, names: Sequence[str], serials: Sequence[str]
) -> FitData:
    """Every `frame_stride`-th good frame of these sequences; raises as `load_sequence`."""
    return FitData(
        tuple(
            load_sequence(
                capture,
                track,
                name,
                serials,
                stride=wanted.frame_stride,
                width=wanted.width,
                height=wanted.height,
                cache_dir=wanted.cache_dir,
            )
            for name in names
        )
    )


def load_training(config: FitConfig, capture: Capture, track: Track, split: Split) -> FitData:
    """All training pictures; cameras are thinned evenly to `config.max_cameras`."""
    serials = split.training_cameras
    if len(serials) > config.max_cameras:
        places = torch.linspace(0, len(serials) - 1, config.max_cameras).round().long()
        serials = tuple(serials[int(place)] for place in places)
    return load_takes(config, capture, track, split.training_sequences, serials)


def canonical_surface(
    model: HeadModel, track: Track, z_neutral: Float[Tensor, " e"]
) -> tuple[Mesh, Float[Tensor, "v h"]]:
    """The tracked head at rest carried to canonical space by B, and omega of its vertices."""
    codes = Codes(track.z_geo.float(), track.z_app.float(), z_neutral)
    posed = model.mesh(codes, SURFACE_RESOLUTION)
    with torch.no_grad():
        identity = model.compress(codes.z_geo)
        offset, omega = model.backward_field(posed.vertices, identity, z_neutral)
    return Mesh(posed.vertices + offset, posed.faces), omega


def nearest_to(data: FitData, z_exp: Float[Tensor, " e"]) -> FitBatch:
    """The frame whose code is nearest to `z_exp`, with all its cameras."""
    return data.batch(int((data.expressions - z_exp).norm(dim=1).argmin()))


def cloud_frames(capture: Capture, data: FitData, z_neutral: Tensor) -> list[CloudFrame]:
    """Clouds of the frames nearest to neutral, no two sequences left out if they have clouds."""
    distance = (data.expressions - z_neutral).norm(dim=1)
    order = distance.argsort().tolist()
    chosen = order[: CLOUD_FRAMES // 2]
    chosen += [index for index in range(0, len(data), max(1, 2 * len(data) // CLOUD_FRAMES))]
    frames = []
    for index in dict.fromkeys(chosen):
        sequence, row = data.sequences[data.places[index][0]], data.places[index][1]
        if not capture.has_clouds(sequence.name):
            continue
        frames.append(
            CloudFrame(
                capture.cloud(sequence.name, sequence.frames[row]),
                sequence.z_exp[row],
                sequence.world_from_head[row],
                sequence.torso,
            )
        )
    return frames


def start_avatar(
    config: FitConfig,
    capture: Capture,
    track: Track,
    model: HeadModel,
    prior: ForwardPrior,
    data: FitData,
) -> Avatar:
    """The avatar before the first step."""
    z_neutral = model.neutral_codes().z_exp.float()
    surface, omega = canonical_surface(model, track, z_neutral)
    identity = model.compress(track.z_geo.float())

    def backward(points: Tensor, z_exp: Tensor) -> Tensor:
        return model.backward_field(points, identity, z_exp)[0]

    clouds = cloud_frames(capture, data, z_neutral)
    neutral = nearest_to(data, z_neutral)
    with torch.no_grad():
        start = seed_avatar(
            surface, omega, neutral, clouds, backward, config.initial_gaussians, config.seed
        )
    rest = Similarity.stack([sequence.torso for sequence in data.sequences]).mean()
    expressions = ExpressionStats.of(data.expressions, z_neutral)
    sizes = AvatarSizes(**asdict(config.network))
    avatar = Avatar(start, prior, identity, expressions, rest, sizes)
    observe_frames(avatar, data)
    say(
        f"fit: {len(avatar)} Gaussians to start with, "
        + (f"clouds of {len(clouds)} frames." if clouds else "hair and clothes from mattes.")
    )
    return avatar


def observe_frames(avatar: Avatar, data: FitData) -> None:
    """Tell the avatar how far necks turn in training, and the mean of what G is asked there."""
    rows = [(take, row) for take in data.sequences for row in range(len(take))]
    avatar.observe_necks(
        torch.stack(
            [avatar.torso.head_motion(t.world_from_head[row], t.torso)[:3] for t, row in rows]
        )
    )
    avatar.observe_conditions(
        torch.stack(
            [
                avatar.detail_condition(t.z_exp[row], t.world_from_head[row], t.torso)
                for t, row in rows
            ]
        )
    )


@dataclass(frozen=True)
class Inputs:
    """What a fit reads."""

    capture: Capture
    track: Track
    model: HeadModel
    prior: ForwardPrior


def load_inputs(config: FitConfig) -> Inputs:
    """Open everything and refuse what does not belong together, before any picture is decoded.

    Raises CaptureError, TrackError or CheckpointError.
    """
    capture = open_capture(config.capture, config.participant)
    track = load_track(config.track)
    if track.participant and track.participant != capture.participant:
        raise TrackError(
            f"{config.track} is a track of participant {track.participant}, not of "
            f"{capture.participant}.",
            "Give the track of the same participant.",
        )
    model = load_head_model(config.head_model)
    checksum = model.checksum()
    track.require_model(checksum)
    return Inputs(capture, track, model, load_prior(prior_file(config.prior), checksum))
