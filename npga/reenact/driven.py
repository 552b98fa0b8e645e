"""A performance made an avatar's: the whole take, for videos.

For one frame at a time take `Retargeting` and `retarget_motion` themselves (`retargeting_to`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar.avatar import Avatar
from npga.core.errors import ConfigError
from npga.core.progress import say
from npga.core.similarity import Similarity
from npga.reenact.nearest import likeness
from npga.reenact.openings import Gaps, Openings
from npga.reenact.retarget import (
    SHARE,
    Face,
    HeadMotion,
    Hull,
    Retargeting,
    retarget_motion,
    smooth,
    smooth_poses,
)
from npga.reenact.source import Performance, face_of
from npga.render.render import Drive
from nphm_tracking import HeadModel, Track, load_head_model


@dataclass(frozen=True)
class Driven:
    """What moves the avatar, and how far it was asked to go."""

    drive: Drive
    hull_distance: Float[Tensor, "t"]
    """Before clamping; see `Hull.distance`."""


@dataclass(frozen=True)
class Manner:
    """How a performance is taken over."""

    head_motion: HeadMotion = HeadMotion.full
    smooth_frames: float = 0.0
    """Width of the filter over time; 0 is none."""
    clamp: bool = True
    """Whether codes are kept inside the avatar's training hull."""


def avatar_hull(avatar: Avatar) -> Hull:
    """The box of its training codes."""
    return Hull(avatar.expressions.lower, avatar.expressions.upper)


def avatar_head_model(avatar: Avatar, path: str | None = None) -> HeadModel | None:
    """The head model whose codes an avatar speaks, from a file or the one that ships.

    None, with a note, where the one that ships is another; raises ConfigError where `path` is.
    """
    model, wanted = load_head_model(path), avatar.prior.head_model_checksum
    if model.checksum() == wanted:
        return model
    if path is not None:
        raise ConfigError(
            f"The avatar speaks the codes of head model {wanted}, but {path} is "
            f"{model.checksum()}.",
            "Give head_model=<the file that tracked and fitted it>.",
        )
    say(
        f"The avatar's head model {wanted} is not the one that ships: lids and lips follow the "
        "codes alone, controls have no names. Give head_model=<its file> for both."
    )
    return None


def avatar_face(avatar: Avatar, model: HeadModel | None, track: Track | None = None) -> Face:
    """An avatar's calibration: its own track's, else what it remembers of its training.

    Raises TrackError for a track of another head model.
    """
    if track is not None:
        track.require_model(avatar.prior.head_model_checksum)
        return face_of(track, model)
    known = avatar.expressions
    gaps = None if model is None else Gaps.of(model)
    if gaps is None:
        return Face(known.neutral)
    closed = gaps.least(known.lower, known.upper).clamp_min(0)
    return Face(known.neutral, Openings.calibrated(gaps, known.neutral, None, closed))


def retargeting_to(
    hull: Hull, driver: Face, face: Face, model: HeadModel | None, *, clamp: bool = True
) -> Retargeting:
    """A driver's codes -> an avatar's, whose hull and calibration are given; for all frames."""
    bound = torch.full_like(hull.lower, torch.inf)
    lower, upper = (-bound, bound) if model is None else (model.exp_lower, model.exp_upper)
    metric = None if model is None else likeness(model)
    return Retargeting(driver, face, lower, upper, hull, clamp, metric)


def drive_other(
    source: Performance, avatar: Avatar, retargeting: Retargeting, manner: Manner
) -> Driven:
    """Another person's take: codes retargeted, head motion about both mean poses.

    All frames of `source` are known (`Performance.used`).
    """
    codes, distance = retargeting(smooth(source.z_exp, manner.smooth_frames))
    poses = _moved(source, avatar.torso.rest, manner)
    return Driven(Drive(codes, poses, avatar.torso.rest, source.rate), distance)


def drive_own(source: Performance, avatar: Avatar, manner: Manner) -> Driven:
    """A take of the avatar's own person: codes as they are, poses too unless damped."""
    hull, codes = avatar_hull(avatar), smooth(source.z_exp, manner.smooth_frames)
    distance = hull.distance(codes)
    codes = hull.clamp(codes) if manner.clamp else codes
    rest = source.rest if source.placed else avatar.torso.rest
    if source.placed and manner.head_motion is HeadMotion.full:
        poses = smooth_poses(source.world_from_head, rest, manner.smooth_frames)
    else:
        poses = _moved(source, rest, manner)
    return Driven(Drive(codes, poses, rest, source.rate), distance)


def _moved(source: Performance, rest: Similarity, manner: Manner) -> Similarity:
    share = SHARE[manner.head_motion]
    poses = retarget_motion(source.world_from_head, source.rest, rest, share)
    return smooth_poses(poses, rest, manner.smooth_frames)
