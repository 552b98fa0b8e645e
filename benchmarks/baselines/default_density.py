"""The ablation `default_density`: Gaussians grow and reset as in 3D Gaussian splatting.

The score is the mean screen gradient over the pictures in which a Gaussian was visible; only faint
ones are removed; opacities are cut to 0.01 five times while the number may change (Kerbl et al.
2023: every 3,000 of 15,000 steps). How many are added at once and in all is as in our own rule,
so that both rules spend the same budget.

Letters: `n` Gaussians.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from npga.avatar import Avatar
from npga.fit.densify import Densifier
from npga.fit.surgery import MOMENTS
from npga.raster import RenderedImages

RESETS = 5
RESET_TO = 0.01
FAINT = 0.005
"""Opacity below which a Gaussian goes."""
SUM, COUNT = 0, 1
"""Columns of the state's gradients that this rule uses."""


class DefaultDensity(Densifier):
    """The mean gradient instead of the largest ones; see the module docstring."""

    @torch.no_grad()
    def observe(self, raster: RenderedImages) -> None:
        """Add up the gradients per half picture width of all pictures that show a Gaussian."""
        if raster.means2d.grad is None:
            return
        seen = raster.radii > 0
        strength = raster.means2d.grad.norm(dim=-1) * (raster.image.shape[2] / 2)
        self.state.top_gradients[:, SUM] += (strength * seen).sum(0)
        self.state.top_gradients[:, COUNT] += seen.sum(0)

    def score(self) -> Float[Tensor, " n"]:
        """The mean gradient."""
        gradients = self.state.top_gradients
        return gradients[:, SUM] / gradients[:, COUNT].clamp(min=1)

    def _worth_keeping(self, avatar: Avatar) -> Bool[Tensor, " n"]:
        never = replace(self, config=replace(self.config, min_opacity=FAINT, min_contribution=-1.0))
        return Densifier._worth_keeping(never, avatar)

    @torch.no_grad()
    def act(self, avatar: Avatar, optimizer: torch.optim.Optimizer, step: int) -> bool:
        """Grow and prune where due, then cut the opacities where that is due."""
        changed = super().act(avatar, optimizer, step)
        if self.resets_at(step):
            reset_opacities(avatar, optimizer)
        return changed

    def resets_at(self, step: int) -> bool:
        """Whether opacities are cut after this step; never after the last change."""
        last = self.config.stop * self.steps
        every = max(1, math.ceil(last / RESETS))
        return self.config.start <= step + 1 < last and (step + 1) % every == 0


@torch.no_grad()
def reset_opacities(avatar: Avatar, optimizer: torch.optim.Optimizer) -> None:
    """Cut opacities to `RESET_TO` and forget Adam's moments of them."""
    avatar.logit_opacities.clamp_(max=math.log(RESET_TO / (1 - RESET_TO)))
    state = optimizer.state[avatar.logit_opacities]
    for moment in MOMENTS:
        if moment in state:
            state[moment].zero_()
