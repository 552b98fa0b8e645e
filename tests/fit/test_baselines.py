"""The baselines of `bench_quality`: a mesh that carries, a rule that forgets, their settings."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh
from test_fit_run import BallModel, capture, settings  # noqa: F401  a fixture
from tiny_person import CPU, Knobs, tiny_avatar, tiny_session

import npga.fit.setup

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.baselines.default_density import FAINT, RESET_TO, DefaultDensity
from benchmarks.baselines.mesh_bound import (
    BOUND_TERMS,
    LEASH,
    MeshBound,
    TriangleFrames,
    parents_of,
)
from benchmarks.baselines.variants import VARIANTS, open_variant, random_like
from benchmarks.quality_rows import Results, gain_rows, gap_rows, paired
from npga.core.config import compose_config
from npga.core.mesh import Mesh
from npga.core.rotations import matrix_from_quat, matrix_from_rotvec
from npga.fit.config import FitConfig
from npga.fit.densify import DensityState
from npga.fit.loop import fit
from npga.fit.renderer import Renderer
from npga.fit.runlog import RunLog
from npga.fit.setup import load_inputs, load_training, split_of
from npga.fit.surgery import rearrange
from npga.fit.terms import TERMS, Scene, Terms
from npga.raster import Backend, RenderedImages


def ball() -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=2, radius=0.35)
    return Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())


def bound_avatar(data, detail: bool = False) -> MeshBound:
    surface = ball()
    return MeshBound(tiny_avatar(data), surface, torch.zeros(len(surface.vertices), 2), detail)


def bound_session(data, steps: int = 20):
    """The tiny session with its avatar bound to the ball."""
    avatar = bound_avatar(data)
    session = tiny_session(data, Knobs(steps=steps))
    from npga.fit.config import OptimConfig
    from npga.fit.schedule import build_optimizer

    session.densifier.state = DensityState.blank(len(avatar), CPU)
    return replace(
        session,
        avatar=avatar,
        renderer=Renderer(avatar, Backend.cpu, 1.0, False),
        terms=Terms({"l1": 0.8, "matte": 0.1, "bound_position": 0.01, "bound_size": 1.0},
                    known=TERMS | BOUND_TERMS),
        optimizer=build_optimizer(avatar, session.corrections, OptimConfig(colors=0.05)),
    )  # fmt: skip


def test_gradients_reach_a_code_that_asks_for_them(data):
    bound, pose = bound_avatar(data).double(), data.sequences[0].world_from_head[2]
    pose = pose.to(torch.float64)
    weights = torch.randn(len(bound), 10, generator=torch.Generator().manual_seed(0)).double()

    def told(code: torch.Tensor) -> torch.Tensor:
        found = bound.decode(code, pose).gaussians
        return (weights * torch.cat([found.means, found.quats, found.log_scales], 1)).sum()

    code = torch.tensor([0.3, 0.1, 0.2], dtype=torch.float64, requires_grad=True)
    told(code).backward()
    assert code.grad is not None
    for k in range(3):
        step = 1e-5 * torch.eye(3, dtype=torch.float64)[k]
        with torch.no_grad():
            slope = (told(code + step) - told(code - step)) / 2e-5
        assert float(code.grad[k]) == pytest.approx(float(slope), rel=1e-3, abs=1e-6), k


@pytest.mark.parametrize("detail", [False, True])
def test_a_mesh_at_rest_carries_nothing(data, detail):
    bound, own = bound_avatar(data, detail), tiny_avatar(data)
    code, pose = torch.ones(3), data.sequences[0].world_from_head[2]
    one, other = (a.decode(code, pose).gaussians for a in (bound, own))
    torch.testing.assert_close(one.means, other.means, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.log_scales, other.log_scales, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        matrix_from_quat(one.quats), matrix_from_quat(other.quats), atol=1e-5, rtol=0
    )


def test_gaussians_turn_grow_and_move_with_their_triangle(data, monkeypatch):
    bound, own = bound_avatar(data), tiny_avatar(data)
    turn, factor = matrix_from_rotvec(torch.tensor([0.3, -0.5, 0.9])), 1.3
    shift = torch.tensor([0.1, 0.2, -0.3])
    carried = factor * bound.vertices @ turn.T + shift
    monkeypatch.setattr(bound, "tracked_mesh", lambda z_exp: carried)
    with torch.no_grad():
        for avatar in (bound, own):
            avatar.logit_attachment.fill_(60.0)
            avatar.quats.copy_(torch.nn.functional.normalize(torch.arange(480.0).reshape(120, 4)))
    pose = data.sequences[0].world_from_head[2]
    posed = bound.decode(torch.ones(3), pose).gaussians
    expected = pose.apply(factor * own.means @ turn.T + shift)
    torch.testing.assert_close(posed.means, expected, atol=1e-5, rtol=0)
    size = own.log_scales + math.log(factor) + pose.scale.log()
    torch.testing.assert_close(posed.log_scales, size, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        matrix_from_quat(posed.quats),
        pose.rotation @ turn @ matrix_from_quat(own.quats),
        atol=1e-4,
        rtol=0,
    )
    (posed.means.sum() + posed.log_scales.sum() + (posed.quats[:, 1] * 3).sum()).backward()
    for name in ("means", "quats", "log_scales"):
        assert getattr(bound, name).grad.abs().sum() > 0, name


def test_the_prior_carries_the_vertices(data):
    bound = bound_avatar(data)
    torch.nn.init.normal_(bound.prior.exit.weight)
    code = torch.tensor([0.5, 0.0, 0.2])
    moved = bound.tracked_mesh(code) - bound.vertices
    offset = bound.prior(
        bound.vertices[None], bound.vertex_omega[None], code[None], bound.identity[None]
    )[0]
    above = bound.vertices[:, 1] > -0.2
    assert moved.abs().max() > 0.01
    torch.testing.assert_close(moved[above], 0.99 * offset[above].detach(), atol=1e-5, rtol=1e-4)


def test_slivers_are_nobodys_parents():
    vertices = torch.tensor(
        [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0.5, 1e-3, 0.01], [0.5, 1, 1]]
    )
    faces = torch.tensor([[0, 1, 2], [1, 3, 2], [0, 1, 4], [2, 3, 5]])
    assert parents_of(torch.tensor([[0.5, 0.0, 0.0]]), Mesh(vertices, faces)).tolist() == [0]
    frames = TriangleFrames.of(vertices[faces[:1]])
    torch.testing.assert_close(frames.size, torch.tensor([1.0]))
    torch.testing.assert_close(torch.linalg.det(frames.axes), torch.ones(1))


def test_terms_of_the_binding_cost_nothing_until_the_leash_is_run_out(data):
    session = bound_session(data)
    avatar = session.avatar
    batch = data.batch(0, [0, 1])
    posed = avatar.decode(batch.z_exp, batch.world_from_head, batch.torso)
    rendered = session.renderer(posed, batch.cameras)
    scene = Scene(rendered, batch, avatar, posed, session.densifier.graph, None)
    assert BOUND_TERMS["bound_position"](scene) == 0 and BOUND_TERMS["bound_size"](scene) == 0
    rest = avatar.frames(avatar.vertices)
    with torch.no_grad():
        avatar.means[0] = rest.middle[0] + torch.tensor([0.0, 3.0, 0.0]) * rest.size[0]
        avatar.leash[0] = LEASH * rest.size[0]
    torch.testing.assert_close(
        BOUND_TERMS["bound_position"](scene), torch.tensor((3 - LEASH) / 120)
    )


def test_children_inherit_the_triangle_and_the_shared_loop_fits_the_baseline(data, tmp_path):
    session = bound_session(data, 60)
    avatar = session.avatar
    source = torch.tensor([7, 7, 3])
    before = avatar.parent.clone()
    copy = bound_avatar(data)
    optimizer = bound_session(data).optimizer
    optimizer.param_groups.clear()
    for name in copy.ROWS:
        optimizer.add_param_group({"name": name, "params": [getattr(copy, name)]})
    rearrange(copy, optimizer, source, torch.tensor([False, True, False]))
    assert torch.equal(copy.parent, before[source])

    batches = data.stream(0, session.sampling, session.device)
    fit(avatar, session.corrections, batches, session.renderer, session.terms, session.densifier,
        session.optimizer, session.schedule, RunLog(tmp_path, 60), steps=60)  # fmt: skip
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    first, last = (float(line.split('"l1": ')[1].split(",")[0]) for line in (lines[0], lines[-1]))
    assert last < 0.8 * first
    assert session.densifier.changes and len(avatar.parent) == len(avatar)


def rendering(gradient: list[list[float]], visible: list[list[int]]) -> RenderedImages:
    """40 pixels wide, with given screen gradients and radii [c n]."""
    strength = torch.tensor(gradient)
    means2d = torch.zeros(*strength.shape, 2, requires_grad=True)
    means2d.grad = torch.stack([strength, torch.zeros_like(strength)], -1)
    empty = torch.zeros(len(strength), 48, 40)
    return RenderedImages(empty[..., None], empty, empty, means2d, torch.tensor(visible).int())


def default_density(data, steps: int) -> DefaultDensity:
    density = tiny_session(data, Knobs(steps=steps)).densifier
    names = ("config", "data", "graph", "cap", "steps", "seed", "backend", "state")
    return DefaultDensity(**{name: getattr(density, name) for name in names})


def test_the_default_rule_averages_over_what_is_seen(data):
    density = default_density(data, 20)
    density.state = DensityState.blank(2, CPU)
    density.observe(rendering([[1.0, 0.5], [3.0, 9.0]], [[1, 1], [1, 0]]))
    density.observe(rendering([[0.0, 0.7]], [[0, 1]]))
    torch.testing.assert_close(density.score(), 20 * torch.tensor([2.0, 0.6]))


def test_opacities_are_reset_while_the_number_may_change(data):
    density = default_density(data, 1000)
    density.config = replace(density.config, stop=0.7, start=5, every=100)
    resets = [step for step in range(1000) if density.resets_at(step)]
    assert resets == [139, 279, 419, 559]
    session = tiny_session(data)
    avatar = session.avatar
    with torch.no_grad():
        avatar.logit_opacities[0] = -9.0
    density.state = DensityState.blank(len(avatar), CPU)
    avatar.logit_opacities.sum().backward()
    session.optimizer.step()
    assert not density.act(avatar, session.optimizer, 139)
    assert avatar.logit_opacities.sigmoid().max() <= RESET_TO + 1e-6
    assert session.optimizer.state[avatar.logit_opacities]["exp_avg"].abs().sum() == 0
    density.act(avatar, session.optimizer, 199)
    assert len(avatar) == 119 and avatar.logit_opacities.sigmoid().min() > FAINT


def test_a_random_prior_has_the_size_and_units_of_the_real_one(data):
    prior = tiny_avatar(data).prior
    prior.offset_scale.fill_(0.3)
    fresh = random_like(prior)
    assert fresh.sizes == prior.sizes and fresh.offset_scale == torch.tensor(0.3)
    assert not torch.equal(fresh.entry.point, prior.entry.point)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_takes_some_steps(capture, name, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(npga.fit.setup, "load_head_model", lambda path: BallModel())
    variant = VARIANTS[name]
    base = settings(capture, tmp_path / "x", "steps=12", "densify.every=5", "seed=1")
    words = [f"{key}={getattr(base, key)}" for key in
             ("capture", "track", "prior", "out", "cache_dir", "width", "height", "steps",
              "initial_gaussians", "max_gaussians", "window", "seed")]  # fmt: skip
    words += [
        "held_out_cameras=[c]",
        "network.features=6",
        "network.screen_features=3",
        "densify.start=4",
        "densify.every=5",
    ]
    words += ["regions.mouth=0", "regions.eyes=0"]  # a ball has no face
    config = compose_config(FitConfig, "fit", [*words, *variant.settings])
    inputs = load_inputs(config)
    split = split_of(inputs.capture, inputs.track, [], "FREE", ["c"])
    data = load_training(config, inputs.capture, inputs.track, split)
    session = open_variant(variant, config, inputs, data, CPU)
    avatar, before = session.avatar, session.avatar.colors.detach().clone()
    prior = session.avatar.prior.entry.point.detach().clone()
    batches = data.stream(0, session.sampling, session.device)
    fit(avatar, session.corrections, batches, session.renderer, session.terms, session.densifier,
        session.optimizer, session.schedule, RunLog(tmp_path, 12), steps=12)  # fmt: skip
    assert not torch.equal(avatar.colors[:100], before[:100])
    assert isinstance(avatar, MeshBound) is variant.bound
    assert isinstance(session.densifier, DefaultDensity) is (name == "default_density")
    assert torch.equal(prior, avatar.prior.entry.point) is not variant.random_prior
    refines = not any("refined" in setting for setting in variant.settings)
    assert session.renderer.refine is refines
    wanted = 0 if "network.features=0" in variant.settings else 6
    assert avatar.features.shape[1] == wanted


def test_rows_are_means_of_differences_of_the_same_seed():
    one = paired("gain", {0: 30.0, 1: 32.0}, {1: 29.0, 0: 28.0}, "dB", ">= 2")
    assert one["value"] == 2.5 and one["holds"] and "seeds 2, 3" in one["note"]
    assert paired("ratio", {0: 0.1}, {0: 0.2}, "1", "<= 0.4")["holds"] is False
    missing = paired("gain", {0: 1.0}, {}, "dB", ">= 0")
    assert missing["value"] is None and missing["holds"] is None


def test_gaps_and_gains_come_from_their_questions():
    def job(novel: float, reenacted: float) -> dict:
        return {"scores": {"novel_view": {"face_psnr_db": novel},
                           "self_reenactment": {"face_psnr_db": reenacted, "mouth_psnr_db": 20.0},
                           "frozen": {"face_psnr_db": 22.0}}}  # fmt: skip

    results = Results({"full": {0: job(32.0, 30.0)}, "unregularised": {0: job(33.0, 29.0)},
                       "mesh_bound": {0: job(30.0, 27.5)}})  # fmt: skip
    rows = {row["id"]: row for row in gain_rows(results) + gap_rows(results)}
    assert rows["gain_over_mesh_bound_db"]["value"] == 2.5
    assert rows["gain_over_frozen_db"]["value"] == 8
    assert rows["mouth_gain_db"]["value"] == 0 and not rows["mouth_gain_db"]["holds"]
    assert rows["lpips_ratio_to_mesh_bound"]["note"] == "no LPIPS weights on this machine"
    assert rows["generalisation_gap_db"]["value"] == 2 and rows["generalisation_gap_db"]["holds"]
    assert rows["generalisation_gap_unregularised_db"]["value"] == 4
    assert rows["ablation_no_cnn_db"]["value"] is None
