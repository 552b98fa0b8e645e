"""The numpy solve of one frame takes the steps of its torch twin, from good and bad starts."""

from dataclasses import replace

import pytest
import torch
from acted_face import ActedFace, equipment, named, swinging, talking

import nphm_tracking.single as single
from nphm_tracking.follow import FOLLOWING
from nphm_tracking.frames import FrameData, FrameState, Person
from nphm_tracking.solve import normal_equations, solve_frames
from nphm_tracking.track import start_solution

FRAME = 9


def problem(with_scores: bool = False, away: float = 0.0) -> tuple[Person, FrameData, FrameState]:
    """One frame of a talking face, started at rest and `away` from its pose (rad, head units)."""
    face = ActedFace.mean()
    observed = face.observed(talking(24), swinging(24))
    start = start_solution(equipment().model, [observed], equipment().motion).states["acted"]
    rows = torch.tensor([FRAME])
    data, state = observed.data[rows], start[rows]
    if with_scores:
        scores = named(jawOpen=0.4, mouthSmile=0.2)[None].clone()
        scores[0, ::3] = torch.nan
        data = replace(data, scores=scores)
    person = face.person()
    step = torch.full((1, state.z_exp.shape[1] + 6), away)
    return person, data, state.moved(step, person.scale, person.prior)


@pytest.mark.parametrize("with_scores", [False, True])
def test_energy_slope_and_curvature_are_those_of_the_twin(with_scores: bool) -> None:
    person, data, state = problem(with_scores, away=0.05)
    true = normal_equations(person, data, state, FOLLOWING)
    pose = single._Pose(*(t[0].numpy() for t in (state.z_exp, state.rotation, state.translation)))
    found = single._Problem(person, data, FOLLOWING).equations(pose)
    for mine, twin in ((found.hessian, true.hessian), (found.gradient, true.gradient)):
        largest = float(twin.abs().max())
        torch.testing.assert_close(torch.from_numpy(mine), twin[0], rtol=1e-4, atol=1e-5 * largest)
    assert found.energy == pytest.approx(float(true.energy), rel=1e-5)


@pytest.mark.parametrize("iterations", [1, 3, 12])
@pytest.mark.parametrize("away", [0.0, 0.1, 0.5])
def test_every_step_is_that_of_the_twin(
    iterations: int, away: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "CONVERGED", -1.0)
    person, data, state = problem(True, away)
    twin = solve_frames(person, data, state, FOLLOWING, iterations)
    found = single.solve_single(person, data, state, FOLLOWING, iterations)
    assert (twin.z_exp - state.z_exp).abs().max() > 5e-3
    for name in FrameState.__dataclass_fields__:
        torch.testing.assert_close(getattr(found, name), getattr(twin, name), rtol=1e-3, atol=2e-4)


def test_it_ends_where_more_steps_gain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    person, data, state = problem()
    asked = []
    equations = single._Problem.equations

    def counted(self: single._Problem, pose: single._Pose) -> single._Equations:
        asked.append(equations(self, pose))
        return asked[-1]

    monkeypatch.setattr(single._Problem, "equations", counted)
    single.solve_single(person, data, state, FOLLOWING, 50)
    assert 3 < len(asked) < 40
    energies = [one.energy for one in asked]
    assert min(energies[:-1]) - energies[-1] <= single.CONVERGED * min(energies[:-1])
