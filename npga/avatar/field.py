"""What F says of the canonical centres whatever the expression: how they move and turn, by what.

G is asked about codes too, but a Gaussian's share of each is cut to what F moves there:

    share = d / (d + NEAR),   d = a reach |F's offset per training range of that number|

What a face does in one place depends on the muscles of that place. A few takes show each of them
together with few others; a G that sees whole codes takes what only came together for what belongs
together, and is wrong where a held-out take combines them anew (the ablation `no_shares` of
`bench_quality`). Ours.

Letters: `n` Gaussians, `e` expression size, `r` rank. `a` and `reach` are an avatar's.
"""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

NEAR = 0.004
"""Offset, in head units (1 mm), at which a Gaussian has half a share of a code's number."""


@dataclass(frozen=True)
class ForwardField:
    """F at the canonical centres, for whatever expression will be asked."""

    basis: Float[Tensor, "n 3 r"] | None
    """Head units per coefficient; None while F itself learns."""
    turns: Float[Tensor, "n 3 r"] | None
    """Axis times sine of the angle by which what is around a centre turns, per coefficient; None
    where something else turns the Gaussians (a mesh)."""
    shares: Float[Tensor, "n e"]
    """How much of each number of a code G sees, 0..1."""

    def without_basis(self) -> "ForwardField":
        """For a decode whose gradients reach F."""
        return replace(self, basis=None)


def code_motion(
    basis: Float[Tensor, "n 3 r"],
    slopes: Float[Tensor, "r e"],
    span: Float[Tensor, " e"],
    carried: Float[Tensor, " n"],
) -> Float[Tensor, "n 3 e"]:
    """Where F carries each centre per training range of each number of a code, in head units.

    Slopes are d coefficients / d z_exp, `carried` is a reach.
    """
    return carried[:, None, None] * (basis @ (slopes * span))


def code_shares(motion: Float[Tensor, "n 3 e"]) -> Float[Tensor, "n e"]:
    """`share` of the module docstring, of `code_motion`."""
    moved = motion.norm(dim=1)
    return moved / (moved + NEAR)
