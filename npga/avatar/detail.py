"""G, the detail network: what F cannot know about this person, per Gaussian and expression.

    (centre, rotation, log-scale, opacity, colour) residuals = W (h(f, PE(x)) * g(s * (c - middle)))
    g(d) = A d + silu(B d + b) - silu(b)

f is the Gaussian's learned latent, x its canonical centre. The condition c is the code, and the
head's rotation against the torso at rest (3 numbers, optional; shadows do not turn with the head).
s in 0..1 cuts the code to what moves this place (`field.py`); the neck is everybody's. h knows the
Gaussian, g the frame, and they meet in one product, so that blendshape-like motion is learned fast.
g is 0 at the mean training condition: there the canonical Gaussians are what is drawn. (At the
neutral code, which no frame of a take has, they would be free to be anything: hair fell apart
there.) Log-scales saturate at `LOG_SCALE_MAX`. W starts at zero, so that an untrained G changes
nothing. All of this is ours.

Letters: `n` Gaussians, `f` latent size, `c` condition size, `e` expression size, `w` width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from npga.avatar.forward import positional_encoding

CENTRE_SCALE = 0.04
"""Head units (10 mm) per unit of output."""
ROTATION_SCALE = 0.3
"""Radians per unit of output."""
LOG_SCALE_SCALE = 0.3
LOG_SCALE_MAX = 0.7
"""No expression makes a Gaussian more than twice as large or small."""
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
    """G: h has `depth` hidden layers x `width` with SiLU; W starts at zero."""

    middle: Tensor
    """The mean training condition [c]."""

    def __init__(
        self, feature_size: int, condition_size: int, *, width: int, depth: int, bands: int
    ) -> None:
        super().__init__()
        self.bands = bands
        layers: list[nn.Module] = []
        size = feature_size + 3 + 6 * bands
        for _ in range(depth):
            layers += [nn.Linear(size, width), nn.SiLU()]
            size = width
        self.points = nn.Sequential(*layers)
        self.linear = nn.Linear(condition_size, width, bias=False)
        nn.init.normal_(self.linear.weight)  # conditions are sparse: g should be of order 1
        self.curved = nn.Linear(condition_size, width)
        self.exit = nn.Linear(width, OUTPUTS, bias=False)
        nn.init.zeros_(self.exit.weight)
        self.register_buffer("middle", torch.zeros(condition_size))

    def gate(
        self, condition: Float[Tensor, " c"], shares: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n w"]:
        """g: what a frame asks of each channel of h; 0 at the mean training condition."""
        change = condition - self.middle
        size = shares.shape[1]
        code, neck = change[:size], change[size:]

        def asked(weight: Tensor, bias: Tensor) -> Tensor:
            common = bias + weight[:, size:] @ neck
            return torch.addmm(common, shares, (weight[:, :size] * code).T)

        silu, bias, still = nn.functional.silu, self.curved.bias, not torch.is_grad_enabled()
        bent = silu(asked(self.curved.weight, bias), inplace=still)
        straight = asked(self.linear.weight, -silu(bias))
        return straight.add_(bent) if still else straight + bent

    def hidden(
        self, features: Float[Tensor, "n f"], x: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n w"]:
        """h of every Gaussian, which knows no frame; x in head units."""
        return self.points(torch.cat([features, x, positional_encoding(x, self.bands)], dim=-1))

    def residuals(
        self,
        hidden: Float[Tensor, "n w"],
        condition: Float[Tensor, " c"],
        shares: Float[Tensor, "n e"],
    ) -> Residuals:
        """What h makes of one condition, of which every Gaussian sees its shares."""
        out = self.exit(hidden * self.gate(condition, shares))
        return Residuals(
            centre=out[:, 0:3] * CENTRE_SCALE,
            rotation=out[:, 3:6] * ROTATION_SCALE,
            log_scale=LOG_SCALE_MAX * (out[:, 6:9] * (LOG_SCALE_SCALE / LOG_SCALE_MAX)).tanh(),
            logit_opacity=out[:, 9] * OPACITY_SCALE,
            color=out[:, 10:13] * COLOR_SCALE,
        )

    def forward(
        self,
        features: Float[Tensor, "n f"],
        x: Float[Tensor, "n 3"],
        condition: Float[Tensor, " c"],
        shares: Float[Tensor, "n e"],
    ) -> Residuals:
        """Residuals of all Gaussians under one condition; x in head units."""
        return self.residuals(self.hidden(features, x), condition, shares)
