"""From a driver's codes and head poses to an avatar's.

t frames, e expression size, d driver, a avatar, n neutral code, T world_from_head.

    z_a(t) = n_a + (z_d(t) - n_d), then inside the avatar's training hull     codes
    T_a(t) = mean(T_a) o damp( mean(T_d)^-1 o T_d(t) )                        head motion

The codes of the open prior mean the same for everyone, so what is relative is each person's rest
face. Lids and lips are not relative: shut is shut. So the codes are corrected until the avatar's
openings are the driver's (`openings`). A person's `Face` is measured on all of their frames; what
follows is a function of one frame, apart from smoothing. Ours throughout.
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.errors import ConfigError
from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.reenact.nearest import nearest_inside
from npga.reenact.openings import Gaps, Openings


class HeadMotion(str, Enum):
    """How much of the driver's head motion the avatar takes."""

    full = "full"
    damped = "damped"
    """Half of the turn and of the shift."""
    none = "none"


SHARE = {HeadMotion.full: 1.0, HeadMotion.damped: 0.5, HeadMotion.none: 0.0}

LOW_QUANTILE = 0.1
"""Quantile that stands for 'at rest' where a control starts at 0 and only goes up."""

REST_SHARE = 0.2
"""Of all frames, those that are most at rest."""

NEVER_NEGATIVE = -0.05
"""Codes above this everywhere are one-sided controls, like the open prior's."""

NARROW = 0.05
"""A control whose training range is below this counts as this wide in hull distances."""


@dataclass(frozen=True)
class Hull:
    """The box of an avatar's training codes."""

    lower: Float[Tensor, "e"]
    upper: Float[Tensor, "e"]

    def clamp(self, z_exp: Float[Tensor, "t e"]) -> Float[Tensor, "t e"]:
        """The nearest codes inside."""
        return torch.minimum(torch.maximum(z_exp, self.lower), self.upper)

    def distance(self, z_exp: Float[Tensor, "t e"]) -> Float[Tensor, "t"]:
        """How far each code lies outside: the largest overshoot in widths of that control's range.

        0 inside; 1 means a control goes as far beyond its range as the range is wide.
        """
        width = (self.upper - self.lower).clamp(min=NARROW)
        return ((z_exp - self.clamp(z_exp)).abs() / width).amax(-1)


@dataclass(frozen=True)
class Face:
    """What retargeting knows of a person."""

    neutral: Float[Tensor, "e"]
    """Their code at rest."""
    openings: Openings | None = None
    """None where the head model cannot tell: codes are then only relative."""

    @staticmethod
    def of_codes(codes: Float[Tensor, "t e"], gaps: Gaps | None = None) -> "Face":
        """From all tracked codes of a person; raises ConfigError for none."""
        neutral = neutral_code(codes)
        return Face(neutral, None if gaps is None else Openings.calibrated(gaps, neutral, codes))


