"""`npga fit` and `npga evaluate` on a plain folder of stills, end to end."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from tiny_person import HEIGHT, MODEL, WIDTH, body, opened, rig, take, tiny_avatar

import npga.fit.correct
import npga.fit.setup
from npga.avatar import load_avatar, load_prior, save_avatar, save_prior
from npga.capture import open_capture
from npga.core.config import compose_config
from npga.core.errors import CaptureError, CheckpointError, ConfigError, OutputError, TrackError
from npga.core.mesh import Mesh
from npga.fit.batch import FitData
from npga.fit.config import CorrectConfig, EvaluateConfig, FitConfig
from npga.fit.evaluate import judge
from npga.fit.renderer import Renderer
from npga.fit.report import run_evaluate
from npga.fit.run import build_terms, run
from npga.fit.setup import Inputs
from npga.raster import Backend
from nphm_tracking import (
    Codes,
    HeadModel,
    SequenceTrack,
    Track,
    load_head_model,
    load_track,
    save_track,
)
from nphm_tracking.model.head_model import CodeStatistics


class BallModel(HeadModel):
    """A head model that only knows a ball and no motion."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.expression_names = ("jawOpen",)

    def checksum(self) -> str:
        return MODEL

    @property
    def exp_stats(self) -> CodeStatistics:
        return CodeStatistics(torch.zeros(3), torch.ones(3), torch.zeros(3), torch.ones(3))

    @property
    def landmark_count(self) -> int:
        return 4

    landmark_slopes = None

    def landmarks(self, z_geo):
        return body().means[:4]

    def neutral_codes(self) -> Codes:
        return Codes(torch.zeros(4), torch.zeros(2), torch.zeros(3))

    def compress(self, z_geo):
        return z_geo

    def mesh(self, codes, resolution=128, canonical=False):
        shape = trimesh.creation.icosphere(subdivisions=3, radius=0.35)
        return Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())

    def backward_field(self, points, identity, z_exp):
        return torch.zeros_like(points), torch.zeros(len(points), 2)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Stills, mattes, cameras.json, track and prior of the tiny person."""
    root = tmp_path_factory.mktemp("tiny") / "ada"
    cameras = rig()
    sequences = {}
    for name, frames in (("EXP-1", 4), ("EXP-2", 3), ("FREE", 3)):
        sequence = take(name, frames, cameras)
        for c, serial in enumerate(cameras.ids):
            for kind, stack in (("", sequence.images), ("mattes/", sequence.mattes)):
                folder = root / name / f"{kind}cam_{serial}"
                folder.mkdir(parents=True)
                for t in range(frames):
                    Image.fromarray(stack[t, c].numpy()).save(folder / f"{t:04d}.png")
        ok = torch.ones(frames, dtype=torch.bool)
        sequences[name] = SequenceTrack(
            torch.arange(frames), sequence.z_exp, sequence.world_from_head, torch.ones(frames),
            ok, 25.0,
        )  # fmt: skip
    entries = {
        serial: {"K": cameras.K[c].tolist(), "cam_from_world": cameras.cam_from_world[c].tolist(),
                 "width": WIDTH, "height": HEIGHT}
        for c, serial in enumerate(cameras.ids)
    }  # fmt: skip
    (root / "cameras.json").write_text(json.dumps({"cameras": entries, "name": "ada", "fps": 25}))
    side = root.parent
    track = Track(torch.zeros(4), torch.zeros(2), sequences, MODEL, "ada", {})
    save_track(track, side / "track.safetensors")
    prior = tiny_avatar(FitData((take("EXP-1", 2, cameras),))).prior
    save_prior(side / "prior.safetensors", prior, MODEL)
    return root


@pytest.fixture(autouse=True)
def ball_model(monkeypatch):
    for module in (npga.fit.setup, npga.fit.correct):
        monkeypatch.setattr(module, "load_head_model", lambda path: BallModel())


def settings(capture, out, *more):
    side = capture.parent
    return compose_config(
        FitConfig,
        "fit",
        [
            f"capture={capture}", f"track={side / 'track.safetensors'}", f"prior={side}",
            f"out={out}", f"cache_dir={side / 'cache'}", f"width={WIDTH}", f"height={HEIGHT}",
            "held_out_cameras=[c]", "steps=32", "initial_gaussians=150", "max_gaussians=200",
            "window=24", "save_every=8", "preview_every=16", "network.features=6",
            "network.screen_features=3", "network.detail_width=16", "network.refiner_width=8",
            "densify.start=4", "densify.every=10", "optim.colors=0.05",
            "regions.mouth=0", "regions.eyes=0",
            *more,
        ],
    )  # fmt: skip


def test_fit_then_evaluate(capture, tmp_path, capsys):
    run(settings(capture, tmp_path / "avatar"))
    names = {path.name for path in (tmp_path / "avatar").iterdir()}
    assert names == {"avatar.safetensors", "fit.json", "metrics.jsonl", "previews",
                     "drift.json", "drift.html", "track.safetensors"}  # fmt: skip
    said = capsys.readouterr().out
    assert "ms per step, about" in said and "7 frames of 2 sequences" in said
    stored = json.loads((tmp_path / "avatar" / "fit.json").read_text())
    assert stored["split"]["held_out_cameras"] == ["c"]
    assert stored["split"]["training_sequences"] == ["EXP-1", "EXP-2"]
    assert stored["frames"] == 7 and stored["density_changes"]
    avatar = load_avatar(tmp_path / "avatar" / "avatar.safetensors", MODEL)
    assert avatar.expression_upper[0] == 1 and len(avatar) <= 200
    drift = json.loads((tmp_path / "avatar" / "drift.json").read_text())
    assert drift["of"] == "pose" and drift["turn_deg"]["max"] > 0 and len(drift["frames"]) == 7
    assert "fit: track corrected by" in said
    refined, given = load_track(tmp_path / "avatar"), load_track(capture.parent)
    moved = [
        not torch.equal(
            refined.sequences[name].world_from_head.rotation, one.world_from_head.rotation
        )
        for name, one in given.sequences.items()
    ]
    assert moved == [True, True, False], "FREE is held out"

    side = capture.parent
    run_evaluate(compose_config(EvaluateConfig, "evaluate", [
        f"avatar={tmp_path / 'avatar'}", f"capture={capture}", f"out={tmp_path / 'evaluate'}",
        f"track={side / 'track.safetensors'}", f"cache_dir={side / 'cache'}", "frame_stride=1",
        f"width={WIDTH}", f"height={HEIGHT}", "held_out_cameras=[c]", "landmarks=false",
    ]))  # fmt: skip
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    rows = {row["id"]: row for row in metrics["rows"]}
    assert rows["novel_view.avatar.psnr_matte_db"]["pictures"] == 7
    assert rows["self_reenactment.avatar.psnr_matte_db"]["pictures"] == 3
    assert rows["novel_view.avatar.psnr_whole_db"]["value"] > 12
    assert metrics["protocol"]["split"]["held_out_sequence"] == "FREE"
    assert not metrics["protocol"]["cameras_were_trained_on"]
    assert rows["novel_view.avatar.flicker_matte"]["pictures"] == 3
    assert rows["self_reenactment.raw.flicker_matte"]["pictures"] == 1
    for metric, why in (
        ("psnr_face_db", "another head model"), ("flicker_face", "another head model"),
        ("akd_percent", "landmarks=false"), ("csim", "no identity_model"),
    ):  # fmt: skip
        row = rows[f"novel_view.avatar.{metric}"]
        assert row["value"] is None and row["pictures"] == 0 and why in row["why"]
    said = capsys.readouterr().out
    assert "regions is null: the track was made with another head model" in said
    for name in ("novel_view", "self_reenactment"):
        assert (tmp_path / "evaluate" / f"{name}.png").stat().st_size > 1000
        assert (tmp_path / "evaluate" / f"{name}_worst.png").stat().st_size > 1000


def correction(capture, avatar, out, *more):
    side = capture.parent
    return compose_config(
        CorrectConfig,
        "correct",
        [
            f"avatar={avatar}", f"capture={capture}", f"track={side / 'track.safetensors'}",
            f"out={out}", f"cache_dir={side / 'cache'}", f"width={WIDTH}", f"height={HEIGHT}",
            "held_out_cameras=[c]", "sequences=[FREE]", "search.steps=6", "search.regions.mouth=0",
            "search.regions.eyes=0", "save_every=1", *more,
        ],
    )  # fmt: skip


def test_a_held_out_take_is_corrected_with_the_avatar(capture, tmp_path, monkeypatch, capsys):
    run(settings(capture, tmp_path / "avatar"))
    done = correction(capture, tmp_path / "avatar", tmp_path / "whole")
    npga.fit.correct.run(done)
    assert "3 frames, landmarks moved by" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {"track.safetensors", "drift.json", "drift.html", "corrected.png"}
    given, found = load_track(capture.parent), load_track(tmp_path / "whole")
    (seen,) = npga.fit.correct.takes_of(done, open_capture(capture), given).sequences
    assert seen.name == "FREE" and "c" not in seen.cameras.ids and len(seen.cameras) == 3
    for name in ("EXP-1", "EXP-2"):
        assert torch.equal(given.sequences[name].z_exp, found.sequences[name].z_exp)
    apart = given.sequences["FREE"].world_from_head.rotation
    assert not torch.equal(apart, found.sequences["FREE"].world_from_head.rotation)
    kept = npga.fit.correct.save_tensors

    def interrupted(path, *rest, **more):
        kept(path, *rest, **more)
        if more["meta"] == {"frames": 2}:
            raise KeyboardInterrupt

    monkeypatch.setattr(npga.fit.correct, "save_tensors", interrupted)
    again = correction(capture, tmp_path / "avatar", tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        npga.fit.correct.run(again)
    monkeypatch.setattr(npga.fit.correct, "save_tensors", kept)
    npga.fit.correct.run(again)
    resumed = load_track(tmp_path / "again").sequences["FREE"]
    assert torch.equal(resumed.z_exp, found.sequences["FREE"].z_exp)
    assert torch.equal(
        resumed.world_from_head.translation, found.sequences["FREE"].world_from_head.translation
    )
    with pytest.raises(OutputError, match="exists already"):
        npga.fit.correct.run(done)
    assert json.loads((tmp_path / "whole" / "drift.json").read_text())["warnings"] == []
    blind = correction(capture, tmp_path / "avatar", tmp_path / "x", "held_out_cameras=[a,b,c,d]")
    with pytest.raises(CaptureError, match="are held out"):
        npga.fit.correct.run(blind)


def test_a_track_that_is_believed_leaves_no_report(capture, tmp_path):
    run(settings(capture, tmp_path / "avatar", "corrections.of=none", "steps=8"))
    names = {path.name for path in (tmp_path / "avatar").iterdir()}
    assert names == {"avatar.safetensors", "fit.json", "metrics.jsonl", "previews"}
    with pytest.raises(ConfigError, match="corrections.start=2.0 is no share"):
        settings(capture, tmp_path / "out", "corrections.start=2")


def test_region_weights_and_lpips_reach_the_terms(capture, tmp_path, monkeypatch):
    model, side = load_head_model(), capture.parent
    track = load_track(side / "track.safetensors")
    track = replace(track, z_geo=model.neutral_codes().z_geo)
    inputs = Inputs(open_capture(capture), track, model, load_prior(side / "prior.safetensors"))
    out = tmp_path / "out"
    plain = build_terms(settings(capture, out), inputs, torch.device("cpu"))
    assert plain.pixel_weights is None and plain.perceptual is None
    weighted = settings(capture, out, "regions.mouth=2", "regions.eyes=3")
    weights = build_terms(weighted, inputs, torch.device("cpu")).pixel_weights
    assert (weights.mouth, weights.eyes) == (2, 3) and len(weights.regions.points) == 478
    with pytest.raises(ConfigError, match="regions.mouth=-1"):
        settings(capture, out, "regions.mouth=-1")
    monkeypatch.setattr("npga.core.lpips.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="No weights of LPIPS-alex are installed"):
        build_terms(settings(capture, out, "terms.lpips=0.1"), inputs, torch.device("cpu"))


def test_an_interrupted_fit_goes_on_to_the_same_avatar(capture, tmp_path, monkeypatch):
    run(settings(capture, tmp_path / "whole", "steps=64"))
    calls = []
    real = npga.fit.run.save_state

    def interrupted(folder, done, *rest):
        real(folder, done, *rest)
        calls.append(done)
        if calls == [32]:  # asked for every 8, kept where F's turns are taken anew
            raise KeyboardInterrupt

    monkeypatch.setattr(npga.fit.run, "save_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(settings(capture, tmp_path / "parts", "steps=64"))
    assert (tmp_path / "parts.partial" / "state.pt").exists()
    with pytest.raises(OutputError, match="other settings"):
        run(settings(capture, tmp_path / "parts", "steps=64", "seed=1"))
    run(settings(capture, tmp_path / "parts", "steps=64"))
    assert calls[1:] == [64]
    one, other = (
        load_avatar(tmp_path / name / "avatar.safetensors").state_dict()
        for name in ("whole", "parts")
    )
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    told = [(tmp_path / name / "drift.json").read_text() for name in ("whole", "parts")]
    assert told[0] == told[1]
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts")]
    steps = [[json.loads(line)["step"] for line in text.splitlines()] for text in lines]
    assert steps[0] == [25, 50, 64] and steps[1][-1] == 64


def test_what_does_not_belong_together_is_refused(capture, tmp_path):
    other = tiny_avatar(FitData((take("E", 2, rig()),))).prior
    save_prior(tmp_path / "prior.safetensors", other, "ff")
    with pytest.raises(CheckpointError, match="distilled from head model ff"):
        run(settings(capture, tmp_path / "out", f"prior={tmp_path}"))
    with pytest.raises(TrackError, match="it is the held-out sequence"):
        run(settings(capture, tmp_path / "out", "sequences=[EXP-1,FREE]"))
    assert not (tmp_path / "out").exists()


def test_a_true_avatar_is_judged_better_than_a_frozen_one(data):
    avatar = tiny_avatar(data, 150)
    truth = body()
    with torch.no_grad():
        for name in ("means", "quats", "log_scales", "logit_opacities", "colors"):
            getattr(avatar, name).copy_(getattr(truth, name))
        avatar.logit_attachment.fill_(50.0)

    def decode(z_exp, head, torso=None, basis=None):
        posed = type(avatar).decode(avatar, z_exp, head, torso)
        local = opened(truth, z_exp).transformed(head)
        features = torch.zeros(150, avatar.sizes.screen_features)
        colors = torch.cat([local.colors, features], 1)
        moved = type(local)(
            local.means, local.quats, local.log_scales, local.logit_opacities, colors
        )
        return type(posed)(moved, posed.prior_offset, posed.residuals)

    avatar.decode = decode
    judgement = judge(Renderer(avatar, Backend.cpu, 1.0, False), data, "truth")
    rows = {row["id"]: row["value"] for row in judgement.rows("t")}
    assert rows["t.avatar.psnr_whole_db"] > 40, "8 bits of pictures and mattes are all that is lost"
    assert rows["t.gain_over_frozen_db"] > 10
    assert len(judgement.scores) == 28 and len(judgement.worst) == 8
    lowest = min(score.avatar.psnr_matte_db for score in judgement.scores)
    assert judgement.worst[0][0] == lowest
    assert np.isfinite(lowest)


def test_the_avatar_file_belongs_to_its_head_model(capture, tmp_path, data):
    save_avatar(
        tmp_path / "avatar.safetensors", tiny_avatar(data), prior_checksum="0", participant="ada"
    )
    with pytest.raises(CheckpointError, match="speaks the codes"):
        load_avatar(tmp_path / "avatar.safetensors", "ff")
