"""The One-Euro filter, and signals that are absent for a while: nothing ever jumps."""

import math
from itertools import pairwise

import pytest
import torch

from npga.drive.filters import OneEuro, Presence, Timing

FPS = 30.0
REST = torch.zeros(1)


def run(filter: OneEuro, values: torch.Tensor, fps: float = FPS) -> torch.Tensor:
    return torch.stack([filter(value, n / fps) for n, value in enumerate(values)])


def test_a_constant_passes() -> None:
    still = torch.full((40, 3), 0.7)
    assert torch.equal(run(OneEuro(1.0, 2.0), still), still)


def test_noise_on_a_still_signal_is_reduced() -> None:
    """At 1 Hz and 30 pictures a second a first-order low pass leaves 0.31 of white noise."""
    noise = 0.01 * torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    calm = run(OneEuro(1.0, 0.0), noise)[60:]
    assert 0.25 < float(calm.std() / noise.std()) < 0.35
    adaptive = run(OneEuro(1.0, 0.3), noise)[60:]
    assert float(adaptive.std() / noise.std()) < 0.4
    assert float(calm.mean(0).abs().max()) < 1e-3


def test_a_fast_ramp_lags_little() -> None:
    """Beta buys back the lag that the cutoff costs: 1 / (2 pi cutoff) seconds of the ramp."""
    speed = 3.0
    ramp = speed * torch.arange(60.0)[:, None] / FPS
    slow, quick = run(OneEuro(1.0, 0.0), ramp)[-1], run(OneEuro(1.0, 5.0), ramp)[-1]
    lag_slow, lag_quick = [float(ramp[-1] - one) / speed for one in (slow, quick)]
    assert lag_slow == pytest.approx(1 / (2 * math.pi), abs=0.02)
    assert 0 < lag_quick < 0.012


def test_every_number_is_filtered_alone() -> None:
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).cumsum(0)
    together = run(OneEuro(1.0, 1.0), values)
    alone = torch.cat([run(OneEuro(1.0, 1.0), values[:, k : k + 1]) for k in range(3)], 1)
    torch.testing.assert_close(together, alone)


def test_time_counts_not_pictures() -> None:
    """Half as many pictures of a slow signal give nearly the same values at the same times."""
    t = torch.arange(241.0)[:, None] / 120
    wave = (2 * t).sin()
    fine, coarse = run(OneEuro(2.0, 0.0), wave, 120.0), run(OneEuro(2.0, 0.0), wave[::2], 60.0)
    assert (fine[::2] - coarse).abs().max() < 0.02


def test_a_time_that_stands_still_changes_nothing() -> None:
    filter = OneEuro(1.0, 2.0)
    filter(torch.zeros(2), 0.0)
    before = filter(torch.ones(2), 0.1)
    assert torch.equal(filter(torch.full((2,), 9.0), 0.1), before)
    assert torch.equal(filter(torch.full((2,), 9.0), 0.05), before)
    twin = OneEuro(1.0, 2.0)
    twin(torch.zeros(2), 0.0)
    twin(torch.ones(2), 0.1)
    assert torch.equal(filter(torch.ones(2), 0.2), twin(torch.ones(2), 0.2))


def test_off_and_reset() -> None:
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(run(OneEuro(0.0, 2.0), noise), noise)
    filter = OneEuro(1.0, 0.0)
    run(filter, noise)
    filter.reset()
    assert torch.equal(filter(torch.full((2,), 5.0), 1.0), torch.full((2,), 5.0))


def shown(signal: list[float | None], timing: Timing | None = None) -> list[float]:
    """What is shown of a signal, at FPS."""
    presence = Presence(REST, timing)
    return [
        float(presence(None if value is None else torch.tensor([value]), n / FPS))
        for n, value in enumerate(signal)
    ]


def test_without_a_signal_at_the_start_it_rests_and_comes_without_a_jump() -> None:
    out = shown([None] * 10 + [1.0] * 30)
    assert out[:10] == [0.0] * 10
    share = 1 - math.exp(-1 / FPS / Timing().return_)
    assert out[10] == pytest.approx(share, abs=1e-5)
    assert out == sorted(out) and out[-1] > 0.99


def test_a_signal_at_the_start_is_shown_as_it_is() -> None:
    assert shown([0.8, 0.9, 1.0]) == pytest.approx([0.8, 0.9, 1.0])


def test_a_lost_signal_is_held_and_relaxes_to_rest() -> None:
    timing = Timing(hold=0.2, relax=0.4)
    out = shown([1.0] * 5 + [None] * 90, timing)
    held = round(0.2 * FPS)
    assert out[5 : 5 + held] == pytest.approx([1.0] * held)
    after = out[5 + held :]
    assert all(b < a for a, b in pairwise(after)) and after[-1] < 0.01
    fall = out[5 + held + 12] / out[5 + held]
    assert fall == pytest.approx(math.exp(-12 / FPS / 0.4), rel=1e-3)


@pytest.mark.parametrize("gap", [1, 5, 15, 40, 200])
@pytest.mark.parametrize("back", [1.0, -0.5, 0.7])
def test_nothing_jumps_at_loss_and_return(gap: int, back: float) -> None:
    """No step is larger than the signal's own and the fade's share of what lies between."""
    wave = [0.7 + 0.2 * math.sin(0.2 * n) for n in range(40)]
    again = [back + 0.2 * math.sin(0.2 * n) for n in range(40)]
    out = shown([*wave, *[None] * gap, *again])
    own = 0.2 * 0.2
    steps = [abs(b - a) for a, b in pairwise(out)]
    fade = (1 - math.exp(-1 / FPS / Timing().return_)) * (abs(back - 0.7) + 1.2)
    relax = (1 - math.exp(-1 / FPS / Timing().relax)) * 1.0
    assert max(steps[:39]) <= own + 1e-6
    assert max(steps[39 : 39 + gap]) <= relax + 1e-6
    assert max(steps[39 + gap :]) <= own + fade + 1e-6
    assert max(steps) < 0.75 * max(abs(back - wave[-1]), 1.0)
    assert out[-1] == pytest.approx(again[-1], abs=1e-3)


def test_flicker_moves_no_more_than_the_signal() -> None:
    """A face that is found in every second picture only, and stands still."""
    out = shown([0.6 if n % 2 == 0 else None for n in range(60)])
    assert out == pytest.approx([0.6] * 60, abs=1e-6)


def test_a_second_loss_during_the_return_is_continuous_too() -> None:
    out = shown([0.0] * 3 + [None] * 60 + [1.0] * 2 + [None] * 3 + [1.0] * 30)
    assert max(abs(b - a) for a, b in pairwise(out)) < 0.3
    assert out[-1] == pytest.approx(1.0, abs=1e-3)
