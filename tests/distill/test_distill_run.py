"""`npga distill` end to end on a small untrained head model: files, refusals, resume."""

import json
import subprocess
import sys

import pytest
import torch

from npga.avatar.forward import ForwardPrior, load_prior, prior_file
from npga.core.config import as_plain, compose_config
from npga.core.errors import CheckpointError, ConfigError, OutputError, TrackError
from npga.core.mesh import Mesh
from npga.core.processes import Processes
from npga.core.similarity import Similarity
from npga.distill import loop, people
from npga.distill import run as distill_run
from npga.distill.config import DistillConfig
from npga.distill.judge import judge
from npga.distill.teacher import Region
from npga.distill.terms import Terms
from nphm_tracking import SequenceTrack, Track, load_head_model, save_track
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.model.load import save_head_model
from nphm_tracking.model.sizes import HeadModelSizes

SMALL = [
    "people=2", "surface_points=120", "schedule.steps=6", "schedule.round_steps=2",
    "schedule.pool_codes=8", "schedule.pool_points=16", "schedule.batch_codes=4",
    "schedule.rest_points=8", "network.width=8", "network.depth=2", "judge_people=1",
    "judge_codes=2", "judge_points=20", "device=cpu",
]  # fmt: skip


def sphere(rings: int = 12) -> Mesh:
    """A closed ball of radius 0.35, standing in for a head."""
    polar = torch.linspace(0.05, 3.09, rings)[:, None]
    round_ = torch.arange(2 * rings)[None] * torch.pi / rings
    ring = torch.stack([
        polar.sin() * round_.cos(),
        polar.cos().expand(-1, 2 * rings),
        polar.sin() * round_.sin(),
    ], -1)  # fmt: skip
    index = torch.arange(rings * 2 * rings).reshape(rings, 2 * rings)
    a, b = index[:-1], index[1:]
    c, d = a.roll(-1, 1), b.roll(-1, 1)
    faces = torch.cat([torch.stack([a, c, b], -1).reshape(-1, 3),
                       torch.stack([c, d, b], -1).reshape(-1, 3)])  # fmt: skip
    return Mesh(0.35 * ring.reshape(-1, 3), faces)


@pytest.fixture
def head_model(tmp_path, monkeypatch):
    """The path of an untrained head model, whose average surface is a ball."""
    torch.manual_seed(3)
    sizes = HeadModelSizes(
        anchor_count=9, pair_count=4, neighbours=8, blend_neighbour=8, geo_global=4, geo_local=2,
        app_global=4, app_local=2, exp=5, identity=3, anchor_width=8, backward_width=12,
        backward_depth=4, backward_skip=2, sdf_width=8, sdf_depth=2, color_width=8, color_depth=2,
    )  # fmt: skip
    model = HeadModel(sizes, 0.3 * torch.randn(9, 3))
    with torch.no_grad():
        model.exp_lower.fill_(0.0)
        model.exp_upper.fill_(1.0)
        model.geo_std.fill_(0.1)
    save_head_model(tmp_path / "head.safetensors", model, half=False)
    monkeypatch.setattr(people, "average_surface", lambda model, resolution: sphere())
    return tmp_path / "head.safetensors"


def test_training_points_are_denser_on_lips_and_lids():
    model = load_head_model(None)
    mesh = model.mesh(model.neutral_codes(), 40, canonical=True)
    expressions = people.known_expressions(model, [], 0)
    spread, even = people.sampled_surface(model, mesh, 2000, 0)
    points, dense = people.sampled_surface(model, mesh, 2000, 0, expressions)
    for name in (Region.lips, Region.lids):
        assert (even == name).float().mean() < 0.06
        assert 0.08 < (dense == name).float().mean() < 0.3
    lids = points[dense == Region.lids]
    assert (lids[:, 0] > 0.05).any() and (lids[:, 0] < -0.05).any()
    assert lids[:, 1].mean() > points[dense == Region.lips][:, 1].mean() + 0.15
    behind = [(some[:, 2] < -0.2).float().mean() for some in (spread, points)]
    assert behind[1] < 0.6 * behind[0], "nothing moves at the back of the head"


