"""Resuming is exact, and learning rates do what they say."""

import json
import random

import numpy as np
import pytest
import torch
from tiny_person import CPU, Knobs, tiny_avatar, tiny_session

from npga.core.device import seed_everything
from npga.core.errors import CheckpointError
from npga.fit.config import OptimConfig, PriorMode
from npga.fit.loop import fit
from npga.fit.resume import STATE_FILE, load_state, save_state
from npga.fit.runlog import RunLog
from npga.fit.schedule import FIELD_EVERY, TURNS_EVERY, KeptField, Schedule


def go(session, folder, steps, start=0):
    fit(
        session.avatar, session.corrections, session.data.stream(start, session.sampling, CPU),
        session.renderer, session.terms, session.densifier, session.optimizer, session.schedule,
        RunLog(folder, steps, start), steps=steps, start=start,
    )  # fmt: skip


def everything(session):
    state = session.avatar.state_dict() | session.corrections.state_dict()
    state |= {"graph": session.densifier.graph.index, **vars(session.densifier.state)}
    for index, moments in session.optimizer.state_dict()["state"].items():
        state |= {f"{index}.{name}": value for name, value in moments.items()}
    return state


def save(session, folder, done):
    save_state(
        folder, done, session.avatar, session.corrections, session.optimizer, session.densifier
    )


def load(session, folder):
    return load_state(
        folder, session.avatar, session.corrections, session.optimizer, session.densifier
    )


@pytest.mark.parametrize("mode", [PriorMode.frozen, PriorMode.finetune])
@pytest.mark.parametrize("late", [0.0, 0.5, 0.8])
def test_two_halves_equal_the_whole_bit_for_bit(data, tmp_path, mode, late):
    knobs = Knobs(steps=48, every=5, prior_mode=mode, corrections_from=late)
    whole = tiny_session(data, knobs)
    go(whole, tmp_path, 48)
    parts = tiny_session(data, knobs)
    half = TURNS_EVERY
    go(parts, tmp_path, half)
    save(parts, tmp_path, half)
    torch.rand(3), random.random()
    again = tiny_session(data, knobs)
    start = load(again, tmp_path)
    assert start == half
    go(again, tmp_path, 48, start)
    one, other = everything(whole), everything(again)
    assert (
        min(one["moves"].abs().max(), one["codes"].abs().max(), one["taken_codes"].abs().max()) > 0
    )
    assert one.keys() == other.keys() and len(whole.avatar) > 120
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert whole.densifier.changes == again.densifier.changes


def legacy_draw() -> list[float]:
    return np.random.random_sample(2).tolist()  # noqa: NPY002


def test_random_generators_go_on_where_they_were(data, tmp_path):
    session = tiny_session(data)
    seed_everything(7)
    save(session, tmp_path, 3)
    expected = torch.rand(2).tolist(), legacy_draw(), random.random()
    seed_everything(99)
    assert load(session, tmp_path) == 3
    assert (torch.rand(2).tolist(), legacy_draw(), random.random()) == expected


def test_no_state_means_the_beginning_and_a_broken_one_is_refused(data, tmp_path):
    session = tiny_session(data)
    assert load(session, tmp_path) == 0
    (tmp_path / STATE_FILE).write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(session, tmp_path)


def test_fitting_makes_the_picture_better_and_leaves_a_frozen_f_alone(data, tmp_path):
    session = tiny_session(data, Knobs(steps=100))
    before = {name: value.clone() for name, value in session.avatar.prior.state_dict().items()}
    go(session, tmp_path, 100)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [25, 50, 75, 100]
    assert lines[-1]["l1"] < 0.6 * lines[0]["l1"]
    for name, value in session.avatar.prior.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_rates_fall_and_f_waits_for_its_turn():
    config = OptimConfig(means=1.0, prior=2.0, final=0.01)
    schedule = Schedule(config, 100, PriorMode.finetune)
    assert schedule.rate("means", 0) == 1.0
    assert schedule.rate("means", 50) == pytest.approx(0.1)
    assert schedule.rate("prior", 39) == 0.0
    assert schedule.rate("prior", 50) == pytest.approx(0.2)
    assert Schedule(config, 100, PriorMode.frozen).rate("prior", 99) == 0.0


def test_f_is_asked_anew_often_its_turns_seldom_and_both_after_a_change(data, monkeypatch):
    avatar, kept, asked = tiny_avatar(data, 20), KeptField(), []
    real = avatar.field

    def counted(turns=None):
        asked.append(turns)
        return real(turns)

    monkeypatch.setattr(avatar, "field", counted)
    seen = [kept.at(avatar, step) for step in range(TURNS_EVERY + 1)]
    assert len(asked) == TURNS_EVERY // FIELD_EVERY + 1
    assert seen[FIELD_EVERY - 1] is seen[0] and seen[FIELD_EVERY] is not seen[0]
    assert seen[TURNS_EVERY - 1].turns is seen[0].turns
    assert asked[0] is None and asked[1] is not None and asked[-1] is None
    kept.drop()
    kept.at(avatar, TURNS_EVERY + 1)
    assert len(asked) == TURNS_EVERY // FIELD_EVERY + 2 and asked[-1] is None
