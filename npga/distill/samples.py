"""Where and for which expressions F is trained: exact pairs, made without root finding.

k codes (one person under one expression each), m points per code; x canonical, p posed, sigma the
jitter in head units. A surface point c is carried near its posed place by the F learned so far
(at the very start by a few fixed-point steps); then p = that place + jitter, and one evaluation of
the frozen field gives the exact pair (x, omega) = B(p) with target offset p - x. Where p lies
decides only what F sees often, never whether a pair is true.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.avatar.forward import ForwardPrior
from npga.distill.teacher import Region, Subjects, Teacher, backward

JITTER = ((0.45, 0.002), (0.35, 0.01), (0.2, 0.04))
"""(share of the points, sigma): 0.5 mm, 2.5 mm and 10 mm; ours."""

SHELL_SHARE = 0.04
"""Share of the points that fill the box around the head, at a fifth of the weight; ours."""

MOUTH_DEPTH = 0.12
"""Lip samples are also pushed up to this far (30 mm) into the mouth."""

OFFSET_LIMIT = 0.5
"""A pair that moves further than this (125 mm) is an extrapolation of B and gets no weight."""


@dataclass(frozen=True)
class Expressions:
    """The expressions a head model is trusted for."""

    mean: Float[Tensor, "e"]
    std: Float[Tensor, "e"]
    lower: Float[Tensor, "e"]
    upper: Float[Tensor, "e"]
    neutral: Float[Tensor, "e"]
    """The code of the canonical, closed-mouth face."""
    observed: Float[Tensor, "f e"]
    """Tracked or training codes; may be empty."""

    def draw(
        self, count: int, generator: torch.Generator, margin: float = 0.1
    ) -> Float[Tensor, "k e"]:
        """A mixture: a few controls, many controls, observed codes, and what lies between them."""
        size = len(self.mean)
        span = self.upper - self.lower
        amount = torch.rand(count, size, generator=generator) * (1 + margin)
        few = 1 + torch.randint(0, max(1, min(10, size)), (count, 1), generator=generator)
        on = torch.rand(count, size, generator=generator) < few / size
        upward = torch.rand(count, size, generator=generator) < self._upward()
        reach = torch.where(upward, self.upper - self.neutral, self.lower - self.neutral)
        sparse = self.neutral + on * amount * reach
        noise = torch.randn(count, size, generator=generator)
        strength = 1.2 * torch.rand(count, 1, generator=generator) + 0.3
        dense = self.mean + strength * self.std * noise
        kind = torch.rand(count, 1, generator=generator)
        codes = torch.where(kind < 0.5, sparse, dense)
        if len(self.observed):
            rows = torch.randint(0, len(self.observed), (count,), generator=generator)
            codes = torch.where(kind > 0.35, self.observed[rows], sparse)
        other = codes[torch.randperm(count, generator=generator)]
        share = torch.rand(count, 1, generator=generator)
        between = torch.rand(count, 1, generator=generator) < 0.3
        codes = torch.where(between, share * codes + (1 - share) * other, codes)
        return codes.clamp(self.lower - margin * span, self.upper + margin * span)

    def _upward(self) -> Float[Tensor, "e"]:
        """Share of each control's range that lies above neutral."""
        span = (self.upper - self.lower).clamp(min=1e-6)
        return ((self.upper - self.neutral) / span).clamp(0, 1)


@dataclass(frozen=True)
class Pairs:
    """`k` codes with `m` exact pairs each."""

    identity: Float[Tensor, "k i"]
    z_exp: Float[Tensor, "k e"]
    subject: Int[Tensor, "k"]
    x: Float[Tensor, "k m 3"]
    """Canonical points, B(p)."""
    omega: Float[Tensor, "k m h"]
    offset: Float[Tensor, "k m 3"]
    """p - x, what F must answer."""
    weight: Float[Tensor, "k m"]

    def __len__(self) -> int:
        return len(self.z_exp)


@dataclass(frozen=True)
class Batch:
    """One step's data: exact pairs, and rest points for the cycle."""

    pairs: Pairs
    rest_x: Float[Tensor, "k r 3"]
    """Canonical points as an avatar holds them, jittered."""
    rest_omega: Float[Tensor, "k r h"]
    """Their omega under the neutral expression."""


def draw_rows(
    subjects: Subjects, codes: int, count: int, generator: torch.Generator
) -> Int[Tensor, "k m"]:
    """Indices of surface points per code (the surface itself is denser on lips and lids)."""
    points = subjects.surface.shape[1]
    return torch.randint(0, points, (codes, count), generator=generator)


