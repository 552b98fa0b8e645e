"""The state of a fit on disk, so that an interrupted run goes on exactly where it was.

`state.pt` holds every number that the next step depends on: rows and networks, Adam's moments, the
graph, the density statistics, corrections of the track, and the random generators of torch, numpy
and python. It is read without unpickling code, and it is not needed to use the avatar.
"""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from npga.avatar import Avatar
from npga.core.errors import CheckpointError
from npga.fit.corrections import Corrections
from npga.fit.densify import Densifier, DensityState
from npga.fit.surgery import rearrange

STATE_FILE = "state.pt"
STATE_VERSION = 2


def save_state(
    folder: Path,
    step: int,
    avatar: Avatar,
    corrections: Corrections,
    optimizer: torch.optim.Optimizer,
    densifier: Densifier,
) -> None:
    """Write `state.pt` under a temporary name, then rename it; `step` steps are finished."""
    content = {
        "version": STATE_VERSION,
        "step": step,
        "avatar": avatar.state_dict(),
        "corrections": corrections.state_dict(),
        "optimizer": optimizer.state_dict(),
        "graph": densifier.graph.index,
        "top_gradients": densifier.state.top_gradients,
        "contribution": densifier.state.contribution,
        "probes": densifier.state.probes,
        "changes": densifier.changes,
        "random": _random_state(),
    }
    partial = folder / (STATE_FILE + ".partial")
    torch.save(content, partial)
    os.replace(partial, folder / STATE_FILE)


def load_state(
    folder: Path,
    avatar: Avatar,
    corrections: Corrections,
    optimizer: torch.optim.Optimizer,
    densifier: Densifier,
) -> int:
    """Bring everything back to the saved state; returns the number of finished steps.

    0, with nothing changed, where the folder holds no state. Raises CheckpointError for a state
    that cannot be read or does not fit.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    try:
        content = torch.load(path, map_location=avatar.means.device, weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}).",
            "Give overwrite=true to start this fit afresh.",
        ) from error
    if content.get("version") != STATE_VERSION:
        raise CheckpointError(
            f"{path} is a state of version {content.get('version')}, not {STATE_VERSION}.",
            "Give overwrite=true to start this fit afresh.",
        )
    count = len(content["avatar"]["means"])
    rows = torch.zeros(count, dtype=torch.long, device=avatar.means.device)
    rearrange(avatar, optimizer, rows, torch.zeros_like(rows, dtype=torch.bool))
    avatar.load_state_dict(content["avatar"])
    corrections.load_state_dict(content["corrections"])
    optimizer.load_state_dict(content["optimizer"])
    densifier.graph.index = content["graph"]
    densifier.state = DensityState(
        content["top_gradients"], content["contribution"], content["probes"]
    )
    densifier.changes = [tuple(change) for change in content["changes"]]
    _restore_random(content["random"])
    return int(content["step"])


def _random_state() -> dict[str, Any]:
    """The generators of torch, numpy and python in types that load without code."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            gauss,
        ],
        "python": list(random.getstate()),
    }


def _restore_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    name, keys, position, has_gauss, gauss = state["numpy"]
    words = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((name, words, position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
