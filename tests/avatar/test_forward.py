"""F: the split network against plain concatenation, its Jacobian, its file."""

import subprocess
import sys

import pytest
import torch

from npga.avatar.forward import (
    ForwardPrior,
    SplitLinear,
    combine,
    load_prior,
    positional_encoding,
    save_prior,
)
from npga.core.errors import CheckpointError


def make_prior(bands: int = 2) -> ForwardPrior:
    torch.manual_seed(0)
    prior = ForwardPrior(5, 3, width=12, depth=3, bands=bands, rank=6, head_model_checksum="aa")
    points, offsets = torch.randn(50, 5) * 0.3, torch.randn(50, 3) * 0.1
    prior.standardise(points, torch.rand(20, 5), torch.randn(8, 3), offsets)
    return prior


def inputs(b: int = 3, n: int = 7, dtype: torch.dtype = torch.float32):
    torch.manual_seed(1)
    sizes = ((b, n, 3), (b, n, 2), (b, 5), (b, 3))
    return tuple(torch.randn(*size, dtype=dtype) for size in sizes)


def plain_forward(prior: ForwardPrior, x, omega, z_exp, identity):
    """F one point at a time, every layer on the concatenation of all it sees."""
    rows = []
    for b in range(len(x)):
        expression = (z_exp[b] - prior.expression_mean) / prior.expression_scale
        person = (identity[b] - prior.identity_mean) / prior.identity_scale
        condition = torch.cat([expression, person])
        coefficients = prior.linear(condition) + prior.curved(condition)
        for at, hyper in zip(x[b], omega[b], strict=True):
            point = (torch.cat([at, hyper]) - prior.point_mean) / prior.point_scale
            seen = torch.cat([point, positional_encoding(point[:3], prior.bands), person])
            split = (prior.entry, prior.reentry)
            entry, again = (torch.cat([s.point, s.condition], 1) @ seen + s.bias for s in split)
            h = torch.nn.functional.silu(entry)
            for index, layer in enumerate(prior.hidden, start=1):
                h = layer(h) + (again if index == prior.skip_at else 0)
                h = torch.nn.functional.silu(h)
            basis = prior.exit(h).reshape(3, prior.rank) * prior.offset_scale
            rows.append(basis @ coefficients / prior.rank**0.5)
    return torch.stack(rows).reshape(x.shape)


@pytest.mark.parametrize("bands", [0, 2])
def test_split_layers_equal_concatenation(bands):
    prior = make_prior(bands).double()
    values = [value.requires_grad_() for value in inputs(dtype=torch.float64)]
    weight = torch.randn(3, 7, 3, dtype=torch.float64)
    variables = [*values, *prior.parameters()]
    fast, slow = prior(*values), plain_forward(prior, *values)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)
    fast_grads = torch.autograd.grad((fast * weight).sum(), variables)
    slow_grads = torch.autograd.grad((slow * weight).sum(), variables)
    for one, other in zip(fast_grads, slow_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_a_batch_equals_its_members():
    prior, values = make_prior(), inputs()
    whole = prior(*values)
    for b in range(3):
        torch.testing.assert_close(whole[b : b + 1], prior(*(v[b : b + 1] for v in values)))


def test_shared_points_are_the_same_as_repeated_points():
    prior, (x, omega, z_exp, identity) = make_prior(), inputs()
    shared = prior(x[:1], omega[:1], z_exp, identity[:1])
    repeated = prior(
        x[:1].expand(3, -1, -1), omega[:1].expand(3, -1, -1), z_exp, identity[:1].expand(3, -1)
    )
    torch.testing.assert_close(shared, repeated)
    basis = prior.basis(x[:1], omega[:1], identity[:1])
    torch.testing.assert_close(combine(basis, prior.coefficients(z_exp, identity[:1])), shared)


def test_jacobian_against_finite_differences():
    prior = make_prior().double()
    x, omega, z_exp, identity = inputs(dtype=torch.float64)
    jacobian = prior.jacobian(x, omega, z_exp, identity)
    step = 1e-6
    for axis in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[axis] = step
        up, down = (prior(x + s * shift, omega, z_exp, identity) for s in (1, -1))
        torch.testing.assert_close(
            jacobian[..., axis], (up - down) / (2 * step), rtol=1e-6, atol=1e-8
        )


def test_turns_are_half_the_curl_of_the_jacobian(monkeypatch):
    monkeypatch.setattr("npga.avatar.forward.NEIGHBOURHOOD", 1e-5)
    prior = make_prior().double()
    x, omega, z_exp, identity = inputs(dtype=torch.float64)
    turns = combine(prior.basis_turns(x, omega, identity), prior.coefficients(z_exp, identity))
    slope = prior.jacobian(x, omega, z_exp, identity)
    skew = slope - slope.transpose(-1, -2)
    half_curl = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1) / 2
    torch.testing.assert_close(turns, half_curl, rtol=1e-6, atol=1e-9)
    assert half_curl.abs().max() > 1e-3


