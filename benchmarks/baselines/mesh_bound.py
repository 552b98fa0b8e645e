"""The baseline `mesh_bound`: Gaussians that ride on the triangles of the tracked mesh.

    x_head = o(z) + r(z) Q(z) (x - o),   q_head = Q(z) q,   s_head = s + log r(z)

o is the middle of the parent triangle in canonical space, o(z) the same after the forward prior
has carried the triangle's corners to an expression; Q(z) turns the canonical triangle into the
carried one and r(z) is the ratio of their sizes. Everything local (x - o, q, s, opacity, colour) is
learned; a Gaussian that is added inherits its parent's triangle. That is the idea of
GaussianAvatars (Qian et al. 2024) on our tracked mesh, with what we give our own avatar: learned
attachment to head or torso, pose corrections, seeds from clouds. `position` and `size` are its two
regularisers; what starts far from the surface (hair, clothes) may stay there. With `detail` the
baseline also gets G, whose shifts are then in the triangle's frame.

Letters: `v` vertices, `f` faces, `n` Gaussians, `e` expression size, `h` hyper coordinates, `r`
rank.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.avatar import Avatar, AvatarSizes, CanonicalPoints, ForwardField, Posed
from npga.avatar.attachment import blend_poses, initial_attachment
from npga.avatar.detail import Residuals
from npga.avatar.forward import combine
from npga.avatar.initial import nearest_places
from npga.core.mesh import Mesh
from npga.core.rotations import quat_from_matrix, quat_multiply, small_turn
from npga.core.similarity import Similarity
from npga.fit.terms import Scene, Term

LEASH, SPAN = 2.0, 0.6
"""Triangle sizes that a Gaussian may be away from its triangle, and may be large, for nothing.

The paper says 1 and 0.6; our triangles (4 mm) are about half as large as those it speaks of.
"""
ROOM = 2.0
"""What starts farther away, or larger, may become so many times as far and as large."""
LEAST_AREA, LEAST_HEIGHT = 0.3, 0.3
"""Of a parent: its area over the median's, and its height over its longest side."""


@dataclass(frozen=True)
class TriangleFrames:
    """Where triangles are: middle, axes in columns, and size (mean of a side and its height)."""

    middle: Float[Tensor, "n 3"]
    axes: Float[Tensor, "n 3 3"]
    size: Float[Tensor, " n"]

    @staticmethod
    def of(corners: Float[Tensor, "n 3 3"]) -> "TriangleFrames":
        """Frames of triangles from their corners [n corner xyz]."""
        a, b, c = corners.unbind(1)
        side, cross = b - a, torch.linalg.cross(b - a, c - a)
        length, area = side.norm(dim=1, keepdim=True), cross.norm(dim=1, keepdim=True)
        along, normal = side / length.clamp(min=1e-12), cross / area.clamp(min=1e-20)
        axes = torch.stack([along, normal, torch.linalg.cross(along, normal)], dim=-1)
        size = (length + area / length.clamp(min=1e-12))[:, 0] / 2
        return TriangleFrames(corners.mean(1), axes, size)


def parents_of(points: Float[Tensor, "n 3"], surface: Mesh) -> Int[Tensor, " n"]:
    """The face whose middle is nearest to each point, slivers left out."""
    corners = surface.vertices[surface.faces]
    areas, _ = surface.face_areas_normals()
    longest = (corners - corners.roll(1, 1)).norm(dim=2).amax(1)
    height = 2 * areas / longest.clamp(min=1e-12)
    good = (areas > LEAST_AREA * areas.median()) & (height > LEAST_HEIGHT * longest)
    faces = torch.nonzero(good).flatten()
    return faces[nearest_places(points, corners[faces].mean(1))]


