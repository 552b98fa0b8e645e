"""The terms of distillation against finite differences and against a field with a known inverse."""

import pytest
import torch

from npga.avatar.forward import ForwardPrior
from npga.distill import samples, terms
from npga.distill.invert import field_jacobian
from npga.distill.teacher import rest_points


@pytest.fixture
def sampler(teacher, subjects):
    rest_x, rest_omega = rest_points(teacher, subjects, torch.zeros(3))
    one = torch.ones(3)
    expressions = samples.Expressions(0 * one, 0.5 * one, -one, one, 0 * one, torch.empty(0, 3))
    return samples.Sampler(teacher, subjects, expressions, rest_x, rest_omega)


@pytest.fixture
def forward():
    torch.manual_seed(0)
    prior = ForwardPrior(3, 2, width=16, depth=3)
    prior.offset_scale.fill_(0.05)
    return prior


def draw(sampler, codes=6, points=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pool = sampler.pairs(codes, points, generator, None)
    return sampler.batch(pool, codes, 20, generator)


def test_pairs_are_exact(teacher, sampler):
    """Whatever the jitter, x + offset is the closed-form image of x under the same code."""
    pairs = draw(sampler).pairs
    posed = teacher.forward_map(pairs.x, pairs.identity, pairs.z_exp)
    assert torch.allclose(pairs.x + pairs.offset, posed, atol=2e-6)


def test_some_samples_fill_a_shell_at_less_weight(sampler):
    generator = torch.Generator().manual_seed(1)
    pairs = sampler.pairs(64, 256, generator, None)
    assert (pairs.weight < 1).float().mean() == pytest.approx(samples.SHELL_SHARE, abs=0.01)


def test_expressions_stay_in_range_and_use_the_observed(sampler):
    generator = torch.Generator().manual_seed(2)
    codes = sampler.expressions.draw(2000, generator, margin=0.1)
    assert codes.abs().max() <= 1.2 + 1e-6 and codes.abs().max() > 1.0
    spot = torch.tensor([[0.123, -0.456, 0.789]])
    seen = samples.Expressions(*[
        spot if name == "observed" else getattr(sampler.expressions, name)
        for name in samples.Expressions.__dataclass_fields__
    ])  # fmt: skip
    codes = seen.draw(1000, generator)
    assert (codes == spot).all(-1).float().mean() > 0.1


def test_equal_generators_draw_equal_batches(sampler):
    first, second = draw(sampler, seed=3), draw(sampler, seed=3)
    assert torch.equal(first.pairs.offset, second.pairs.offset)
    assert torch.equal(first.rest_x, second.rest_x)
    assert not torch.equal(first.rest_x, draw(sampler, seed=4).rest_x)


def test_terms_vanish_for_the_true_forward_field(teacher, sampler):
    class Truth(ForwardPrior):
        def forward(self, x, omega, z_exp, identity):
            return teacher.forward_map(x, identity, z_exp) - x

    losses = terms.Terms()(Truth(3, 2, width=4), teacher, draw(sampler))
    assert losses["pair"] < 1e-3 and losses["cycle"] < 1e-3 and losses["fold"] == 0


def test_gradients_against_finite_differences(teacher, sampler, forward, monkeypatch):
    batch = draw(sampler)
    double = samples.Batch(
        samples.Pairs(*[
            value.double() if value.is_floating_point() else value
            for value in vars(batch.pairs).values()
        ]),
        batch.rest_x.double(),
        batch.rest_omega.double(),
    )  # fmt: skip
    forward = forward.double()
    monkeypatch.setattr(terms, "FOLD_MARGIN", 2.0)  # det J is near 1 here: let the term act
    for name, weights in (
        ("pair", terms.Terms(1.0, 0.0, 0.0)),
        ("cycle", terms.Terms(0.0, 1.0, 0.0)),
        ("fold", terms.Terms(0.0, 0.0, 1.0, fold_points=20)),
    ):
        forward.zero_grad()
        losses = weights(forward, teacher, double)
        assert list(losses) == [name] and losses[name] > 0
        losses[name].backward()
        for parameter, at in ((forward.exit.bias, 1), (forward.entry.bias, 3)):
            analytic = float(parameter.grad[at])
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[at] += sign * 1e-6
                    values.append(float(weights(forward, teacher, double)[name]))
                    parameter[at] -= sign * 1e-6
            numeric = (values[0] - values[1]) / 2e-6
            assert analytic == pytest.approx(numeric, rel=1e-4, abs=1e-9), name


def test_determinant_against_the_exact_jacobian(sampler, forward):
    pairs = draw(sampler).pairs
    forward = forward.double()
    x, omega, z_exp, identity = (
        v.double() for v in (pairs.x, pairs.omega, pairs.z_exp, pairs.identity)
    )
    _, jacobian = field_jacobian(lambda at: at + forward(at, omega, z_exp, identity), x)
    fast = terms.forward_determinant(forward, x, omega, z_exp, identity)
    assert torch.allclose(fast, torch.linalg.det(jacobian), atol=1e-6)
