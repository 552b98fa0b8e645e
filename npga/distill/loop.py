"""Training F: rounds of exact pairs, minibatches inside a round.

A round draws a fresh pool of pairs, placed by the F of that moment, and trains on it for
`round_steps` steps. All randomness is drawn from (seed, round) and (seed, step), and state is kept
only at the end of a round, so a resumed run takes exactly the steps the uninterrupted one takes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from npga.avatar.forward import ForwardPrior
from npga.core.errors import NpgaError
from npga.core.store import load_tensors, save_tensors
from npga.distill.samples import Sampler
from npga.distill.terms import Terms

STATE_FORMAT = "npga.distill-state"
STATE_VERSION = 1

Observer = Callable[[int, dict[str, float]], None]
"""Called with (steps done, terms by name, their mean over the round) after every round."""


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, on how much."""

    steps: int = 12000
    round_steps: int = 100
    """Steps on one pool of pairs."""
    pool_codes: int = 768
    """People x expressions in a pool."""
    pool_points: int = 128
    """Pairs per code."""
    batch_codes: int = 8
    rest_points: int = 48
    """Rest points per code for the cycle."""
    learning_rate: float = 5e-3
    warmup: int = 50

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to 1 % of the rate."""
        ramp = min(1.0, (step + 1) / max(1, self.warmup))
        share = min(1.0, step / max(1, self.steps))
        return self.learning_rate * ramp * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def generator_for(seed: int, kind: int, number: int) -> torch.Generator:
    """The random stream of one round (kind 0) or step (kind 1): a pure function of its name."""
    return torch.Generator().manual_seed((seed * 2 + kind) * 1_000_003 + number)


def make_optimizer(forward: ForwardPrior) -> torch.optim.Adam:
    """Adam over all of F; the rate comes from the schedule at every step."""
    return torch.optim.Adam(forward.parameters(), lr=0.0, betas=(0.9, 0.99))


def distill(
    forward: ForwardPrior,
    sampler: Sampler,
    terms: Terms,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    *,
    seed: int,
    start: int = 0,
    observer: Observer | None = None,
) -> ForwardPrior:
    """Train F from step `start` (a round's first) to the end; knows nothing of disks or configs."""
    for first in range(start, schedule.steps, schedule.round_steps):
        number = first // schedule.round_steps
        guide = forward if number > 0 else None
        pool = sampler.pairs(
            schedule.pool_codes, schedule.pool_points, generator_for(seed, 0, number), guide
        )
        last = min(first + schedule.round_steps, schedule.steps)
        sums: dict[str, float] = {}
        for step in range(first, last):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            batch = sampler.batch(
                pool, schedule.batch_codes, schedule.rest_points, generator_for(seed, 1, step)
            )
            losses = terms(forward, sampler.teacher, batch)
            total = torch.stack(list(losses.values())).sum()
            require_finite(losses, step)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(forward.parameters(), 10.0)
            optimizer.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        if observer is not None:
            observer(last, {name: value / (last - first) for name, value in sums.items()})
    return forward


def start_from_statistics(forward: ForwardPrior, sampler: Sampler, *, seed: int) -> None:
    """Set F's input and output scales from one small pool; call once, before the first step."""
    pool = sampler.pairs(256, 64, generator_for(seed, 0, 999_983), None)
    kept = pool.weight.flatten() > 0
    points = torch.cat([pool.x, pool.omega], dim=-1).flatten(0, 1)[kept]
    forward.standardise(
        points, pool.z_exp, sampler.subjects.identity, pool.offset.flatten(0, 1)[kept]
    )


def require_finite(losses: dict[str, Tensor], step: int) -> None:
    """Stop, naming the term and the step, where a loss is not finite."""
    for name, value in losses.items():
        if not bool(value.isfinite()):
            raise NpgaError(
                f"the {name} term of distillation is not finite at step {step}",
                "lower learning_rate; the last complete round is kept and can be resumed",
            )


def save_state(
    path: Path, forward: ForwardPrior, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write everything that the next round needs."""
    tensors = {f"forward.{name}": value for name, value in forward.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors.update({f"adam.{index}.{name}": value for name, value in moments.items()})
    save_tensors(path, tensors, format=STATE_FORMAT, version=STATE_VERSION, meta={"step": step})


def load_state(path: Path, forward: ForwardPrior, optimizer: torch.optim.Optimizer) -> int:
    """Restore F and Adam in place; returns the number of steps done."""
    tensors, meta = load_tensors(path, format=STATE_FORMAT, version=STATE_VERSION)
    forward.load_state_dict(
        {k.removeprefix("forward."): v for k, v in tensors.items() if k.startswith("forward.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return int(meta["step"])
