"""`bench_quality`: what is judged, what runs, what is shown."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_corrections import true_session, with_codes
from tiny_person import Knobs, rig, take, tiny_avatar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import bench_quality, quality_job
from benchmarks.baselines.judging import chosen_frames, draw, face_box, judge
from benchmarks.bench_quality import HELD_OUT, finished, plan, run_jobs
from benchmarks.quality_job import Job
from benchmarks.quality_rows import TILE_HEIGHT, Results, corrected_rows, draw_grid
from npga.core.images import read_image, write_image
from npga.core.metrics import psnr
from npga.fit.batch import FitData
from npga.fit.regions import FaceRegions, RegionMasks
from npga.fit.renderer import Renderer
from npga.fit.terms import Terms
from npga.raster import Backend


def boxes(batch) -> RegionMasks:
    """A face in the middle, a mouth in it, eyes that no camera sees."""
    face, mouth = torch.zeros_like(batch.matte), torch.zeros_like(batch.matte)
    face[:, 10:40, 10:30] = 1
    mouth[:, 30:36, 15:25] = 1
    return RegionMasks(face, mouth, torch.zeros_like(face))


def test_scores_are_means_over_the_pictures_that_show_a_region(data):
    renderer = Renderer(tiny_avatar(data), Backend.cpu, 1.0, False)
    scores = judge(renderer, data, boxes, None, still=False)
    assert set(scores) == {"face_psnr_db", "mouth_psnr_db", "matte_psnr_db"}
    expected = []
    for index in range(len(data)):
        batch = data.batch(index)
        pictures = draw(renderer, batch)
        expected += [psnr(pictures[c], batch.image[c], boxes(batch).mouth[c]) for c in range(4)]
    assert scores["mouth_psnr_db"] == pytest.approx(sum(expected) / 28)


def test_a_still_avatar_wears_its_mean_expression(data):
    avatar = tiny_avatar(data)
    torch.nn.init.normal_(avatar.detail.exit.weight)
    renderer = Renderer(avatar, Backend.cpu, 1.0, False)
    batch = data.batch(0, [1])
    moving, still = draw(renderer, batch), draw(renderer, batch, still=True)
    assert not torch.equal(moving, still)
    mean = draw(renderer, replace(batch, z_exp=avatar.expression_mean))
    torch.testing.assert_close(still, mean)


def test_shown_are_an_open_mouth_closed_eyes_and_two_others(data):
    points = torch.zeros(478, 3)
    points[14, 1], points[[145, 374], 1] = -0.05, -0.02
    slopes = torch.zeros(478, 3, 3)
    slopes[14, 1, 0], slopes[[145, 374], 1, 0] = -0.1, 0.01
    slopes[145, 1, 1] = slopes[374, 1, 1] = 0.5
    data.sequences[1].z_exp[1, 1] = 0.03
    shown = chosen_frames(data, FaceRegions(points, slopes), tiny_avatar(data), "c")
    data.sequences[1].z_exp[1, 1] = 0.0
    assert [one.title for one in shown] == ["mouth open", "eyes closed", "rest", "far from rest"]
    assert shown[0].index in (3, 6) and shown[1].index == 5
    assert len({one.index for one in shown}) == 4 and all(one.camera == 2 for one in shown)


def test_the_box_holds_the_face_and_some_more(data):
    rows, columns = face_box(boxes(data.batch(0, [0])), 0)
    assert (rows, columns) == (slice(0, 48), slice(3, 37))
    nothing = RegionMasks(*(torch.zeros(1, 5, 5) for _ in range(3)))
    assert face_box(nothing, 0) == (slice(None), slice(None))


def job(folder: Path, name: str) -> Job:
    return Job(name, 0, [], str(folder / name), 1, 1, "a", 1, None, False)


def fake_start(script: str):
    def start(one: Job) -> subprocess.Popen:
        out = Path(one.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "job.json").write_text(json.dumps(one.__dict__))
        return subprocess.Popen([sys.executable, "-c", script, str(out / "result.json")])

    return start


def test_jobs_run_once_and_failures_are_told(tmp_path, monkeypatch):
    script = "import sys; open(sys.argv[1], 'w').write('{}')"
    monkeypatch.setattr(bench_quality, "start", fake_start(script))
    jobs = [job(tmp_path, name) for name in ("full", "vanilla")]
    assert run_jobs(jobs, 2, 60) == [] and all(finished(one) for one in jobs)
    monkeypatch.setattr(bench_quality, "start", fake_start("raise SystemExit(3)"))
    assert run_jobs(jobs, 2, 60) == []
    assert finished(replace(jobs[0], at_once=5))
    assert not finished(replace(jobs[0], seed=1)), "another job's result does not count"
    assert run_jobs([job(tmp_path, "no_cnn")], 1, 60) == ["no_cnn"]


def test_what_runs_after_the_budget_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_quality, "start", fake_start("import time; time.sleep(60)"))
    jobs = [job(tmp_path, name) for name in ("full", "vanilla")]
    assert run_jobs(jobs, 1, 0.5) == ["full", "vanilla"]


def test_every_variant_of_a_seed_comes_before_the_next_seed(tmp_path):
    args = SimpleNamespace(
        seeds=[0, 1], variants=["full", "mesh_bound"], out=tmp_path, jobs=1, judge_stride=2,
        novel_stride=9, lpips_weights=None,
    )  # fmt: skip
    jobs = plan(args, ["steps=5"])
    assert list(jobs) == [("full", 0), ("mesh_bound", 0), ("full", 1), ("mesh_bound", 1)]
    assert jobs["mesh_bound", 1].settings[:2] == ["steps=5", "seed=1"]
    assert len(HELD_OUT) == 3


def test_the_grid_shows_truth_baselines_and_errors(tmp_path):
    folders = {}
    for name, level in (("full", 100), ("no_cnn", 80), ("mesh_bound", 60)):
        folder = folders[name, 0] = tmp_path / name
        for kind, value in (("truth", 100), ("drawn", level), ("frozen", 90)):
            write_image(folder / f"tile_0_{kind}.png", np.full((40, 20, 3), value, np.uint8))
        (folder / "result.json").write_text(json.dumps({"shown": [{"title": "rest"}]}))
    draw_grid(Results.read(folders), folders, tmp_path / "grid.png")
    grid = read_image(tmp_path / "grid.png")
    half = TILE_HEIGHT // 2  # the width of a tile, too
    assert grid.shape[1] == 5 * half
    middle = grid[18 + half, half // 2 :: half, 0].tolist()
    below = grid[18 + TILE_HEIGHT + half, half // 2 :: half, 0].tolist()
    assert middle == [100, 100, 60, 90, 80]
    assert below == [255, 0, 160, 40, 80]


def test_a_variant_is_asked_again_with_the_track_it_corrected(monkeypatch):
    truth = FitData((take("FREE", 3, rig()),))
    wrong = with_codes(truth, lambda z: z + torch.tensor([0.2, 0.0, 0.0]))
    session = true_session(wrong, Knobs())
    monkeypatch.setattr(quality_job, "search_terms", lambda *known: Terms({"refined_l1": 1.0}))
    inputs = SimpleNamespace(model=SimpleNamespace(exp_stats=None), track=None)
    found = quality_job.corrected(wrong, wrong, session, inputs)
    apart = (found.expressions - truth.expressions)[:, 0].abs()
    assert apart.max() < 0.07, apart
    assert torch.equal(found.sequences[0].images, wrong.sequences[0].images)


def test_corrected_scores_are_paired_with_each_other(tmp_path):
    folders = {}
    for name, tracked, corrected in (("full", 20.0, 23.0), ("mesh_bound", 19.0, 20.5)):
        folder = folders[name, 0] = tmp_path / name
        folder.mkdir()
        scores = {
            "self_reenactment": {"face_psnr_db": tracked, "face_lpips": 0.2},
            "corrected": {"face_psnr_db": corrected, "face_lpips": 0.2 - corrected / 200},
        }
        (folder / "result.json").write_text(json.dumps({"scores": scores}))
    rows = {row["id"]: row for row in corrected_rows(Results.read(folders))}
    assert rows["correction_gain_db"]["value"] == pytest.approx(3.0)
    assert rows["corrected_gain_over_mesh_bound_db"]["value"] == pytest.approx(2.5)
    assert rows["corrected_gain_over_mesh_bound_db"]["holds"]
    assert rows["corrected_lpips_ratio_to_mesh_bound"]["value"] == pytest.approx(0.872, abs=1e-3)
    assert rows["corrected_mouth_gain_over_mesh_bound_db"]["value"] is None
