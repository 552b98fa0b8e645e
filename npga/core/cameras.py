"""Pinhole cameras of one rig, all of one picture size.

K [3 3] in pixels of (width, height); x_cam = cam_from_world x_world; a pixel's centre lies at
(column + 0.5, row + 0.5); no distortion.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.errors import CaptureError


@dataclass(frozen=True)
class Cameras:
    """``c`` calibrated cameras."""

    K: Float[Tensor, "c 3 3"]
    """Intrinsics in pixels."""
    cam_from_world: Float[Tensor, "c 4 4"]
    """Rigid, metres, OpenCV axes."""
    width: int
    height: int
    ids: tuple[str, ...]
    """Serial numbers, in the order of the first dimension."""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, indices: Iterable[int]) -> "Cameras":
        """The cameras at these places, in this order."""
        rows = list(indices)
        return replace(
            self,
            K=self.K[rows],
            cam_from_world=self.cam_from_world[rows],
            ids=tuple(self.ids[i] for i in rows),
        )

    def by_id(self, ids: Iterable[str]) -> "Cameras":
        """The cameras with these serials; raises CaptureError for an unknown one."""
        wanted = list(ids)
        unknown = [i for i in wanted if i not in self.ids]
        if unknown:
            raise CaptureError(
                f"Camera {unknown[0]} is not in this rig, which has {', '.join(self.ids)}.",
                "Name cameras from that list.",
            )
        return self.select(self.ids.index(i) for i in wanted)

    def resized(self, width: int, height: int) -> "Cameras":
        """The same views at another picture size (pure scaling of K, as NeRSemble does)."""
        factor = torch.tensor(
            [width / self.width, height / self.height, 1.0], dtype=self.K.dtype
        ).to(self.K.device)
        return replace(self, K=self.K * factor[:, None], width=width, height=height)

    def cropped(self, left: int, top: int, width: int, height: int) -> "Cameras":
        """The window of size (width, height) whose corner is pixel (left, top)."""
        shift = torch.zeros_like(self.K)
        shift[:, 0, 2], shift[:, 1, 2] = left, top
        return replace(self, K=self.K - shift, width=width, height=height)

    def to(self, target: torch.device | torch.dtype | str) -> "Cameras":
        """On another device or in another precision."""
        return replace(self, K=self.K.to(target), cam_from_world=self.cam_from_world.to(target))

    def project(
        self, points_world: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "c n 2"], Float[Tensor, "c n"]]:
        """Pixels and depths (metres) of world points; pixels mean nothing where depth <= 0."""
        rotation, translation = self.cam_from_world[:, :3, :3], self.cam_from_world[:, :3, 3]
        cam = points_world @ rotation.transpose(1, 2) + translation[:, None]
        depth = cam[..., 2]
        safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
        image = (cam / safe[..., None]) @ self.K.transpose(1, 2)
        return image[..., :2], depth

    def centres_world(self) -> Float[Tensor, "c 3"]:
        """Optical centres."""
        rotation, translation = self.cam_from_world[:, :3, :3], self.cam_from_world[:, :3, 3]
        return -(rotation.transpose(1, 2) @ translation[..., None]).squeeze(-1)

    def axes_world(self) -> Float[Tensor, "c 3"]:
        """Unit viewing directions."""
        return self.cam_from_world[:, 2, :3]

    def frontal(self) -> int:
        """Which camera looks most against the world's z, the way a capture's person faces."""
        return int(self.axes_world()[:, 2].argmin())

    @staticmethod
    def join(items: "list[Cameras]") -> "Cameras":
        """Several rigs of one picture size as one."""
        return replace(
            items[0],
            K=torch.cat([c.K for c in items]),
            cam_from_world=torch.cat([c.cam_from_world for c in items]),
            ids=tuple(i for c in items for i in c.ids),
        )


def look_at(
    eye: Float[Tensor, "3"], target: Float[Tensor, "3"], up: Float[Tensor, "3"]
) -> Float[Tensor, "4 4"]:
    """cam_from_world of a camera at ``eye`` that looks at ``target`` with ``up`` pointing up."""
    forward = torch.nn.functional.normalize(target - eye, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward])
    matrix = torch.eye(4, dtype=eye.dtype)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye
    return matrix


def nearest_point(cameras: Cameras) -> Float[Tensor, "3"]:
    """The world point nearest to all optical axes (least squares): where the rig looks."""
    axes, centres = cameras.axes_world(), cameras.centres_world()
    eye = torch.eye(3, dtype=axes.dtype, device=axes.device)
    planes = eye - axes[:, :, None] * axes[:, None, :]
    return torch.linalg.solve(planes.sum(0), (planes @ centres[..., None]).sum(0).squeeze(-1))
