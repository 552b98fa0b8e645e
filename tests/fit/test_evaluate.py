"""Scores of pictures: regions, landmarks, identity, flicker, and what stays null."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_person import HEIGHT, rig, take, tiny_avatar

from npga.core.config import compose_config
from npga.core.errors import CheckpointError, ConfigError, TrackError
from npga.core.lpips import Lpips
from npga.core.metrics import flicker, psnr, ssim
from npga.fit.batch import FitData
from npga.fit.config import EvaluateConfig
from npga.fit.evaluate import judge, judge_flicker
from npga.fit.faces import FIVE, TEMPLATE, IdentityNetwork, aligned, landmark_distance
from npga.fit.instruments import Instruments, open_instruments
from npga.fit.regions import FaceRegions, RegionMasks
from npga.fit.renderer import Renderer
from npga.fit.report import rows_in_a_row
from npga.fit.scores import METRICS, Truth
from npga.raster import Backend
from nphm_tracking import SequenceTrack, Track, load_head_model
from nphm_tracking.landmarks import DETAIL_IDS, LID_IDS


def face_points(scale: float = 1.0) -> np.ndarray:
    """Landmarks whose eyes lie 20 px apart and whose five points are the template's, shrunk."""
    points = np.random.default_rng(0).uniform(40, 60, (478, 2)).astype(np.float32)
    lids = np.array(sorted(LID_IDS))
    points[lids[:16]], points[lids[16:]] = (30, 40), (50, 40)
    points[list(FIVE)] = 0.5 * np.array(TEMPLATE) + 10
    return points * scale


class Detector:
    """Finds a face in any picture that is not black; its mouth is lower the redder it is."""

    count = 478

    def detect(self, image: np.ndarray) -> np.ndarray | None:
        if image.max() == 0:
            return None
        points = face_points()
        points[sorted(DETAIL_IDS), 1] += image[..., 0].mean()
        return points


