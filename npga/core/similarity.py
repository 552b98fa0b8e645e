"""Similarities: x_out = scale * rotation @ x_in + translation, with leading batch dimensions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.rotations import mean_rotation


@dataclass(frozen=True)
class Similarity:
    """A scaled rigid motion, named ``out_from_in``."""

    scale: Float[Tensor, "*b"]
    """Uniform scale."""
    rotation: Float[Tensor, "*b 3 3"]
    """Proper rotation."""
    translation: Float[Tensor, "*b 3"]
    """In the units of the output space."""

    @staticmethod
    def identity(*batch: int, dtype: torch.dtype = torch.float32) -> "Similarity":
        """The motion that changes nothing."""
        eye = torch.eye(3, dtype=dtype).expand(*batch, 3, 3).clone()
        return Similarity(torch.ones(batch, dtype=dtype), eye, torch.zeros(*batch, 3, dtype=dtype))

    @staticmethod
    def stack(items: "list[Similarity]") -> "Similarity":
        """Join along a new first dimension."""
        return Similarity(
            torch.stack([s.scale for s in items]),
            torch.stack([s.rotation for s in items]),
            torch.stack([s.translation for s in items]),
        )

    @staticmethod
    def from_matrix(matrix: Float[Tensor, "*b 4 4"]) -> "Similarity":
        """Split a 4x4 that holds scale * rotation and a translation."""
        scale = torch.linalg.det(matrix[..., :3, :3]).clamp_min(1e-30) ** (1 / 3)
        rotation = matrix[..., :3, :3] / scale[..., None, None]
        return Similarity(scale, rotation, matrix[..., :3, 3])

    def __getitem__(self, index: int | slice | Tensor) -> "Similarity":
        return Similarity(self.scale[index], self.rotation[index], self.translation[index])

    def __len__(self) -> int:
        return len(self.scale)

    def apply(self, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
        """Map points from the input to the output space."""
        turned = points @ self.rotation.transpose(-1, -2)
        return self.scale[..., None, None] * turned + self.translation[..., None, :]

    def compose(self, other: "Similarity") -> "Similarity":
        """``self`` after ``other``: a_from_c = a_from_b.compose(b_from_c)."""
        moved = (self.rotation @ other.translation[..., None]).squeeze(-1)
        return Similarity(
            self.scale * other.scale,
            self.rotation @ other.rotation,
            self.scale[..., None] * moved + self.translation,
        )

    def inverse(self) -> "Similarity":
        """in_from_out."""
        rotation = self.rotation.transpose(-1, -2)
        scale = 1 / self.scale
        moved = (rotation @ self.translation[..., None]).squeeze(-1)
        return Similarity(scale, rotation, -scale[..., None] * moved)

    def matrix(self) -> Float[Tensor, "*b 4 4"]:
        """The 4x4 that acts on homogeneous columns."""
        top = torch.cat(
            [self.scale[..., None, None] * self.rotation, self.translation[..., None]], dim=-1
        )
        bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=top.dtype, device=top.device)
        return torch.cat([top, bottom.expand(*top.shape[:-2], 1, 4)], dim=-2)

    def to(self, target: torch.device | torch.dtype | str) -> "Similarity":
        """On another device or in another precision."""
        return Similarity(
            self.scale.to(target), self.rotation.to(target), self.translation.to(target)
        )

    def mean(self) -> "Similarity":
        """The average over the first dimension (rotations by their mean quaternion)."""
        return Similarity(
            self.scale.mean(0), mean_rotation(self.rotation), self.translation.mean(0)
        )


def fit_similarity(
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "n 3"],
    weights: Float[Tensor, "n"] | None = None,
    with_scale: bool = True,
) -> Similarity:
    """The least-squares similarity target_from_source (Umeyama 1991).

    ``weights`` are non-negative; at least three points that are not on a line are needed.
    """
    w = torch.ones_like(source[:, 0]) if weights is None else weights
    w = w / w.sum().clamp_min(1e-12)
    source_mean, target_mean = w @ source, w @ target
    a, b = source - source_mean, target - target_mean
    u, singular, vt = torch.linalg.svd((w[:, None] * b).T @ a)
    sign = torch.ones_like(singular)
    sign[-1] = torch.sign(torch.linalg.det(u @ vt))
    rotation = u @ torch.diag(sign) @ vt
    variance = (w * (a * a).sum(-1)).sum().clamp_min(1e-20)
    scale = (singular * sign).sum() / variance if with_scale else torch.ones_like(variance)
    return Similarity(scale, rotation, target_mean - scale * (rotation @ source_mean))
