"""Loss terms: names, weights, and values that can be told by hand."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_person import tiny_session

from npga.core.errors import ConfigError, NpgaError
from npga.core.graph import laplacian_energy
from npga.core.lpips import Lpips
from npga.fit.batch import Sampling
from npga.fit.graph import SHARE, CanonicalGraph
from npga.fit.loop import fit
from npga.fit.runlog import RunLog, StepLosses, require_finite
from npga.fit.terms import LARGEST, TERMS, THINNEST, Scene, Terms


def scene_of(session, step: int = 0) -> Scene:
    batch = session.data.at_step(step, session.sampling)
    posed = session.avatar.decode(batch.z_exp, batch.world_from_head, batch.torso)
    rendered = session.renderer(posed, batch.cameras, batch.window)
    correction = session.corrections.of(batch).correction
    return Scene(rendered, batch, session.avatar, posed, session.densifier.graph, correction)


def test_unknown_and_negative_terms_are_refused():
    with pytest.raises(ConfigError, match=r"no loss term 'jod'"):
        Terms({"jod": 1.0})
    with pytest.raises(ConfigError, match=r"terms.lpips=1.0 needs an LPIPS network"):
        Terms({"lpips": 1.0})
    with pytest.raises(ConfigError, match="negative"):
        Terms({"l1": -1.0})


def test_weights_scale_terms_and_zero_leaves_them_out(data, monkeypatch):
    scene = scene_of(tiny_session(data))
    monkeypatch.setitem(TERMS, "scale", lambda scene: pytest.fail("weight 0 was computed"))
    losses = Terms({"l1": 2.0, "matte": 0.5, "scale": 0.0})(scene)
    assert list(losses) == ["l1", "matte"]
    raw = (scene.rendered.raw - scene.batch.image).abs().mean()
    torch.testing.assert_close(losses["l1"], 2 * raw)
    torch.testing.assert_close(
        losses["matte"], 0.5 * (scene.rendered.alpha - scene.batch.matte).abs().mean()
    )


def test_picture_terms_look_at_the_window(data):
    scene = scene_of(tiny_session(data))
    rows = slice(scene.batch.window.top, scene.batch.window.top + 24)
    columns = slice(scene.batch.window.left, scene.batch.window.left + 24)
    assert scene.rendered.refined.shape == (2, 24, 24, 3)
    error = (scene.rendered.refined - scene.batch.image[:, rows, columns]).abs().mean()
    torch.testing.assert_close(TERMS["refined_l1"](scene), error)
    assert TERMS["ssim"](scene) > 0.01


def test_lpips_looks_at_the_refined_window_and_teaches(data):
    torch.manual_seed(0)
    session = replace(tiny_session(data), sampling=Sampling(1, 40, 0))
    network = Lpips("alex").requires_grad_(False)
    scene = scene_of(session)
    value = Terms({"lpips": 2.0}, perceptual=network)(scene)["lpips"]
    window = scene.rendered.window
    expected = 2 * network(scene.rendered.refined, window.of(scene.batch.image)).mean()
    torch.testing.assert_close(value, expected)
    value.backward()
    assert session.avatar.colors.grad.abs().max() > 0
    assert Terms({"lpips": 2.0}, perceptual=network).refines


def test_an_untrained_avatar_has_no_motion_to_pay_for(data):
    scene = scene_of(tiny_session(data))
    for name in (
        "small_motion",
        "smooth_dynamics",
        "small_moves",
        "small_codes",
        "smooth_corrections",
    ):
        assert TERMS[name](scene) == 0
    session = tiny_session(data)
    torch.nn.init.normal_(session.avatar.detail.exit.weight)
    scene = scene_of(session, 3)
    expected = scene.posed.residuals.stacked().square().mean()
    assert expected > 0
    torch.testing.assert_close(TERMS["small_motion"](scene), expected)


def test_large_and_needle_gaussians_are_penalised(data):
    session = tiny_session(data)
    scene = scene_of(session)
    assert TERMS["scale"](scene) == 0
    with torch.no_grad():
        session.avatar.log_scales[0] = math.log(LARGEST) + 1.0
        session.avatar.log_scales[1] = torch.tensor([-9.0, -9.0, -9.0 + math.log(THINNEST) + 2])
    expected = torch.tensor((1.0 + 4.0) / len(session.avatar))
    torch.testing.assert_close(TERMS["scale"](scene), expected)


def test_the_shares_of_the_laplacian_average_to_the_whole():
    torch.manual_seed(0)
    points, values = torch.rand(96, 3), torch.rand(96, 5)
    graph = CanonicalGraph(points, torch.zeros(96, 3, 2), 6)
    shares = []
    for turn in range(SHARE):
        graph.turn = turn
        shares.append(graph.energy(values))
    torch.testing.assert_close(torch.stack(shares).mean(), laplacian_energy(values, graph.index))
    assert graph.energy(torch.ones(96, 2)) == 0


def test_neighbours_are_those_that_no_code_takes_away():
    """Two lips: rows of points a hair apart, of which one code moves the second down."""
    along = torch.linspace(0, 1, 40)
    lips = [torch.stack([along, torch.full_like(along, y), 0 * along], -1) for y in (0.0, -0.01)]
    points, motion = torch.cat(lips), torch.zeros(80, 3, 4)
    at_rest = CanonicalGraph(points, motion, 3).index
    assert (at_rest[:40] == torch.arange(40, 80)[:, None]).any(1).all()
    motion[40:, 1, 2] = -0.5
    moving = CanonicalGraph(points, motion, 3).index
    assert moving[:40].max() < 40 and moving[40:].min() >= 40
    assert not (moving == torch.arange(80)[:, None]).any()
    torch.testing.assert_close(CanonicalGraph(points, torch.zeros(80, 3, 4), 3).index, at_rest)


def test_a_graph_without_motion_is_that_of_the_nearest():
    torch.manual_seed(0)
    points = torch.rand(60, 3)
    index = CanonicalGraph(points, torch.zeros(60, 3, 2), 5).index
    nearest = torch.cdist(points, points).fill_diagonal_(9).topk(5, largest=False).indices
    assert torch.equal(index.sort(1).values, nearest.sort(1).values)


def test_a_loss_that_is_not_finite_names_term_step_and_frame(data):
    batch = data.batch(5, [1])
    good = {"l1": torch.tensor(1.0), "ssim": torch.tensor(2.0)}
    bad = good | {"ssim": torch.tensor(float("nan"))}
    steps = [StepLosses.of(8, good, batch), StepLosses.of(9, bad, batch)]
    torch.testing.assert_close(require_finite(steps[:1]), torch.tensor([[1.0, 2.0]]))
    with pytest.raises(NpgaError, match=r"ssim is not finite at step 9, frame 1 of EXP-2, cam"):
        require_finite(steps)


def test_nothing_is_saved_after_a_loss_that_is_not_finite(data, tmp_path):
    batch = data.batch(0, [1])
    saved = []
    log = RunLog(tmp_path, 20, hooks=((8, saved.append),))
    for step in range(7):
        value = torch.tensor(float("inf") if step == 3 else 1.0)
        log.step(step, {"l1": value}, batch, gaussians=1)
    with pytest.raises(NpgaError, match=r"l1 is not finite at step 3"):
        log.step(7, {"l1": torch.tensor(1.0)}, batch, gaussians=1)
    assert saved == []


def test_a_poisoned_avatar_is_told_by_the_step_that_did_it(data, tmp_path):
    session = tiny_session(data)
    session.terms.known = TERMS | {
        "l1": lambda scene: scene.posed.gaussians.means.sum() * torch.nan
    }
    batches = data.stream(0, session.sampling, session.device)
    with pytest.raises(NpgaError, match=r"l1 is not finite at step 0"):
        fit(session.avatar, session.corrections, batches, session.renderer, session.terms,
            session.densifier, session.optimizer, session.schedule,
            RunLog(tmp_path, 20), steps=20)  # fmt: skip