def test_standardise_survives_codes_that_never_move():
    prior = ForwardPrior(2, 1, width=4, depth=2)
    codes = torch.tensor([[0.0, 0.3], [1.0, 0.3]])
    prior.standardise(torch.randn(9, 5), codes, torch.zeros(2, 1), torch.zeros(9, 3))
    assert torch.isfinite(prior(*(v[..., :s] for v, s in zip(inputs(), (3, 2, 2, 1), strict=True)))
                          ).all()  # fmt: skip


def test_the_file_gives_the_same_field_back(tmp_path):
    prior = make_prior()
    save_prior(tmp_path / "prior.safetensors", prior, "aa")
    again = load_prior(tmp_path / "prior.safetensors", "aa")
    assert again.head_model_checksum == "aa" and again.sizes == prior.sizes
    assert torch.equal(again(*inputs()), prior(*inputs()))


def test_another_head_model_is_refused(tmp_path):
    save_prior(tmp_path / "prior.safetensors", make_prior(), "aa")
    with pytest.raises(CheckpointError, match=r"head model aa, not from bb"):
        load_prior(tmp_path / "prior.safetensors", "bb")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    prior = make_prior()
    prior.sizes["width"] = 13
    save_prior(tmp_path / "prior.safetensors", prior, "aa")
    with pytest.raises(CheckpointError, match="sizes ask for"):
        load_prior(tmp_path / "prior.safetensors")


COMPILE = """
import torch
from npga.avatar.forward import ForwardPrior

torch.manual_seed(0)
prior = ForwardPrior(4, 3, width=8, depth=3, bands=2, rank=5)
compiled = torch.compile(prior, backend="eager", fullgraph=True)
for codes in (1, 3):
    asked = [torch.rand(codes, *size) for size in ((6, 3), (6, 2), (4,), (3,))]
    plain = prior(*asked)
    torch.testing.assert_close(compiled(*asked), plain)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*asked), plain)
print("one graph")
"""


def test_f_compiles_to_one_graph():
    """No Python is left between its operations; in a process without the tests' type checks."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.stdout == "one graph\n", done.stderr


def test_layers_joined_in_one_pass_equal_the_plain_sum():
    """Values and gradients of `before` against layer(h) added afterwards, alone and in a batch."""
    torch.manual_seed(0)
    layer, split = torch.nn.Linear(5, 5), SplitLinear(3, 2, 5)
    for codes in (1, 3):
        h, points = torch.rand(codes, 7, 5), torch.rand(codes, 7, 3)
        condition = torch.rand(codes, 2)
        joined = split(points, condition, (h, layer))
        plain = split(points, condition) + layer(h)
        torch.testing.assert_close(joined, plain)
        wanted = [layer.weight, layer.bias, split.point, split.condition, split.bias]
        fast = torch.autograd.grad(joined.square().sum(), wanted)
        slow = torch.autograd.grad(plain.square().sum(), wanted)
        for one, other in zip(fast, slow, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
