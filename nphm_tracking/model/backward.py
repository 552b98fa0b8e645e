"""The backward field B: a posed point -> its canonical offset and hyper coordinates omega.

x_canonical = x_posed + offset; omega (no residual) tells apart posed points that share a canonical
one, as those of upper and lower lip do. Condition: 16-d compression of the identity, z_exp.

Letters: *b people or frames, n points, i identity, e expression, h hyper coordinates.
"""

# torch types every attribute of a module as Tensor | Module, which these rules trip over
# pyright: reportIndexIssue=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportArgumentType=false

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nphm_tracking.model.sizes import HeadModelSizes

SHARPNESS = 100.0
"""beta of every Softplus in the geometry networks (published value)."""


class BackwardField(nn.Module):
    """An MLP with one skip; layer ``skip`` sees [h, input] / sqrt(2)."""

    def __init__(self, sizes: HeadModelSizes) -> None:
        """Random weights; the last layer starts small so that B is near the identity."""
        super().__init__()
        width, inputs = sizes.backward_width, 3 + sizes.identity + sizes.exp
        self.skip = sizes.backward_skip
        ins = [inputs] + [width] * sizes.backward_depth
        ins[self.skip] += inputs
        outs = [width] * sizes.backward_depth + [3 + sizes.hyper]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(ins, outs, strict=True))
        self.activation = nn.Softplus(beta=SHARPNESS)
        with torch.no_grad():
            self.layers[-1].weight.mul_(0.1)
            self.layers[-1].bias.zero_()

    def forward(
        self,
        points: Float[Tensor, "*b n 3"],
        identity: Float[Tensor, "*b i"],
        z_exp: Float[Tensor, "*b e"],
    ) -> tuple[Float[Tensor, "*b n 3"], Float[Tensor, "*b n h"]]:
        """Offsets (head units) and hyper coordinates of posed points."""
        condition = torch.cat([identity, z_exp], dim=-1)
        hidden = self._first(self.layers[0], None, points, condition)
        for number, layer in enumerate(self.layers):
            if number == 0:
                continue
            hidden = self.activation(hidden)
            if number == self.skip:
                hidden = self._first(layer, hidden, points, condition)
            else:
                hidden = layer(hidden)
        return hidden[..., :3], hidden[..., 3:]

    @staticmethod
    def _first(
        layer: nn.Module, hidden: Tensor | None, points: Tensor, condition: Tensor
    ) -> Float[Tensor, "*b n o"]:
        """A layer that sees [hidden,] points, condition; the condition's share once per person."""
        weight, bias = layer.weight, layer.bias
        kept = 0 if hidden is None else hidden.shape[-1]
        share = condition @ weight[:, kept + 3 :].T
        if hidden is None:
            return points @ weight[:, :3].T + (share + bias)[..., None, :]
        scale = 1 / math.sqrt(2)
        seen = torch.cat([hidden, points], dim=-1) @ weight[:, : kept + 3].T
        return (seen + share[..., None, :]) * scale + bias
