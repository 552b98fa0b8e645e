"""Energies: gradients by finite differences, and the one-pass Jacobian against autograd's."""

from dataclasses import replace

import pytest
import torch
from analytic_head import AnalyticHead

from npga.core.rotations import matrix_from_rotvec
from nphm_tracking.config import StageConfig
from nphm_tracking.energies import (
    bound_energy,
    canonical_points,
    code_energy,
    damped_inverse,
    follow_landmarks,
    linearise_surface,
    robust_loss,
    robust_weight,
    smooth_energy,
    surface_residual,
)
from nphm_tracking.frames import FrameData, FrameState, Person, to_head
from nphm_tracking.head import expression_prior
from nphm_tracking.solve import normal_equations

FRAMES, POINTS, LANDMARKS = 3, 6, 5


@pytest.fixture
def scene() -> tuple[Person, FrameData, FrameState]:
    generator = torch.Generator().manual_seed(3)
    head, z_geo = AnalyticHead(), torch.tensor([0.3, -0.2, 0.5]).double()
    near = head.surface(torch.zeros(3), FRAMES * POINTS, 4).double().reshape(FRAMES, POINTS, 3)
    marks = head.landmarks(z_geo)[:LANDMARKS]
    prior = expression_prior(head)
    prior = replace(prior, **{n: getattr(prior, n).double() for n in prior.__dataclass_fields__})
    person = Person(head, z_geo, torch.tensor(0.26).double(), marks, prior)
    noise = 0.01 * torch.randn(FRAMES, LANDMARKS, 3, generator=generator).double()
    data = FrameData(
        points=0.26 * near,
        normals=torch.zeros_like(near),
        point_weight=torch.rand(FRAMES, POINTS, generator=generator).double() + 0.5,
        landmarks=0.26 * (marks + noise),
        landmark_weight=torch.rand(FRAMES, LANDMARKS, generator=generator).double() + 0.5,
        linked=torch.zeros(FRAMES - 1).double(),
        code_weight=torch.tensor([1.0, 2.0, 0.5]).double(),
    )
    turn = matrix_from_rotvec(0.1 * torch.randn(FRAMES, 3, generator=generator).double())
    codes = 0.2 + 0.6 * torch.rand(FRAMES, 4, generator=generator).double()
    posed = torch.stack([head.posed_points(marks, z) for z in codes])
    return person, data, FrameState(codes, turn, 0.003 * turn[:, 0], posed)


