"""Landmarks carried by F: values and slopes against the slow way, and codes found with them."""

from dataclasses import replace

import pytest
import torch

from npga.avatar.forward import ForwardPrior, save_prior
from npga.core.config import compose_config
from npga.core.errors import CheckpointError, ConfigError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.distill.landmarks import ForwardLandmarks, forward_landmarks
from nphm_tracking import load_head_model
from nphm_tracking.config import TrackConfig, default_stages
from nphm_tracking.frames import FrameData, FrameState, LandmarkMotion, Person
from nphm_tracking.head import canonical_landmarks, expression_prior, geometry_prior
from nphm_tracking.run import run
from nphm_tracking.solve import solve_frames


@pytest.fixture(scope="module")
def model():
    return load_head_model()


@pytest.fixture(scope="module")
def forward(model) -> ForwardPrior:
    """An F of random weights that moves points by some millimetres."""
    torch.manual_seed(4)
    forward = ForwardPrior(model.exp_size, model.identity_size, width=24, depth=2, bands=1, rank=8)
    forward.offset_scale.fill_(0.1)
    forward.expression_scale.fill_(0.5)
    return forward.eval()


def test_carried_landmarks_are_f_of_the_canonical_ones(model, forward):
    motion = ForwardLandmarks(forward, model)
    z_geo = geometry_prior(model).mean
    marks = canonical_landmarks(model, z_geo)
    z_exp = torch.rand(3, model.exp_size)
    posed = motion(marks, z_geo, z_exp)
    identity = model.compress(z_geo[None])
    neutral = model.neutral_codes().z_exp[None]
    _, omega = model.backward_field(marks[None], identity, neutral)
    for t in range(3):
        slow = marks + forward(marks[None], omega, z_exp[[t]], identity)[0]
        torch.testing.assert_close(posed.marks[t], slow, atol=1e-6, rtol=0)
    assert (posed.marks[0] - marks).norm(dim=1).mean() * 250 > 0.3, "millimetres: F moves them"

    def at(code):
        return motion(marks, z_geo, code).marks

    for column in (0, 7, 51):
        step = torch.zeros_like(z_exp)
        step[:, column] = 1e-2
        slope = (at(z_exp + step) - at(z_exp - step)) / 2e-2
        torch.testing.assert_close(posed.slope[..., column], slope, atol=2e-4, rtol=2e-2)


def test_another_person_is_not_answered_from_memory(model, forward):
    motion = ForwardLandmarks(forward, model)
    stats = geometry_prior(model)
    z_exp = torch.rand(2, model.exp_size)
    marks = canonical_landmarks(model, stats.mean)
    first = motion(marks, stats.mean, z_exp).marks
    other = motion(marks, stats.mean + stats.std, z_exp).marks
    assert not torch.equal(first, other)
    assert torch.equal(motion(marks, stats.mean, z_exp).marks, first)
    assert isinstance(motion, LandmarkMotion)


def test_coefficient_slopes_equal_autograd(forward):
    z_exp, identity = torch.rand(3, forward.expression_size), torch.randn(1, forward.identity_size)
    fast = forward.coefficient_slopes(z_exp, identity)
    for t in range(3):
        slow = torch.autograd.functional.jacobian(
            lambda code: forward.coefficients(code[None], identity)[0], z_exp[t]
        )
        torch.testing.assert_close(fast[t], slow, atol=1e-6, rtol=1e-4)


def test_posed_points_follow_code_and_pose(forward):
    """Values against the definition, gradients by code and pose against finite differences."""
    forward = forward.double()
    x, omega = torch.rand(1, 5, 3).double(), torch.zeros(1, 5, 2).double()
    identity = torch.zeros(1, forward.identity_size).double()
    z_exp = torch.rand(2, forward.expression_size).double().requires_grad_()
    shift = torch.rand(2, 3).double().requires_grad_()
    turn = torch.rand(2, 3).double()

    def placed(code, translation):
        pose = Similarity(torch.full((2,), 0.25).double(), matrix_from_rotvec(turn), translation)
        return forward.posed(x, omega, code, identity, pose)

    found = placed(z_exp, shift)
    at_rest = forward.posed(x, omega, z_exp, identity)
    turned = 0.25 * at_rest[1] @ matrix_from_rotvec(turn)[1].T + shift[1]
    torch.testing.assert_close(found[1], turned)
    assert torch.autograd.gradcheck(placed, (z_exp, shift))
    forward.float()


def test_codes_are_found_through_f(model, forward):
    """Frames posed by F are tracked back to the codes that posed them."""
    motion = ForwardLandmarks(forward, model)
    z_geo, prior = geometry_prior(model).mean, expression_prior(model)
    marks = canonical_landmarks(model, z_geo)
    person = Person(model, z_geo, torch.tensor(0.25), marks, prior, None, motion)
    truth = torch.zeros(2, model.exp_size)
    truth[0, 3], truth[1, 20] = 0.8, 0.7
    seen = 0.25 * person.carried(marks, truth).marks
    frames = len(truth)
    none = torch.zeros(frames, 0)
    data = FrameData(
        torch.zeros(frames, 0, 3), torch.zeros(frames, 0, 3), none, seen,
        torch.ones(frames, len(marks)), torch.zeros(1), torch.ones(frames),
    )  # fmt: skip
    state = FrameState(
        prior.mean.expand(frames, -1).clone(), torch.eye(3).expand(frames, 3, 3).clone(),
        torch.zeros(frames, 3), marks.expand(frames, -1, -1).clone(),
    )  # fmt: skip
    stage = replace(default_stages()[1], code=1e-5, sparsity=0.0, landmark=1.0)
    found = solve_frames(person, data, state, stage, iterations=20)
    missed = 1000 * (0.25 * person.posed_landmarks(found).marks - seen).norm(dim=-1)
    began = 1000 * (0.25 * marks - seen).norm(dim=-1)
    assert missed.mean() < 0.1 * began.mean(), f"{missed.mean():.3f} of {began.mean():.3f} mm left"


def test_f_of_another_head_model_is_refused(model, forward, tmp_path):
    save_prior(tmp_path / "prior.safetensors", forward, "0123456789abcdef")
    with pytest.raises(CheckpointError, match="was distilled from head model"):
        forward_landmarks(model, str(tmp_path))


def test_a_prior_that_nobody_can_read_is_refused(tmp_path):
    config = compose_config(
        TrackConfig, "track", [f"capture={tmp_path}", f"out={tmp_path / 'out'}", "prior=x"]
    )
    with pytest.raises(ConfigError, match="nothing here can read a forward prior"):
        run(config)
