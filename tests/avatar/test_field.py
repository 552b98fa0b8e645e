"""Which numbers of a code G sees where."""

from dataclasses import replace

import torch
from small_avatar import head_pose, small_avatar

CODES = torch.tensor([[0.2, 0.1, 0.6], [0.2, 0.9, 0.6]])


def residuals(avatar):
    """G under two codes that differ in their second number alone."""
    with torch.no_grad():
        return [avatar.decode(code, head_pose()).residuals.stacked() for code in CODES]


def test_g_is_deaf_to_what_moves_nothing():
    avatar = small_avatar().eval()
    one, other = residuals(avatar)
    assert (one - other).abs().amax(1).median() > 1e-3
    with torch.no_grad():
        for layer in (avatar.prior.linear, avatar.prior.curved[0]):
            layer.weight[:, 1] = 0
    avatar.train().eval()
    one, other = residuals(avatar)
    assert torch.equal(one, other)


def test_g_is_deaf_where_f_carries_nothing():
    avatar = small_avatar()
    with torch.no_grad():
        avatar.logit_attachment[:10] = -50.0
        avatar.reach[10:20] = 0.0
    shares = avatar.field().shares
    assert shares[:20].max() < 1e-15 and shares[20:].min() > 0 and shares.max() < 1
    one, other = residuals(avatar.eval())
    assert torch.equal(one[:20], other[:20]) and not torch.equal(one[20:], other[20:])


def test_shares_grow_with_motion_and_reach_a_half_at_a_millimetre():
    avatar = small_avatar()
    basis = torch.zeros(2, 3, avatar.prior.rank)
    slopes = avatar.prior.coefficient_slopes(avatar.expression_mean[None], avatar.identity[None])[0]
    basis[0, 1] = slopes[:, 0] / slopes[:, 0].square().sum()  # one unit per unit of number 0
    found = avatar.shares(avatar.code_motion(0.004 * basis, torch.ones(2)))
    torch.testing.assert_close(found[0, 0], torch.tensor(0.5))
    far = avatar.shares(avatar.code_motion(0.04 * basis, torch.ones(2)))
    assert far[0, 0] > 0.9 and found[1].max() == 0


def test_whole_codes_where_shares_are_off():
    avatar = small_avatar()
    avatar.sizes = replace(avatar.sizes, shares=False)
    assert torch.equal(avatar.field().shares, torch.ones(30, 3))
