"""How far lids and lips are apart under a code, and the code that opens them as far as asked.

k openings: lids of the right eye, of the left eye, lips. t frames, e expression size. A gap is the
height of upper over lower landmarks in eye distances. It is linear in the code, since the head
model says how far unit codes carry its landmarks (`HeadModel.landmark_slopes`); no code is known by
name. An opening is a gap measured on the person's own scale: 0 = shut, and for lids 1 = at rest.
All of this is ours.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nphm_tracking import HeadModel
from nphm_tracking.head import STD_MIN

PAIRS = (
    ((159, 145), (160, 144), (158, 153)),
    ((386, 374), (385, 380), (387, 373)),
    ((13, 14), (82, 87), (312, 317)),
)
"""Upper and lower landmarks of every opening, MediaPipe's numbers."""
LIDS = torch.tensor([True, True, False])
EYE_CORNERS = ((33, 133), (362, 263))
MEDIAPIPE = 478

CLOSED_BELOW = 0.35
"""A person whose lids come below this share of their rest gap has closed them."""
CLOSED_AT_MOST = 0.5
"""The same where only the bounds of the codes tell how far lids close."""
CLOSED_QUANTILE = 0.01
SHUT_QUANTILE = 0.1
"""Of the lips' gap: mouths are shut often, lids rarely."""
RESIDUAL = 0.1
"""Lips that are often this close to where the head model closes them are shut then (6 mm)."""
ASKED = 0.2
"""Controls that move a gap by less than this share of the strongest are not asked to."""
REACHED = 1e-5
"""Openings that are this near to the wanted ones are left."""
ROUNDS = 4
"""Of the correction: codes that reach a bound leave the rest to the others."""


@dataclass(frozen=True)
class Gaps:
    """A person's gaps, eye distances."""

    at_zero: Float[Tensor, "k"]
    slopes: Float[Tensor, "k e"]
    weight: Float[Tensor, "e"]
    """How readily a code moves to change a gap: the population's variance."""

    @staticmethod
    def of(model: HeadModel, z_geo: Float[Tensor, "g"] | None = None) -> "Gaps | None":
        """Of an identity (the mean one if none is given); None where the model cannot tell."""
        slopes = model.landmark_slopes
        if slopes is None or model.landmark_count != MEDIAPIPE:
            return None
        places = model.landmarks(model.geo_mean if z_geo is None else z_geo.to(model.geo_mean))
        eyes = [places[list(corners)].mean(0) for corners in EYE_CORNERS]
        unit = (eyes[0] - eyes[1]).norm()
        pairs = torch.tensor(PAIRS)
        upper, lower = pairs[..., 0], pairs[..., 1]
        return Gaps(
            (places[upper, 1] - places[lower, 1]).mean(1) / unit,
            (slopes[upper, 1] - slopes[lower, 1]).mean(1) / unit,
            model.exp_std.clamp_min(STD_MIN).square(),
        )

    def __call__(self, z_exp: Float[Tensor, "t e"]) -> Float[Tensor, "t k"]:
        """The gaps under codes."""
        return self.at_zero + z_exp @ self.slopes.T

    def asked(self) -> Float[Tensor, "k e"]:
        """How far each control is asked to move each gap: its strength, 1 = the strongest."""
        share = self.slopes.abs() / self.slopes.abs().amax(1, keepdim=True)
        return torch.where(share >= ASKED, share, 0.0)

    def by_strongest(self, upper: Float[Tensor, "e"]) -> Float[Tensor, "k"]:
        """The gaps when the one control that closes most is at its upper bound."""
        return self.at_zero + (self.slopes * upper).amin(1)

    def least(self, lower: Float[Tensor, "e"], upper: Float[Tensor, "e"]) -> Float[Tensor, "k"]:
        """The gaps when all that are asked close as far as the bounds let them."""
        asked = torch.where(self.asked() > 0, self.slopes, 0.0)
        return self.at_zero + torch.minimum(asked * lower, asked * upper).sum(1)


@dataclass(frozen=True)
class Openings:
    """A person's gaps on their own scale."""

    gaps: Gaps
    shut: Float[Tensor, "k"]
    """Gap that counts as shut."""
    unit: Float[Tensor, "k"]
    """Lids: from shut to rest; lips: one eye distance."""

    @staticmethod
    def calibrated(
        gaps: Gaps,
        neutral: Float[Tensor, "e"],
        codes: Float[Tensor, "t e"] | None,
        closed: Float[Tensor, "k"] | None = None,
    ) -> "Openings":
        """Scales from the rest face and, where there are any, all of a person's codes.

        `closed` is the lids' gap that counts as shut where the codes never show it; 0 if absent.
        Lips that are never shut count as shut where the head model closes them, at code 0.
        """
        rest = gaps(neutral[None])[0]
        shut = torch.zeros_like(rest) if closed is None else closed
        lips = gaps.at_zero
        if codes is not None and len(codes):
            seen = gaps(codes)
            least = seen.quantile(CLOSED_QUANTILE, dim=0)
            shut = torch.where(least < CLOSED_BELOW * rest, least, shut)
            often = seen.quantile(SHUT_QUANTILE, dim=0)
            lips = torch.where(often < lips + RESIDUAL, often, lips)
        shut = torch.where(shut < CLOSED_AT_MOST * rest, shut, torch.zeros_like(shut))
        shut = torch.where(LIDS, shut, lips)
        unit = torch.where(LIDS, (rest - shut).clamp_min(1e-3), torch.ones_like(rest))
        return Openings(gaps, shut, unit)

    def of(self, z_exp: Float[Tensor, "t e"]) -> Float[Tensor, "t k"]:
        """The openings under codes; below 0 what presses together."""
        return (self.gaps(z_exp) - self.shut) / self.unit

    def opened(
        self,
        z_exp: Float[Tensor, "t e"],
        wanted: Float[Tensor, "t k"],
        lower: Float[Tensor, "e"],
        upper: Float[Tensor, "e"],
    ) -> Float[Tensor, "t e"]:
        """The nearest codes inside bounds whose openings are the wanted ones.

        Nearest in units of the population's spread, by the controls that chiefly move a gap.
        What is wanted shut (0 or less) may press together as it does. Codes outside the bounds stay
        where they are unless they have to move; what cannot be reached is left.
        """
        slopes = self.gaps.slopes / self.unit[:, None]
        asked = slopes * self.gaps.asked()
        wanted = wanted.clamp_min(0)
        for _ in range(ROUNDS):
            miss = wanted - self.of(z_exp)
            there = (miss.abs() < REACHED) | (wanted == 0) & (miss > 0)
            if bool(there.all()):
                break
            miss = torch.where(there, 0.0, miss)
            push = miss @ asked
            room = torch.where(push > 0, z_exp < upper, z_exp > lower)
            weight = self.gaps.weight * room
            normal = (slopes * weight[:, None]) @ asked.T
            ridge = 1e-6 * normal.diagonal(dim1=1, dim2=2).amax(-1).clamp_min(1e-9)
            normal = normal + ridge[:, None, None] * torch.eye(len(slopes)).to(normal)
            step = weight * (torch.linalg.solve(normal, miss[..., None])[..., 0] @ asked)
            moved = torch.minimum(torch.maximum(z_exp + step, lower), upper)
            z_exp = torch.where(step.abs() > 0, moved, z_exp)
        return z_exp
