"""Landmarks that move linearly with the codes: values, derivatives, and codes found from them."""

from dataclasses import replace

import pytest
import torch

from npga.core.config import compose_config
from npga.core.rotations import matrix_from_rotvec
from nphm_tracking import load_head_model
from nphm_tracking.config import StageConfig, TrackConfig, default_stages
from nphm_tracking.energies import carried_landmarks
from nphm_tracking.frames import FrameData, FrameState, Person
from nphm_tracking.head import (
    canonical_landmarks,
    expression_prior,
    geometry_prior,
    landmark_slopes,
)
from nphm_tracking.solve import solve_frames

SCALE = 0.25


@pytest.fixture(scope="module")
def person() -> Person:
    """The open prior's average person."""
    model = load_head_model()
    z_geo = geometry_prior(model).mean
    marks = canonical_landmarks(model, z_geo)
    prior = expression_prior(model)
    return Person(model, z_geo, torch.tensor(SCALE), marks, prior, landmark_slopes(model))


def test_carried_landmarks_are_linear_and_their_slope_is_exact(person: Person):
    z_exp = torch.rand(3, person.model.exp_size, dtype=torch.float64)
    marks, slopes = person.landmarks.double(), person.slopes.double()
    posed = carried_landmarks(marks, slopes, z_exp)
    slow = marks.clone()
    for k in range(z_exp.shape[1]):
        slow = slow + z_exp[1, k] * slopes[:, :, k]
    assert torch.allclose(posed.marks[1], slow)
    step = torch.zeros_like(z_exp)
    step[:, 5] = 1e-3
    change = carried_landmarks(marks, slopes, z_exp + step).marks - posed.marks
    assert torch.allclose(change / 1e-3, posed.slope[..., 5], atol=1e-9)


def test_the_open_prior_knows_that_lids_close_and_mouths_open(person: Person):
    names = list(person.model.expression_names)
    down_mm = -250 * person.model.landmark_slopes[:, 1]
    assert down_mm[159, names.index("eyeBlinkRight")] > 4, "the upper lid falls in a blink"
    assert abs(down_mm[159, names.index("eyeBlinkLeft")]) < 1, "of its own eye only"
    assert down_mm[152, names.index("jawOpen")] > 10, "the chin falls when the jaw opens"
    assert down_mm[105, names.index("browOuterUpRight")] < -2, "raised brows rise"


def test_codes_are_found_from_landmarks_alone(person: Person):
    names = list(person.model.expression_names)
    truth = torch.zeros(2, len(names))
    truth[0, names.index("eyeBlinkLeft")] = 0.9
    truth[0, names.index("jawOpen")] = 0.5
    truth[1, names.index("browInnerUp")] = 0.8
    turn = matrix_from_rotvec(torch.tensor([[0.1, 0.2, 0.0], [0.0, -0.2, 0.1]]))
    shift = torch.tensor([[0.0, 0.01, 0.02], [0.01, 0.0, 0.0]])
    head = carried_landmarks(person.landmarks, person.slopes, truth).marks
    world = SCALE * head @ turn.mT + shift[:, None]
    count = world.shape[1]
    data = FrameData(
        points=torch.zeros(2, 1, 3),
        normals=torch.zeros(2, 1, 3),
        point_weight=torch.zeros(2, 1),
        landmarks=world,
        landmark_weight=torch.ones(2, count),
        code_weight=torch.ones(2),
        linked=torch.zeros(1),
    )
    eye = torch.eye(3).expand(2, 3, 3)
    state = FrameState(
        torch.zeros_like(truth), eye.clone(), shift, person.landmarks.expand(2, -1, -1)
    )
    stage = StageConfig(iterations=12, code=1e-4, sparsity=1e-3)
    found = solve_frames(person, data, state, stage)
    assert float((found.z_exp - truth).abs().max()) < 0.12
    assert torch.allclose(found.rotation, turn, atol=0.01)
    bare = replace(person, slopes=torch.zeros_like(person.slopes))
    missed = solve_frames(bare, data, state, stage)
    assert float((missed.z_exp - truth).abs().max()) > 0.4, "without slopes nothing can be found"


def test_the_yaml_holds_the_default_stages():
    assert compose_config(TrackConfig, "track", ["capture=x", "out=x"]).stages == default_stages()
