"""The avatar's pose against a readable twin, its properties, and its file."""

import copy

import pytest
import torch
from small_avatar import head_pose, similarity, small_avatar

from npga.avatar import ForwardPrior, load_avatar, save_avatar
from npga.avatar.detail import (
    CENTRE_SCALE,
    COLOR_SCALE,
    LOG_SCALE_MAX,
    LOG_SCALE_SCALE,
    OPACITY_SCALE,
    ROTATION_SCALE,
)
from npga.avatar.field import NEAR
from npga.avatar.forward import NEIGHBOURHOOD, positional_encoding
from npga.core.errors import CheckpointError
from npga.core.gaussians import Gaussians
from npga.core.rotations import (
    matrix_from_quat,
    matrix_from_rotvec,
    quat_from_matrix,
    quat_multiply,
)
from npga.core.similarity import Similarity

CODE = torch.tensor([0.7, 0.1, 1.4])


@torch.no_grad()
def plain_shares(avatar, i):
    """F's slopes at one centre by finite differences of F itself, in double precision."""
    place = [v[i].detach()[None, None].double() for v in (avatar.means, avatar.omega)]
    prior, identity = copy.deepcopy(avatar.prior).double(), avatar.identity[None].double()
    span, step = avatar.expression_upper - avatar.expression_lower, 1e-4
    shares = []
    for k in range(len(span)):
        nudge = step * torch.eye(len(span), dtype=torch.float64)[k]
        ends = [prior(*place, (avatar.expression_mean + way * nudge)[None], identity)[0, 0]
                for way in (1, -1)]  # fmt: skip
        moved = float((ends[0] - ends[1]).norm() / (2 * step) * span[k])
        moved *= float(avatar.attachment[i] * avatar.reach[i])
        shares.append(moved / (moved + NEAR))
    return torch.tensor(shares)


@torch.no_grad()
def plain_turn(avatar, i, z_exp):
    """How F turns what is around one centre: half the curl of its offsets, in double precision."""
    prior, identity = copy.deepcopy(avatar.prior).double(), avatar.identity[None].double()
    x, omega = (v[i].detach()[None, None].double() for v in (avatar.means, avatar.omega))
    slope = torch.zeros(3, 3, dtype=torch.float64)  # slope[r, s] = d offset_r / d x_s
    for axis in range(3):
        step = NEIGHBOURHOOD * torch.eye(3, dtype=torch.float64)[axis]
        ends = [prior(x + way * step, omega, z_exp[None].double(), identity)[0, 0]
                for way in (1, -1)]  # fmt: skip
        slope[:, axis] = (ends[0] - ends[1]) / (2 * NEIGHBOURHOOD)
    curl = [slope[2, 1] - slope[1, 2], slope[0, 2] - slope[2, 0], slope[1, 0] - slope[0, 1]]
    return torch.stack(curl).float() / 2


def plain_light(avatar, i, rotation, quat):
    """One Gaussian's factor, harmonics written out; `quat` is F's turn."""
    normal = avatar.normals[i] / avatar.normals[i].norm()
    logs = torch.zeros(3)
    now = matrix_from_quat(quat / quat.norm()) @ normal
    for turn, sign in ((rotation @ now, 1.0), (avatar.torso.rest.rotation @ normal, -1.0)):
        x, y, z = turn
        terms = [x, y, z, x * y, y * z, z * x, x**2 - y**2, (3 * z**2 - 1) / 2]
        for row, term in zip(avatar.light.table, terms, strict=True):
            logs = logs + sign * term * row
    return torch.exp(avatar.attachment[i] * logs)