def test_mobility_is_large_at_the_mouth_and_nothing_at_the_back():
    model = load_head_model(None)
    reference = model.reference
    expressions = people.known_expressions(model, [], 0)
    moved = people.mobility(model, reference.points, expressions, seed=0)
    lips = reference.region == reference.names.index("lips")
    assert moved[lips].mean() * 250 > 2
    assert moved[reference.points[:, 2] < -0.3].mean() * 250 < 0.5


def test_f_begins_to_move_the_shipped_head():
    """A guard against the solution that moves nothing: most points of a head rest."""
    config = compose_config(
        DistillConfig, "distill", ["out=x", "people=3", "surface_points=800", "schedule.steps=150",
        "schedule.pool_codes=128", "schedule.round_steps=50", "device=cpu"],
    )  # fmt: skip
    model = load_head_model(None)
    mesh = model.mesh(model.neutral_codes(), 40, canonical=True)
    sampler = distill_run.training_sampler(config, model, mesh, [])
    torch.manual_seed(0)
    forward = ForwardPrior(model.exp_size, model.identity_size, hyper_size=model.hyper_size)
    loop.start_from_statistics(forward, sampler, seed=0)
    schedule = loop.Schedule(**as_plain(config.schedule))
    optimizer = loop.make_optimizer(forward)
    loop.distill(forward, sampler, Terms(), schedule, optimizer, seed=0)
    pairs = sampler.pairs(64, 64, torch.Generator().manual_seed(9), forward)
    with torch.no_grad():
        found = forward(pairs.x, pairs.omega, pairs.z_exp, pairs.identity)
    moving = (pairs.offset.norm(dim=-1) > 0.008) & (pairs.weight > 0)
    left = (found - pairs.offset).norm(dim=-1)[moving].mean()
    assert left < 0.75 * pairs.offset.norm(dim=-1)[moving].mean()


def test_training_people_lie_between_and_beyond_others():
    model = load_head_model(None)
    known = model.geo_stats.mean[None] + 0.5 * model.geo_stats.std
    z_geo = people.training_people(model, known, 8, torch.Generator().manual_seed(0))
    assert z_geo.shape == (9, model.geo_size) and torch.equal(z_geo[-1:], known)
    away = ((z_geo - model.geo_stats.mean) / model.geo_stats.std).norm(dim=-1)
    assert away[[2, 6]].max() < away[[0, 1, 4, 5]].mean()
    assert away[[3, 7]].min() > 1.2 * away[[0, 1, 4, 5]].mean()


def test_people_stand_on_their_own_surfaces():
    model = load_head_model(None)
    mesh = model.mesh(model.neutral_codes(), 40, canonical=True)
    points, region = people.sampled_surface(model, mesh, 500, 0)
    z_geo = people.random_people(model, 2, torch.Generator().manual_seed(0))
    subjects = people.subjects_on(model, points, region, z_geo)
    none = torch.zeros(500, model.hyper_size)
    for mine, code in zip(subjects.surface, z_geo, strict=True):
        before = model.sdf(torch.cat([points, none], -1), code).abs().mean()
        after = model.sdf(torch.cat([mine, none], -1), code).abs().mean()
        assert after < 0.004 and after < before / 4  # 1 mm


def config(head_model, out, *more) -> DistillConfig:
    return compose_config(
        DistillConfig, "distill", [f"head_model={head_model}", f"out={out}", *SMALL, *more]
    )


