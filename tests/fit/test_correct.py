"""A take's track is brought to what the pictures show, with an avatar that stands still."""

from dataclasses import replace

import pytest
import torch
from test_corrections import true_session, with_codes
from tiny_person import Knobs, rig, take

from npga.core.config import compose_config
from npga.core.errors import ConfigError
from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.fit.batch import FitData
from npga.fit.config import CorrectConfig, Corrected, SearchConfig
from npga.fit.correct import correct
from npga.fit.corrections import Corrections
from npga.fit.terms import Terms

SEARCH = SearchConfig(steps=60, cameras=3, moves=4e-3, codes=3e-2)
TERMS = Terms({"refined_l1": 1.0, "refined_ssim": 0.2, "smooth_corrections": 1e-5})


@pytest.fixture(scope="module")
def truth() -> FitData:
    return FitData((take("EXP-1", 4, rig()), take("EXP-2", 2, rig())))


def wrong_of(truth: FitData) -> FitData:
    """Codes off by a constant, poses turned by 2 degrees and shifted: a tracker's habit."""
    sequences = []
    for one in with_codes(truth, lambda z: z + torch.tensor([0.15, 0.0, 0.0])).sequences:
        count = len(one)
        turn = matrix_from_rotvec(torch.tensor([0.0, 0.035, 0.0])).expand(count, 3, 3)
        step = Similarity(torch.ones(count), turn, torch.tensor([0.01, 0.0, 0.0]).expand(count, 3))
        sequences.append(replace(one, world_from_head=one.world_from_head.compose(step)))
    return FitData(tuple(sequences))


def corrected(wrong: FitData, start: int = 0, stop: int | None = None, kept=None) -> Corrections:
    session = true_session(wrong, Knobs())
    corrections = Corrections(wrong, Corrected.both, gauge=False)
    if kept is not None:
        corrections.load_state_dict(kept)

    def done(frames: int) -> None:
        if frames == stop:
            raise KeyboardInterrupt

    try:
        correct(session.renderer, wrong, TERMS, corrections, SEARCH, start=start, done=done)
    except KeyboardInterrupt:
        pass
    return corrections


def stop(frames: int) -> None:
    raise KeyboardInterrupt


def test_even_a_constant_error_goes_and_the_avatar_stays(truth):
    wrong = wrong_of(truth)
    session = true_session(wrong, Knobs())
    session.avatar.prior.requires_grad_(False)
    before = {k: v.clone() for k, v in session.avatar.state_dict().items()}
    learns = {k: p.requires_grad for k, p in session.avatar.named_parameters()}
    corrections = Corrections(wrong, Corrected.both, gauge=False)
    correct(session.renderer, wrong, TERMS, corrections, SEARCH)
    for index, (s, row) in enumerate(truth.places):
        frame, true = corrections.of(wrong.batch(index)), truth.sequences[s]
        pose = true.world_from_head[row]
        turned = rotvec_from_matrix(pose.rotation.T @ frame.world_from_head.rotation).norm()
        assert turned < 0.35 * 0.035, (index, float(turned))
        assert (frame.z_exp - true.z_exp[row])[0].abs() < 0.35 * 0.15, index
    assert corrections.codes[:, 1:].abs().max() < 1e-6, "what no picture shows does not move"
    after = session.avatar.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert learns == {k: p.requires_grad for k, p in session.avatar.named_parameters()}
    assert all(parameter.grad is None for parameter in session.avatar.parameters())


def test_an_interrupted_search_goes_on_to_the_same_numbers(truth):
    wrong = wrong_of(truth)
    whole = corrected(wrong)
    part = corrected(wrong, stop=3)
    assert part.moves[4:].abs().max() == 0
    rest = corrected(wrong, start=3, kept=part.state_dict())
    assert torch.equal(whole.moves, rest.moves) and torch.equal(whole.codes, rest.codes)


def test_a_frame_starts_from_the_one_before_but_not_across_takes(truth):
    session = true_session(truth, Knobs())
    for start, handed_on in ((2, 0.03), (4, 0.0)):
        corrections = Corrections(truth, Corrected.both, gauge=False)
        with torch.no_grad():
            corrections.moves[:start] = 0.03
        short = replace(SEARCH, steps=1)
        with pytest.raises(KeyboardInterrupt):
            correct(session.renderer, truth, TERMS, corrections, short, start=start, done=stop)
        found = corrections.moves.detach()[start]
        assert (found - handed_on).abs().max() <= 1.01 * SEARCH.moves, (start, found)
        assert (corrections.moves.detach()[start + 1] - handed_on).abs().max() < 1e-6


def test_settings_without_sense_are_refused():
    given = ["avatar=x", "capture=x", "track=x", "out=x"]
    assert compose_config(CorrectConfig, "correct", given).search.steps > 0
    with pytest.raises(ConfigError, match=r"search\.steps=0 is not positive"):
        compose_config(CorrectConfig, "correct", [*given, "search.steps=0"])
