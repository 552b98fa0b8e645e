"""The drift report on corrections that are known, and the track that comes of them."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_person import MODEL, body, tiny_avatar

from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.fit.config import Corrected
from npga.fit.corrections import Corrections
from npga.fit.drift import measure_drift, refined_track
from npga.fit.drift_page import drift_page
from npga.fit.regions import FaceRegions
from nphm_tracking import SequenceTrack, Track
from nphm_tracking.model.head_model import CodeStatistics

NAMES = ("jawOpen", "tongue<Out>")


@pytest.fixture
def corrections(data) -> Corrections:
    """Frame 2 turned by 1 degree, frame 5 moved by 2 mm, the jaw 0.05 up in frames of EXP-2."""
    limits = CodeStatistics(torch.zeros(3), torch.full((3,), 0.2), torch.zeros(3), torch.ones(3))
    found = Corrections(data, Corrected.both, limits)
    with torch.no_grad():
        found.moves[2, 1] = math.radians(1.0)
        found.moves[5, 3] = 0.002 / 0.25
        found.codes[4:, 0] = 0.05
        found.taken_moves[0, 2] = math.radians(0.5)
        found.taken_codes[1, 1] = -0.04
    return found


def report(corrections, data):
    slopes = torch.zeros(150, 3, 3)
    slopes[:, 1, 0] = -0.04
    regions = FaceRegions(body().means, slopes)
    return measure_drift(corrections, data, regions, tiny_avatar(data), NAMES)


def test_figures_of_a_known_case(corrections, data):
    drift = report(corrections, data)
    assert drift.turn_deg.max == pytest.approx(1.0, abs=1e-3) and drift.turn_deg.median == 0
    assert drift.turn_deg.p95 == pytest.approx(0.7, abs=1e-3)
    assert drift.shift_mm.max == pytest.approx(2.0, abs=1e-3)
    assert drift.code_landmarks_mm.max == pytest.approx(250 * 0.04 * 0.05, abs=1e-3)
    radius = body().means[:, [0, 2]].norm(dim=1).mean() * 250
    first = drift.frames[2]
    assert (first.sequence, first.frame) == ("EXP-1", 2)
    assert first.landmarks_mm == pytest.approx(float(radius) * math.radians(1.0), rel=1e-3)
    assert [(one.sequence, one.frame) for one in drift.worst[:2]] == [("EXP-2", 1), ("EXP-1", 2)]
    assert drift.frames[5].landmarks_mm == pytest.approx(math.hypot(2.0, 0.5), abs=1e-3)
    one, other = drift.takes
    assert one.turn_deg == pytest.approx(0.25, abs=1e-3)
    assert other.shift_mm == pytest.approx(2 / 3, abs=1e-3)
    assert (one.taken_turn_deg, other.taken_turn_deg) == (pytest.approx(0.5, abs=1e-3), 0)


def test_controls_are_named_and_the_systematic_ones_come_first(corrections, data):
    drift = report(corrections, data)
    jaw, tongue, last = drift.controls
    assert (jaw.name, tongue.name, last.name) == ("jawOpen", "tongue<Out>", "z_exp[2]")
    assert jaw.take == "EXP-2" and jaw.take_mean == pytest.approx(0.05, abs=1e-5)
    assert jaw.mean == pytest.approx(0.05 * 3 / 7, abs=1e-5)
    assert jaw.rms == pytest.approx(0.05 * math.sqrt(3 / 7), abs=1e-5)
    assert tongue.taken == pytest.approx(-0.04) and tongue.taken_from == "EXP-2"
    told = "\n".join(drift.warnings)
    assert "jawOpen +0.050 in EXP-2" in told and "tongue<Out> -0.040 in EXP-2" in told
    assert "EXP-2: poses are off their track by 0.00 deg and 0.67 mm" in told
    assert "gauge=false" not in told
    corrections.gauge = False
    assert "gauge=false" in report(corrections, data).warnings[0]


def test_a_factor_is_told(data):
    corrections = Corrections(data, Corrected.both)
    with torch.no_grad():
        corrections.codes.copy_(0.2 * corrections.spread)
    drift = report(corrections, data)
    assert drift.controls[0].factor == pytest.approx(0.2, abs=1e-4)
    assert any("jawOpen +20 %" in text for text in drift.warnings)


def test_no_correction_has_no_warning(data):
    drift = report(Corrections(data, Corrected.pose), data)
    assert drift.warnings == () and drift.controls == () and drift.landmarks_mm.max == 0


def test_the_page_holds_every_part(corrections, data):
    page = drift_page(report(corrections, data), "ada")
    for text in ("tongue&lt;Out&gt;", "Worst frames", "Poses by take", 'class="bad"', "<svg"):
        assert text in page
    assert drift_page(report(Corrections(data, Corrected.pose), data), "ada").count("<table") == 2


def test_the_refined_track_has_corrections_between_frames_and_none_elsewhere(corrections, data):
    sequence = data.sequences[1]
    frames = torch.arange(7)
    ok = torch.ones(7, dtype=torch.bool)
    ok[3] = False
    pose = Similarity.identity(7)
    tracked = SequenceTrack(frames, torch.full((7, 3), 0.98), pose, torch.ones(7), ok, 25.0)
    trained = replace(sequence, frames=(0, 2, 5))
    thinned = replace(data, sequences=(data.sequences[0], trained))
    track = Track(
        torch.zeros(4), torch.zeros(2), {q.name: tracked for q in thinned.sequences} |
        {"FREE": tracked}, MODEL, "ada", {"by": "test"},
    )  # fmt: skip
    with torch.no_grad():
        corrections.codes[4:, 1] = torch.tensor([-0.1, -0.2, -0.5])
        corrections.moves[4:, 0] = torch.tensor([0.1, 0.2, 0.5])
    refined = refined_track(track, thinned, corrections)
    assert refined.sequences["FREE"] is tracked
    assert refined.provenance["by"] == "test" and refined.provenance["corrections"]["of"] == "both"
    one = refined.sequences["EXP-2"]
    expected = torch.tensor([-0.1, -0.15, -0.2, 0.0, -0.4, -0.5, -0.5])
    torch.testing.assert_close(one.z_exp[:, 1], 0.98 + expected)
    assert one.z_exp[0, 0] == 1 and one.z_exp[3, 0] == pytest.approx(0.98)
    turned = torch.stack(
        [rotvec_from_matrix(rotation) for rotation in one.world_from_head.rotation]
    )
    torch.testing.assert_close(turned[:, 0], -expected, atol=1e-5, rtol=0)
    assert torch.equal(one.world_from_head.rotation[3], matrix_from_rotvec(torch.zeros(3)))
