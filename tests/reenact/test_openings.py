"""Lids and lips: shut is shut whatever the rest faces are, and nothing else moves without need."""

import pytest
import torch

from npga.reenact.openings import LIDS, Gaps, Openings
from npga.reenact.retarget import Face, Hull, Retargeting, retarget_codes
from nphm_tracking import load_head_model

NAMES = ("blinkR", "blinkL", "jawOpen", "mouthClose", "brow", "wideR")


def gaps(lids: float = 0.1) -> Gaps:
    """A head of six controls."""
    slopes = torch.zeros(3, 6)
    slopes[0, 0] = slopes[1, 1] = -0.2
    slopes[0, 5] = 0.05
    slopes[2, 2], slopes[2, 3] = 0.4, -0.3
    return Gaps(torch.tensor([lids, lids, 0.01]), slopes, torch.full((6,), 0.04))


def take(rest: tuple[float, float] = (0.0, 0.0), most: float = 0.5) -> torch.Tensor:
    """200 frames over a rest face (blink, jaw): mostly still, some blinks, some talk."""
    t = torch.arange(200.0)
    codes = torch.zeros(200, 6)
    blink = ((t % 40) < 5).float()
    codes[:, 0] = codes[:, 1] = rest[0] + (most - rest[0]) * blink
    codes[:, 2] = rest[1] + 0.4 * (t / 9).sin().clamp_min(0)
    codes[:, 4] = 0.3 + 0.3 * (t / 17).sin()
    return codes


def retargeting(driver: Face, avatar: Face, hull: Hull | None = None) -> Retargeting:
    return Retargeting(driver, avatar, torch.zeros(6), torch.ones(6), hull)


def test_the_same_person_keeps_every_code():
    codes = take((0.1, 0.05))
    face = Face.of_codes(codes, gaps())
    out, distance = retargeting(face, face)(codes)
    assert torch.allclose(out, codes, atol=1e-6) and float(distance.max()) == 0


@pytest.mark.parametrize("rest", [(0.0, 0.0), (0.15, 0.1)])
@pytest.mark.parametrize("mine", [(0.0, 0.0), (0.1, 0.12)])
@pytest.mark.parametrize("most", [0.4, 0.5, 0.9])
def test_shut_stays_shut_and_open_opens_alike(rest, mine, most):
    """Closed lids of a driver whose tracked blink ends anywhere close the avatar's, and so on."""
    codes = take(rest, most)
    driver, avatar = Face.of_codes(codes, gaps()), Face.of_codes(take(mine), gaps(0.12))
    assert driver.openings is not None and avatar.openings is not None
    out, _ = retargeting(driver, avatar)(codes)
    wanted, got = driver.openings.of(codes).clamp_min(0), avatar.openings.of(out).clamp_min(0)
    assert (got - wanted).abs().max() < 2e-3
    closed = codes[:, 0] == most
    assert (got[closed][:, :2] < 0.02).all()
    shut = codes[:, 2] == rest[1]
    assert (got[shut][:, 2] < 5e-3).all()
    plain = retarget_codes(codes, driver.neutral, avatar.neutral)
    assert torch.allclose(out[:, 4], plain[:, 4])  # the brow is not asked


def test_without_openings_a_residual_neutral_leaves_the_mouth_open():
    """What the correction is for."""
    codes = take()
    driver, avatar = Face.of_codes(codes, gaps()), Face.of_codes(take((0.1, 0.12)), gaps())
    out, _ = retargeting(Face(driver.neutral), avatar)(codes)
    assert avatar.openings is not None
    gap = gaps()(out)[codes[:, 2] == 0][:, 2]
    assert gap.max() > 0.05
    out, _ = retargeting(driver, avatar)(codes)
    assert avatar.openings.of(out)[codes[:, 2] == 0][:, 2].abs().max() < 5e-3


def test_codes_at_a_bound_leave_the_work_to_others():
    face = Openings.calibrated(gaps(), torch.zeros(6), None)
    start = torch.zeros(1, 6)
    start[0, 3] = 0.02
    out = face.opened(start, torch.tensor([[1.0, 1.0, 0.3]]), torch.zeros(6), torch.ones(6))
    assert face.of(out)[0, 2] == pytest.approx(0.3, abs=1e-3)
    assert out.min() >= 0 and out[0, 3] < 1e-6 and out[0, 2] > 0.7
    wide = face.opened(start, torch.tensor([[1.2, 1.0, 0.0]]), torch.zeros(6), torch.ones(6))
    assert wide[0, 5] == pytest.approx(0.4, abs=1e-3) and wide[0, 0] == 0


def test_weak_controls_are_not_asked_for_what_cannot_be_reached():
    weak = gaps()
    weak.slopes[0, 4] = -0.01
    face = Openings.calibrated(weak, torch.zeros(6), None)
    hull = torch.tensor([0.3, 0.3, 1.0, 1.0, 1.0, 1.0])
    out = face.opened(torch.zeros(1, 6), torch.zeros(1, 3), torch.zeros(6), hull)
    assert out[0, 0] == pytest.approx(0.3) and out[0, 4] == 0
    assert weak.least(torch.zeros(6), hull)[0] == pytest.approx(0.04)


def test_what_presses_together_may():
    face = Openings.calibrated(gaps(), torch.zeros(6), None)
    pressed = torch.zeros(1, 6)
    pressed[0, 3] = 0.5
    wanted = face.of(pressed)
    assert wanted[0, 2] < 0
    assert torch.equal(face.opened(pressed, wanted, torch.zeros(6), torch.ones(6)), pressed)


def test_the_hull_is_kept_and_the_eyes_still_close_in_it():
    codes = take(most=0.9)
    driver, avatar = Face.of_codes(codes, gaps()), Face.of_codes(take(), gaps())
    hull = Hull(torch.zeros(6), torch.tensor([0.5, 0.5, 0.3, 0.0, 0.4, 0.0]))
    out, distance = retargeting(driver, avatar, hull)(codes)
    assert (out >= hull.lower).all() and (out <= hull.upper).all() and float(distance.max()) > 0
    assert avatar.openings is not None
    assert (avatar.openings.of(out)[codes[:, 0] == 0.9][:, :2] < 0.02).all()


def test_one_frame_is_as_good_as_many():
    codes = take((0.1, 0.1))
    run = retargeting(Face.of_codes(codes, gaps()), Face.of_codes(take(), gaps(0.13)))
    whole, _ = run(codes)
    assert torch.allclose(torch.cat([run(codes[n : n + 1])[0] for n in range(30)]), whole[:30])


def test_gaps_of_the_shipped_head():
    model = load_head_model()
    found = Gaps.of(model)
    assert found is not None
    names = list(model.expression_names)
    assert (found.at_zero[LIDS] > 0.08).all() and found.at_zero[2].abs() < 0.03
    for row, closes in enumerate(("eyeBlinkRight", "eyeBlinkLeft")):
        assert found.slopes[row].argmin() == names.index(closes)
    assert found.slopes[2, names.index("jawOpen")] > 0.3
    full = found.by_strongest(torch.ones(len(names)))
    assert (full[LIDS] < 0).all()