def test_run_leaves_prior_and_report(head_model, tmp_path):
    distill_run.run(config(head_model, tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"prior.safetensors", "report.html", "report.json", "report.png"}
    prior = load_prior(tmp_path / "out" / "prior.safetensors")
    assert prior.expression_size == 5 and prior.identity_size == 3
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["people"] == 1 and figures["codes"] == 2
    assert figures["residual_mean_mm"] > 0 and figures["broyden_converged_percent"] > 90
    with pytest.raises(OutputError, match="exists already"):
        distill_run.run(config(head_model, tmp_path / "out"))


def test_prior_of_another_head_model_is_refused(head_model, tmp_path):
    distill_run.run(config(head_model, tmp_path / "out"))
    with pytest.raises(CheckpointError, match="was distilled from head model"):
        load_prior(tmp_path / "out" / "prior.safetensors", "0123456789abcdef")


def test_interrupted_run_resumes_to_the_same_prior(head_model, tmp_path, monkeypatch):
    distill_run.run(config(head_model, tmp_path / "whole"))
    real = loop.save_state

    def stop_after_one_round(path, forward, optimizer, step):
        real(path, forward, optimizer, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(distill_run, "save_state", stop_after_one_round)
    with pytest.raises(KeyboardInterrupt):
        distill_run.run(config(head_model, tmp_path / "parts"))
    assert not (tmp_path / "parts").exists()
    monkeypatch.setattr(distill_run, "save_state", real)
    distill_run.run(config(head_model, tmp_path / "parts"))
    whole = load_prior(tmp_path / "whole" / "prior.safetensors").state_dict()
    parts = load_prior(tmp_path / "parts" / "prior.safetensors").state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not (tmp_path / "parts.partial").exists()


def test_track_of_another_head_model_is_refused(head_model, tmp_path):
    one = torch.ones(1)
    take = SequenceTrack(
        torch.zeros(1, dtype=torch.int64), torch.zeros(1, 5), Similarity.identity(1), one,
        torch.ones(1, dtype=torch.bool), 25.0,
    )  # fmt: skip
    track = Track(torch.zeros(24), torch.zeros(24), {"FREE": take}, "0123456789abcdef", "017", {})
    save_track(track, tmp_path / "track.safetensors")
    with pytest.raises(TrackError, match="was made with head model 0123456789abcdef"):
        distill_run.run(
            config(head_model, tmp_path / "out", f"tracks=[{tmp_path / 'track.safetensors'}]")
        )
    assert not (tmp_path / "out.partial").exists()


def test_impossible_settings_are_refused(head_model, tmp_path):
    with pytest.raises(ConfigError, match=r"schedule.steps=0 was given"):
        config(head_model, tmp_path / "out", "schedule.steps=0")
    with pytest.raises(ConfigError, match="is more than"):
        config(head_model, tmp_path / "out", "schedule.pool_codes=2")


@pytest.mark.slow
def test_two_processes_distil_one_prior(tmp_path):
    """`torchrun npga distill`: one result, of both; a batch that cannot be shared is refused."""
    few = [word for word in SMALL if not word.startswith("surface_points")]
    words = ["distill", *few, "surface_points=200", "surface_resolution=32"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch += ["-m", "npga", *words, f"out={tmp_path / 'prior'}"]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert load_prior(tmp_path / "prior" / "prior.safetensors").expression_size == 52
    assert not (tmp_path / "prior.partial").exists()


def test_a_share_of_a_step_is_drawn_by_each_process(head_model):
    model = load_head_model(head_model)
    small = config(head_model, "x")
    sampler = distill_run.training_sampler(small, model, sphere(), [])
    first, second = (
        sampler.pairs(8, 16, loop.generator_for(0, 0, 0, rank), None) for rank in (0, 1)
    )
    assert not torch.equal(first.z_exp, second.z_exp)
    three = Processes(0, 3, torch.device("cpu"))
    forward = distill_run.new_forward(small, sampler)
    with pytest.raises(ConfigError, match="pool_codes=8 cannot be divided among 3"):
        loop.distill(
            forward, sampler, Terms(), loop.Schedule(**as_plain(small.schedule)),
            loop.make_optimizer(forward), seed=0, team=three,
        )  # fmt: skip


def test_the_page_shows_regions_worst_cases_and_folds(head_model, tmp_path):
    distill_run.run(config(head_model, tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    for title in ("By region", "Expressions", "Worst cases", "Fold-overs", "Training"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("data:image/jpeg") >= 11 + 2
    assert "http" not in page.replace("http-equiv", "")


def test_the_shipped_f_belongs_to_the_open_prior_and_inverts_it():
    model = load_head_model(None)
    forward = load_prior(prior_file(None), model.checksum())
    assert prior_file(None).stat().st_size < 1e6
    mesh = model.mesh(model.neutral_codes(), 40, canonical=True)
    few = compose_config(DistillConfig, "distill", ["out=x", "judge_people=2"])
    _, strangers = distill_run.unseen_sampler(few, model, mesh)
    found = judge(forward, strangers, codes=4, points=40, seed=5)
    assert found.residual_mean_mm < 0.2, "millimetres"
    assert found.lips_lids_mean_mm < 0.8
    assert found.motion_mean_mm > 3 * found.residual_mean_mm
    assert found.fold_over_percent < 0.05 and found.agreement_mean_mm < 0.3
