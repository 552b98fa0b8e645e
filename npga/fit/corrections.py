"""Small corrections of tracked poses and codes, one per training frame, learned with the avatar.

    world_from_head' = world_from_head o (rotation vector, translation)       head space
    z_exp'           = z_exp + code                          inside the head model's bounds

Only training frames have one; held-out frames are always shown as they were tracked. So nothing may
be learned that an avatar could take for granted at test time: what could as well be a habit of the
tracker is taken out after every step (`Corrections.settle`), and told in the drift report. Such
habits are a constant offset of a take (of pose and of codes), and codes that all grow or shrink by
a factor. Ours.

Letters: `t` training frames, `k` takes (sequences), `e` expression size.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.fit.batch import FitBatch, FitData
from npga.fit.config import Corrected
from nphm_tracking.model.head_model import CodeStatistics

MOVE_UNIT = 0.02
"""Radians (1.1 degrees) and head units (5 mm) that weigh like one standard deviation of a code."""
STILL = 1e-3
"""Mean square of a control's motion in training below which it has no factor to be told."""


@dataclass(frozen=True)
class Correction:
    """What one frame's track is corrected by, in units of loss terms."""

    move: Float[Tensor, "6"]
    """Rotation vector (rad), translation (head units)."""
    code: Float[Tensor, " e"]
    """In standard deviations of the head model's population."""
    move_beside: Float[Tensor, "6"]
    """The mean of the frames before and after in the take; no gradient."""
    code_beside: Float[Tensor, " e"]


@dataclass(frozen=True)
class FrameTrack:
    """Code and pose that a frame is shown with."""

    z_exp: Float[Tensor, " e"]
    world_from_head: Similarity
    correction: Correction | None
    """None where nothing is corrected."""

    @staticmethod
    def tracked(batch: FitBatch) -> "FrameTrack":
        """As the tracker says."""
        return FrameTrack(batch.z_exp, batch.world_from_head, None)


class Corrections(nn.Module):
    """The corrections of all training frames of `data`; zero at first."""

    averages: Tensor
    beside: Tensor
    take: Tensor
    tracked: Tensor
    spread: Tensor
    lower: Tensor
    upper: Tensor
    unit: Tensor
    taken_moves: Tensor
    taken_codes: Tensor
    taken_factors: Tensor

    def __init__(
        self, data: FitData, what: Corrected, codes: CodeStatistics | None = None,
        *, gauge: bool = True,
    ) -> None:  # fmt: skip
        """`codes`: the head model's bounds and spread (default: unbounded, 1)."""
        super().__init__()
        tracked = data.expressions
        frames, size = tracked.shape
        codes = codes or CodeStatistics.unknown(size)
        self.what = what
        self.gauge = gauge
        take = torch.tensor([s for s, _ in data.places])
        member = torch.nn.functional.one_hot(take, len(data.sequences)).T.float()
        averages = member / member.sum(1, keepdim=True)
        self.moves = nn.Parameter(torch.zeros(frames, 6), requires_grad=what is not Corrected.none)
        self.codes = nn.Parameter(torch.zeros(frames, size), what is Corrected.both)
        known = {
            "take": take,
            "beside": _beside(take),
            "averages": averages,
            "tracked": tracked,
            "spread": tracked - (averages @ tracked)[take],
            "lower": torch.minimum(codes.lower.float(), tracked.amin(0)),
            "upper": torch.maximum(codes.upper.float(), tracked.amax(0)),
            "unit": codes.std.float().clamp(min=1e-3),
        }
        for name, value in known.items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("taken_moves", torch.zeros(len(averages), 6))
        self.register_buffer("taken_codes", torch.zeros(len(averages), size))
        self.register_buffer("taken_factors", torch.zeros(size))

    def of(self, batch: FitBatch) -> FrameTrack:
        """The corrected frame; gradients reach its own correction only."""
        if self.what is Corrected.none:
            return FrameTrack.tracked(batch)
        move, code = self.moves[batch.index], self.codes[batch.index]
        step = Similarity(
            torch.ones_like(batch.world_from_head.scale), matrix_from_rotvec(move[:3]), move[3:]
        )
        beside = self.beside[batch.index]
        correction = Correction(
            move,
            code / self.unit,
            self.moves.detach()[beside].mean(0),
            self.codes.detach()[beside].mean(0) / self.unit,
        )
        z_exp = batch.z_exp + code if self.what is Corrected.both else batch.z_exp
        return FrameTrack(z_exp, batch.world_from_head.compose(step), correction)

    @torch.no_grad()
    def settle(self) -> None:
        """After a step: take out what is a habit (see above), and keep codes inside their bounds.

        A bound can keep an offset alive (a control at 0 can only grow); the next steps take it out.
        """
        if self.gauge:
            self._take_out()
        if self.what is Corrected.both:
            corrected = (self.tracked + self.codes).clamp(self.lower, self.upper)
            self.codes.copy_(corrected - self.tracked)

    def _take_out(self) -> None:
        for values, taken in ((self.moves, self.taken_moves), (self.codes, self.taken_codes)):
            offset = self.averages @ values
            taken += offset
            values -= offset[self.take]
        factor = self.factors()
        self.taken_factors += factor
        self.codes -= factor * self.spread

    def offsets(self) -> tuple[Float[Tensor, "k 6"], Float[Tensor, "k e"]]:
        """The mean correction of each take, of moves and codes."""
        return self.averages @ self.moves.detach(), self.averages @ self.codes.detach()

    @torch.no_grad()
    def factors(self) -> Float[Tensor, " e"]:
        """How much more than tracked each control moves within takes (0.1 = 10 %)."""
        power = self.spread.square().sum(0)
        factor = (self.codes * self.spread).sum(0) / power.clamp(min=1e-9)
        return torch.where(power > STILL * len(self.spread), factor, 0.0)


def _beside(take: Int[Tensor, " t"]) -> Int[Tensor, "t 2"]:
    """The frames before and after each in its take; at an end the only one there is, or itself."""
    rows = torch.arange(len(take))
    before, after = (rows - 1).clamp(min=0), (rows + 1).clamp(max=len(take) - 1)
    has_before = (rows > 0) & (take[before] == take)
    has_after = (rows < len(take) - 1) & (take[after] == take)
    first = torch.where(has_before, before, torch.where(has_after, after, rows))
    second = torch.where(has_after, after, torch.where(has_before, before, rows))
    return torch.stack([first, second], dim=1)