def plain_pose(avatar, z_exp, head, rest):
    """One Gaussian after the other, straight from the module docstrings."""
    motion = rest.inverse().compose(head)
    turn = quat_from_matrix(motion.rotation)
    angle = 2 * torch.atan2(turn[1:].norm(), turn[0])
    rotvec = turn[1:] / turn[1:].norm() * angle
    move = avatar.torso.share @ torch.cat([rotvec, motion.translation])
    torso = rest.compose(Similarity(torch.ones(()), matrix_from_rotvec(move[:3]), move[3:]))

    inside = torch.minimum(torch.maximum(z_exp, avatar.expression_lower), avatar.expression_upper)
    span = avatar.expression_upper - avatar.expression_lower
    neck = torch.minimum(torch.maximum(rotvec, avatar.neck_lower), avatar.neck_upper)
    condition = torch.cat([(inside - avatar.expression_neutral) / span, 2 * neck])
    middle = avatar.detail.middle

    means, quats, log_scales, opacities, colors = [], [], [], [], []
    for i in range(len(avatar)):
        x, f, a = avatar.means[i], avatar.features[i], avatar.attachment[i]
        offset = avatar.prior(
            x[None, None], avatar.omega[i][None, None], z_exp[None], avatar.identity[None]
        )[0, 0]
        seen = torch.cat([plain_shares(avatar, i), torch.ones(3)]) * (condition - middle)
        bias = avatar.detail.curved.bias
        bent = avatar.detail.curved(seen)
        g = avatar.detail.linear(seen) + bent * bent.sigmoid() - bias * bias.sigmoid()
        h = avatar.detail.points(torch.cat([f, x, positional_encoding(x, avatar.detail.bands)]))
        out = avatar.detail.exit(h * g)
        at = x + a * avatar.reach[i] * offset + CENTRE_SCALE * out[:3]
        means.append(a * head.apply(at[None])[0] + (1 - a) * torso.apply(at[None])[0])
        small = torch.cat([torch.ones(1), ROTATION_SCALE * out[3:6] / 2])
        turned = a * avatar.reach[i] * plain_turn(avatar, i, z_exp)
        carried = torch.cat([torch.ones(1), turned / 2])
        local = quat_multiply(small, quat_multiply(carried, avatar.quats[i]))
        by_head, by_torso = quat_from_matrix(head.rotation), quat_from_matrix(torso.rotation)
        quats.append(quat_multiply(a * by_head + (1 - a) * by_torso, local))
        scale = a * head.scale + (1 - a) * torso.scale
        asked = LOG_SCALE_SCALE * out[6:9]
        grown = LOG_SCALE_MAX * torch.tanh(asked / LOG_SCALE_MAX)
        log_scales.append(avatar.log_scales[i] + grown + scale.log())
        opacities.append(avatar.logit_opacities[i] + OPACITY_SCALE * out[9])
        rgb = avatar.colors[i] + COLOR_SCALE * out[10:13]
        rgb = rgb * plain_light(avatar, i, head.rotation, carried)
        colors.append(torch.cat([rgb, f[: avatar.sizes.screen_features]]))
    normalised = torch.nn.functional.normalize(torch.stack(quats), dim=-1)
    return [
        torch.stack(means), normalised, torch.stack(log_scales), torch.stack(opacities),
        torch.stack(colors),
    ]  # fmt: skip


def rigid_prior(turn):
    """An F that turns space by `turn` times the mean of a code."""

    class Rigid(ForwardPrior):
        def trunk(self, x, omega, identity):
            return x

        def coefficients(self, z_exp, identity):
            return z_exp.mean(1, keepdim=True)

    prior = Rigid(3, 4, width=3, depth=2, rank=1)
    with torch.no_grad():
        prior.exit.weight.copy_((turn - torch.eye(3)) / prior.unit)
        prior.exit.bias.zero_()
    return prior


def test_pose_equals_its_readable_twin():
    avatar, head = small_avatar().train(), head_pose()
    avatar.observe_conditions(0.3 * torch.randn(4, len(avatar.detail.middle)))
    fast = avatar.pose(CODE, head)
    fast = [fast.means, fast.quats, fast.log_scales, fast.logit_opacities, fast.colors]
    slow = plain_pose(avatar, CODE, head, avatar.torso.rest)
    weights = [torch.randn_like(part) for part in slow]
    variables = [p for name, p in avatar.named_parameters() if not name.startswith("refiner")]
    grads = []
    for parts in (fast, slow):
        total = sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True))
        grads.append(torch.autograd.grad(total, variables))
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


