"""The training loop of the open prior, and the state that makes it resumable.

Everything random in a step follows from (seed, step) and, where several processes train together,
from the process's rank; the state holds weights, codes and optimiser moments. A resumed run
therefore continues exactly, as long as as many processes go on as began.
"""

import math
import os
import time
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from npga.core.errors import CheckpointError
from npga.core.processes import ALONE, Processes
from npga.core.progress import bar, say
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.model.load import load_head_model
from nphm_tracking.model.sizes import HeadModelSizes
from nphm_tracking.prior.config import PriorConfig
from nphm_tracking.prior.data import PriorData, Rig
from nphm_tracking.prior.patches import COEFFICIENTS
from nphm_tracking.prior.samples import Batch, make_batch, mixed
from nphm_tracking.prior.start import start_weights
from nphm_tracking.prior.terms import prior_terms

STATE = "state.pt"
WARMUP_STEPS = 100
FLOOR = 0.01
"""The learning rate ends at this share of its peak."""


class Trainee(nn.Module):
    """The model together with the codes of the training people, which are known."""

    def __init__(self, model: HeadModel, data: PriorData) -> None:
        """Codes have a meaning (PCA coefficients, patches), so they are no parameters."""
        super().__init__()
        self.model = model
        self.register_buffer("z_geo", data.code.clone(), persistent=False)

    z_geo: Tensor

    def appearance(self, skin: Tensor) -> Tensor:
        """z_app of known skin and hair colours: they are its global part, the rest is zero."""
        rest = self.model.app_size - skin.shape[-1]
        return torch.cat([skin, skin.new_zeros(*skin.shape[:-1], rest)], dim=-1)


class Objective(nn.Module):
    """The loss terms of a batch, as one module whose gradients several processes can share."""

    def __init__(self, trainee: Trainee, data: PriorData, config: PriorConfig) -> None:
        """Keeps what is known of the training people."""
        super().__init__()
        self.trainee = trainee
        self.weights = config.weights
        known = {"anchors": data.anchors, "anchors_mean": data.anchors_mean, "skin": data.skin}
        for name, value in known.items():
            self.register_buffer(name, value.clone(), persistent=False)

    anchors: Tensor
    anchors_mean: Tensor
    skin: Tensor

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted scalars by name."""
        trainee = self.trainee
        z_app = trainee.appearance(self.skin[batch.person[:, 0]])
        origin = torch.zeros_like(trainee.z_geo[0])
        z_geo = mixed(trainee.z_geo, origin, batch.person, batch.mix)
        at_anchors = mixed(self.anchors, self.anchors_mean, batch.person, batch.mix)
        return prior_terms(trainee.model, batch, z_geo, z_app, at_anchors, self.weights)


def prior_sizes(config: PriorConfig) -> HeadModelSizes:
    """The open prior's sizes."""
    s = config.sizes
    return HeadModelSizes(
        neighbours=8,
        geo_global=s.geo_global,
        geo_local=COEFFICIENTS,
        app_global=6,
        app_local=1,
        exp=52,
        identity=s.identity,
        anchor_width=s.anchor_width,
        backward_width=s.backward_width,
        backward_depth=s.backward_depth,
        backward_skip=s.backward_depth // 2,
        sdf_width=s.sdf_width,
        sdf_depth=s.sdf_depth,
        color_width=s.color_width,
        color_depth=2,
        bottleneck=8,
    )


def new_trainee(data: PriorData, rig: Rig, config: PriorConfig) -> Trainee:
    """Networks to begin with: random ones around the mean anchors, or ``config.start``'s.

    Raises CheckpointError where ``start`` is a model of other sizes or other people.
    """
    from npga.capture.synthetic.people import EXPRESSIONS

    torch.manual_seed(config.seed)
    sizes = prior_sizes(config)
    model = HeadModel(sizes, data.anchors_mean, EXPRESSIONS)
    start_weights(model, data.code[:, : sizes.geo_global], data.anchors)
    if config.start is not None:
        _take_up(model, config.start, data)
    return Trainee(model, data)


