"""G, the detail network: what F cannot know about this person, per Gaussian and expression.

    (centre, rotation, log-scale, opacity, colour) residuals = G([f, PE(x)], [z_exp, neck])

f is the Gaussian's learned latent, x its canonical centre, `neck` the head's rotation against the
torso at rest (3 numbers, optional; light does not turn with the head). The last layer starts at
zero, so that an untrained G changes nothing. Layout, sizes and output scales are ours.

Letters: `n` Gaussians, `f` latent size, `c` condition size.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from npga.avatar.forward import SplitLinear, positional_encoding

CENTRE_SCALE = 0.04
"""Head units (10 mm) per unit of output."""
ROTATION_SCALE = 0.3
"""Radians per unit of output."""
LOG_SCALE_SCALE = 0.3
OPACITY_SCALE = 1.5
COLOR_SCALE = 0.2
"""sRGB per unit of output."""

OUTPUTS = 3 + 3 + 3 + 1 + 3


@dataclass(frozen=True)
class Residuals:
    """What G adds to the canonical Gaussians under one expression."""

    centre: Float[Tensor, "n 3"]
    """Shift of the centre in head units."""
    rotation: Float[Tensor, "n 3"]
    """Rotation vector in radians, applied from the left."""
    log_scale: Float[Tensor, "n 3"]
    """Added to the log-scales."""
    logit_opacity: Float[Tensor, " n"]
    """Added to the opacity logits."""
    color: Float[Tensor, "n 3"]
    """Added to the sRGB colours."""

    def stacked(self) -> Float[Tensor, "n 13"]:
        """All residuals side by side, each in units of G's output."""
        parts = [
            self.centre / CENTRE_SCALE,
            self.rotation / ROTATION_SCALE,
            self.log_scale / LOG_SCALE_SCALE,
            self.logit_opacity[:, None] / OPACITY_SCALE,
            self.color / COLOR_SCALE,
        ]
        return torch.cat(parts, dim=-1)


class Detail(nn.Module):
    """G: an MLP of `depth` hidden layers x `width` with SiLU and a zero-initialised last layer."""

    def __init__(
        self, feature_size: int, condition_size: int, *, width: int, depth: int, bands: int
    ) -> None:
        super().__init__()
        self.bands = bands
        self.entry = SplitLinear(feature_size + 3 + 6 * bands, condition_size, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.exit = nn.Linear(width, OUTPUTS)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def forward(
        self,
        features: Float[Tensor, "n f"],
        x: Float[Tensor, "n 3"],
        condition: Float[Tensor, " c"],
    ) -> Residuals:
        """Residuals of all Gaussians under one condition; x in head units."""
        points = torch.cat([features, x, positional_encoding(x, self.bands)], dim=-1)
        h = functional.silu(self.entry(points[None], condition[None])[0])
        for layer in self.hidden:
            h = functional.silu(layer(h))
        out = self.exit(h)
        return Residuals(
            centre=out[:, 0:3] * CENTRE_SCALE,
            rotation=out[:, 3:6] * ROTATION_SCALE,
            log_scale=out[:, 6:9] * LOG_SCALE_SCALE,
            logit_opacity=out[:, 9] * OPACITY_SCALE,
            color=out[:, 10:13] * COLOR_SCALE,
        )
