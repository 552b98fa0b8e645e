"""The nearest code in a box: exact, never outside, never farther than plain clamping."""

import pytest
import torch
from scipy.optimize import lsq_linear

from npga.reenact.nearest import likeness, nearest_inside
from nphm_tracking import load_head_model


def problem(seed: int, count: int, size: int) -> tuple[torch.Tensor, ...]:
    """Wanted codes in and around a box, and a metric that couples the controls, float32."""
    draw = torch.Generator().manual_seed(seed)
    wanted = torch.randn(count, size, generator=draw)
    middle = 0.3 * torch.randn(size, generator=draw)
    half = 0.05 + torch.rand(size, generator=draw)
    rows = torch.randn(2 * size, size, generator=draw)
    metric = rows.T @ rows / size + 0.05 * torch.eye(size)
    return wanted, middle - half, middle + half, metric


def energy(z: torch.Tensor, wanted: torch.Tensor, metric: torch.Tensor) -> torch.Tensor:
    away = (z - wanted).double()
    return ((away @ metric.double()) * away).sum(1)


def exact(
    wanted: torch.Tensor, lower: torch.Tensor, upper: torch.Tensor, metric: torch.Tensor
) -> torch.Tensor:
    """Bounded least squares by scipy."""
    root = torch.linalg.cholesky(metric.double()).mT
    found = [
        lsq_linear(
            root.numpy(), (root @ one.double()).numpy(), (lower.numpy(), upper.numpy()), tol=1e-12
        ).x
        for one in wanted
    ]
    return torch.stack([torch.from_numpy(one) for one in found])


def test_a_diagonal_metric_clamps() -> None:
    wanted, lower, upper, _ = problem(0, 50, 7)
    metric = torch.diag(torch.rand(7, generator=torch.Generator().manual_seed(1)) + 0.1)
    clamped = torch.minimum(torch.maximum(wanted, lower), upper)
    torch.testing.assert_close(nearest_inside(wanted, lower, upper, metric), clamped)


@pytest.mark.parametrize(("seed", "size"), [(0, 2), (1, 4), (2, 10), (3, 30)])
def test_bounded_least_squares_agree(seed: int, size: int) -> None:
    """In float64; float32 stops where a step no longer shows in the energy."""
    given = problem(seed, 12, size)
    found = nearest_inside(*(one.double() for one in given))
    assert (found - exact(*given)).abs().max() < 1e-4
    assert (nearest_inside(*given) - found).abs().max() < 5e-3


def test_the_shipped_metric_agrees_too() -> None:
    """Codes 0..1 of the open prior, asked to go beyond a hull, in the metric that is used."""
    metric = likeness(load_head_model())
    assert metric is not None
    draw = torch.Generator().manual_seed(5)
    size = len(metric)
    upper = 0.1 + 0.6 * torch.rand(size, generator=draw)
    wanted = torch.rand(6, size, generator=draw) * (torch.rand(6, size, generator=draw) < 0.4)
    given = wanted, torch.zeros(size), upper, metric
    found = nearest_inside(*given)
    best = energy(exact(*given), wanted, metric)
    assert (energy(found, wanted, metric) <= best * 1.001 + 1e-7).all()
    clamped = torch.minimum(wanted, upper)
    assert (energy(found, wanted, metric) < 0.9 * energy(clamped, wanted, metric)).any()


@pytest.mark.parametrize("seed", range(6))
def test_it_stays_in_the_box_and_is_never_worse_than_clamping(seed: int) -> None:
    wanted, lower, upper, metric = problem(seed, 60, 3 + 4 * seed)
    found = nearest_inside(wanted, lower, upper, metric)
    assert (found >= lower).all() and (found <= upper).all()
    clamped = torch.minimum(torch.maximum(wanted, lower), upper)
    left, right = energy(found, wanted, metric), energy(clamped, wanted, metric)
    assert (left <= right + 1e-5 * right).all()


def test_what_is_inside_stays() -> None:
    wanted, lower, upper, metric = problem(4, 20, 6)
    inside = lower + (upper - lower) * torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nearest_inside(inside, lower, upper, metric), inside)
    held = nearest_inside(wanted, lower, lower, metric)  # a box that is a point
    torch.testing.assert_close(held, lower.expand_as(wanted))


def test_a_batch_is_as_good_as_one_by_one() -> None:
    wanted, lower, upper, metric = problem(7, 25, 12)
    together = nearest_inside(wanted, lower, upper, metric)
    alone = torch.cat([nearest_inside(one[None], lower, upper, metric) for one in wanted])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_a_control_with_room_takes_over() -> None:
    """Two controls that look alike: what the first may not do, the second does."""
    metric = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    found = nearest_inside(
        torch.tensor([[1.0, 0.0]]), torch.zeros(2), torch.tensor([0.2, 1.0]), metric
    )
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.72]]))
