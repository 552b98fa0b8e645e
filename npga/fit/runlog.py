"""What a fit leaves behind while it runs: `metrics.jsonl`, a progress bar, previews, saved states.

A line of `metrics.jsonl` is the mean of every loss term over the steps since the line before.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from npga.core.progress import bar

WINDOW = 25
"""Steps per line of the log."""


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
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0
        self.since = time.perf_counter()
        self._forget_later_than(start)

    def _forget_later_than(self, start: int) -> None:
        """A resumed run repeats the steps after its state: drop their lines."""
        if self.path.exists():
            lines = self.path.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= start]
            self.path.write_text("".join(line + "\n" for line in kept))

    def step(self, step: int, losses: dict[str, torch.Tensor], gaussians: int) -> None:
        """Note one finished step."""
        done = step + 1
        for name, value in losses.items():
            self.sums[name] += float(value.detach())
        self.count += 1
        self.bar.update()
        last = done == self.steps
        if done % WINDOW == 0 or last:
            self._write(done, gaussians)
        for every, hook in self.hooks:
            if last or done % every == 0:
                hook(done)
        if last:
            self.bar.close()

    def _write(self, done: int, gaussians: int) -> None:
        means = {name: value / self.count for name, value in self.sums.items()}
        seconds = (time.perf_counter() - self.since) / self.count
        line = {"step": done, "gaussians": gaussians, "seconds_per_step": round(seconds, 4)}
        line |= {name: round(value, 6) for name, value in means.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        total = sum(means.values())
        self.bar.set_postfix_str(f"loss {total:.4f}, {gaussians} Gaussians", refresh=False)
        self.sums.clear()
        self.count = 0
        self.since = time.perf_counter()
