"""Retargeting: the identity for oneself, neutral to neutral, never outside the hull."""

import pytest
import torch

from npga.core.errors import ConfigError
from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.reenact.retarget import (
    Hull,
    neutral_code,
    retarget_codes,
    retarget_motion,
    smooth,
    smooth_poses,
)


def poses(count: int, seed: int, scale: float = 0.25) -> Similarity:
    generator = torch.Generator().manual_seed(seed)
    turns = matrix_from_rotvec(0.2 * torch.randn(count, 3, generator=generator))
    shift = 0.05 * torch.randn(count, 3, generator=generator) + torch.tensor([0.0, 0.1, -0.2])
    return Similarity(torch.full((count,), scale), turns, shift)


def test_retargeting_oneself_is_the_identity():
    codes, neutral = torch.rand(9, 5), torch.rand(5)
    assert torch.allclose(retarget_codes(codes, neutral, neutral), codes)
    driver = poses(9, 0)
    rest = driver.mean()
    back = retarget_motion(driver, rest, rest, 1.0)
    assert torch.allclose(back.matrix(), driver.matrix(), atol=1e-5)


def test_neutral_maps_to_neutral():
    driver_neutral, avatar_neutral = torch.rand(5), torch.rand(5)
    out = retarget_codes(driver_neutral[None], driver_neutral, avatar_neutral)
    assert torch.allclose(out[0], avatar_neutral)
    rest, mine = poses(1, 1, 0.26)[0], poses(1, 2, 0.24)[0]
    out = retarget_motion(Similarity.stack([rest]), rest, mine, 1.0)
    assert torch.allclose(out.matrix()[0], mine.matrix(), atol=1e-5)


def test_head_motion_is_carried_in_the_head_frame():
    """A nod of the driver is a nod of the avatar, wherever either of them faces."""
    rest, mine = poses(1, 3)[0], poses(1, 4)[0]
    nod = torch.tensor([0.3, 0.0, 0.0])
    step = Similarity(torch.tensor(1.0), matrix_from_rotvec(nod), torch.tensor([0.0, 0.02, 0.0]))
    driver = Similarity.stack([rest.compose(step)])
    for share in (1.0, 0.5, 0.0):
        out = mine.inverse().compose(retarget_motion(driver, rest, mine, share)[0])
        assert torch.allclose(rotvec_from_matrix(out.rotation), share * nod, atol=1e-5)
        assert torch.allclose(out.translation, share * step.translation, atol=1e-5)
        assert float(out.scale) == pytest.approx(1.0, abs=1e-5)


def test_neutral_is_what_frames_at_rest_share():
    """Not where every control is lowest: what a tracker mostly sees at rest is no movement."""
    weights = torch.zeros(100, 3)
    weights[:40, 0] = torch.linspace(0.3, 1, 40)
    weights[:, 1] = 0.2 + 0.01 * torch.arange(100) / 100
    weights[:, 2] = 0.1
    weights[:40, 2] = 0.0  # lower while the face moves, as rest is not where all is low
    found = neutral_code(weights)
    assert found[0] == 0 and found[1] == pytest.approx(0.205, abs=5e-3)
    assert found[2] == pytest.approx(0.1)
    assert torch.equal(found, neutral_code(weights.flip(0)))
    latent = torch.tensor([[-1.0], [0.5], [3.0]])
    assert neutral_code(latent) == 0.5
    with pytest.raises(ConfigError, match="no frame that was tracked"):
        neutral_code(torch.zeros(0, 3))


def test_clamp_stays_in_the_hull_and_distance_says_how_far():
    hull = Hull(torch.tensor([0.0, 0.2]), torch.tensor([1.0, 0.4]))
    codes = torch.tensor([[0.5, 0.3], [1.5, 0.3], [0.5, 0.0], [2.0, 0.5]])
    inside = hull.clamp(codes)
    assert (inside >= hull.lower).all() and (inside <= hull.upper).all()
    assert torch.equal(inside[0], codes[0])
    assert torch.allclose(hull.distance(codes), torch.tensor([0.0, 0.5, 1.0, 1.0]))
    assert (hull.distance(inside) == 0).all()


def test_smoothing_keeps_constants_and_removes_jitter():
    assert torch.allclose(smooth(torch.full((20, 3), 0.7), 2.0), torch.full((20, 3), 0.7))
    jitter = torch.tensor([1.0, -1.0]).repeat(20)[:, None]
    assert smooth(jitter, 1.5)[5:-5].abs().max() < 0.05
    ramp = torch.arange(30.0)[:, None]
    assert torch.allclose(smooth(ramp, 1.0)[5:-5], ramp[5:-5], atol=1e-4)
    assert torch.equal(smooth(jitter, 0.0), jitter)
    assert smooth(jitter[:1], 2.0).shape == (1, 1)


def test_smoothing_poses_keeps_a_still_head_still():
    rest = poses(1, 5)[0]
    still = Similarity.stack([poses(1, 6)[0]] * 8)
    out = smooth_poses(still, rest, 1.5)
    assert torch.allclose(out.matrix(), still.matrix(), atol=1e-5)
    moving = poses(30, 7)
    calm = smooth_poses(moving, moving.mean(), 2.0)
    assert calm.translation.diff(dim=0).norm() < 0.5 * moving.translation.diff(dim=0).norm()
