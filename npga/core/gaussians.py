"""A cloud of 3D Gaussians.

Sigma_i = R(q_i) diag(exp(log_scale_i))^2 R(q_i)^T; opacity_i = sigmoid(logit_opacity_i). ``colors``
are the channels that the raster blends: RGB (sRGB, 0..1) first, then any features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.rotations import matrix_from_quat, quat_from_matrix, quat_multiply
from npga.core.similarity import Similarity


@dataclass(frozen=True)
class Gaussians:
    """``n`` Gaussians in one space (the variable's name says which)."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    """wxyz, any length > 0."""
    log_scales: Float[Tensor, "n 3"]
    logit_opacities: Float[Tensor, "n"]
    colors: Float[Tensor, "n k"]

    def __len__(self) -> int:
        return len(self.means)

    def select(self, index: Tensor | slice) -> "Gaussians":
        """The rows at ``index``."""
        return Gaussians(
            self.means[index],
            self.quats[index],
            self.log_scales[index],
            self.logit_opacities[index],
            self.colors[index],
        )

    def join(self, other: "Gaussians") -> "Gaussians":
        """These rows, then the other's."""
        return Gaussians(
            torch.cat([self.means, other.means]),
            torch.cat([self.quats, other.quats]),
            torch.cat([self.log_scales, other.log_scales]),
            torch.cat([self.logit_opacities, other.logit_opacities]),
            torch.cat([self.colors, other.colors]),
        )

    def transformed(self, out_from_in: Similarity) -> "Gaussians":
        """The cloud in another space: means, rotations and scales move, looks do not."""
        turn = quat_from_matrix(out_from_in.rotation)
        return Gaussians(
            out_from_in.apply(self.means),
            quat_multiply(turn.expand_as(self.quats), self.quats),
            self.log_scales + out_from_in.scale.log(),
            self.logit_opacities,
            self.colors,
        )

    def covariances(self) -> Float[Tensor, "n 3 3"]:
        """Sigma, in squared units of the space."""
        spread = matrix_from_quat(self.quats) * self.log_scales.exp()[:, None, :]
        return spread @ spread.transpose(1, 2)
