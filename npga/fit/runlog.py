"""What a fit leaves behind while it runs: `metrics.jsonl`, a progress bar, previews, saved states.

A line of `metrics.jsonl` is the mean of every loss term over the steps since the line before. Loss
values stay on their device until a line is due, so that no step waits for the one before; only
then, and before anything is saved, are they checked.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.errors import NpgaError
from npga.core.progress import bar
from npga.fit.batch import FitBatch

WINDOW = 25
"""Steps per line of the log."""


@dataclass(frozen=True)
class StepLosses:
    """What one step cost, and what it was shown."""

    step: int
    names: tuple[str, ...]
    values: Float[Tensor, " l"]
    sequence: str
    frame: int
    cameras: tuple[str, ...]

    @staticmethod
    def of(step: int, losses: dict[str, Tensor], batch: FitBatch) -> "StepLosses":
        """Without the graph behind the losses, and without waiting for them."""
        values = torch.stack([value.detach() for value in losses.values()])
        return StepLosses(
            step, tuple(losses), values, batch.sequence, batch.frame, batch.cameras.ids
        )


def require_finite(steps: list[StepLosses]) -> Float[Tensor, "s l"]:
    """The losses of some steps in memory.

    Raises NpgaError that names the terms, the step and the frame of the first that is not finite.
    """
    values = torch.stack([one.values for one in steps]).cpu()
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return values
    first = int((~finite).any(1).nonzero()[0])
    one = steps[first]
    bad = [name for name, good in zip(one.names, finite[first].tolist(), strict=True) if not good]
    raise NpgaError(
        f"The loss term {', '.join(bad)} is not finite at step {one.step}, frame {one.frame} of "
        f"{one.sequence}, cameras {', '.join(one.cameras)}.",
        "Lower optim.* rates or look at that frame; the last saved state can be resumed.",
    )


class RunLog:
    """Counts steps, writes the log, and calls `hooks` after every so many steps.

    `hooks` holds (every, function of the number of finished steps); each is also called at the end.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        start: int = 0,
        hooks: tuple[tuple[int, Callable[[int], None]], ...] = (),
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.steps = steps
        self.hooks = hooks
        self.bar = bar("fit", steps, initial=start)
        self.pending: list[StepLosses] = []
        self.since = time.perf_counter()
        self._forget_later_than(start)

    def _forget_later_than(self, start: int) -> None:
        """A resumed run repeats the steps after its state: drop their lines."""
        if self.path.exists():
            lines = self.path.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= start]
            self.path.write_text("".join(line + "\n" for line in kept))

    def check(self) -> None:
        """Raise NpgaError where a loss since the last line is not finite."""
        if self.pending:
            require_finite(self.pending)

    def step(self, step: int, losses: dict[str, Tensor], batch: FitBatch, gaussians: int) -> None:
        """Note one finished step."""
        done = step + 1
        self.pending.append(StepLosses.of(step, losses, batch))
        self.bar.update()
        last = done == self.steps
        if done % WINDOW == 0 or last:
            self._write(done, gaussians)
        due = [hook for every, hook in self.hooks if last or done % every == 0]
        if due:
            self.check()
        for hook in due:
            hook(done)
        if last:
            self.bar.close()

    def _write(self, done: int, gaussians: int) -> None:
        values = require_finite(self.pending)
        means = dict(zip(self.pending[0].names, values.mean(0).tolist(), strict=True))
        seconds = (time.perf_counter() - self.since) / len(self.pending)
        line = {"step": done, "gaussians": gaussians, "seconds_per_step": round(seconds, 4)}
        line |= {name: round(value, 6) for name, value in means.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        total = sum(means.values())
        self.bar.set_postfix_str(f"loss {total:.4f}, {gaussians} Gaussians", refresh=False)
        self.pending.clear()
        self.since = time.perf_counter()