class MeshBound(Avatar):
    """An avatar whose canonical Gaussians are carried by triangles, not by F at each centre."""

    CONSTANT_ROWS = ("parent", "leash", "span")

    parent: Tensor
    leash: Tensor
    span: Tensor
    vertices: Tensor
    vertex_omega: Tensor
    faces: Tensor

    def __init__(
        self, seeds: Avatar, surface: Mesh, omega: Float[Tensor, "v h"], detail: bool = False
    ) -> None:
        """`seeds` is our own avatar before its first step, `surface` the canonical tracked head."""
        start = CanonicalPoints(
            seeds.means.detach(),
            seeds.colors.detach(),
            seeds.log_scales.detach(),
            seeds.normals.detach(),
            seeds.omega.detach(),
            seeds.reach.detach(),
            seeds.attachment.detach(),
            float(seeds.logit_opacities[0].detach().sigmoid()),
        )
        sizes = seeds.sizes if detail else AvatarSizes(features=0, screen_features=0)
        super().__init__(
            start, seeds.prior, seeds.identity, seeds.expressions, seeds.torso.rest, sizes
        )
        self.observe_necks(torch.stack([seeds.neck_lower, seeds.neck_upper]))
        if detail:
            self.observe_conditions(seeds.detail.middle[None])
        self.moves_detail = detail
        parent = parents_of(start.points, surface)
        frames = TriangleFrames.of(surface.vertices[surface.faces[parent]])
        away = (start.points - frames.middle).norm(dim=1)
        self.register_buffer("parent", parent)
        largest = start.log_scales.exp().amax(1)
        self.register_buffer("leash", torch.maximum(ROOM * away, LEASH * frames.size))
        self.register_buffer("span", torch.maximum(ROOM * largest, SPAN * frames.size))
        self.register_buffer("vertices", surface.vertices.clone())
        self.register_buffer("vertex_omega", omega.clone())
        self.register_buffer("faces", surface.faces.clone())

    @torch.no_grad()
    def vertex_field(self) -> ForwardField:
        """F at the vertices; F stays as distilled: the mesh is the tracked one."""
        if self._vertex_field is None:
            basis = self.prior.basis(
                self.vertices[None], self.vertex_omega[None], self.identity[None]
            )[0]
            shares = self.shares(self.code_motion(basis, initial_attachment(self.vertices)))
            self._vertex_field = ForwardField(basis, None, shares)
        return self._vertex_field

    @torch.no_grad()
    def field(self, turns: Tensor | None = None) -> ForwardField:
        """No basis or turns at the centres; a Gaussian's shares are those of its triangle."""
        return ForwardField(None, None, self.vertex_field().shares[self.faces[self.parent]].mean(1))

    def _forget(self) -> None:
        super()._forget()
        self._vertex_field: ForwardField | None = None

    def tracked_mesh(self, z_exp: Float[Tensor, " e"]) -> Float[Tensor, "v 3"]:
        """The vertices under an expression, in head space; the neck fades to the torso's rest.

        Gradients reach a code that asks for them.
        """
        basis = self.vertex_field().basis
        assert basis is not None
        offset = combine(basis[None], self.frozen_coefficients(z_exp)[None])[0]
        return self.vertices + offset * initial_attachment(self.vertices)[:, None]

    def frames(self, vertices: Float[Tensor, "v 3"]) -> TriangleFrames:
        """The parents' frames on a posed mesh."""
        corners = self.faces.index_select(0, self.parent)
        picked = vertices.index_select(0, corners.reshape(-1))
        return TriangleFrames.of(picked.reshape(-1, 3, 3))

    def decode(
        self,
        z_exp: Float[Tensor, " e"],
        world_from_head: Similarity,
        world_from_torso: Similarity | None = None,
        *,
        field: ForwardField | None = None,
    ) -> Posed:
        """As our avatar's; the vertices' basis is always kept."""
        rest, now = self.frames(self.vertices), self.frames(self.tracked_mesh(z_exp))
        turn = now.axes @ rest.axes.transpose(1, 2)
        ratio = now.size / rest.size
        condition = self.detail_condition(z_exp, world_from_head, world_from_torso)
        residuals = self._residuals(condition, field)
        local = self.means + residuals.centre - rest.middle
        x_head = now.middle + ratio[:, None] * (turn @ local[..., None])[..., 0]
        means, quats, log_scales = blend_poses(
            x_head,
            quat_multiply(
                quat_from_matrix(turn), quat_multiply(small_turn(residuals.rotation), self.quats)
            ),
            self.log_scales + residuals.log_scale + ratio.log()[:, None],
            self.attachment,
            world_from_head,
            self.torso(world_from_head, world_from_torso),
        )
        normals = (turn @ self.normals[..., None])[..., 0]
        gaussians = self.drawn(means, quats, log_scales, normals, residuals, world_from_head)
        return Posed(gaussians, x_head - self.means - residuals.centre, residuals)

    def _residuals(self, condition: Float[Tensor, " c"], field: ForwardField | None) -> Residuals:
        if self.moves_detail:
            shares = (self.field() if field is None else field).shares
            return self.detail(self.features, self.means, condition, shares)
        nothing = torch.zeros_like(self.means)
        return Residuals(nothing, nothing, nothing, nothing[:, 0], nothing)


def position(scene: Scene) -> Tensor:
    """How far Gaussians are beyond their leash, in triangle sizes."""
    avatar = _bound(scene)
    rest = avatar.frames(avatar.vertices)
    away = (avatar.means - rest.middle).norm(dim=1)
    return ((away - avatar.leash).clamp(min=0) / rest.size).mean()


def size(scene: Scene) -> Tensor:
    """How much larger than their span Gaussians are, in triangle sizes."""
    avatar = _bound(scene)
    rest = avatar.frames(avatar.vertices)
    largest = avatar.log_scales.exp().amax(1)
    return ((largest - avatar.span).clamp(min=0) / rest.size).mean()


def _bound(scene: Scene) -> MeshBound:
    assert isinstance(scene.avatar, MeshBound)
    return scene.avatar


BOUND_TERMS: dict[str, Term] = {"bound_position": position, "bound_size": size}
BOUND_WEIGHTS = {"bound_position": 0.01, "bound_size": 1.0}
"""The paper's weights."""