def take(values: Float[Tensor, "s v d"], subject: Tensor, rows: Tensor) -> Float[Tensor, "k m d"]:
    """The chosen points of the chosen people."""
    return values[subject[:, None], rows]


def carried(
    teacher: Teacher,
    forward: ForwardPrior | None,
    x: Float[Tensor, "k m 3"],
    omega: Float[Tensor, "k m h"],
    z_exp: Float[Tensor, "k e"],
    identity: Float[Tensor, "k i"],
) -> Float[Tensor, "k m 3"]:
    """Roughly where canonical points go: by F if there is one, else by damped fixed-point steps."""
    if forward is not None:
        return forward.posed(x, omega, z_exp, identity)
    posed = x
    for _ in range(2):
        canonical, _ = backward(teacher, posed, identity, z_exp)
        posed = posed + (x - canonical).clamp(-0.1, 0.1)
    return posed


def jitter(
    posed: Float[Tensor, "k m 3"], lips: Tensor, generator: torch.Generator
) -> tuple[Float[Tensor, "k m 3"], Float[Tensor, "k m"]]:
    """Points around `posed` with their weights: some go into the mouth, some fill a box."""
    shape, device = posed.shape[:2], posed.device
    shares = torch.tensor([share for share, _ in JITTER])
    sigmas = torch.tensor([sigma for _, sigma in JITTER])
    kind = torch.multinomial(shares, shape.numel(), replacement=True, generator=generator)
    noise = torch.randn(*shape, 3, generator=generator) * sigmas[kind].reshape(*shape, 1)
    inward = torch.rand(shape, generator=generator) * MOUTH_DEPTH
    inward *= torch.rand(shape, generator=generator) < 0.25
    moved = posed + noise.to(device)
    moved[..., 2] -= inward.to(device) * lips
    low, high = posed.amin(1, keepdim=True) - 0.05, posed.amax(1, keepdim=True) + 0.05
    box = low + torch.rand(*shape, 3, generator=generator).to(device) * (high - low)
    shell = (torch.rand(shape, generator=generator) < SHELL_SHARE).to(device)
    weight = torch.where(shell, 0.2, 1.0)
    return torch.where(shell[..., None], box, moved), weight


@dataclass(frozen=True)
class Sampler:
    """Draws everything that training sees; equal generators give equal draws."""

    teacher: Teacher
    subjects: Subjects
    expressions: Expressions
    rest_x: Float[Tensor, "s v 3"]
    rest_omega: Float[Tensor, "s v h"]
    margin: float = 0.1

    @torch.no_grad()
    def pairs(
        self, codes: int, points: int, generator: torch.Generator, forward: ForwardPrior | None
    ) -> Pairs:
        """`codes` random people and expressions with `points` exact pairs each."""
        device = self.rest_x.device
        subject = torch.randint(0, len(self.subjects), (codes,), generator=generator)
        rows = draw_rows(self.subjects, codes, points, generator).to(device)
        subject = subject.to(device)
        z_exp = self.expressions.draw(codes, generator, self.margin).to(device)
        parts = []
        for part in torch.arange(codes).split(64):
            who = subject[part]
            identity = self.subjects.identity[who]
            x = take(self.rest_x, who, rows[part])
            omega = take(self.rest_omega, who, rows[part])
            posed = carried(self.teacher, forward, x, omega, z_exp[part], identity)
            lips = self.subjects.region[who[:, None], rows[part]] == int(Region.lips)
            posed, weight = jitter(posed, lips, generator)
            canonical, hyper = backward(self.teacher, posed, identity, z_exp[part])
            offset = posed - canonical
            weight = weight * (offset.norm(dim=-1) < OFFSET_LIMIT)
            parts.append((canonical, hyper, offset, weight))
        x, omega, offset, weight = (torch.cat(values) for values in zip(*parts, strict=True))
        identity = self.subjects.identity[subject]
        return Pairs(identity, z_exp, subject, x, omega, offset, weight)

    def batch(self, pool: Pairs, codes: int, rest_points: int, generator: torch.Generator) -> Batch:
        """Some codes of a pool, with fresh rest points of the same people."""
        device = pool.x.device
        chosen = torch.randperm(len(pool), generator=generator)[:codes].to(device)
        pairs = Pairs(*(getattr(pool, name)[chosen] for name in Pairs.__dataclass_fields__))
        rows = draw_rows(self.subjects, codes, rest_points, generator).to(device)
        x = take(self.rest_x, pairs.subject, rows)
        omega = take(self.rest_omega, pairs.subject, rows)
        x = x + 0.002 * torch.randn(x.shape, generator=generator).to(device)
        omega = omega + 0.002 * torch.randn(omega.shape, generator=generator).to(device)
        return Batch(pairs, x, omega)
