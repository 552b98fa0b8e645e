"""The stage `pictures`: looks of several cameras lead codes back that clouds let slide."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from analytic_capture import SCALE, Z_GEO, AnalyticCapture, Truth, truth
from analytic_head import AnalyticHead
from torch import Tensor

import nphm_tracking.photometric as photometric_module
import nphm_tracking.track as track_module
from npga.capture.types import Layout, SequenceInfo, Views
from npga.core.errors import TrackError
from npga.core.mesh_raster import rasterize_mesh
from npga.core.similarity import Similarity
from nphm_tracking.config import StageConfig, StageKind, TrackConfig
from nphm_tracking.energies import PosedLandmarks, follow_landmarks
from nphm_tracking.frames import FrameState, Person
from nphm_tracking.head import expression_prior
from nphm_tracking.model.head_model import Codes
from nphm_tracking.observe import Observed
from nphm_tracking.photometric import CapturePictures
from nphm_tracking.pictures import DETAIL_REACH, SKIN_FACING, SKIN_REACH, face_surface
from nphm_tracking.run import comparable_pictures, mean_head, observe_sequence
from nphm_tracking.track import Solution, solve_pictures, start_solution

BROW, CHEEK = 3, 1
WRONG = slice(4, 7)
"""Frames whose codes start wrong."""
STAGE = StageConfig(
    kind=StageKind.pictures, points=50, rounds=2, iterations=8, surface=0.05, landmark=0.0,
    code=1e-5, sparsity=0.0, brightness=15000.0,
)  # fmt: skip
CONFIG = TrackConfig(
    capture="memory", out="unused", points_min=20, held_out_cameras=["cam2"],
    cameras_for_pictures=3, pictures_width=160, report=False,
)  # fmt: skip


@cache
def canonical_mesh() -> tuple[Tensor, Tensor]:
    head = AnalyticHead()
    mesh = head.mesh(Codes(Z_GEO, torch.zeros(2), torch.zeros(4)), 72, canonical=True)
    return mesh.vertices, mesh.faces


def paint(canonical: Tensor) -> Tensor:
    """Brightness of skin: waves of about 20 pixels across and down."""
    x, y, _ = (45 * canonical).unbind(-1)
    return 0.5 + 0.2 * x.sin() * (0.8 * y).cos() + 0.1 * (0.6 * x + y).sin()


@dataclass(frozen=True)
class PaintedCapture(AnalyticCapture):
    """The analytic head with skin; every camera has its own gain."""

    def views(
        self, sequence, frames=None, serials=None, width=None, height=None, cache_dir=None
    ) -> Views:
        rig = self.cameras(serials, width, height)
        assert "cam2" not in rig.ids, "a held-out camera was looked at"
        head, one = AnalyticHead(), self.truths[sequence]
        vertices, faces = canonical_mesh()
        skin = paint(vertices)
        pictures = []
        for frame in frames:
            world = one.pose[frame].apply(head.posed_points(vertices, one.z_exp[frame]))
            seen = rasterize_mesh(world, faces, rig)
            shown = (skin[faces[seen.face.clamp_min(0)]] * seen.bary).sum(-1)
            gain = torch.tensor([1.0 - 0.1 * int(name[3:]) for name in rig.ids])[:, None, None]
            pictures.append(torch.where(seen.face >= 0, gain * shown, 0.1))
        grey = (255 * torch.stack(pictures)).round().to(torch.uint8)
        return Views(
            grey[..., None].expand(-1, -1, -1, -1, 3), torch.full_like(grey, 255), rig,
            tuple(frames), sequence, 25.0,
        )  # fmt: skip


class FewerCameras(PaintedCapture):
    """Two cameras have no video of FREE."""

    def sequence(self, name_or_prefix: str) -> SequenceInfo:
        info = super().sequence(name_or_prefix)
        return replace(info, serials=info.serials[2:]) if info.name == "FREE" else info


def carried(canonical: Tensor, z_geo: Tensor, z_exp: Tensor) -> PosedLandmarks:
    """A forward prior without error."""
    head = AnalyticHead()
    posed = torch.stack([head.posed_points(canonical, code) for code in z_exp])
    return follow_landmarks(head, posed, canonical, z_geo, z_exp)


@pytest.fixture(scope="module")
def capture() -> PaintedCapture:
    truths = {"EXP-1": truth(7, 10), "FREE": truth(9, 11)}
    return PaintedCapture(
        root=Path("memory"), participant="007", layout=Layout.folder, rig=(), files=(),
        truths=truths,
    )  # fmt: skip


@pytest.fixture(scope="module")
def observed(capture: PaintedCapture) -> list[Observed]:
    """Clouds; landmarks weigh nothing."""
    mean = mean_head(AnalyticHead(), with_landmarks=True)
    found = []
    for name, one in capture.truths.items():
        seen = observe_sequence(capture, name, None, one.pose, mean, CONFIG)
        nowhere = torch.zeros(len(one.z_exp), AnalyticHead().landmark_count, 3)
        data = replace(seen.data, landmarks=nowhere, landmark_weight=nowhere[..., 0])
        found.append(replace(seen, data=data))
    return found


def at_truth(one: Truth) -> FrameState:
    pose: Similarity = one.pose
    marks = carried(AnalyticHead().landmarks(Z_GEO), Z_GEO, one.z_exp).marks
    return FrameState(one.z_exp.clone(), pose.rotation, pose.translation, marks)


@pytest.fixture
def wrong(capture: PaintedCapture, observed: list[Observed]) -> Solution:
    """The true solution, but for the brow and a cheek of some frames of FREE."""
    start = start_solution(AnalyticHead(), observed)
    marks = AnalyticHead().landmarks(Z_GEO)
    person = replace(start.person, z_geo=Z_GEO, scale=torch.tensor(SCALE), landmarks=marks)
    states = {name: at_truth(one) for name, one in capture.truths.items()}
    codes = states["FREE"].z_exp
    codes[WRONG, BROW] = 1 - codes[WRONG, BROW]
    codes[WRONG, CHEEK] = (codes[WRONG, CHEEK] + 0.4) % 1
    return Solution(person, start.bias, states)


def pictures_of(capture: PaintedCapture, config: TrackConfig = CONFIG) -> CapturePictures:
    found = CapturePictures.of(capture, list(capture.truths), config, carried)
    assert found is not None
    return found


def test_pictures_lead_codes_back(
    capture: PaintedCapture, observed: list[Observed], wrong: Solution, tmp_path: Path
) -> None:
    """Clouds alone leave what slides along the surface; what was right stays right."""
    pictures = pictures_of(capture)
    true = capture.truths["FREE"].z_exp
    ends = {}
    for name, brightness in (("with", STAGE.brightness), ("without", 0.0)):
        stage = replace(STAGE, brightness=brightness)
        found = solve_pictures(observed, wrong, stage, tmp_path / name, "pictures", pictures)
        ends[name] = (found.states["FREE"].z_exp - true).abs()
        right = found.states["EXP-1"].z_exp - capture.truths["EXP-1"].z_exp
        assert right.abs().mean() < 0.05
    start = (wrong.states["FREE"].z_exp - true).abs()[WRONG]
    assert start[:, BROW].mean() > 0.25
    assert ends["with"][WRONG, BROW].mean() < 0.25 * ends["without"][WRONG, BROW].mean()
    assert ends["with"][WRONG].mean() < 0.05


def test_an_interrupted_stage_ends_with_the_same_numbers(
    capture: PaintedCapture,
    observed: list[Observed],
    wrong: Solution,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looks are learned from where the round began, not from takes that are done already."""
    pictures = pictures_of(capture)
    stage = replace(STAGE, iterations=2)
    whole = solve_pictures(observed, wrong, stage, tmp_path / "whole", "4-pictures", pictures)
    folder = tmp_path / "again"
    real, calls = track_module._sequence, []

    def interrupted(*given: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(track_module, "_sequence", interrupted)
    with pytest.raises(KeyboardInterrupt):
        solve_pictures(observed, wrong, stage, folder, "4-pictures", pictures)
    kept = {path.name for path in (folder / "state").iterdir()}
    assert kept == {f"4-pictures-{k}.safetensors" for k in ("0-0", "0-1", "1-0")}
    monkeypatch.setattr(track_module, "_sequence", real)
    again = solve_pictures(observed, wrong, stage, folder, "4-pictures", pictures)
    for name in whole.states:
        assert torch.equal(again.states[name].z_exp, whole.states[name].z_exp)
        assert torch.equal(again.states[name].translation, whole.states[name].translation)


def test_cameras_are_frontal_and_not_held_out(capture: PaintedCapture) -> None:
    chosen = pictures_of(capture)
    assert chosen.serials == ("cam1", "cam3", "cam4")
    some = replace(CONFIG, cameras=["cam0", "cam2", "cam5"])
    assert pictures_of(capture, some).serials == ("cam0", "cam5")
    with pytest.raises(TrackError, match="cam9"):
        pictures_of(capture, replace(CONFIG, cameras=["cam9"]))
    fewer = FewerCameras(**vars(capture))
    assert pictures_of(fewer).serials == ("cam3", "cam4", "cam5")
    (one, *_), shown = chosen.load("FREE", [0, 3]), ("cam1", "cam3", "cam4")
    assert one.camera.ids == shown[:1] and one.camera.width == 160
    assert one.brightness.shape == (2, 208, 160) and one.brightness.dtype == torch.float16


def test_pictures_loaded_in_parts_are_the_same(
    capture: PaintedCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pictures_of(capture).load("FREE", list(range(9)))
    monkeypatch.setattr(photometric_module, "LOADED", 4)
    for one, other in zip(whole, pictures_of(capture).load("FREE", list(range(9))), strict=True):
        assert torch.equal(one.brightness, other.brightness)
        assert one.camera.ids == other.camera.ids


def test_where_pictures_cannot_be_compared_the_stage_is_left_out(
    capture: PaintedCapture, wrong: Solution, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    names = list(capture.truths)
    assert comparable_pictures(capture, names, CONFIG, wrong, carried) is not None
    for change in ({"cameras": ["cam1"]}, {"cameras_for_pictures": 0}):
        assert (
            comparable_pictures(capture, names, replace(CONFIG, **change), wrong, carried) is None
        )
    without = replace(CONFIG, stages=CONFIG.stages[:-1])
    assert comparable_pictures(capture, names, without, wrong, None) is None
    assert capsys.readouterr().out == ""
    assert comparable_pictures(capture, names, CONFIG, wrong, None) is None
    assert "a forward prior of this head model" in capsys.readouterr().out
    held = replace(CONFIG, held_out_cameras=list(capture.sequence("FREE").serials))
    assert comparable_pictures(capture, names, held, wrong, carried) is None
    assert "not held out" in capsys.readouterr().out
    bare = replace(wrong, person=replace(wrong.person, landmarks=torch.zeros(0, 3)))
    assert comparable_pictures(capture, names, CONFIG, bare, carried) is None
    assert "landmarks" in capsys.readouterr().out


def test_the_face_is_dense_at_its_landmarks() -> None:
    head = AnalyticHead()
    prior = expression_prior(head)
    person = Person(head, Z_GEO, torch.tensor(SCALE), head.landmarks(Z_GEO)[::9], prior)
    surface = face_surface(head, person)
    away = torch.cdist(surface.points, person.landmarks).amin(1)
    assert away.max() < SKIN_REACH and (surface.normals[:, 2] > SKIN_FACING).all()
    assert (surface.skin == 1).all()
    assert head.sdf(surface.points, Z_GEO).abs().max() < 0.005
    near = away < DETAIL_REACH
    share = (DETAIL_REACH / SKIN_REACH) ** 2
    assert int(near.sum()) > 1.5 * share * len(away)