def moved_points(points: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
    return points @ matrix_from_rotvec(motion[:, :3]).transpose(1, 2) + motion[:, None, 3:]


def test_one_pass_jacobian_is_autograds(scene: tuple) -> None:
    person, data, state = scene
    points = data.points / 0.26

    def residual(unknown: torch.Tensor) -> torch.Tensor:
        posed = moved_points(points, unknown[:, 4:])
        return surface_residual(person.model, posed, person.z_geo, unknown[:, :4])

    start = torch.cat([state.z_exp, torch.zeros(FRAMES, 6).double()], 1)
    slow = torch.autograd.functional.jacobian(residual, start)
    slow = torch.stack([slow[t, :, t] for t in range(FRAMES)])
    fast = linearise_surface(person.model, points, person.z_geo, state.z_exp)
    assert torch.allclose(fast.residual, residual(start), atol=1e-12)
    assert torch.allclose(fast.jacobian, slow, atol=1e-9)


def test_landmarks_are_followed_to_where_the_code_puts_them(scene: tuple) -> None:
    person, _, state = scene
    model, canonical = person.model, person.landmarks
    start = canonical.expand(FRAMES, -1, -1)
    found = follow_landmarks(model, start, canonical, person.z_geo, state.z_exp, rounds=8)
    slow = torch.stack([model.posed_points(canonical, z) for z in state.z_exp])
    assert torch.allclose(found.marks, slow, atol=1e-7)
    assert found.error.max() < 1e-6
    for code in range(4):
        unit = torch.zeros(4).double()
        unit[code] = 1e-5
        up = torch.stack([model.posed_points(canonical, z + unit) for z in state.z_exp])
        down = torch.stack([model.posed_points(canonical, z - unit) for z in state.z_exp])
        numeric = (up - down) / 2e-5
        assert torch.allclose(
            found.slope[..., code], numeric, atol=2e-3 * float(numeric.abs().max())
        )


def test_following_survives_a_fold() -> None:
    flat = torch.zeros(1, 3, 3)
    flat[0, 0, 0] = 1.0
    inverse = damped_inverse(flat)
    assert bool(inverse.isfinite().all())
    assert torch.allclose(
        damped_inverse(2 * torch.eye(3)[None]), 0.5 * torch.eye(3)[None], atol=1e-3
    )


def moved(person: Person, state: FrameState, step: torch.Tensor) -> FrameState:
    """The state after a step, its landmarks followed to the end."""
    after = state.moved(step, person.scale, person.prior)
    posed = follow_landmarks(
        person.model, after.marks, person.landmarks, person.z_geo, after.z_exp, rounds=6
    )
    return replace(after, marks=posed.marks)


def test_normal_equations_are_the_gradient_of_the_energy(scene: tuple) -> None:
    person, data, state = scene
    stage = StageConfig(code=0.3, sparsity=0.2, surface=1.5, landmark=0.7)
    equations = normal_equations(person, data, state, stage)
    step = 1e-6
    for column in range(10):
        unit = torch.zeros(FRAMES, 10).double()
        unit[:, column] = step
        up = normal_equations(person, data, moved(person, state, unit), stage)
        down = normal_equations(person, data, moved(person, state, -unit), stage)
        slope = (up.energy - down.energy) / (2 * step)
        assert torch.allclose(2 * equations.gradient[:, column], slope, rtol=1e-3, atol=1e-3)


def data_energy(
    person: Person, data: FrameData, state: FrameState, stage: StageConfig
) -> torch.Tensor:
    """Mean over frames of surface, landmark and code terms, written out."""
    to_mm = 1000 * person.scale
    points = to_head(data.points, state, person.scale)
    canonical = canonical_points(person.model, points, person.z_geo, state.z_exp)
    signed = person.model.sdf(canonical.flatten(0, 1), person.z_geo).reshape(points.shape[:2])
    share = data.point_weight / data.point_weight.sum(1, keepdim=True).clamp_min(1)
    energy = (
        stage.surface * (share * robust_loss(signed * to_mm, stage.surface_scale_mm)).sum(1).mean()
    )
    if data.landmarks.shape[1]:
        observed = to_head(data.landmarks, state, person.scale)
        share = data.landmark_weight / data.landmark_weight.sum(1, keepdim=True).clamp_min(1)
        length = ((state.marks - observed) * to_mm).square().sum(-1).add(1e-12).sqrt()
        robust = robust_loss(length, stage.landmark_scale_mm)
        energy = energy + stage.landmark * (share * robust).sum(1).mean()
    prior = person.prior
    weight = data.code_weight[:, None].sqrt()
    away = (state.z_exp - prior.mean) * weight
    energy = energy + stage.code * code_energy(away, torch.zeros_like(prior.mean), prior.std)
    sparse = (state.z_exp * (prior.lower >= 0) * data.code_weight[:, None]).sum(1).mean()
    return energy + stage.sparsity * sparse


def test_energy_is_what_it_says(scene: tuple) -> None:
    person, data, state = scene
    stage = StageConfig(code=0.3, sparsity=0.2)
    joint = data_energy(person, data, state, stage)
    assert torch.allclose(joint, normal_equations(person, data, state, stage).energy.mean())


def test_robust_weight_belongs_to_robust_loss() -> None:
    r = torch.linspace(-20, 20, 41, dtype=torch.float64, requires_grad=True)
    loss = robust_loss(r, 4.0)
    (slope,) = torch.autograd.grad(loss.sum(), r)
    assert torch.allclose(slope, 2 * robust_weight(r, 4.0) * r)
    assert float(loss.detach().max()) < 16.0


def test_code_and_bound_and_smooth_energies() -> None:
    one, zero = torch.ones(3), torch.zeros(3)
    code = torch.tensor([[0.5, 1.5, -0.25], [0.0, 1.0, 0.5]])
    assert torch.isclose(bound_energy(code, zero, one), torch.tensor((0.25 + 0.0625) / 2))
    assert torch.isclose(code_energy(code, zero, 2 * one), code.square().sum() / 8)
    steps = torch.tensor([[0.0], [1.0], [3.0]])
    assert smooth_energy(steps, torch.tensor([1.0, 0.5])) == 1.0 + 0.5 * 4.0
    assert smooth_energy(steps, torch.tensor([1.0, 0.0])) == 1.0
