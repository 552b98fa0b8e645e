"""What distillation asks of a head model, and the people it distils for.

B        (x_posed, identity, z_exp) -> (offset, omega):  x_canonical = x_posed + offset
omega    hyper coordinates, where B puts what three canonical coordinates cannot tell apart
subject  one person: the identity compression and points on the canonical surface, by region

Distillation never looks inside B, so anything with `backward_field` can be inverted: the open
prior, a published MonoNPHM, or the analytic fields of the tests.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Region(IntEnum):
    """Where a surface point lies; lips and lids are where B is hardest to invert."""

    rest = 0
    lips = 1
    lids = 2


@runtime_checkable
class Teacher(Protocol):
    """A frozen backward field; `nphm_tracking.HeadModel` is one."""

    @property
    def exp_size(self) -> int:
        """Length of z_exp."""
        ...

    @property
    def identity_size(self) -> int:
        """Length of the identity compression."""
        ...

    @property
    def hyper_size(self) -> int:
        """Number of hyper coordinates."""
        ...

    def backward_field(
        self,
        points: Float[Tensor, "b n 3"],
        identity: Float[Tensor, "b i"],
        z_exp: Float[Tensor, "b e"],
    ) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n h"]]:
        """Offsets to canonical space and hyper coordinates of posed points."""
        ...


@dataclass(frozen=True)
class Subjects:
    """`s` people with `v` canonical surface points each."""

    identity: Float[Tensor, "s i"]
    """Identity compression, as B takes it."""
    surface: Float[Tensor, "s v 3"]
    """Points on the neutral surface, head space."""
    region: Int[Tensor, "s v"]
    """`Region` of each point."""

    def __len__(self) -> int:
        return len(self.identity)

    def to(self, device: torch.device) -> "Subjects":
        """On another device."""
        return Subjects(self.identity.to(device), self.surface.to(device), self.region.to(device))


def backward(
    teacher: Teacher,
    points: Float[Tensor, "b n 3"],
    identity: Float[Tensor, "b i"],
    z_exp: Float[Tensor, "b e"],
) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n h"]]:
    """(x_canonical, omega) of posed points; differentiable in the points."""
    offsets, hyper = teacher.backward_field(points, identity, z_exp)
    return points + offsets, hyper


@torch.no_grad()
def rest_points(
    teacher: Teacher, subjects: Subjects, neutral: Float[Tensor, "e"]
) -> tuple[Float[Tensor, "s v 3"], Float[Tensor, "s v h"]]:
    """(x, omega) of the surface points under the neutral expression: what an avatar starts from."""
    z_exp = neutral.expand(len(subjects), -1)
    return backward(teacher, subjects.surface, subjects.identity, z_exp)
