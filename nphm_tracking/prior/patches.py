"""What a local geometry code means: a small smooth change of the surface around its anchor; ours.

Published MonoNPHM learns its local codes by heart for the training scans. Ours are coefficients of
known shapes, so that any code has an exact head and people beyond the population can be fitted: in
the anchor's frame (tangents s, t and normal n), the surface moves along n by
c0 + c1 s + c2 t + c3 s^2 + c4 s t + c5 t^2 and along the tangents by c6, c7. The patches are joined
by the model's own blending weights, so that every local network only needs its own code.

Letters: v vertices, a anchors, k patches that reach a vertex, j = 8 coefficients.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.capture.synthetic.people import Template
from npga.core.mesh import Mesh
from nphm_tracking.model.sizes import HeadModelSizes

COEFFICIENTS = 8
UNIT = 0.02
"""Motion of coefficient 1, head units (5 mm)."""
REACH = 0.06
"""s = t = 1 at this distance from the anchor, head units (15 mm); clamped at 2."""
SPREAD = (0.6, 0.35, 0.35, 0.25, 0.25, 0.25, 0.5, 0.5)
"""Spread of the coefficients of people far beyond the averages."""
CORRELATION = 0.15
"""Patches this near to each other (head units) partly change together."""


@dataclass(frozen=True)
class Patches:
    """Which patches reach each vertex, and how their coefficients move it."""

    anchor: Int[Tensor, "v k"]
    motion: Float[Tensor, "v k 3 j"]
    """Head units per unit coefficient."""
    kinship: Float[Tensor, "a a"]
    """Row-normalised nearness of anchors; for drawing."""

    def moved(self, local: Float[Tensor, "*p a j"]) -> Float[Tensor, "*p v 3"]:
        """Displacement of every vertex, head units."""
        flat = local.reshape(-1, *local.shape[-2:])
        found = [torch.einsum("vkcj,vkj->vc", self.motion, one[self.anchor]) for one in flat]
        return torch.stack(found).reshape(*local.shape[:-2], len(self.anchor), 3)

    def dense(self) -> Float[Tensor, "aj v3"]:
        """The same as one matrix, for least squares."""
        vertices, reach, _, size = self.motion.shape
        full = torch.zeros(vertices, len(self.kinship), 3, size)
        rows = torch.arange(vertices)[:, None].expand(-1, reach)
        full[rows, self.anchor] = self.motion
        return full.permute(1, 3, 0, 2).reshape(len(self.kinship) * size, -1)

    def draw(self, rng: np.random.Generator, count: int) -> Float[Tensor, "p a j"]:
        """Random local codes: of every strength, half of each change shared by kin."""
        size = (count, len(self.kinship), COEFFICIENTS)
        own, shared = (torch.from_numpy(rng.normal(size=size)).float() for _ in range(2))
        shared = self.kinship @ shared
        shared = shared / shared.std()
        strength = torch.from_numpy(rng.uniform(0, 1.2, size=(count, 1, 1))).float()
        return strength * torch.tensor(SPREAD) * (0.7 * own + 0.7 * shared)


def make_patches(
    template: Template,
    neutral: Float[Tensor, "v 3"],
    anchors: Int[Tensor, "a"],
    sizes: HeadModelSizes,
) -> Patches:
    """Patches around the anchors of an average head; mirrored anchors have mirrored frames."""
    places = neutral[anchors]
    points = neutral.clone()
    for eye in (template.left_eye, template.right_eye):
        points[eye] = neutral[eye].mean(0)  # an eyeball moves as one
    near, index = torch.cdist(points, places).topk(sizes.neighbours, dim=1, largest=False)
    spread = near[:, sizes.blend_neighbour - 1 : sizes.blend_neighbour] / sizes.blend_std
    weight = torch.softmax(-0.5 * (near / spread).square(), dim=1)
    frame = _frames(Mesh(neutral, template.faces).normals()[anchors], sizes.pair_count)[index]
    gap = points[:, None] - places[index]
    s, t = (((gap * frame[..., axis]).sum(-1) / REACH).clamp(-2, 2) for axis in (0, 1))
    along = torch.stack([torch.ones_like(s), s, t, s * s, s * t, t * t], dim=-1)
    motion = torch.cat([frame[..., 2, None] * along[..., None, :], frame[..., :2]], dim=-1)
    kin = torch.exp(-0.5 * (torch.cdist(places, places) / CORRELATION).square())
    return Patches(index, UNIT * weight[..., None, None] * motion, kin / kin.sum(1, keepdim=True))


def _frames(normals: Float[Tensor, "a 3"], pairs: int) -> Float[Tensor, "a 3 3"]:
    """Columns tangent, tangent, normal; odd members of a pair mirror the even ones."""
    normal = normals.clone()
    flip = torch.tensor([-1.0, 1.0, 1.0])
    normal[1 : 2 * pairs : 2] = normal[0 : 2 * pairs : 2] * flip
    up = torch.tensor([0.0, 1.0, 0.0]).expand_as(normal)
    first = torch.nn.functional.normalize(torch.linalg.cross(up, normal), dim=1)
    first[1 : 2 * pairs : 2] = first[0 : 2 * pairs : 2] * flip
    second = torch.linalg.cross(normal, first)
    second[1 : 2 * pairs : 2] = second[0 : 2 * pairs : 2] * flip
    return torch.stack([first, second, normal], dim=-1)