class TopHalf(FaceRegions):
    """Regions of the tiny person: the face is the upper half, the mouth unseen by camera a."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(478, 3), None)

    def masks(self, batch, avatar) -> RegionMasks:
        face = torch.zeros_like(batch.matte)
        face[:, : HEIGHT // 2] = 1
        mouth = face.clone()
        mouth[[name == "a" for name in batch.cameras.ids]] = 0
        return RegionMasks(face, mouth, torch.zeros_like(face))


@pytest.fixture(scope="module")
def renderer(data):
    return Renderer(tiny_avatar(data), Backend.cpu, 1.0, False)


def test_regions_are_scored_where_they_are_seen_and_null_elsewhere(data, renderer):
    judgement = judge(renderer, data, "x", Instruments(regions=TopHalf()))
    plain = judge(renderer, data, "x")
    rows = {row["id"]: row for row in judgement.rows("x")}
    assert rows["x.avatar.psnr_face_db"]["pictures"] == 28
    assert rows["x.avatar.psnr_mouth_db"]["pictures"] == 21
    assert rows["x.gain_over_frozen_mouth_db"]["pictures"] == 21
    assert rows["x.raw.ssim_eyes"]["value"] is None
    assert rows["x.raw.ssim_eyes"]["why"] == "seen in no picture"
    first, without = judgement.scores[0], plain.scores[0]
    assert first.camera == "a" and first.avatar.psnr_mouth_db is None
    assert without.avatar.psnr_face_db is None
    assert first.avatar.psnr_matte_db == without.avatar.psnr_matte_db
    batch = data.batch(0)
    posed = renderer.avatar.decode(batch.z_exp, batch.world_from_head, batch.torso)
    with torch.no_grad():
        picture = renderer(posed, batch.cameras).raw[1].clamp(0, 1)
    half = TopHalf().masks(batch, renderer.avatar).face[1]
    score = judgement.scores[1].avatar
    assert score.psnr_face_db == pytest.approx(psnr(picture, batch.image[1], half), abs=1e-3)
    assert score.ssim_face == pytest.approx(ssim(picture, batch.image[1], half), abs=1e-4)
    every = {row["id"].rsplit(".", 1)[1] for row in rows.values() if ".avatar." in row["id"]}
    assert set(METRICS) <= every


def test_lpips_of_a_picture_with_itself_is_zero_and_vgg_looks_at_few(data, renderer):
    torch.manual_seed(0)
    large = torch.rand(72, 72, 3)
    nets = {net: Lpips(net).requires_grad_(False) for net in ("alex", "vgg")}
    truth = Truth(large, torch.ones(72, 72), {}, Instruments(lpips=nets), vgg=False)
    same, other = truth.score(large), truth.score(1 - large)
    assert same.lpips_alex_whole == 0 and other.lpips_alex_whole > 0
    assert other.lpips_alex_matte == pytest.approx(other.lpips_alex_whole, rel=1e-5)
    assert other.lpips_vgg_whole is None and other.lpips_alex_face is None
    nets["vgg"].features = lambda pictures: [torch.ones(1, 1, 2, 2)] * 5
    few = Instruments(lpips={"vgg": nets["vgg"]}, vgg_pictures=5)
    nets["vgg"].heads = torch.nn.ParameterList([torch.ones(1)] * 5)
    rows = {row["id"]: row for row in judge(renderer, data, "x", few).rows("x")}
    assert rows["x.avatar.lpips_vgg_whole"]["pictures"] == 5
    assert rows["x.avatar.lpips_vgg_whole"]["value"] == 0


def test_what_is_absent_is_told_and_what_was_asked_for_by_path_must_be_there(tmp_path, monkeypatch):
    def absent(path):
        raise TrackError("Detecting landmarks needs mediapipe.", "Install it.")

    def opened(*more, track=None):
        needed = ["avatar=x", "capture=x", "track=x", "out=x"]
        config = compose_config(EvaluateConfig, "evaluate", [*needed, *more])
        return open_instruments(config, track or mine, torch.device("cpu"))

    model = load_head_model()
    neutral = model.neutral_codes()
    mine = Track(neutral.z_geo, neutral.z_app, {}, model.checksum(), "ada", {})
    monkeypatch.setattr("npga.core.lpips.find_spec", lambda name: None)
    monkeypatch.setattr("npga.fit.instruments.open_detector", absent)
    found = opened("identity_model=some.onnx")
    assert found.regions is not None and not found.lpips and found.identity is None
    assert set(found.absent) == {"lpips_alex", "lpips_vgg", "akd", "csim"}
    assert found.why("akd_percent") == "Detecting landmarks needs mediapipe."
    assert "faces cannot be aligned" in found.why("csim")
    assert "No weights of LPIPS-vgg" in found.why("lpips_vgg_face")
    assert found.why("psnr_face_db") == "seen in no picture"
    stranger = replace(mine, head_model_checksum="ff")
    assert "another head model" in opened(track=stranger).why("ssim_eyes")
    with pytest.raises(TrackError, match="needs mediapipe"):
        opened("landmarker=some.task")
    (tmp_path / "alex.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read as LPIPS weights"):
        opened(f"lpips_weights={tmp_path}")
    with pytest.raises(ConfigError, match="flicker_frames=-1"):
        opened("flicker_frames=-1")


def test_landmark_distance_is_told_in_eye_distances():
    true = face_points()
    drawn = true + np.array([3.0, 4.0], np.float32)
    assert landmark_distance(drawn, true) == pytest.approx(100 * 5 / 20, rel=1e-5)
    assert landmark_distance(true, true) == 0
    assert landmark_distance(2 * drawn, 2 * true) == pytest.approx(25, rel=1e-5)
    moved = true.copy()
    plain = [i for i in range(478) if i not in DETAIL_IDS]
    moved[plain] += 9
    assert landmark_distance(moved, true) == 0


def test_pictures_without_a_face_have_no_landmark_distance():
    picture, black = torch.zeros(20, 20, 3), torch.zeros(20, 20, 3)
    picture[..., 0] = 10 / 255
    judges = Instruments(detector=Detector())
    truth = Truth(picture, torch.ones(20, 20), {}, judges, vgg=False)
    redder = picture.clone()
    redder[..., 0] = 12 / 255
    assert truth.score(redder).akd_percent == pytest.approx(100 * 2 / 20, rel=1e-4)
    assert truth.score(black).akd_percent is None
    assert Truth(black, black[..., 0], {}, judges, vgg=False).score(picture).akd_percent is None


def test_faces_are_turned_onto_the_template():
    size = 160
    rows, columns = np.mgrid[:size, :size] + 0.5
    angle, scale, shift = 0.4, 0.7, np.array([25.0, 10.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(turn)
    image = np.zeros((size, size, 3), np.uint8)
    place = (np.stack([columns, rows], -1) - shift) @ back.T
    image[..., 0], image[..., 1] = (place.clip(0, 250) + 0.5).astype(np.uint8).transpose(2, 0, 1)
    points = np.zeros((478, 2), np.float32)
    points[list(FIVE)] = np.array(TEMPLATE) @ turn.T + shift
    face = aligned(image, points)
    expected = torch.arange(112) + 0.5
    inner = slice(30, 80)
    assert (face[inner, inner, 0] - expected[None, inner]).abs().max() < 1.5
    assert (face[inner, inner, 1] - expected[inner, None]).abs().max() < 1.5


def test_identity_is_the_cosine_of_embeddings(tmp_path, monkeypatch):
    class Session:
        def __init__(self, path, providers):
            if b"bad" in Path(path).read_bytes():
                raise RuntimeError("no model")

        def get_inputs(self):
            return [SimpleNamespace(name="face")]

        def run(self, names, feeds):
            (given,) = feeds.values()
            assert given.shape == (1, 3, 112, 112) and given.min() >= -1 and given.max() <= 1
            return [given.mean((2, 3)) + 1.0]

    fake = ModuleType("onnxruntime")
    fake.InferenceSession = Session
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    good.write_bytes(b"good"), bad.write_bytes(b"bad")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CheckpointError, match="needs onnxruntime"):
        IdentityNetwork(good, "-1..1")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    for path, pixels, message in (
        (tmp_path / "none", "-1..1", "is not there"), (good, "0..1", "is unknown"),
        (bad, "-1..1", "cannot be opened"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=message):
            IdentityNetwork(path, pixels)
    judges = Instruments(detector=Detector(), identity=IdentityNetwork(good, "-1..1"))
    red, blue = torch.zeros(99, 99, 3), torch.zeros(99, 99, 3)
    red[..., 0], blue[..., 2] = 1, 1
    truth = Truth(red, torch.ones(99, 99), {}, judges, vgg=False)
    assert truth.score(red).csim == pytest.approx(1, abs=1e-5)
    assert truth.score(blue).csim == pytest.approx(0, abs=1e-5)
    assert truth.score(torch.zeros(99, 99, 3)).csim is None


def test_flicker_is_zero_for_the_truth_and_for_even_motion_and_positive_for_jitter():
    torch.manual_seed(0)
    start, step = 0.4 * torch.rand(8, 9, 3), 0.2 * torch.rand(8, 9, 3)
    even = torch.stack([start, start + step, start + 2 * step])
    still = start.expand(3, -1, -1, -1)
    assert flicker(even, even) == 0
    assert flicker(even, still) == pytest.approx(0, abs=1e-4)
    jitter = still.clone()
    jitter[1, :, :3] += 10 / 255
    assert flicker(jitter, still) == pytest.approx(2 * 10 * 3 / 9, rel=1e-4)
    assert flicker(still, jitter) == pytest.approx(-2 * 10 * 3 / 9, rel=1e-4)
    mask = torch.zeros(8, 9)
    mask[:, 3:] = 1
    assert flicker(jitter, still, mask) == 0


def test_flicker_never_crosses_from_one_sequence_to_the_next(data, renderer):
    found = judge_flicker(renderer, data, Instruments(regions=TopHalf()))
    assert len(found) == (2 + 1) * 4 and all(one.avatar_face is not None for one in found)
    sequence = take("EXP-1", 4, data.sequences[0].cameras)
    pose = sequence.world_from_head
    jumped = replace(pose, translation=pose.translation.clone())
    jumped.translation[1::2, 0] += 0.02
    shaky = replace(sequence, world_from_head=jumped)
    worse = judge_flicker(renderer, FitData((shaky,)))
    steady = judge_flicker(renderer, FitData((sequence,)))
    assert min(one.avatar_matte for one in worse) > max(one.avatar_matte for one in steady)
    assert worse[0].avatar_face is None


def test_rows_in_a_row_are_the_middle_of_the_longest_run():
    frames = torch.tensor([0, 2, 4, 10, 12, 14, 16, 18, 20, 30])
    ok = torch.ones(10, dtype=torch.bool)
    codes = torch.zeros(10, 3)
    poses = take("E", 10, rig(1)).world_from_head
    track = SequenceTrack(frames, codes, poses, torch.ones(10), ok, 25.0)
    assert frames[rows_in_a_row(track, 4)].tolist() == [12, 14, 16, 18]
    assert frames[rows_in_a_row(track, 99)].tolist() == [10, 12, 14, 16, 18, 20]
    gap = replace(track, ok=ok & (frames != 14))
    assert frames[rows_in_a_row(gap, 99)].tolist() == [0, 2, 4]
    assert len(rows_in_a_row(track, 0)) == 0
