"""Avatars on disk: `avatar.safetensors`, format `npga.avatar`.

The file holds all weights (F included, since it may have been fine-tuned), the sizes, and the
checksums of the head model and of the prior that the avatar started from, so that codes of another
head model are refused. What every Gaussian has is kept in half precision (colours to 1/4000, sizes
to 1/250 of themselves), but for the centres: that halves the file and shows in no picture.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from npga.avatar.avatar import Avatar
from npga.avatar.forward import ForwardPrior
from npga.avatar.types import AvatarSizes, CanonicalPoints, ExpressionStats
from npga.core.errors import CheckpointError
from npga.core.similarity import Similarity
from npga.core.store import load_tensors, save_tensors

AVATAR_FILE = "avatar.safetensors"
AVATAR_FORMAT = "npga.avatar"
AVATAR_VERSION = 3
HALVED = tuple(name for name in Avatar.ROWS if name != "means")
"""Kept in half precision."""


def save_avatar(path: str | Path, avatar: Avatar, *, prior_checksum: str, participant: str) -> None:
    """Write the avatar with everything needed to drive it."""
    meta = {
        "sizes": asdict(avatar.sizes),
        "prior_sizes": avatar.prior.sizes,
        "head_model_checksum": avatar.prior.head_model_checksum,
        "prior_checksum": prior_checksum,
        "participant": participant,
        "gaussians": len(avatar),
    }
    tensors = {
        name: value.half() if name in HALVED else value
        for name, value in avatar.state_dict().items()
    }
    save_tensors(path, tensors, format=AVATAR_FORMAT, version=AVATAR_VERSION, meta=meta)


def avatar_file(path: str | Path) -> Path:
    """`avatar.safetensors` where a folder was given."""
    path = Path(path)
    return path / AVATAR_FILE if path.is_dir() else path


def blank_avatar(gaussians: int, sizes: AvatarSizes, prior: ForwardPrior) -> Avatar:
    """An avatar of the right shapes with nothing in it, for weights to be loaded into."""
    start = CanonicalPoints(
        points=torch.zeros(gaussians, 3),
        colors=torch.zeros(gaussians, 3),
        log_scales=torch.zeros(gaussians, 3),
        normals=torch.zeros(gaussians, 3),
        omega=torch.zeros(gaussians, prior.hyper_size),
        reach=torch.zeros(gaussians),
        attachment=torch.full((gaussians,), 0.5),
    )
    nothing = torch.zeros(prior.expression_size)
    expressions = ExpressionStats(nothing, nothing, nothing, nothing)
    identity = torch.zeros(prior.identity_size)
    return Avatar(start, prior, identity, expressions, Similarity.identity(), sizes)


def load_avatar(path: str | Path, head_model_checksum: str | None = None) -> Avatar:
    """Read an avatar; where a checksum is given, it must have been trained with that head model.

    Raises CheckpointError for a damaged file, missing weights or another head model.
    """
    tensors, meta = load_tensors(path, format=AVATAR_FORMAT, version=AVATAR_VERSION)
    found = meta["head_model_checksum"]
    if head_model_checksum is not None and found != head_model_checksum:
        raise CheckpointError(
            f"The avatar {path} speaks the codes of head model {found}, but codes of head model "
            f"{head_model_checksum} were given.",
            "Use a track made with the avatar's head model, or fit the avatar again.",
        )
    prior = ForwardPrior(**meta["prior_sizes"], head_model_checksum=found)
    avatar = blank_avatar(int(meta["gaussians"]), AvatarSizes(**meta["sizes"]), prior)
    try:
        avatar.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold the weights its sizes ask for: {error}",
            "Fit the avatar again, or copy the file again.",
        ) from error
    return avatar.eval()
