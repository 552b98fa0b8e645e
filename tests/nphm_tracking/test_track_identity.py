"""The joint Newton step: its gradient by finite differences, its solution against a dense one."""

from dataclasses import replace

import pytest
import torch
from test_model import random_codes, small_model
from test_track_energies import FRAMES, scene  # noqa: F401  the fixture

from nphm_tracking.config import StageConfig
from nphm_tracking.energies import follow_landmarks, geometry_slopes
from nphm_tracking.frames import FrameData, FrameState, Person
from nphm_tracking.head import canonical_landmarks, geometry_prior
from nphm_tracking.identity import Arrow, _arrow, fit_identity
from nphm_tracking.solve import normal_equations

STAGE = StageConfig(code=0.3, sparsity=0.2, surface=1.5, landmark=0.7, geometry=0.4, size=2.0)


def total_energy(person: Person, data: FrameData, state: FrameState, bias: torch.Tensor) -> float:
    """With the landmarks of this identity, followed to the end."""
    marks = canonical_landmarks(person.model, person.z_geo)[: len(bias)] + bias
    person = replace(person, landmarks=marks)
    posed = follow_landmarks(
        person.model, state.marks, person.landmarks, person.z_geo, state.z_exp, rounds=8
    )
    found = normal_equations(person, data, replace(state, marks=posed.marks), STAGE)
    unit = person.z_geo - geometry_prior(person.model).mean
    size = STAGE.size * torch.log(person.scale / 0.25).square()
    return float(found.energy.sum() + FRAMES * (STAGE.geometry * unit.square().mean() + size))


def test_gradient_is_the_energys(scene: tuple) -> None:  # noqa: F811
    person, data, state = scene
    bias = 0.003 * torch.randn(len(person.landmarks), 3, generator=torch.Generator().manual_seed(1))
    bias = bias.double()
    person = replace(person, landmarks=person.landmarks + bias)
    posed = follow_landmarks(
        person.model, state.marks, person.landmarks, person.z_geo, state.z_exp, rounds=8
    )
    state = replace(state, marks=posed.marks)
    own = normal_equations(person, data, state, STAGE)
    arrow = _arrow(person, data, state, own, bias, geometry_prior(person.model), STAGE)
    step, slopes = 1e-5, []
    for column in range(4):
        sides = []
        for sign in (1, -1):
            moved = person
            if column < 3:
                z_geo = person.z_geo.clone()
                z_geo[column] += sign * step
                moved = replace(person, z_geo=z_geo)
            else:
                moved = replace(person, scale=person.scale * torch.exp(torch.tensor(-sign * step)))
            sides.append(total_energy(moved, data, state, bias))
        slopes.append((sides[0] - sides[1]) / (2 * step))
    found = 2 * arrow.shared_gradient
    torch.testing.assert_close(found, torch.tensor(slopes).double(), rtol=5e-3, atol=5e-3)


def test_arrow_is_solved_like_a_dense_system() -> None:
    generator = torch.Generator().manual_seed(0)
    frames, shared, own = 3, 4, 5
    size = shared + frames * own
    dense = torch.zeros(size, size, dtype=torch.float64)
    arrow = Arrow(
        torch.eye(shared).double() * 3,
        0.3 * torch.randn(frames, shared, own, generator=generator).double(),
        torch.eye(own).double().expand(frames, -1, -1) * torch.arange(2, 5)[:, None, None],
        torch.randn(shared, generator=generator).double(),
        torch.randn(frames, own, generator=generator).double(),
    )
    dense[:shared, :shared] = arrow.shared
    free = torch.rand(frames, own, generator=generator) > 0.3
    for t in range(frames):
        place = slice(shared + t * own, shared + (t + 1) * own)
        dense[:shared, place], dense[place, :shared] = arrow.cross[t], arrow.cross[t].T
        dense[place, place] = arrow.own[t]
    rows = torch.cat([torch.ones(shared, dtype=torch.bool), free.flatten()])
    right = -torch.cat([arrow.shared_gradient, arrow.own_gradient.flatten()])
    expected = torch.zeros(size, dtype=torch.float64)
    expected[rows] = torch.linalg.solve(dense[rows][:, rows], right[rows])
    step, frame = arrow.solve(free, 0.0)
    torch.testing.assert_close(torch.cat([step, frame.flatten()]), expected, rtol=1e-5, atol=1e-6)


def test_energy_never_rises(scene: tuple) -> None:  # noqa: F811
    person, data, state = scene
    bias = torch.zeros_like(person.landmarks)
    stage = replace(STAGE, identity_steps=4)
    geometry = geometry_prior(person.model)
    before = total_energy(person, data, state, bias)
    moved, now = fit_identity(person, data, state, bias, geometry, stage)
    after = total_energy(moved, data, now, bias)
    assert after < 0.9 * before
    still, _ = fit_identity(person, data, state, bias, geometry, replace(stage, identity_steps=0))
    assert torch.equal(still.z_geo, person.z_geo)


def test_geometry_slopes_follow_the_backward_field() -> None:
    """Implicit derivatives of posed landmarks against finite differences of Newton's result."""
    model, codes = small_model(), random_codes()
    with torch.no_grad():
        for value in model.backward_mlp.parameters():
            value.mul_(0.4)
    generator = torch.Generator().manual_seed(2)
    model.landmark_mean = 0.3 * torch.randn(4, 3, generator=generator).double()
    model.landmark_basis = 0.02 * torch.randn(4, 3, 6, generator=generator).double()
    z_exp = 0.3 * codes.z_exp[None]

    def posed_at(z_geo: torch.Tensor, rounds: int = 30):
        marks = model.landmarks(z_geo)
        return follow_landmarks(model, marks[None], marks, z_geo, z_exp, rounds)

    posed = posed_at(codes.z_geo)
    if float(posed.error.max()) > 1e-6:
        pytest.fail("Newton's method did not arrive")
    found = geometry_slopes(model, posed.marks, posed, codes.z_geo, z_exp)
    for column in (0, 3, 7):
        step = torch.zeros_like(codes.z_geo)
        step[column] = 1e-5
        up, down = posed_at(codes.z_geo + step), posed_at(codes.z_geo - step)
        slope = (up.marks - down.marks) / 2e-5
        torch.testing.assert_close(found[..., column], slope, rtol=1e-2, atol=1e-4)
