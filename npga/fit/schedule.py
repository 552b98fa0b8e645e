"""Learning rates: every group falls exponentially from its first rate to `final` of it.

The optimiser is Adam with one group per kind of parameter, named like the fields of `OptimConfig`.
"""

from dataclasses import asdict, dataclass
from dataclasses import field as made_by

import torch
from torch import nn

from npga.avatar import Avatar, ForwardField
from npga.fit.config import OptimConfig, PriorMode
from npga.fit.corrections import Corrections

FINETUNE_FROM = 0.4
"""Share of the steps after which F learns, in `prior_mode=finetune`."""
FIELD_EVERY, TURNS_EVERY = 8, 32
"""Steps between two evaluations of F at the centres, and of how it turns what is around them; saved
states fall on multiples of the second, itself a multiple of the first."""
HARDLY_SEEN = 1e-3
"""Gradients of the loss per unit of a correction: what is far below hardly moves, where Adam would
else give a control that no picture shows the same steps as one that all show."""
NETWORKS = ("detail", "refiner", "prior", "torso", "light")


def build_optimizer(
    avatar: Avatar, corrections: Corrections, config: OptimConfig
) -> torch.optim.Adam:
    """Adam over rows, networks and corrections of the track; group["name"] says which is which."""
    groups: list[dict[str, object]] = []
    for name in avatar.ROWS:
        groups.append({"name": name, "params": [getattr(avatar, name)]})
    for name in NETWORKS:
        module: nn.Module = getattr(avatar, name)
        groups.append({"name": name, "params": list(module.parameters())})
    for name in ("moves", "codes"):
        values = getattr(corrections, name)
        groups.append({"name": name, "params": [values], "eps": HARDLY_SEEN})
    rates = asdict(config)
    for group in groups:
        group["lr"] = rates[str(group["name"])]
    return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)


class KeptField:
    """F at the canonical centres, taken anew every few steps.

    The centres move by less than a millimetre between two refreshes, over which F is smooth.
    """

    def __init__(self) -> None:
        self.field: ForwardField | None = None

    def at(self, avatar: Avatar, step: int) -> ForwardField:
        """The field to use at a step."""
        if self.field is None or step % TURNS_EVERY == 0:
            self.field = avatar.field()
        elif step % FIELD_EVERY == 0:
            self.field = avatar.field(self.field.turns)
        return self.field

    def drop(self) -> None:
        """Forget it: the Gaussians have changed."""
        self.field = None


@dataclass(frozen=True)
class Schedule:
    """Which rate each group has at each step."""

    config: OptimConfig
    steps: int
    prior_mode: PriorMode
    finetune_from: float = FINETUNE_FROM
    """Share of the steps after which F learns, where it does."""
    corrections_from: float = 0.0
    """Share of the steps after which the track is corrected, where it is."""
    kept: KeptField = made_by(default_factory=KeptField)

    def field(self, avatar: Avatar, step: int) -> ForwardField:
        """F at the centres at this step, without its basis where F learns."""
        found = self.kept.at(avatar, step)
        return found.without_basis() if self.prior_learns(step) else found

    def prior_learns(self, step: int) -> bool:
        """Whether F is trained at this step."""
        return self.prior_mode is PriorMode.finetune and step >= self.finetune_from * self.steps

    def corrects(self, step: int) -> bool:
        """Whether corrections of the track are used and learned at this step."""
        return step >= self.corrections_from * self.steps

    def rate(self, name: str, step: int) -> float:
        """The learning rate of a group."""
        if name in ("prior", "omega") and not self.prior_learns(step):
            return 0.0
        decay = self.config.final ** (step / max(1, self.steps))
        return float(getattr(self.config, name)) * decay

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the rates of a step."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(group["name"], step)
