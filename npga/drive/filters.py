"""What makes a stream of tracked numbers pleasant: a One-Euro filter, and no jump where it breaks.

d numbers of a frame. Both work one frame at a time, in seconds, so that a dropped frame or another
rate changes nothing.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class OneEuro:
    """Smooths slow motion and follows fast motion: Casiez, Roussel & Vogel 2012, "1 euro filter".

    The cutoff is ``cutoff_hz + beta * |speed|``, for every number on its own. ``cutoff_hz`` 0 turns
    it off.
    """

    def __init__(self, cutoff_hz: float, beta: float, speed_cutoff_hz: float = 1.0) -> None:
        self.cutoff_hz, self.beta, self.speed_cutoff_hz = cutoff_hz, beta, speed_cutoff_hz
        self._value: Tensor | None = None
        self._speed: Tensor | None = None
        self._seconds = 0.0

    def reset(self) -> None:
        """Forget what was; the next value passes unchanged."""
        self._value = None

    def __call__(self, value: Float[Tensor, " d"], seconds: float) -> Float[Tensor, " d"]:
        """The filtered value at this time; a time that does not advance changes nothing."""
        if self.cutoff_hz <= 0:
            return value
        if self._value is None or self._speed is None:
            self._value, self._speed, self._seconds = value, torch.zeros_like(value), seconds
            return value
        step = seconds - self._seconds
        if step <= 0:
            return self._value
        share = smoothing(torch.full_like(value, self.speed_cutoff_hz), step)
        self._speed = torch.lerp(self._speed, (value - self._value) / step, share)
        share = smoothing(self.cutoff_hz + self.beta * self._speed.abs(), step)
        self._value = torch.lerp(self._value, value, share)
        self._seconds = seconds
        return self._value


def smoothing(cutoff_hz: Float[Tensor, " d"], seconds: float) -> Float[Tensor, " d"]:
    """The share of the new value in a first-order low pass after a step of `seconds`."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * seconds))


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    hold: float = 0.3
    """A face that is lost keeps its expression so long."""
    relax: float = 0.5
    """Then it goes to rest with this time constant."""
    return_: float = 0.12
    """Time constant with which a found face takes over again."""


class Presence:
    """Follows a signal that may be absent: holds, relaxes to rest, and comes back continuously.

    What is returned never jumps: where the signal comes back, its difference to what was shown last
    fades with ``Timing.return_``. Ours.
    """

    def __init__(self, rest: Float[Tensor, " d"], timing: Timing | None = None) -> None:
        self.rest = rest
        self.timing = timing or Timing()
        self._shown: Tensor | None = None
        self._gap: Tensor | None = None
        self._seconds = 0.0
        self._lost_for = 0.0

    def __call__(self, value: Float[Tensor, " d"] | None, seconds: float) -> Float[Tensor, " d"]:
        """What to show now; None where there is no signal."""
        step = max(0.0, seconds - self._seconds)
        self._seconds = seconds
        if value is None:
            return self._absent(step)
        if self._shown is None:  # nothing was shown yet: begin with the signal itself
            self._shown = value
        elif self._lost_for > 0:
            self._gap = self._shown - value
        self._lost_for = 0.0
        if self._gap is not None:
            self._gap = self._gap * math.exp(-step / self.timing.return_)
        self._shown = value if self._gap is None else value + self._gap
        return self._shown

    def _absent(self, step: float) -> Tensor:
        if self._shown is None:
            self._shown = self.rest
        self._lost_for += max(step, 1e-6)
        if self._lost_for > self.timing.hold:
            share = 1 - math.exp(-step / self.timing.relax)
            self._shown = torch.lerp(self._shown, self.rest, share)
        return self._shown
