"""Density control: rows that move together, what is kept, what is added."""

import pytest
import torch
from tiny_person import rig, tiny_avatar, tiny_session

from npga.avatar import Avatar
from npga.fit.config import Corrected, OptimConfig
from npga.fit.corrections import Corrections
from npga.fit.densify import SHRINK, TOP, DensityState, divide
from npga.fit.schedule import build_optimizer
from npga.fit.surgery import MOMENTS, rearrange
from npga.raster import Backend, RenderedImages, rasterize

GENERATOR = torch.Generator().manual_seed(0)


def trained(data):
    """An avatar after two steps, so that there are moments."""
    avatar = tiny_avatar(data)
    optimizer = build_optimizer(avatar, Corrections(data, Corrected.none), OptimConfig())
    for _ in range(2):
        loss = sum((getattr(avatar, name) * torch.randn_like(getattr(avatar, name))).sum()
                   for name in Avatar.ROWS)  # fmt: skip
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return avatar, optimizer


def rows_of(avatar, optimizer):
    """Every number that belongs to a Gaussian, by name."""
    rows = {name: getattr(avatar, name).detach().clone() for name in Avatar.ROWS}
    rows |= {name: getattr(avatar, name).clone() for name in Avatar.CONSTANT_ROWS}
    for name in Avatar.ROWS:
        for moment in MOMENTS:
            rows[f"{name}.{moment}"] = optimizer.state[getattr(avatar, name)][moment].clone()
    return rows


def test_permuting_moves_rows_moments_and_constants_together(data, monkeypatch):
    avatar, optimizer = trained(data)
    monkeypatch.setattr(Avatar, "CONSTANT_ROWS", ("fixed",))
    avatar.register_buffer("fixed", torch.rand(len(avatar), 2))
    before = rows_of(avatar, optimizer)
    order = torch.randperm(len(avatar), generator=GENERATOR)
    rearrange(avatar, optimizer, order, torch.zeros(len(order), dtype=torch.bool))
    after = rows_of(avatar, optimizer)
    assert before.keys() == after.keys() and len(after) == 3 * len(Avatar.ROWS) + 1
    for name, value in before.items():
        assert torch.equal(after[name], value[order]), name


def test_copies_start_with_fresh_moments_and_keep_learning(data):
    avatar, optimizer = trained(data)
    before = rows_of(avatar, optimizer)
    source, fresh = torch.tensor([4, 2, 2]), torch.tensor([False, False, True])
    rearrange(avatar, optimizer, source, fresh)
    after = rows_of(avatar, optimizer)
    for name, value in before.items():
        expected = value[source].clone()
        if "." in name:
            expected[2] = 0
        assert torch.equal(after[name], expected), name
    old = avatar.means.detach().clone()
    avatar.means.sum().backward()
    optimizer.step()
    assert len(avatar) == 3 and not torch.equal(avatar.means, old)
    assert set(optimizer.state) <= {p for g in optimizer.param_groups for p in g["params"]}


def test_clones_in_one_place_draw_the_same_picture(data):
    avatar, optimizer = trained(data)
    with torch.no_grad():
        avatar.logit_opacities.fill_(0.5)
        avatar.log_scales.fill_(-3.5)
    cameras, pose = rig(2), data.sequences[0].world_from_head[0]

    def picture():
        gaussians = avatar.pose(torch.zeros(3), pose, with_features=False)
        return rasterize(gaussians, cameras, backend=Backend.cpu).alpha.detach()

    before = picture()
    n = len(avatar)
    source = torch.arange(n).repeat(2)
    rearrange(avatar, optimizer, source, torch.arange(2 * n) >= n)
    pairs = torch.arange(n), torch.arange(n, 2 * n)
    divide(avatar, *pairs, torch.zeros(n, dtype=torch.bool), GENERATOR)
    # equal only where the footprint is opaque to first order: 1-(1-s)^2 against the one Gaussian
    assert (picture() - before).abs().max() < 0.08
    peak = avatar.logit_opacities.sigmoid()
    torch.testing.assert_close(1 - (1 - peak) ** 2, torch.full_like(peak, 0.5).fill_(
        float(torch.tensor(0.5).sigmoid())))  # fmt: skip


