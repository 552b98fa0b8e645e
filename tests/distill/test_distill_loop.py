"""Distilling the analytic field: small residual in seconds, exact resume."""

import pytest
import torch

from npga.avatar.forward import ForwardPrior
from npga.core.errors import NpgaError
from npga.distill import loop, samples
from npga.distill.teacher import rest_points
from npga.distill.terms import Terms


@pytest.fixture
def sampler(teacher, subjects):
    rest_x, rest_omega = rest_points(teacher, subjects, torch.zeros(3))
    one = torch.ones(3)
    expressions = samples.Expressions(0 * one, 0.5 * one, -one, one, 0 * one, torch.empty(0, 3))
    return samples.Sampler(teacher, subjects, expressions, rest_x, rest_omega)


def fresh(sampler, width=48):
    torch.manual_seed(0)
    forward = ForwardPrior(3, 2, width=width, depth=3)
    loop.start_from_statistics(forward, sampler, seed=0)
    return forward, loop.make_optimizer(forward)


SHORT = loop.Schedule(
    steps=12, round_steps=4, pool_codes=16, pool_points=32, batch_codes=8, rest_points=16
)


def test_distilled_field_inverts_the_analytic_one(teacher, sampler, subjects):
    forward, optimizer = fresh(sampler)
    schedule = loop.Schedule(
        steps=300, round_steps=100, pool_codes=128, pool_points=48, batch_codes=16, rest_points=16
    )
    loop.distill(forward, sampler, Terms(fold=0.0), schedule, optimizer, seed=1)
    generator = torch.Generator().manual_seed(99)
    errors, moves = [], []
    for _ in range(20):
        z_exp = sampler.expressions.draw(3, generator, margin=0.0)
        truth = teacher.forward_map(subjects.surface, subjects.identity, z_exp)
        with torch.no_grad():
            offset = forward(sampler.rest_x, sampler.rest_omega, z_exp, subjects.identity)
        errors.append(250 * (sampler.rest_x + offset - truth).norm(dim=-1).mean())
        moves.append(250 * (truth - subjects.surface).norm(dim=-1).mean())
    error_mm, moved_mm = float(sum(errors) / 20), float(sum(moves) / 20)
    assert moved_mm > 5.0
    assert error_mm < 0.7, f"{error_mm:.3f} mm left of {moved_mm:.1f} mm"  # measured: 0.48


def test_resumed_run_equals_the_uninterrupted_one(sampler, tmp_path):
    whole, optimizer = fresh(sampler)
    loop.distill(whole, sampler, Terms(), SHORT, optimizer, seed=5)

    class Killed(Exception):
        pass

    first, optimizer = fresh(sampler)

    def keep_then_die(step, _):
        loop.save_state(tmp_path / "state.safetensors", first, optimizer, step)
        if step == 8:
            raise Killed

    with pytest.raises(Killed):
        loop.distill(first, sampler, Terms(), SHORT, optimizer, seed=5, observer=keep_then_die)
    torch.manual_seed(1234)
    second = ForwardPrior(3, 2, width=48, depth=3)
    optimizer = loop.make_optimizer(second)
    start = loop.load_state(tmp_path / "state.safetensors", second, optimizer)
    assert start == 8
    loop.distill(second, sampler, Terms(), SHORT, optimizer, seed=5, start=start)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_seed_decides_the_result(sampler):
    results = []
    for seed in (5, 5, 6):
        forward, optimizer = fresh(sampler)
        loop.distill(forward, sampler, Terms(), SHORT, optimizer, seed=seed)
        results.append(forward.exit.weight.detach().clone())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_a_loss_that_is_not_finite_is_named(sampler):
    forward, optimizer = fresh(sampler)
    with torch.no_grad():
        forward.exit.bias.fill_(float("nan"))
    with pytest.raises(NpgaError, match="pair, cycle, fold .* is not finite in steps 0 to 4"):
        loop.distill(forward, sampler, Terms(), SHORT, optimizer, seed=0)
