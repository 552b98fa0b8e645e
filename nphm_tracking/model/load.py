"""Weights files -> HeadModel: the shipped open prior, our own files, and published checkpoints.

Published MonoNPHM checkpoints are read unmodified (facts about their keys: the published code's
state_dict); sizes follow from the tensors, nothing is unpickled, and the mean anchors come from a
file of their own because the checkpoint does not hold them.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from npga.core.errors import CheckpointError
from npga.core.store import load_tensors, save_tensors
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.model.published import read_published
from nphm_tracking.model.sizes import HeadModelSizes

FORMAT, VERSION = "nphm_tracking.head_model", 1
OPTIONAL = (
    "landmark_mean",
    "landmark_basis",
    "landmark_motion",
    "reference_points",
    "reference_region",
)
"""Buffers whose length the file decides."""


def load_head_model(
    path: str | Path | None = None, *, mean_anchors: str | Path | None = None
) -> HeadModel:
    """A head model in float32 on the CPU, in eval mode, without gradients for its weights.

    ``path``: None for the shipped open prior; a ``.safetensors`` file of ours; a published
    ``.tar`` checkpoint or the folder that holds it (then ``mean_anchors`` names anchors_65.npy,
    by default anchors_*.npy beside it).
    Raises CheckpointError for an absent, incomplete or differently sized file.
    """
    if path is None:
        path = open_prior_path()
    path = Path(path)
    if path.suffix == ".safetensors":
        model = _load_own(path)
    else:
        model = _load_published(path, mean_anchors)
    return model.eval().requires_grad_(False)


def open_prior_path() -> Path:
    """Where the shipped open prior lies."""
    return Path(str(files("nphm_tracking") / "assets" / "open_prior.safetensors"))


def save_head_model(
    path: str | Path, model: HeadModel, *, half: bool = True, note: dict[str, str] | None = None
) -> None:
    """Write weights, statistics and landmarks as one safetensors file (half precision)."""
    tensors = {}
    for key, value in model.state_dict().items():
        narrow = half and value.is_floating_point() and not key.endswith(("_lower", "_upper"))
        tensors[key] = value.half() if narrow else value
    meta = {
        "sizes": model.sizes.to_meta(),
        "expression_names": list(model.expression_names),
        "region_names": list(model.region_names),
        "note": note or {},
    }
    save_tensors(path, tensors, format=FORMAT, version=VERSION, meta=meta)


def _load_own(path: Path) -> HeadModel:
    tensors, meta = load_tensors(path, format=FORMAT, version=VERSION)
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    sizes = HeadModelSizes.from_meta(meta["sizes"])
    anchors = tensors.get("canonical_field.mean_anchors")
    if anchors is None:
        raise CheckpointError(f"{path} holds no mean anchors.", "Make or copy the file again.")
    model = HeadModel(sizes, anchors, tuple(meta["expression_names"]))
    model.region_names = tuple(meta["region_names"])
    for name in OPTIONAL:
        if name in tensors:
            model.register_buffer(name, torch.zeros_like(tensors[name]))
    _fill(model, tensors, str(path))
    return model


def _load_published(path: Path, mean_anchors: str | Path | None) -> HeadModel:
    anchors = _read_anchors(path, mean_anchors)
    published = read_published(path)
    model = HeadModel(published.sizes, anchors)
    known = dict(model.named_buffers())
    known.update(published.tensors)
    known["canonical_field.mean_anchors"] = anchors
    _fill(model, known, str(published.file))
    return model


def _fill(model: HeadModel, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors into the model; every one must be there and fit."""
    wanted = model.state_dict()
    for key, target in wanted.items():
        if key not in tensors:
            raise CheckpointError(
                f"{source} lacks {key} {tuple(target.shape)}.",
                "The file is incomplete or of another model: download or make it again.",
            )
        if tensors[key].shape != target.shape:
            raise CheckpointError(
                f"{source}: {key} has shape {tuple(tensors[key].shape)}, expected "
                f"{tuple(target.shape)}.",
                "The file belongs to a model of another size, or is damaged.",
            )
    model.load_state_dict({k: tensors[k] for k in wanted})


def _read_anchors(path: Path, mean_anchors: str | Path | None) -> Tensor:
    folder = path if path.is_dir() else path.parent
    beside = sorted(folder.glob("anchors_*.npy"))
    chosen = Path(mean_anchors) if mean_anchors else (beside or [folder / "anchors_65.npy"])[0]
    if not chosen.is_file():
        raise CheckpointError(
            f"A published checkpoint needs its mean anchors, but {chosen} is not there.",
            "Pass mean_anchors=.../anchors_65.npy (assets/anchors_65.npy of the MonoNPHM code; "
            "anchors_39.npy for the 39-anchor models).",
        )
    try:
        held = np.load(chosen, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(
            f"{chosen} cannot be read as a numpy array ({error}).", "Copy the anchors file again."
        ) from None
    return torch.from_numpy(held.astype(np.float32).reshape(-1, held.shape[-1]))