def test_a_moved_world_moves_the_gaussians():
    avatar, head = small_avatar(), head_pose()
    rest = avatar.torso.rest
    world = Similarity(
        torch.tensor(1.5), matrix_from_rotvec(torch.tensor([0.3, -1.0, 0.4])),
        torch.tensor([1.0, 2.0, 3.0]),
    )  # fmt: skip
    torch.nn.init.zeros_(avatar.light.table)  # it stays where it is
    moved = avatar.pose(CODE, world.compose(head), world.compose(rest))
    expected = avatar.pose(CODE, head, rest).transformed(world)
    torch.testing.assert_close(moved.means, expected.means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved.covariances(), expected.covariances(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moved.colors, expected.colors, rtol=1e-4, atol=1e-4)


def test_where_f_turns_the_whole_head_it_is_the_head_that_turned():
    avatar, head = small_avatar().eval(), head_pose()
    turn = similarity(torch.tensor([0.3, -0.05, 0.1]), torch.zeros(3)).rotation
    with torch.no_grad():
        avatar.logit_attachment.fill_(50.0)
        avatar.reach.fill_(1.0)
        avatar.detail.exit.weight.zero_()
        avatar.prior = rigid_prior(turn)
        carried = avatar.pose(torch.ones(3), head)
        turned = Similarity(head.scale, head.rotation @ turn, head.translation)
        expected = avatar.pose(torch.zeros(3), turned)
        still = avatar.pose(torch.zeros(3), head)
    torch.testing.assert_close(carried.means, expected.means)
    for look in (Gaussians.covariances, lambda gaussians: gaussians.colors):
        mine, other, before = (look(each) for each in (carried, expected, still))
        assert (mine - other).norm() < (before - other).norm() / 20


def test_detail_is_silent_for_the_neutral_face_at_rest():
    avatar = small_avatar()
    residuals = avatar.decode(avatar.expression_neutral, avatar.torso.rest).residuals.stacked()
    assert residuals.abs().max() < 1e-5
    assert avatar.decode(CODE, avatar.torso.rest).residuals.stacked().abs().max() > 0.05


def test_codes_outside_the_hull_count_as_its_border_for_detail():
    avatar, head = small_avatar(), head_pose()
    far = avatar.decode(torch.tensor([5.0, -3.0, 0.5]), head).residuals.stacked()
    border = avatar.decode(torch.tensor([1.0, 0.0, 0.5]), head).residuals.stacked()
    assert torch.equal(far, border)


def test_kept_basis_of_f_changes_nothing_and_follows_training():
    avatar, head = small_avatar().eval(), head_pose()
    with torch.no_grad():
        kept = avatar.pose(CODE, head).means
        assert torch.equal(avatar.pose(CODE, head).means, kept)
        avatar.train()
        torch.testing.assert_close(avatar.pose(CODE, head).means, kept)
        avatar.means += 0.1
        avatar.eval()
        assert not torch.allclose(avatar.pose(CODE, head).means, kept)


def test_no_gradient_reaches_f_through_a_given_basis():
    avatar, head = small_avatar().train(), head_pose()
    posed = avatar.decode(CODE, head, field=avatar.field())
    torch.testing.assert_close(posed.gaussians.means, avatar.decode(CODE, head).gaussians.means)
    posed.gaussians.means.sum().backward()
    assert all(p.grad is None for p in avatar.prior.parameters()) and avatar.omega.grad is None
    assert avatar.means.grad is not None and avatar.means.grad.abs().sum() > 0


def test_codes_get_the_same_gradient_through_a_kept_basis_and_f_none():
    avatar, head = small_avatar().train(), head_pose()
    torch.nn.init.normal_(avatar.detail.exit.weight)
    weights = torch.randn(len(avatar), 3, generator=torch.Generator().manual_seed(0))
    found = []
    for field in (None, avatar.field()):
        code = CODE.clone().requires_grad_()
        posed = avatar.decode(code, head, field=field)
        (posed.gaussians.means * weights).sum().backward()
        found.append((posed.gaussians.means.detach(), posed.prior_offset.detach(), code.grad))
        if field is None:
            avatar.zero_grad()
    for with_f, with_basis in zip(*found, strict=True):
        torch.testing.assert_close(with_basis, with_f)
    assert found[0][2].abs().min() > 1e-4
    assert all(p.grad is None for p in avatar.prior.parameters())


def test_untrained_networks_change_nothing():
    avatar = small_avatar()
    torch.nn.init.zeros_(avatar.detail.exit.weight)
    torch.nn.init.zeros_(avatar.refiner.layers[-1].weight)
    assert avatar.decode(CODE, head_pose()).residuals.stacked().abs().max() == 0
    image, alpha = torch.rand(2, 6, 5, 7), torch.rand(2, 6, 5)
    assert torch.equal(avatar.refine(image, alpha), image[..., :3])


def test_the_refiner_leaves_empty_pixels_alone():
    avatar = small_avatar()
    image, alpha = torch.rand(1, 6, 5, 7), torch.zeros(1, 6, 5)
    alpha[0, 2, 2] = 1.0
    change = (avatar.refine(image, alpha) - image[..., :3]).abs().sum(-1)[0]
    assert change[2, 2] > 0 and change.sum() == change[2, 2]


def test_refining_without_gradients_rounds_the_residual_and_nothing_else():
    avatar = small_avatar()
    image, alpha = 100.0 + torch.rand(1, 24, 20, 7), torch.ones(1, 24, 20)
    image[..., 3:] -= 100.0
    alpha[..., :5] = 0.0
    exact = avatar.refine(image, alpha) - image[..., :3]
    with torch.no_grad():
        shortened = avatar.refine(image, alpha) - image[..., :3]
    assert shortened[:, :, :5].abs().max() == 0
    assert (shortened - exact).abs().max() < 0.03 * exact.abs().max()
    assert shortened.dtype == torch.float32


def test_without_features_only_rgb_is_left():
    avatar = small_avatar()
    gaussians = avatar.pose(CODE, head_pose(), with_features=False)
    assert gaussians.colors.shape == (30, 3)
    assert avatar.background(0.5).tolist() == [0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]


def test_attachment_decides_between_head_and_torso():
    avatar, head = small_avatar(), head_pose()
    torso = similarity(torch.zeros(3), torch.tensor([0.0, -0.1, 0.0]))
    with torch.no_grad():
        avatar.torso.share.zero_()
        for sign, pose in ((50.0, head), (-50.0, torso)):
            avatar.logit_attachment.fill_(sign)
            posed = avatar.decode(CODE, head, torso)
            local = avatar.means + posed.prior_offset + posed.residuals.centre
            torch.testing.assert_close(posed.gaussians.means, pose.apply(local))


def test_the_file_gives_the_avatar_back_and_a_copy_of_it_is_the_same(tmp_path):
    poses = [small_avatar().eval()]
    for name in ("a", "b"):
        path = tmp_path / f"{name}.safetensors"
        save_avatar(path, poses[-1], prior_checksum="cc", participant="017")
        poses.append(load_avatar(path, "aa"))
    assert poses[2].sizes == poses[0].sizes
    with torch.no_grad():
        first, second, third = (avatar.pose(CODE, head_pose()) for avatar in poses)
    for name in ("means", "quats", "log_scales", "logit_opacities", "colors"):
        one, other, copied = (getattr(each, name) for each in (first, second, third))
        torch.testing.assert_close(other, one, rtol=2e-3, atol=2e-3)
        assert torch.equal(copied, other), name
    assert torch.equal(poses[1].means, poses[0].means)
    torch.testing.assert_close(second.means, first.means, rtol=1e-4, atol=1e-4)


def test_codes_of_another_head_model_are_refused(tmp_path):
    save_avatar(tmp_path / "a.safetensors", small_avatar(), prior_checksum="cc", participant="017")
    with pytest.raises(CheckpointError, match="head model aa, but codes of head model bb"):
        load_avatar(tmp_path / "a.safetensors", "bb")