def test_halves_lie_on_both_sides_and_are_smaller(data):
    avatar, optimizer = trained(data)
    centre, size = avatar.means[3].detach().clone(), avatar.log_scales[3].detach().clone()
    opacity = avatar.logit_opacities[3].detach().clone()
    rearrange(avatar, optimizer, torch.tensor([3, 3]), torch.tensor([False, True]))
    both = torch.tensor([0]), torch.tensor([1])
    divide(avatar, *both, torch.tensor([True]), GENERATOR)
    torch.testing.assert_close(avatar.means.mean(0), centre)
    assert (avatar.means[0] - avatar.means[1]).norm() > 0.01
    torch.testing.assert_close(avatar.log_scales[1], size - torch.tensor(SHRINK).log())
    torch.testing.assert_close(avatar.logit_opacities, opacity.expand(2))


def render_with_gradient(strength: torch.Tensor) -> RenderedImages:
    """A rendering of 40 pixels width whose screen gradients are given, [c n]."""
    means2d = torch.zeros(*strength.shape, 2, requires_grad=True)
    means2d.grad = torch.stack([strength, torch.zeros_like(strength)], -1)
    empty = torch.zeros(len(strength), 48, 40)
    radii = torch.ones_like(strength).int()
    return RenderedImages(empty[..., None], empty, empty, means2d, radii)


def test_what_shows_in_one_frame_of_fifty_is_not_averaged_away(data):
    densifier = tiny_session(data).densifier
    densifier.state = DensityState.blank(2, torch.device("cpu"))
    for step in range(50):
        rare = 1.0 if step % 12 == 3 else 0.0
        densifier.observe(render_with_gradient(torch.tensor([[rare, 0.3], [0.0, 0.3]])))
    score = densifier.state.top_gradients.mean(1) / 20
    torch.testing.assert_close(score, torch.tensor([1.0, 0.3]))
    assert densifier.state.top_gradients.shape == (2, TOP)


def test_only_the_strongest_grow_and_the_cap_holds(data):
    session = tiny_session(data)
    densifier, avatar = session.densifier, session.avatar
    densifier.state.top_gradients[:] = torch.arange(120.0)[:, None]
    before = avatar.means.detach().clone()
    with torch.no_grad():
        avatar.log_scales.fill_(-6.0)
    assert not densifier.act(avatar, session.optimizer, 5)
    assert densifier.act(avatar, session.optimizer, 6)
    added = int(densifier.config.growth * 120)
    assert len(avatar) == 120 + added
    assert torch.equal(avatar.means[120:].sort(0).values, before[120 - added :].sort(0).values)
    assert len(densifier.graph.index) == len(avatar) == len(densifier.state.probes)
    for step in (13, 20, 27, 34):
        densifier.steps = 1000
        densifier.state.top_gradients += 1.0
        densifier.act(avatar, session.optimizer, step)
    assert len(avatar) == densifier.cap == 160


def test_faint_and_useless_gaussians_go_but_rarely_seen_ones_stay(data):
    session = tiny_session(data)
    densifier, avatar = session.densifier, session.avatar
    with torch.no_grad():
        avatar.logit_opacities[:3] = -8.0
        avatar.means[10] = torch.tensor([0.0, 50.0, 0.0])
        avatar.means[11] = torch.tensor([0.0, 0.0, 0.3])
    densifier.state.probes[:] = 2
    densifier.state.contribution[12] = 100.0
    avatar.features.data[11, 0], avatar.features.data[12, 0] = 7.0, 8.0
    with torch.no_grad():
        avatar.means[12] = torch.tensor([0.0, -50.0, 0.0])
    densifier.act(avatar, session.optimizer, 6)
    heights = avatar.means[:, 1]
    assert (heights < 40).all(), "a Gaussian that paints nothing after two probes must go"
    assert (avatar.features[:, 0] == 8.0).any(), "what painted much in an earlier probe must stay"
    assert (avatar.logit_opacities > -7).all()


@pytest.mark.parametrize("step, due", [(4, False), (6, True), (7, False), (13, True), (20, False)])
def test_changes_are_due_between_start_and_stop(data, step, due):
    assert tiny_session(data).densifier.due(step) is due
