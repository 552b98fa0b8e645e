"""The report of a track: what it shows, that it is true, and that it needs nothing beside it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from analytic_capture import AnalyticCapture, analytic_capture
from analytic_head import AnalyticHead
from page_reader import Seen, outside_references, read_page

from npga.core.errors import TrackError
from npga.core.images import read_image
from nphm_tracking.config import StageConfig, StageKind, TrackConfig
from nphm_tracking.observe import Observed
from nphm_tracking.report import write_report
from nphm_tracking.report.choose import expressive_frames, reason, worst_frames
from nphm_tracking.report.write import WORST_FRAMES
from nphm_tracking.result import SequenceTrack, Track
from nphm_tracking.run import observe, track_capture

NASTY = "FREE<i>&talk"
CONFIG = TrackConfig(
    capture="memory",
    out="unused",
    points_min=50,
    stages=[
        StageConfig(
            kind=StageKind.keyframe, frames=4, rounds=1, points=120, iterations=1, identity_steps=1
        )
    ],
)


def finished(one: Observed, seed: int) -> SequenceTrack:
    """A made-up result with known residuals; two frames failed."""
    generator = torch.Generator().manual_seed(seed)
    count = len(one.frames)
    residual = 0.5 + torch.rand(count, generator=generator)
    ok = one.enough.clone()
    residual[~ok] = torch.inf
    residual[1], ok[1] = 7.5, False
    z_exp = torch.rand(count, 4, generator=generator) * ok[:, None]
    return SequenceTrack(one.frames, z_exp, one.start, residual, ok, one.fps)


@pytest.fixture(scope="module")
def capture() -> AnalyticCapture:
    made = analytic_capture({"EXP-1": 6, NASTY: 7}, broken={NASTY: (4,)})
    return replace(made, participant="<b>&7")


@pytest.fixture(scope="module")
def observed(capture: AnalyticCapture, tmp_path_factory: pytest.TempPathFactory) -> list[Observed]:
    folder = tmp_path_factory.mktemp("work")
    return observe(capture, list(capture.truths), AnalyticHead(), CONFIG, folder)[0]


@pytest.fixture(scope="module")
def track(capture: AnalyticCapture, observed: list[Observed]) -> Track:
    sequences = {one.name: finished(one, seed) for seed, one in enumerate(observed)}
    told = {"capture": "memory & <more>", "landmarks": "capture"}
    return Track(torch.zeros(3), torch.zeros(2), sequences, "0123abcd", capture.participant, told)


@pytest.fixture(scope="module")
def written(
    track: Track,
    observed: list[Observed],
    capture: AnalyticCapture,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(track, observed, capture, AnalyticHead(), CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def seen(written: Path) -> Seen:
    return read_page((written / "report.html").read_text())


def test_the_page_is_alone_and_the_sheet_is_beside_it(written: Path, seen: Seen) -> None:
    assert {p.name for p in written.iterdir()} == {"report.html", "overlay.png"}
    assert outside_references((written / "report.html").read_text(), seen) == []
    assert read_image(written / "overlay.png").shape[2] == 3


def test_names_are_escaped(seen: Seen) -> None:
    assert not seen.having("i")
    assert "Track of <b>&7" in seen.texts and NASTY in seen.texts
    assert "memory & <more>" in seen.texts and "cheek<Left>" in seen.texts


def test_the_header_tells_the_figures(seen: Seen, track: Track) -> None:
    sequences = track.sequences.values()
    good = torch.cat([s.residual_mm[s.ok] for s in sequences])
    scale = float(next(iter(sequences)).world_from_head.scale[0])
    for name, value in (
        ("head model", "0123abcd"),
        ("frames tracked", "10"),
        ("frames failed", "3"),
        ("median residual", f"{good.median():.2f} mm"),
        ("metres per unit", f"{scale:.4f}"),
    ):
        place = [text for text in seen.texts if text.strip()]
        assert place[place.index(name) + 1] == value


def test_curves_have_a_point_for_each_good_frame_and_a_cross_for_each_failed(
    seen: Seen, track: Track
) -> None:
    good = sum(int(s.ok.sum()) for s in track.sequences.values())
    points = [p for a in seen.having("polyline", class_="curve") for p in a["points"].split()]
    assert len(points) == good == len(seen.having("circle", class_="point"))
    assert len(seen.having("path", class_="failed")) == 3
    assert len(seen.having("path", class_="limit")) == len(track.sequences)
    assert "frame 4: failed" in seen.texts and seen.texts.count("frame 1: failed, 7.50 mm") == 2


def test_worst_frames_are_the_worst(track: Track, observed: list[Observed], seen: Seen) -> None:
    chosen = worst_frames(track, observed, WORST_FRAMES)
    residuals = [float(track.sequences[c.one.name].residual_mm[c.row]) for c in chosen]
    every = torch.cat([s.residual_mm for s in track.sequences.values()])
    assert residuals == every.sort(descending=True).values[:6].tolist()
    assert (chosen[0].one.name, chosen[0].frame) == (NASTY, 4)
    why = [reason(track, choice, CONFIG) for choice in chosen]
    assert "points_min" in why[0] and "residual_max_mm" in why[1] and why[3:] == [""] * 3
    assert [text for text in seen.texts if text.startswith("failed:")] == why[:3]


def test_overlays_show_the_most_expressive_good_frame(
    track: Track, observed: list[Observed], seen: Seen
) -> None:
    for choice in expressive_frames(track, observed):
        sequence = track.sequences[choice.one.name]
        size = sequence.z_exp.sum(1)
        assert bool(sequence.ok[choice.row])
        assert size[choice.row] == size[sequence.ok].max()
    pictures = seen.having("img")
    assert len(pictures) == len(track.sequences) + WORST_FRAMES + 2
    assert all(one["alt"] for one in pictures)


def test_a_model_without_names_has_no_map_of_expressions(
    track: Track, observed: list[Observed], capture: AnalyticCapture, tmp_path: Path
) -> None:
    model = AnalyticHead()
    model.expression_names = ()
    write_report(track, observed[:1], capture, model, CONFIG, tmp_path)
    seen = read_page((tmp_path / "report.html").read_text())
    assert "Expressions" not in seen.texts and not seen.having("image")


def test_a_track_whose_frames_all_failed_still_has_a_page(
    track: Track, observed: list[Observed], capture: AnalyticCapture, tmp_path: Path
) -> None:
    failed = {
        name: replace(s, ok=torch.zeros_like(s.ok), residual_mm=torch.full_like(s.residual_mm, 9))
        for name, s in track.sequences.items()
    }
    lost = replace(track, sequences=failed)
    write_report(lost, observed, capture, AnalyticHead(), CONFIG, tmp_path)
    read_page((tmp_path / "report.html").read_text())
    assert not (tmp_path / "overlay.png").exists()


@pytest.mark.parametrize("kind", ["far", "empty"])
def test_where_tracking_fails_the_message_names_the_picture_of_the_first_poses(
    kind: str, tmp_path: Path
) -> None:
    broken = {"EXP-1": (0, 1)} if kind == "empty" else {}
    capture = analytic_capture({"EXP-1": 2}, broken=broken, noise_mm=5.0)
    config = replace(CONFIG, residual_max_mm=0.01)
    with pytest.raises(TrackError) as caught:
        track_capture(capture, ["EXP-1"], AnalyticHead(), config, tmp_path)
    assert str(tmp_path / "alignment.png") in caught.value.todo
    picture = read_image(tmp_path / "alignment.png").astype(int)
    left, right = picture[18:, :200], picture[18:, 200:]
    assert (left == 128).all()
    assert (right != 128).mean() > 0.1, "the mean head is drawn over the grey picture"
    assert not (tmp_path / "overlay.png").exists()
