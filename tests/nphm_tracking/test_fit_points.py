"""Heads fitted to clouds: exact derivatives, a known head found again, true distances."""

import pytest
import torch
from test_model import SMALL, random_codes, small_model

from npga.capture.synthetic.people import EXPRESSIONS
from npga.core.errors import TrackError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from nphm_tracking.energies import linearise_head
from nphm_tracking.fit_points import PointFitConfig, fit_points
from nphm_tracking.model.head_model import Codes, HeadModel
from nphm_tracking.model.load import load_head_model
from nphm_tracking.surface import surface_distance


@pytest.fixture(scope="module")
def prior() -> HeadModel:
    return load_head_model()


def test_jacobian_equals_autograd_twin() -> None:
    """Also by a small motion x <- exp(s) Exp(w) x + t, at zero."""
    model, codes = small_model(), random_codes()
    points = torch.randn(6, 3, dtype=torch.float64) * 0.4
    geo, exp = SMALL.geo_size, SMALL.exp

    def slow(unknown: torch.Tensor) -> torch.Tensor:
        z_geo, z_exp, turn, shift, grow = unknown.split([geo, exp, 3, 3, 1])
        moved = grow.exp() * points @ matrix_from_rotvec(turn[None])[0].T + shift
        return model.query(moved, Codes(z_geo, codes.z_app, z_exp), with_color=False).sdf

    start = torch.cat([codes.z_geo, codes.z_exp, torch.zeros(7, dtype=torch.float64)])
    # At rotation 0 the matrix's own formula divides by the angle: take a very small one.
    start[geo + exp : geo + exp + 3] = 1e-9
    expected = torch.autograd.functional.jacobian(slow, start)
    residual, jacobian = linearise_head(model, points, codes.z_geo, codes.z_exp)
    torch.testing.assert_close(residual, slow(start), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(jacobian, expected, rtol=1e-5, atol=1e-6)


def test_few_rows_equal_many_rows() -> None:
    """One query per head takes another way through the local networks than many do."""
    model, codes = small_model(), random_codes()
    points = torch.randn(9, 3, dtype=torch.float64) * 0.4
    z_geo = codes.z_geo.requires_grad_()
    together = model.query(points, codes)
    alone = [model.query(p[None], codes) for p in points]
    weight = torch.linspace(-1, 1, 9, dtype=torch.float64)
    slopes = []
    for sdf, color in (
        (together.sdf, together.color),
        (torch.cat([q.sdf for q in alone]), torch.cat([q.color for q in alone])),
    ):
        torch.testing.assert_close(sdf, together.sdf)
        torch.testing.assert_close(color, together.color)
        total = (sdf * weight).sum() + color.square().sum()
        slopes.append(torch.autograd.grad(total, [z_geo, *model.canonical_field.parameters()]))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_finds_a_known_head_again(prior: HeadModel) -> None:
    """Points of a turned, moved and smaller head; started 8 degrees and 8 mm away."""
    torch.manual_seed(0)
    stats = prior.geo_stats
    z_geo = stats.mean.clone()
    shared = prior.sizes.geo_global
    z_geo[:shared] += 0.7 * stats.std[:shared] * torch.randn(shared)
    z_exp = torch.zeros(52)
    z_exp[EXPRESSIONS.index("jawOpen")] = 0.5
    z_exp[EXPRESSIONS.index("mouthSmileLeft")] = 0.6
    codes = Codes(z_geo, torch.zeros(prior.app_size), z_exp)
    mesh = prior.mesh(codes, resolution=72)
    points, true = mesh.sample(900, 1).points, mesh.sample(400, 2).points
    pose = Similarity(
        torch.tensor(0.24),
        matrix_from_rotvec(torch.tensor([[0.1, -0.4, 0.05]]))[0],
        torch.tensor([0.3, 1.2, -0.2]),
    )
    start = Similarity(
        torch.tensor(0.25),
        pose.rotation @ matrix_from_rotvec(torch.tensor([[0.08, 0.1, -0.05]]))[0],
        pose.translation + torch.tensor([0.005, -0.005, 0.004]),
    )
    config = PointFitConfig(iterations=16, final_iterations=3)
    fit = fit_points(prior, pose.apply(points), start, config)
    assert fit.residual_mm.abs().mean() < 0.5
    local = fit.world_from_head.inverse().apply(pose.apply(true))
    distance = surface_distance(prior, local, fit.z_geo, fit.z_exp) * 250
    assert distance.mean() < 0.8, "millimetres"
    assert (fit.z_exp >= 0).all() and (fit.z_exp <= 1).all()
    again = fit_points(prior, pose.apply(points), start, config)
    torch.testing.assert_close(again.z_geo, fit.z_geo, atol=1e-3, rtol=0)


def test_with_codes_held_the_scale_is_found(prior: HeadModel) -> None:
    """The average head, 7 percent smaller than where the fit starts."""
    points = prior.mesh(prior.neutral_codes(), resolution=72).sample(600, 1).points * 0.2325
    config = PointFitConfig(iterations=10, final_iterations=2, geometry=1e4, expression=1e4)
    fit = fit_points(prior, points, config=config)
    assert abs(float(fit.world_from_head.scale) - 0.2325) < 0.0015
    assert fit.residual_mm.abs().mean() < 0.2


def test_refuses_clouds_that_say_nothing(prior: HeadModel) -> None:
    with pytest.raises(TrackError, match="49 points"):
        fit_points(prior, torch.zeros(49, 3))
    with pytest.raises(TrackError, match="not finite"):
        fit_points(prior, torch.full((80, 3), torch.nan))


def test_distance_to_the_surface_is_a_length(prior: HeadModel) -> None:
    """Points lifted off the surface by known heights are that far from it."""
    codes = prior.neutral_codes()
    mesh = prior.mesh(codes, resolution=96)
    spots = mesh.sample(400, 3)
    front = (spots.points[:, 2] > 0.0) & (spots.points[:, 1].abs() < 0.3)
    at, out = spots.points[front], spots.normals[front]
    for height_mm in (0.0, 1.0, 4.0):
        found = surface_distance(prior, at + out * height_mm / 250, codes.z_geo, codes.z_exp) * 250
        assert abs(float(found.median()) - height_mm) < 0.15 + 0.05 * height_mm
