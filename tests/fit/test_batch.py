"""Batches: order, truth, windows."""

import pytest
import torch

from npga.core.errors import TrackError
from npga.fit.batch import FitData, Sampling, Window, random_window


def test_every_epoch_shows_every_frame_once(data):
    sampling = Sampling(2, 24, seed=0)
    first = [data.at_step(step, sampling).index for step in range(7)]
    second = [data.at_step(step, sampling).index for step in range(7, 14)]
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_a_step_can_be_told_without_the_steps_before(data):
    sampling = Sampling(2, 24, seed=1)
    stream = data.stream(0, sampling, torch.device("cpu"))
    batches = [next(stream) for _ in range(6)]
    again = data.at_step(5, sampling)
    assert again.index == batches[5].index and again.window == batches[5].window
    assert torch.equal(again.image, batches[5].image)
    assert again.cameras.ids == batches[5].cameras.ids
    assert len(set(again.cameras.ids)) == 2


def test_the_truth_stands_on_the_background(data):
    sequence = data.sequences[1]
    index = len(data.sequences[0]) + 2
    batch = FitData(data.sequences, background=0.25).batch(index, [3, 0])
    assert (batch.sequence, batch.frame, batch.cameras.ids) == ("EXP-2", 2, ("d", "a"))
    picture = sequence.images[2, [3, 0]].double() / 255
    matte = sequence.mattes[2, [3, 0], :, :, None].double() / 255
    expected = matte * picture + (1 - matte) * 0.25
    torch.testing.assert_close(batch.image.double(), expected, atol=1e-6, rtol=0)
    on_white = data.batch(index, [3, 0]).image
    torch.testing.assert_close(on_white.double(), picture, atol=1e-6, rtol=0)
    assert torch.equal(batch.z_exp, sequence.z_exp[2])


def test_windows_lie_inside_and_on_the_matte():
    matte = torch.zeros(30, 20, dtype=torch.uint8)
    matte[25:, 15:] = 255
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        window = random_window([torch.zeros_like(matte), matte], 8, generator)
        assert (window.width, window.height) == (8, 8)
        assert 0 <= window.left <= 12 and 0 <= window.top <= 22
        assert window.of(matte[None]).any()
    assert random_window([matte], 64, generator) == Window(0, 0, 20, 30)
    assert random_window([torch.zeros_like(matte)], 8, generator) == Window(6, 11, 8, 8)


def test_no_frame_at_all_is_refused():
    with pytest.raises(TrackError, match="No tracked frame"):
        FitData(())
