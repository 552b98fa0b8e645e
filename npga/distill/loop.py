"""Training F: rounds of exact pairs, minibatches inside a round.

A round draws a fresh pool of pairs, placed by the F of that moment, and trains on it for
`round_steps` steps. All randomness is drawn from (seed, round) and (seed, step), and from the rank
where several processes train together; state is kept only at the end of a round, so a resumed run
takes exactly the steps the uninterrupted one takes. Inside a round nothing waits for a GPU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from npga.avatar.forward import ForwardPrior
from npga.core.errors import NpgaError
from npga.core.processes import ALONE, Processes
from npga.core.store import load_tensors, save_tensors
from npga.distill.samples import Batch, Sampler
from npga.distill.teacher import Teacher
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
    learning_rate: float = 4e-3
    warmup: int = 50

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to 1 % of the rate."""
        ramp = min(1.0, (step + 1) / max(1, self.warmup))
        share = min(1.0, step / max(1, self.steps))
        return self.learning_rate * ramp * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def generator_for(seed: int, kind: int, number: int, rank: int = 0) -> torch.Generator:
    """The random stream of one round (kind 0) or step (kind 1): a pure function of its name.

    Only the lowest 32 bits of a seed count; the odd factor spreads the ranks over them.
    """
    stream = (seed * 2 + kind) * 1_000_003 + number + rank * 2_654_435_761
    return torch.Generator().manual_seed(stream % 2**32)


def make_optimizer(forward: ForwardPrior) -> torch.optim.Adam:
    """Adam over all of F; the rate comes from the schedule at every step."""
    on_gpu = forward.offset_scale.is_cuda
    return torch.optim.Adam(forward.parameters(), lr=0.0, betas=(0.9, 0.99), fused=on_gpu)


class Objective(nn.Module):
    """The terms of a batch as one module, whose gradients several processes can share."""

    def __init__(self, forward: ForwardPrior, teacher: Teacher, terms: Terms) -> None:
        """The teacher is frozen and no part of the module."""
        super().__init__()
        self.prior = forward
        self.ask = lambda batch: terms(forward, teacher, batch)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted scalars by name."""
        return self.ask(batch)


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
    team: Processes = ALONE,
) -> ForwardPrior:
    """Train F from step `start` (a round's first) to the end; knows nothing of disks or configs.

    Several processes take an equal part of every pool and batch each. Raises NpgaError where a
    term is not finite.
    """
    pool_codes = team.share_of(schedule.pool_codes, "schedule.pool_codes")
    codes = team.share_of(schedule.batch_codes, "schedule.batch_codes")
    objective = team.shared(Objective(forward, sampler.teacher, terms))
    for first in range(start, schedule.steps, schedule.round_steps):
        number = first // schedule.round_steps
        pool = sampler.pairs(
            pool_codes,
            schedule.pool_points,
            generator_for(seed, 0, number, team.rank),
            forward if number > 0 else None,
        )
        last = min(first + schedule.round_steps, schedule.steps)
        sums: dict[str, Tensor] = {}
        for step in range(first, last):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            draw = generator_for(seed, 1, step, team.rank)
            losses = objective(sampler.batch(pool, codes, schedule.rest_points, draw))
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(forward.parameters(), 10.0)
            optimizer.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
        means = {name: float(value) / (last - first) for name, value in sums.items()}
        require_finite(means, first, last)
        if observer is not None:
            observer(last, means)
    return forward


def start_from_statistics(forward: ForwardPrior, sampler: Sampler, *, seed: int) -> None:
    """Set F's input and output scales from one small pool; call once, before the first step."""
    pool = sampler.pairs(256, 64, generator_for(seed, 0, 999_983), None)
    kept = pool.weight.flatten() > 0
    points = torch.cat([pool.x, pool.omega], dim=-1).flatten(0, 1)[kept]
    forward.standardise(
        points, pool.z_exp, sampler.subjects.identity, pool.offset.flatten(0, 1)[kept]
    )


def require_finite(means: dict[str, float], first: int, last: int) -> None:
    """Stop, naming the terms and the round, where a mean is not finite."""
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise NpgaError(
            f"The term {', '.join(bad)} of distillation is not finite in steps {first} to {last}.",
            "Lower schedule.learning_rate; the round before is kept and can be resumed.",
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