@dataclass(frozen=True)
class Retargeting:
    """One person's codes made another's, frame by frame."""

    driver: Face
    avatar: Face
    lower: Float[Tensor, "e"]
    """Of codes, as the head model knows them (-inf for no bound)."""
    upper: Float[Tensor, "e"]
    hull: Hull | None = None
    """Of the avatar's training codes, where it is known."""
    clamp: bool = True
    """Whether codes are kept inside the hull."""
    metric: Float[Tensor, "e e"] | None = None
    """How alike codes look (`nearest.likeness`): what the hull cuts off, controls with room take
    over. None: every control is clamped alone."""

    def __call__(
        self, z_exp: Float[Tensor, "t e"]
    ) -> tuple[Float[Tensor, "t e"], Float[Tensor, "t"]]:
        """The driver's codes -> the avatar's, and how far they lay outside the hull before."""
        codes = retarget_codes(z_exp, self.driver.neutral, self.avatar.neutral)
        codes = self._opened(codes, z_exp, self.lower, self.upper)
        if self.hull is None:
            return codes, codes.new_zeros(len(codes))
        distance = self.hull.distance(codes)
        if not self.clamp:
            return codes, distance
        inside = self.hull.clamp(codes)
        if self.metric is not None:
            inside = nearest_inside(codes, self.hull.lower, self.hull.upper, self.metric)
        return self._opened(inside, z_exp, self.hull.lower, self.hull.upper), distance

    def _opened(self, codes: Tensor, z_exp: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        mine, theirs = self.avatar.openings, self.driver.openings
        if mine is None or theirs is None:
            return codes
        return mine.opened(codes, theirs.of(z_exp), lower, upper)


def neutral_code(codes: Float[Tensor, "t e"]) -> Float[Tensor, "e"]:
    """A person's code at rest, from all their tracked frames; ours.

    The median of the frames that are most at rest: nearest to where every control is low (one-sided
    controls like the open prior's weights, each mostly off) or, for latent codes with both signs,
    to the median of all. A rest face is not where every control is off: trackers see a little of
    pursed lips or a squint in most, and what they always see is no movement.
    Raises ConfigError for none.
    """
    if len(codes) == 0:
        raise ConfigError(
            "The driver's track has no frame that was tracked, so it has no neutral code.",
            "Track the driver again.",
        )
    one_sided = bool((codes >= NEVER_NEGATIVE).all())
    centre = codes.quantile(LOW_QUANTILE if one_sided else 0.5, dim=0)
    away = (codes - centre).norm(dim=1)
    most = away.argsort(stable=True)[: math.ceil(REST_SHARE * len(codes))]
    return codes[most].median(0).values


def retarget_codes(
    driver: Float[Tensor, "t e"],
    driver_neutral: Float[Tensor, "e"],
    avatar_neutral: Float[Tensor, "e"],
) -> Float[Tensor, "t e"]:
    """The driver's movements away from their rest face, on the avatar's rest face; not clamped."""
    return avatar_neutral + (driver - driver_neutral)


def retarget_motion(
    driver: Similarity, driver_rest: Similarity, avatar_rest: Similarity, share: float
) -> Similarity:
    """The driver's head motion about their mean pose, on the avatar's mean pose.

    `driver` is [t], the rests are single poses; `share` 0..1 scales the angle and the shift (the
    latter in head units, so that heads of other size move alike). Scales stay the avatar's.
    """
    motion = (
        Similarity(
            driver_rest.scale.expand(len(driver)),
            driver_rest.rotation.expand(len(driver), 3, 3),
            driver_rest.translation.expand(len(driver), 3),
        )
        .inverse()
        .compose(driver)
    )
    turned = matrix_from_rotvec(share * rotvec_from_matrix(motion.rotation))
    damped = Similarity(torch.ones_like(motion.scale), turned, share * motion.translation)
    rest = Similarity(
        avatar_rest.scale.expand(len(driver)),
        avatar_rest.rotation.expand(len(driver), 3, 3),
        avatar_rest.translation.expand(len(driver), 3),
    )
    return rest.compose(damped)


def smooth(values: Float[Tensor, "t d"], sigma_frames: float) -> Float[Tensor, "t d"]:
    """A Gaussian average over time, renormalised at the ends; the values themselves for sigma 0."""
    if sigma_frames <= 0 or len(values) < 2:
        return values
    reach = min(len(values) - 1, math.ceil(3 * sigma_frames))
    steps = torch.arange(-reach, reach + 1).to(values)
    kernel = torch.exp(-0.5 * (steps / sigma_frames) ** 2)[None, None]
    rows = torch.nn.functional.conv1d(values.T[:, None], kernel, padding=reach)[:, 0]
    weight = torch.nn.functional.conv1d(
        torch.ones_like(values[:, 0])[None, None], kernel, padding=reach
    )[0]
    return (rows / weight).T


def smooth_poses(poses: Similarity, rest: Similarity, sigma_frames: float) -> Similarity:
    """`smooth` on the rotation vectors, translations and log-scales about a rest pose."""
    if sigma_frames <= 0:
        return poses
    inverse = Similarity.stack([rest.inverse()] * len(poses))
    motion = inverse.compose(poses)
    values = torch.cat(
        [rotvec_from_matrix(motion.rotation), motion.translation, motion.scale.log()[:, None]], -1
    )
    values = smooth(values, sigma_frames)
    smoothed = Similarity(values[:, 6].exp(), matrix_from_rotvec(values[:, :3]), values[:, 3:6])
    return Similarity.stack([rest] * len(poses)).compose(smoothed)
