"""People -> the arrays that a prior is trained on.

The level set is what a camera can see: skin, lips, lids, the front of the eyeballs, and the walls
of the mouth with tongue and teeth (eye sockets and the back of the eyeballs are left out).
Distances come from the nearest of many surface samples, their sign from that sample's normal.

Letters: p people, v vertices, f triangles, m points with a known distance, g global code length.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from sklearn.neighbors import KDTree
from torch import Tensor

from npga.capture.synthetic.people import EXPRESSIONS, REGIONS, Head, People, Template
from npga.core.mesh import Mesh
from npga.core.progress import track_progress
from npga.core.rotations import matrix_from_rotvec
from nphm_tracking.model.sizes import HeadModelSizes
from nphm_tracking.prior.anchors import select_anchors
from nphm_tracking.prior.patches import COEFFICIENTS, Patches, make_patches

BOX = ((-0.6, -0.68, -0.75), (0.6, 0.68, 0.5))
"""Where the prior is trained, head units; below lie the shoulders."""
LEVEL_REGIONS = ("face", "lips", "lids", "brows", "eyes", "mouth_interior", "tongue",
                 "teeth_upper", "teeth_lower", "scalp", "ears", "neck", "shoulders")  # fmt: skip
DRAW = {
    "face": 1.5, "lips": 6.0, "lids": 4.5, "brows": 1.5, "eyes": 1.5, "mouth_interior": 0.7,
    "tongue": 0.6, "teeth_upper": 1.0, "teeth_lower": 1.0, "sockets": 0.0, "scalp": 1.0,
    "ears": 0.4, "neck": 0.6, "shoulders": 0.1,
}  # fmt: skip
"""How often a triangle of each region is drawn, beside the root of its area."""
SURFACE_SAMPLES = 50_000
RIDGE = 1e-4
"""Keeps local codes finite where patches overlap."""
HYPER_SCALE = 0.2
"""omega of what the jaw (the lids) carries entirely; 0 for what it leaves in place."""


@dataclass(frozen=True)
class PriorData:
    """Everything that training reads; tensors only, float32."""

    neutral: Float[Tensor, "p v 3"]
    eye_centres: Float[Tensor, "p 2 3"]
    skin: Float[Tensor, "p 6"]
    """Skin and hair colour, standardised: the global appearance code."""
    volume_points: Float[Tensor, "p m 3"]
    volume_distance: Float[Tensor, "p m"]
    volume_label: Float[Tensor, "p m 2"]
    """Hyper label of the nearest surface."""
    shape_mean: Float[Tensor, "v 3"]
    shape_basis: Float[Tensor, "g v 3"]
    """What a global geometry coefficient moves (see ``scaled_shapes``)."""
    code: Float[Tensor, "p c"]
    """Geometry codes: global, then local per anchor; neutral = mean + what they move, exactly."""
    anchors: Float[Tensor, "p a 3"]
    """Where the global part of the code puts the anchors."""
    anchors_mean: Float[Tensor, "a 3"]

    @property
    def people(self) -> int:
        """How many people there are."""
        return len(self.neutral)

    def tensors(self) -> dict[str, Tensor]:
        """For saving."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Rig:
    """What all people share: topology, actions, and where points are drawn."""

    template: Template
    linear: Float[Tensor, "e v3"]
    eye_turns: Float[Tensor, "e 2 3"]
    draw: Float[Tensor, "f"]
    """Chance of each triangle for correspondences."""
    level: Float[Tensor, "f"]
    """The same, 0 outside the level set."""
    albedo_base: Float[Tensor, "v 3"]
    albedo_mix: Float[Tensor, "v 2"]
    """Colour = base + mix of (skin, hair)."""
    hyper: Float[Tensor, "v 2"]
    """What omega should say: how far jawOpen and eyeBlink move the vertex, HYPER_SCALE at most."""

    def posed(
        self,
        neutral: Float[Tensor, "b v 3"],
        eye_centres: Float[Tensor, "b 2 3"],
        weights: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b v 3"]:
        """Many people, each in its own expression (as ``Head.posed`` for one)."""
        vertices = neutral + (weights @ self.linear).reshape(len(weights), -1, 3)
        turn = matrix_from_rotvec(torch.einsum("be,esk->bsk", weights, self.eye_turns))
        for side, index in enumerate((self.template.left_eye, self.template.right_eye)):
            centre = eye_centres[:, None, side]
            vertices[:, index] = (neutral[:, index] - centre) @ turn[:, side].mT + centre
        return vertices

    def tones(self, skin: Float[Tensor, "b 6"]) -> Float[Tensor, "b 2 3"]:
        """Skin and hair colour of standardised ones."""
        return (SKIN_MEAN.to(skin) + SKIN_SPREAD.to(skin) * skin).reshape(-1, 2, 3)

    def albedo(self, skin: Float[Tensor, "b 6"]) -> Float[Tensor, "b v 3"]:
        """Vertex colours in 0..1 for standardised skin and hair colours."""
        mixed = torch.einsum("vk,bkc->bvc", self.albedo_mix, self.tones(skin))
        return (self.albedo_base + mixed).clamp(0.02, 0.98)


SKIN_MEAN = torch.tensor([0.68, 0.50, 0.42, 0.25, 0.18, 0.14])
SKIN_SPREAD = torch.tensor([0.14, 0.13, 0.13, 0.16, 0.13, 0.10])


def make_rig(people: People) -> Rig:
    """Topology, actions, drawing chances and procedural albedo of the population."""
    template = people.template
    head = people.head(people.average_identity())
    corners = template.faces
    middle = template.neutral[corners].mean(1)
    low, high = torch.tensor(BOX)
    inside = ((middle > low) & (middle < high)).all(1)
    areas, _ = Mesh(template.neutral, corners).face_areas_normals()
    regions = template.region[corners]
    chance = torch.tensor([DRAW[name] for name in REGIONS])[regions].mean(1)
    chance = chance * (areas / areas[inside].mean()).sqrt() * inside
    level_set = torch.tensor([name in LEVEL_REGIONS for name in REGIONS])[regions].any(1)
    level = chance * level_set * _seen_of_eyes(template, middle, head)
    base, mix = _albedo(template)
    deltas = head.deltas.norm(dim=-1)
    blink = deltas[[EXPRESSIONS.index(f"eyeBlink{s}") for s in ("Left", "Right")]].amax(0)
    moved = torch.stack([deltas[EXPRESSIONS.index("jawOpen")], blink], dim=1)
    label = HYPER_SCALE * moved / moved.amax(0)
    return Rig(template, head.linear, head.eye_turns, chance, level, base, mix, label)


def _seen_of_eyes(
    template: Template, middle: Float[Tensor, "f 3"], head: Head
) -> Float[Tensor, "f"]:
    """0 for triangles on the back of the eyeballs."""
    keep = torch.ones(len(middle))
    for side, index in enumerate((template.left_eye, template.right_eye)):
        on = torch.isin(template.faces, index).all(1)
        keep[on & (middle[:, 2] < head.eye_centres[side, 2] + 0.01)] = 0.0
    return keep


def _albedo(template: Template) -> tuple[Float[Tensor, "v 3"], Float[Tensor, "v 2"]]:
    base, mix = torch.zeros(len(REGIONS), 3), torch.zeros(len(REGIONS), 2)
    mix[:, 0] = 1.0
    base[REGIONS.index("lips")] = torch.tensor([0.02, -0.14, -0.12])
    base[REGIONS.index("lids")] = torch.tensor([-0.03, -0.04, -0.03])
    mix[REGIONS.index("brows")] = torch.tensor([0.35, 0.65])
    mix[REGIONS.index("scalp")] = torch.tensor([0.25, 0.75])
    fixed = {
        "eyes": (0.86, 0.84, 0.82), "mouth_interior": (0.42, 0.16, 0.15),
        "tongue": (0.62, 0.30, 0.30), "teeth_upper": (0.85, 0.82, 0.74),
        "teeth_lower": (0.82, 0.79, 0.71),
    }  # fmt: skip
    for name, color in fixed.items():
        base[REGIONS.index(name)] = torch.tensor(color)
        mix[REGIONS.index(name)] = 0.0
    return base[template.region], mix[template.region]


def make_data(
    people: People, rig: Rig, *, count: int, volume_points: int, sizes: HeadModelSizes, seed: int
) -> PriorData:
    """Draw ``count`` people, code them, and precompute what does not change during training."""
    rng = np.random.default_rng(seed)
    heads = [people.head(people.sample_identity(rng)) for _ in range(count)]
    drawn = torch.stack([h.neutral for h in heads])
    # In many dimensions nobody is near the average: pull every second person towards it.
    pull = torch.ones(count, 1, 1)
    pull[1::2, 0, 0] = torch.from_numpy(rng.uniform(0.0, 1.0, size=count // 2)).float()
    mean, basis, shared = scaled_shapes(drawn, rig, sizes.geo_global)
    drawn, shared = mean + pull * (drawn - mean), pull[:, 0] * shared
    anchors = select_anchors(rig.template, sizes.pair_count, sizes.midline_count)
    patches = make_patches(rig.template, mean, anchors, sizes)
    global_part = mean + torch.einsum("pg,gvc->pvc", shared, basis)
    local = local_codes(drawn - global_part, patches, rig) + patches.draw(rng, count)
    neutral = global_part + patches.moved(local)
    spare = local.new_zeros(count, 1, sizes.geo_local)
    pools = [
        volume_samples(rig, person, volume_points, rng)
        for person in track_progress(neutral, "distances to the neutral heads")
    ]
    skin = rng.normal(size=(count, 6)).clip(-2, 2) * 0.6 + rng.normal(size=(count, 1)) * 0.7
    eyes = (rig.template.left_eye, rig.template.right_eye)
    return PriorData(
        neutral=neutral,
        eye_centres=torch.stack([neutral[:, index].mean(1) for index in eyes], dim=1),
        skin=torch.from_numpy(skin).float(),
        volume_points=torch.stack([p for p, _, _ in pools]),
        volume_distance=torch.stack([d for _, d, _ in pools]),
        volume_label=torch.stack([label for _, _, label in pools]),
        shape_mean=mean,
        shape_basis=basis,
        code=torch.cat([shared, torch.cat([local, spare], dim=1).flatten(1)], dim=1),
        anchors=global_part[:, anchors],
        anchors_mean=mean[anchors],
    )


def local_codes(rest: Float[Tensor, "p v 3"], patches: Patches, rig: Rig) -> Float[Tensor, "p a j"]:
    """The local codes that come nearest to given displacements (ridge regression)."""
    matrix = patches.dense()
    weight = vertex_weights(rig).repeat_interleave(3)
    weighted = matrix * weight
    gram = weighted @ matrix.T + RIDGE * weight.mean() * torch.eye(len(matrix))
    found = torch.linalg.solve(gram, weighted @ rest.flatten(1).T)
    return found.T.reshape(len(rest), len(patches.kinship), COEFFICIENTS)


def vertex_weights(rig: Rig) -> Float[Tensor, "v"]:
    """How often a vertex's triangles are drawn."""
    weight = torch.zeros(len(rig.template.neutral))
    return weight.index_add_(0, rig.template.faces.reshape(-1), rig.draw.repeat_interleave(3))


def volume_samples(
    rig: Rig, vertices: Float[Tensor, "v 3"], count: int, rng: np.random.Generator
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m"], Float[Tensor, "m 2"]]:
    """Points around one head, their signed distance to the level set, the nearest hyper label."""
    held = rig.level > 0
    mesh = Mesh(vertices, rig.template.faces)
    areas, _ = mesh.face_areas_normals()
    weights = torch.where(held, (areas.clamp_min(1e-12)) ** -0.3, areas.new_zeros(()))
    found = mesh.sample(SURFACE_SAMPLES, int(rng.integers(2**31)), weights)
    surface, normals = found.points.numpy(), found.normals.numpy()
    low, high = (np.array(side) for side in BOX)
    near = surface[rng.integers(len(surface), size=count)]
    spread = np.where(rng.random((count, 1)) < 0.65, 0.015, 0.08)
    points = near + rng.normal(size=(count, 3)) * spread
    free = rng.random(count) < 0.15
    points[free] = rng.uniform(low, high, size=(int(free.sum()), 3))
    points = points.clip(low, high)
    distance, index = KDTree(surface).query(points, k=3)
    offset = points[:, None] - surface[index]
    side = np.einsum("nkc,nkc->nk", offset, normals[index]).sum(1)
    # Very near the surface the plane of the nearest sample is a better distance than the sample.
    plane = np.abs(np.einsum("nc,nc->n", offset[:, 0], normals[index[:, 0]]))
    value = np.where(distance[:, 0] < 0.01, plane, distance[:, 0])
    signed = np.sign(side) * value
    nearest = torch.from_numpy(index[:, 0])
    corners = rig.template.faces[found.face[nearest]]
    label = (found.bary[nearest][..., None] * rig.hyper[corners]).sum(1)
    return torch.from_numpy(points).float(), torch.from_numpy(signed).float(), label


def scaled_shapes(
    neutral: Float[Tensor, "p v 3"], rig: Rig, count: int
) -> tuple[Float[Tensor, "v 3"], Float[Tensor, "g v 3"], Float[Tensor, "p g"]]:
    """Mean head, PCA shapes, and coefficients whose spread is the root of the shape's own.

    Vertices count by their drawing chance. Unit spread for all would shout the smallest shapes and
    networks would learn people by heart; their true spread would hush them. The first one has 1.
    """
    mean = neutral.mean(0)
    away = (neutral - mean).flatten(1)
    spread = (away * vertex_weights(rig).sqrt().repeat_interleave(3)).double()
    values, vectors = torch.linalg.eigh(spread @ spread.T)
    top, size = vectors[:, -count:].flip(1), values[-count:].flip(0).clamp_min(0)
    loudness = (size / size[0]) ** 0.25
    code = top * len(neutral) ** 0.5 * loudness
    basis = torch.linalg.lstsq(code, away.double()).solution.float()
    return mean, basis.reshape(count, -1, 3), code.float()
