"""The screen-space refiner: a small CNN that corrects the rendered picture at its own resolution.

    refined = rgb + CNN([rgb, features, alpha])

It never changes the size of the picture and can be left out at render time. The last layer starts
at zero, so that an untrained refiner changes nothing. Depth and width are ours; NPGA's are not
known beyond "same resolution, optional" (`facts/npga.md` 1.1).

Letters: `c` cameras, `h w` pixels, `k` = 3 + number of feature channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from npga.core.device import short_products


class Refiner(nn.Module):
    """Three 3x3 convolutions: [rgb, features, alpha] -> residual of rgb."""

    def __init__(self, feature_channels: int, width: int = 16) -> None:
        super().__init__()
        last = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Conv2d(3 + feature_channels + 1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            last,
        )

    def forward(
        self, image: Float[Tensor, "c h w k"], alpha: Float[Tensor, "c h w"]
    ) -> Float[Tensor, "c h w 3"]:
        """The refined rgb; not clamped. Where alpha is 0 the picture stays as it was.

        Without gradients the residual is computed in bfloat16 where a CPU is faster at it.
        """
        stacked = torch.cat([image, alpha[..., None]], dim=-1).permute(0, 3, 1, 2)
        with short_products(image.device):
            residual = self.layers(stacked).permute(0, 2, 3, 1).float()
        return image[..., :3] + residual * alpha[..., None]
