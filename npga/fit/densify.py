"""Density control: where Gaussians are added and which are removed. Ours.

The usual statistic, the mean screen gradient over all steps, forgets what is rarely seen: a tooth
that shows in one frame of fifty has a fiftieth of its gradient. Here every Gaussian keeps its `TOP`
largest gradients since the last change and is judged by their mean. How many are added follows
from the budget (the share `growth`, up to the cap), not from a threshold in units of a loss.
Gaussians go when they are faint, or when they paint almost nothing even in their best picture of
several frames. Opacity is never reset.

Letters: `n` Gaussians, `c` cameras.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from npga.avatar import Avatar
from npga.core import MM_PER_UNIT
from npga.core.rotations import matrix_from_quat
from npga.fit.batch import FitBatch, FitData
from npga.fit.config import DensifyConfig
from npga.fit.graph import CanonicalGraph
from npga.fit.surgery import rearrange
from npga.raster import Backend, RenderedImages, contributions

TOP = 4
"""How many of the largest gradients count."""
SHRINK = 1.6
"""Children of a split are this much smaller (as in 3D Gaussian splatting)."""
FORGET = 0.8
"""How much of an old contribution is still believed after each probe."""


@dataclass
class DensityState:
    """What is known of every Gaussian; all of it is saved for resuming."""

    top_gradients: Float[Tensor, "n 4"]
    contribution: Float[Tensor, " n"]
    """Pixels painted in the best picture of all probes, fading by `FORGET`."""
    probes: Int[Tensor, " n"]
    """How often each was probed."""

    @staticmethod
    def blank(count: int, device: torch.device) -> "DensityState":
        """Nothing observed yet."""
        return DensityState(
            torch.zeros(count, TOP, device=device),
            torch.zeros(count, device=device),
            torch.zeros(count, dtype=torch.long, device=device),
        )


@dataclass
class Densifier:
    """Observes every step, and changes the avatar every `config.every` steps."""

    config: DensifyConfig
    data: FitData
    graph: CanonicalGraph
    cap: int
    steps: int
    seed: int
    backend: Backend
    state: DensityState
    changes: list[tuple[int, int, int]] = field(default_factory=list)
    """(step, added, removed) of every change so far."""

    @torch.no_grad()
    def observe(self, raster: RenderedImages) -> None:
        """Keep the largest screen gradients; call after backward.

        Gradients are taken per half picture width, so that the statistic does not depend on the
        resolution, and the largest over the cameras of the step counts.
        """
        if raster.means2d.grad is None:
            return
        half = raster.image.shape[2] / 2
        strength = (raster.means2d.grad.norm(dim=-1) * half).amax(0)
        top = self.state.top_gradients
        weakest, place = top.min(dim=1)
        value = torch.maximum(weakest, strength)
        top.scatter_(1, place[:, None], value[:, None])

    def score(self) -> Float[Tensor, " n"]:
        """How much each Gaussian asks for company: the mean of its largest gradients."""
        return self.state.top_gradients.mean(1)

    def due(self, step: int) -> bool:
        """Whether the avatar changes after this step."""
        late = step >= self.config.stop * self.steps
        return step >= self.config.start and not late and (step + 1) % self.config.every == 0

    @torch.no_grad()
    def act(self, avatar: Avatar, optimizer: torch.optim.Optimizer, step: int) -> bool:
        """Remove, clone and split, where the step asks for it; returns whether it did."""
        if not self.due(step):
            return False
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        self._probe(avatar, generator)
        keep = self._worth_keeping(avatar)
        before = len(avatar)
        room = max(0, self.cap - int(keep.sum()))
        grown = self._to_grow(keep, min(room, int(self.config.growth * before)))
        added = int(grown.sum())
        self._rebuild(avatar, optimizer, keep, grown, generator)
        self.graph.refresh(avatar.means, avatar.code_motion())
        self.changes.append((step, added, before - int(keep.sum())))
        return True

    def _probe(self, avatar: Avatar, generator: torch.Generator) -> None:
        """Draw some frames, half of them the least like the mean, and note who paints."""
        distance = (self.data.expressions - avatar.expression_mean.cpu()).norm(dim=1)
        count = self.config.probe_frames
        chance = torch.ones(len(distance)) + distance / distance.mean().clamp(min=1e-6)
        frames = torch.multinomial(chance, count, replacement=True, generator=generator)
        best = torch.zeros_like(self.state.contribution)
        field = avatar.field()
        for index in frames.tolist():
            batch = self._one_camera(index, generator, avatar.means.device)
            posed = avatar.pose(
                batch.z_exp, batch.world_from_head, batch.torso, field=field, with_features=False
            )
            best = torch.maximum(best, contributions(posed, batch.cameras, backend=self.backend))
        self.state.contribution = torch.maximum(FORGET * self.state.contribution, best)
        self.state.probes += 1

    def _one_camera(self, index: int, generator: torch.Generator, device: torch.device) -> FitBatch:
        cameras = len(self.data.sequences[self.data.places[index][0]].cameras)
        chosen = int(torch.randint(cameras, (1,), generator=generator))
        return self.data.batch(index, [chosen], device)

    def _worth_keeping(self, avatar: Avatar) -> Bool[Tensor, " n"]:
        """Neither faint nor, after two probes, useless; at least 16 always stay."""
        opacity = avatar.logit_opacities.sigmoid()
        faint = opacity < self.config.min_opacity
        useless = (self.state.probes >= 2) & (
            self.state.contribution < self.config.min_contribution
        )
        keep = ~(faint | useless)
        if int(keep.sum()) < 16:
            keep[opacity.topk(min(16, len(opacity))).indices] = True
        return keep

    def _to_grow(self, keep: Bool[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
        """The `count` kept Gaussians with the highest scores."""
        score = self.score().masked_fill(~keep, -1.0)
        count = min(count, int((score > 0).sum()))
        grown = torch.zeros_like(keep)
        grown[score.topk(count).indices] = True
        return grown

    def _rebuild(
        self,
        avatar: Avatar,
        optimizer: torch.optim.Optimizer,
        keep: Bool[Tensor, " n"],
        grown: Bool[Tensor, " n"],
        generator: torch.Generator,
    ) -> None:
        """Kept rows first, then one twin for every grown one; both twins share or split a place."""
        kept, twins = torch.nonzero(keep).flatten(), torch.nonzero(grown).flatten()
        large = avatar.log_scales.exp().amax(1) * MM_PER_UNIT > self.config.split_mm
        source = torch.cat([kept, twins])
        fresh = torch.zeros(len(source), dtype=torch.bool, device=source.device)
        fresh[len(kept) :] = True
        place = torch.zeros(len(grown), dtype=torch.long, device=source.device)
        place[kept] = torch.arange(len(kept), device=source.device)
        first, second = place[twins], torch.arange(len(kept), len(source), device=source.device)

        rearrange(avatar, optimizer, source, fresh)
        divide(avatar, first, second, large[twins], generator)
        self.state = DensityState(
            torch.zeros(len(source), TOP, device=source.device),
            self.state.contribution[source],
            torch.where(fresh, 0, self.state.probes[source]),
        )


@torch.no_grad()
def divide(
    avatar: Avatar,
    first: Int[Tensor, " m"],
    second: Int[Tensor, " m"],
    split: Bool[Tensor, " m"],
    generator: torch.Generator,
) -> None:
    """Turn equal twins (rows `first` and `second`) into a clone pair or the halves of a split.

    Clones share the light: 1 - sqrt(1 - opacity) each, so that both together cover what one did.
    Halves lie on both sides of the centre along a random direction drawn from their own Gaussian,
    and are `SHRINK` times smaller.
    """
    opacity = avatar.logit_opacities[second].sigmoid()
    shared = (1 - (1 - opacity).clamp(min=1e-6).sqrt()).clamp(1e-4, 1 - 1e-4).logit()
    value = torch.where(split, avatar.logit_opacities[second], shared)
    avatar.logit_opacities[first] = value
    avatar.logit_opacities[second] = value

    smaller = avatar.log_scales[second] - split[:, None] * torch.log(torch.tensor(SHRINK))
    draw = torch.randn(len(second), 3, generator=generator).to(avatar.means)
    axes = matrix_from_quat(avatar.quats[second])
    local = draw * avatar.log_scales[second].exp()
    step = (axes @ local[..., None])[..., 0] * split[:, None]
    centre = avatar.means[second].clone()
    avatar.means[first] = centre - step
    avatar.means[second] = centre + step
    avatar.log_scales[first] = smaller
    avatar.log_scales[second] = smaller
