"""An analytic head with the interface of a head model: what a tracker must recover is known.

Canonical: an ellipsoid whose radii follow z_geo [3], with a nose (a small sphere, smooth union).
Posed -> canonical: x' = x + sum_e z_e d_e exp(-|x - c_e|^2 / (2 r^2)), four smooth bumps with known
directions (jaw, left and right cheek, brow). `posed_points` inverts it by fixed-point iteration.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from npga.core.mesh import Mesh

RADII = torch.tensor([0.30, 0.42, 0.36])
NOSE = torch.tensor([0.0, -0.05, 0.36])
CENTRES = torch.tensor(
    [[0.0, -0.30, 0.24], [0.17, -0.12, 0.26], [-0.17, -0.12, 0.26], [0.0, 0.22, 0.28]]
)
DIRECTIONS = torch.tensor(
    [[0.0, 0.10, 0.02], [-0.06, -0.05, 0.0], [0.06, -0.05, 0.0], [0.0, -0.06, 0.0]]
)
REACH = 0.11


@dataclass(frozen=True)
class ExpressionStats:
    """Statistics of the codes, as a head model gives them."""

    mean: Tensor
    std: Tensor
    lower: Tensor
    upper: Tensor


class AnalyticHead(nn.Module):
    """A head model without networks."""

    geo_size, app_size, exp_size, hyper_size, identity_size = 3, 2, 4, 2, 3
    expression_names = ("jaw", "cheek<Left>", "cheek&Right", "brow")

    def __init__(self) -> None:
        super().__init__()
        self.exp_stats = ExpressionStats(
            torch.zeros(4), torch.full((4,), 0.3), torch.zeros(4), torch.ones(4)
        )
        self.geo_stats = ExpressionStats(
            torch.zeros(3), torch.ones(3), torch.full((3,), -3.0), torch.full((3,), 3.0)
        )
        grid = torch.stack(
            torch.meshgrid(
                torch.linspace(-0.8, 0.8, 9), torch.linspace(-0.8, 0.9, 11), indexing="ij"
            ),
            -1,
        )
        x, y = grid.reshape(-1, 2).unbind(1)
        keep = x**2 + y**2 < 0.8
        z = (1 - x[keep] ** 2 - y[keep] ** 2).sqrt()
        self.directions = torch.stack([x[keep], y[keep], z], 1)
        self.landmark_count = len(self.directions)
        self.landmark_slopes = None

    def radii(self, z_geo: Tensor) -> Tensor:
        return RADII.to(z_geo) * torch.exp(0.1 * z_geo)

    def compress(self, z_geo: Float[Tensor, "b g"]) -> Float[Tensor, "b i"]:
        return z_geo

    def backward_field(
        self, points: Tensor, identity: Tensor, z_exp: Tensor
    ) -> tuple[Tensor, Tensor]:
        away = points[..., None, :] - CENTRES.to(points)
        bump = torch.exp(-away.square().sum(-1) / (2 * REACH**2))
        offsets = (bump * z_exp[:, None]) @ DIRECTIONS.to(points)
        # An identity does not matter here, but as in any head model it could.
        return offsets + 0 * identity[:, None, :1], torch.zeros_like(points[..., :2])

    def sdf(self, canonical: Tensor, z_geo: Tensor) -> Tensor:
        position, radii = canonical[..., :3], self.radii(z_geo)
        radii = radii if z_geo.dim() == 1 else radii[..., None, :]
        inner = (position / radii).norm(dim=-1)
        slope = (position / radii.square()).norm(dim=-1).clamp_min(1e-6)
        body = inner * (inner - 1) / slope
        nose = (position - NOSE.to(position)).norm(dim=-1) - 0.06
        return -0.02 * torch.logsumexp(torch.stack([-body, -nose]) / 0.02, 0)

    def landmarks(self, z_geo: Tensor) -> Tensor:
        position = self.directions.to(z_geo) * self.radii(z_geo)
        for _ in range(8):
            signed = self.sdf(position, z_geo)
            position = position + self.directions.to(z_geo) * (-signed)[:, None].clamp(-0.02, 0.02)
        return position

    def checksum(self) -> str:
        return "analytic00000000"

    def posed_points(self, canonical: Tensor, z_exp: Float[Tensor, "e"]) -> Tensor:
        """x with B(x) = canonical, by fixed-point iteration."""
        posed = canonical.clone()
        for _ in range(40):
            offsets, _ = self.backward_field(posed[None], torch.zeros(1, 3), z_exp[None])
            posed = canonical - offsets[0]
        return posed

    def surface(self, z_geo: Tensor, count: int, seed: int) -> Tensor:
        """Canonical points of the front, on the surface."""
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(count * 3, 3, generator=generator)
        direction = direction[direction[:, 2] > -0.2 * direction.norm(dim=1)][:count]
        direction = direction / direction.norm(dim=1, keepdim=True)
        position = direction * self.radii(z_geo)
        for _ in range(30):
            position = position - direction * 0.7 * self.sdf(position, z_geo)[:, None]
        return position

    def mesh(self, codes: object, resolution: int = 48, canonical: bool = False) -> Mesh:
        from skimage.measure import marching_cubes

        axis = torch.linspace(-0.6, 0.6, resolution)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        offsets, _ = self.backward_field(grid[None], codes.z_geo[None], codes.z_exp[None])
        volume = self.sdf(grid + (0 if canonical else offsets[0]), codes.z_geo)
        vertices, faces, _, _ = marching_cubes(volume.reshape([resolution] * 3).numpy(), 0.0)
        points = torch.from_numpy(vertices.copy()) * (axis[1] - axis[0]) + axis[0]
        return Mesh(points.float(), torch.from_numpy(faces.astype("int64")))
