"""Light that stays where it is while the head turns through it.

    factor on a colour = exp(a (Y(R n') - Y(R_rest n)) L)

n is a Gaussian's normal in head space, n' the same turned by an expression (a jaw that opens turns
the chin), R the head's rotation in the world, R_rest the avatar's at rest, where
canonical colours are seen; `a` is the attachment. Y are the eight spherical harmonics
of bands 1 and 2: a matte surface makes next to nothing of what a distant light has in higher ones
(Ramamoorthi and Hanrahan 2001). L [8 3] is one small table per avatar, learned from all takes,
so that a head which turns farther than in training is still lit from the right side; to G such a
turn would be news. Shadows that one part of a face casts on another are left to G. Ours.

Letters: `n` Gaussians.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

HARMONICS = 8


def harmonics(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 8"]:
    """Real spherical harmonics of bands 1 and 2, not normalised: x y z, xy yz zx, x2-y2, 3z2-1."""
    x, y, z = directions.unbind(-1)
    bands = (x, y, z, x * y, y * z, z * x, x * x - y * y, z * z - (x * x + y * y) / 2)
    return torch.stack(bands, dim=-1)


class Light(nn.Module):
    """What turning does to colours; nothing until `table` has learned."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(HARMONICS, 3))

    def forward(
        self,
        normals: Float[Tensor, "n 3"],
        turned: Float[Tensor, "n 3"],
        attachment: Float[Tensor, " n"],
        rotation: Float[Tensor, "3 3"],
        rest: Float[Tensor, "3 3"],
    ) -> Float[Tensor, "n 3"]:
        """The factor on every Gaussian's sRGB.

        Normals in head space, of any length, canonical and under the expression; `rotation` and
        `rest` are world_from_head's.
        """
        still, now = (nn.functional.normalize(each, dim=-1) for each in (normals, turned))
        change = harmonics(now @ rotation.T) - harmonics(still @ rest.T)
        return ((attachment[:, None] * change) @ self.table).exp()