@torch.no_grad()
def _take_up(model: HeadModel, start: str, data: PriorData) -> None:
    """Copy the weights of a head model whose codes mean what these people's codes mean."""
    known = load_head_model(start)
    alike = (known.sizes, known.expression_names) == (model.sizes, model.expression_names)
    spread = (data.anchors - data.anchors_mean).norm(dim=-1).mean()
    if not alike or (known.anchors(data.code) - data.anchors).norm(dim=-1).mean() > spread:
        raise CheckpointError(
            f"start={start} is a head model of other sizes or other people.",
            "Give one that was trained with the same people=, seed= and sizes, or none.",
        )
    for mine, theirs in zip(model.parameters(), known.parameters(), strict=True):
        mine.copy_(theirs)


def train(
    trainee: Trainee,
    data: PriorData,
    rig: Rig,
    config: PriorConfig,
    folder: Path,
    team: Processes = ALONE,
) -> list[dict[str, float]]:
    """Optimise for ``config.steps`` steps; returns the mean terms of every ``save_every`` steps.

    Several processes take an equal part of every batch each; terms are the leader's. Takes up
    ``folder/state.pt`` where it is there. Raises CheckpointError for a state that belongs to
    another run.
    """
    optimizer = torch.optim.AdamW(
        trainee.model.parameters(), lr=config.rate, betas=(0.9, 0.99), weight_decay=1e-4
    )
    objective = Objective(trainee, data, config).to(team.device)
    start, log = _resume(trainee, optimizer, folder)
    shared = team.shared(objective)
    sums: dict[str, float] = {}
    began = time.monotonic()
    with bar("training the prior", config.steps, start) as shown:
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.rate * rate_at(step, config.steps)
            terms = shared(make_batch(data, rig, config, step, team).to(team.device))
            total = torch.stack(list(terms.values())).sum()
            _require_finite(total, terms, step)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
            optimizer.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            shown.update()
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                span = (step % config.save_every) + 1
                log.append({"step": step + 1.0, **{k: v / span for k, v in sums.items()}})
                sums = {}
                if team.leads:
                    _say_row(log[-1], config, time.monotonic() - began)
                    _save(trainee, optimizer, step + 1, log, folder)
    return log


def rate_at(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to FLOOR."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _say_row(row: dict[str, float], config: PriorConfig, seconds: float) -> None:
    weights = config.weights
    millimetres = row.get("correspondence", 0.0) / (weights.correspondence or 1) * 250
    rest = "  ".join(f"{k} {v:.4f}" for k, v in row.items() if k != "step")
    say(f"step {row['step']:.0f}  {seconds:.0f} s  weighted error {millimetres:.2f} mm  {rest}")


def _require_finite(total: Tensor, terms: dict[str, Tensor], step: int) -> None:
    if not torch.isfinite(total):
        bad = [k for k, v in terms.items() if not torch.isfinite(v)]
        raise CheckpointError(
            f"Training the prior met a non-finite loss at step {step} in {bad}.",
            "Lower rate=, or report this with the settings.",
        )


def _save(
    trainee: Trainee,
    optimizer: torch.optim.Optimizer,
    step: int,
    log: list[dict[str, float]],
    folder: Path,
) -> None:
    """Write the state under a temporary name, then rename."""
    partial = folder / (STATE + ".partial")
    held = {
        "step": step,
        "trainee": trainee.state_dict(),
        "optimizer": optimizer.state_dict(),
        "log": log,
    }
    torch.save(held, partial)
    os.replace(partial, folder / STATE)


def _resume(
    trainee: Trainee, optimizer: torch.optim.Optimizer, folder: Path
) -> tuple[int, list[dict[str, float]]]:
    path = folder / STATE
    if not path.exists():
        return 0, []
    try:
        held = torch.load(path, weights_only=True)
        trainee.load_state_dict(held["trainee"])
        optimizer.load_state_dict(held["optimizer"])
    except (UnpicklingError, RuntimeError, KeyError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not belong to this run ({str(error).splitlines()[0]}).",
            "Remove the folder, or run with the settings it was made with.",
        ) from None
    return int(held["step"]), list(held["log"])
