"""What a trained avatar keeps from frame to frame, and replays on a GPU, changes nothing."""

import copy

import pytest
import torch
from small_avatar import head_pose, similarity, small_avatar

from npga.avatar import Avatar
from npga.core.similarity import Similarity

CODES = torch.tensor([[0.3, 0.9, 0.1], [1.4, 0.2, -0.6], [0.5, 0.5, 0.5]])
OUTPUTS = ("means", "quats", "log_scales", "logit_opacities", "colors")


def poses() -> list[Similarity]:
    """Three head poses."""
    turned = similarity(torch.tensor([-0.4, 0.1, 0.6]), torch.tensor([0.0, 0.05, 0.0]))
    return [head_pose(), turned, similarity(torch.zeros(3), torch.zeros(3))]


def assert_same_frames(avatar: Avatar) -> None:
    """All frames at first, then each by a decode that keeps nothing: no result is overwritten."""
    device = avatar.means.device
    torso = similarity(torch.tensor([0.0, 0.1, 0.0]), torch.tensor([0.01, 0.0, 0.0])).to(device)
    frames = [
        (code.to(device), pose.to(device), rest)
        for code, pose in zip(CODES, poses(), strict=True)
        for rest in (None, torso)
    ]
    with torch.no_grad():
        found = [avatar.decode(*frame) for frame in frames]
        fresh = copy.deepcopy(avatar).train()
        true = [fresh._decode(*frame, fresh.field().without_basis(), None) for frame in frames]
    for mine, twin in zip(found, true, strict=True):
        for name in OUTPUTS:
            expected = getattr(twin.gaussians, name)
            torch.testing.assert_close(getattr(mine.gaussians, name), expected)
        torch.testing.assert_close(mine.prior_offset, twin.prior_offset)
        torch.testing.assert_close(mine.residuals.stacked(), twin.residuals.stacked())
    moved = found[0].gaussians.means - found[2].gaussians.means
    assert moved.abs().max() > 1e-2


def test_what_is_kept_changes_no_frame():
    assert_same_frames(small_avatar().eval())


def test_what_was_kept_follows_training_and_moves():
    avatar = small_avatar().eval()
    assert_same_frames(avatar)
    avatar.train()
    with torch.no_grad():
        avatar.features += 1.0
        avatar.means += 0.1
    assert_same_frames(avatar.eval())
    code, pose = CODES[0].double(), poses()[0].to(torch.float64)
    with torch.no_grad():
        assert avatar.to(torch.float64).decode(code, pose).gaussians.means.dtype == torch.float64


@pytest.mark.gpu
def test_a_replayed_decode_equals_the_plain_one():
    avatar = small_avatar(count=1000).eval().to("cuda")
    assert_same_frames(avatar)
    assert avatar._recorded is not None
    assert_same_frames(copy.deepcopy(avatar))
    avatar.train()
    with torch.no_grad():
        avatar.features += 1.0
    assert avatar._recorded is None
    assert_same_frames(avatar.eval())
    assert_same_frames(avatar.to("cpu"))
