"""An analytic backward field whose inverse is known in closed form.

c canonical, p posed, R(z) a small turn about x, and two shears that only move a coordinate by a
smooth bump of the other two, so that each is undone exactly:

    posed = R(z) shear_z(shear_y(c)),   B(p) = shear_y^-1(shear_z^-1(R(z)^T p))
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from npga.core.rotations import matrix_from_rotvec
from npga.distill.teacher import Region, Subjects


class AnalyticTeacher:
    exp_size = 3
    identity_size = 2
    hyper_size = 2

    def _bumps(self, identity: Tensor, z_exp: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = (0.25 + 0.05 * identity[:, :1, None]).expand(-1, -1, 1)[..., 0]
        return 0.08 * z_exp[:, 1:2], 0.06 * z_exp[:, 2:3], width

    def _turn(self, z_exp: Tensor) -> Tensor:
        axis = torch.tensor([0.2, 0.0, 0.0], dtype=z_exp.dtype)
        return matrix_from_rotvec(z_exp[:, :1] * axis)

    def forward_map(self, canonical: Tensor, identity: Tensor, z_exp: Tensor) -> Tensor:
        up, out, width = self._bumps(identity, z_exp)
        x, y, z = canonical.unbind(-1)
        y = y + up * torch.exp(-(x**2 + z**2) / width**2)
        z = z + out * torch.exp(-(x**2 + y**2) / width**2)
        return torch.stack([x, y, z], -1) @ self._turn(z_exp).transpose(1, 2)

    def backward_field(
        self, points: Tensor, identity: Tensor, z_exp: Tensor
    ) -> tuple[Tensor, Tensor]:
        up, out, width = self._bumps(identity, z_exp)
        x, y, z = (points @ self._turn(z_exp)).unbind(-1)
        z = z - out * torch.exp(-(x**2 + y**2) / width**2)
        y = y - up * torch.exp(-(x**2 + z**2) / width**2)
        canonical = torch.stack([x, y, z], -1)
        hyper = torch.stack([0.1 * z_exp[:, :1] * y, 0.1 * z_exp[:, 1:2] * x], -1)
        return canonical - points, hyper


def make_subjects(count: int, points: int, seed: int = 0) -> Subjects:
    """Spheres of radius 0.35 with a cap of `lips` below and of `lids` above."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(count, points, 3, generator=generator)
    surface = 0.35 * torch.nn.functional.normalize(directions, dim=-1)
    region = torch.full((count, points), int(Region.rest))
    region[surface[..., 1] < -0.25] = int(Region.lips)
    region[surface[..., 1] > 0.25] = int(Region.lids)
    identity = torch.rand(count, AnalyticTeacher.identity_size, generator=generator)
    return Subjects(identity, surface, region)


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """These tensors are too small to share between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def teacher() -> AnalyticTeacher:
    return AnalyticTeacher()


@pytest.fixture
def subjects() -> Subjects:
    return make_subjects(3, 400)
