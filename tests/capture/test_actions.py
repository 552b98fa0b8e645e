"""How the synthetic people's actions are mixed from anny's."""

import pytest
import torch

from npga.capture.synthetic.actions import MIXED, SIDES, widened
from npga.capture.synthetic.people import EXPRESSIONS

NEUTRAL = torch.tensor([[0.3, 0.0, 0.2], [0.0, 0.0, 0.3], [-0.3, 0.0, 0.2]])
"""One vertex on the subject's left, one in the middle, one on the right."""
FAR = torch.tensor([0, 2])
"""The two that lie on one side."""


@pytest.fixture
def actions() -> torch.Tensor:
    return torch.rand(len(EXPRESSIONS), 3, 3, generator=torch.Generator().manual_seed(0))


def of(shapes: torch.Tensor, name: str) -> torch.Tensor:
    return shapes[EXPRESSIONS.index(name)]


def test_every_name_of_the_mixture_is_an_action() -> None:
    for name, shares in MIXED.items():
        sided = name not in EXPRESSIONS
        for each in (name, *shares):
            known = each in EXPRESSIONS or (sided and all(each + s in EXPRESSIONS for s in SIDES))
            assert known, f"{each} of {name}"


def test_actions_are_the_stated_mixtures(actions: torch.Tensor) -> None:
    out = widened(actions, EXPRESSIONS, NEUTRAL)
    for side in SIDES:
        down = of(actions, f"eyeLookDown{side}") - 0.5 * of(actions, f"eyeLookUp{side}")
        down = down + 0.22 * of(actions, f"eyeBlink{side}")
        torch.testing.assert_close(of(out, f"eyeLookDown{side}"), down)
        torch.testing.assert_close(
            of(out, f"eyeLookIn{side}"), 2.2 * of(actions, f"eyeLookIn{side}")
        )
    untouched = ("browDownLeft", "eyeBlinkRight", "mouthLeft", "tongueOut")
    for name in untouched:
        assert torch.equal(of(out, name), of(actions, name))


def test_an_action_of_both_sides_goes_to_one(actions: torch.Tensor) -> None:
    """The inner brow rises with the outer one of its side; left and right together raise it all."""
    out = widened(actions, EXPRESSIONS, NEUTRAL)
    inner = of(actions, "browInnerUp")
    halves = {s: of(out, f"browOuterUp{s}") - 1.6 * of(actions, f"browOuterUp{s}") for s in SIDES}
    torch.testing.assert_close(halves["Left"] + halves["Right"], 0.6 * inner)
    wanted = torch.stack([0.6 * inner[0], torch.zeros(3)])
    torch.testing.assert_close(halves["Left"][FAR], wanted, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(halves["Left"][1], 0.3 * inner[1])
