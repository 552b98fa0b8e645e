"""Triangle meshes: vertices [v 3], faces [f 3], optional vertex colours [v 3] in 0..1."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SurfaceSamples:
    """Points drawn on a mesh."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    """Unit, interpolated from the vertices."""
    face: Int[Tensor, "n"]
    bary: Float[Tensor, "n 3"]


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in one space (the variable's name says which)."""

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    colors: Float[Tensor, "v 3"] | None = None

    def face_areas_normals(self) -> tuple[Float[Tensor, "f"], Float[Tensor, "f 3"]]:
        """Areas and unit normals (right-hand rule)."""
        a, b, c = self.vertices[self.faces].unbind(1)
        cross = torch.linalg.cross(b - a, c - a)
        length = cross.norm(dim=1)
        return 0.5 * length, cross / length.clamp_min(1e-20)[:, None]

    def normals(self) -> Float[Tensor, "v 3"]:
        """Unit vertex normals, area-weighted."""
        areas, face_normals = self.face_areas_normals()
        total = torch.zeros_like(self.vertices)
        weighted = (areas[:, None] * face_normals).repeat_interleave(3, 0)
        total.index_add_(0, self.faces.reshape(-1), weighted)
        return torch.nn.functional.normalize(total, dim=1)

    def sample(
        self, count: int, seed: int, face_weights: Float[Tensor, "f"] | None = None
    ) -> SurfaceSamples:
        """``count`` points, uniform by area times ``face_weights``."""
        generator = torch.Generator().manual_seed(seed)
        areas, _ = self.face_areas_normals()
        chance = areas if face_weights is None else areas * face_weights
        face = torch.multinomial(
            chance.double().cpu(), count, replacement=True, generator=generator
        )
        u, v = torch.rand(2, count, generator=generator)
        root = u.sqrt()
        bary = torch.stack([1 - root, root * (1 - v), root * v], 1).to(self.vertices)
        face = face.to(self.faces.device)
        corners = self.faces[face]
        points = (bary[:, :, None] * self.vertices[corners]).sum(1)
        normals = (bary[:, :, None] * self.normals()[corners]).sum(1)
        return SurfaceSamples(points, torch.nn.functional.normalize(normals, dim=1), face, bary)

    def closest(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"], Int[Tensor, "n"]]:
        """Distance to the surface, the nearest surface point, and its face (trimesh)."""
        import trimesh

        body = trimesh.Trimesh(
            self.vertices.detach().cpu().numpy(), self.faces.cpu().numpy(), process=False
        )
        near, distance, face = trimesh.proximity.closest_point(
            body, points.detach().cpu().numpy().astype(np.float64)
        )
        return (
            torch.from_numpy(distance).to(points),
            torch.from_numpy(near).to(points),
            torch.from_numpy(face.astype(np.int64)),
        )

    def save(self, path: str | Path) -> None:
        """Write a PLY (binary, with colours where there are any) through a temporary name."""
        import trimesh

        colors = None
        if self.colors is not None:
            colors = (self.colors.clamp(0, 1) * 255).round().byte().cpu().numpy()
        body = trimesh.Trimesh(
            self.vertices.detach().cpu().numpy(),
            self.faces.cpu().numpy(),
            vertex_colors=colors,
            process=False,
        )
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        content = body.export(file_type="ply")
        assert isinstance(content, bytes)
        partial.write_bytes(content)
        os.replace(partial, path)
