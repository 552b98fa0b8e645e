"""MonoNPHM: codes -> a head's surface and colour in any expression.

posed x --B(x; compress(z_geo), z_exp)--> [x + offset, omega] --(z_geo)--> SDF --(z_app)--> colour

Units: head space (1 unit = 250 mm), SDF positive outside, colour nominally -1..1. Codes:
z_geo = [global | 66 local], z_app likewise, z_exp. Source: MonoNPHM and its published code; the
open prior has the same architecture, smaller, and its z_exp are the 52 ARKit weights (ours).

Letters: b people or frames, n points, g a e code lengths, i identity, h hyper, k anchors,
l landmarks, m reference points.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from npga.core.errors import CheckpointError
from npga.core.mesh import Mesh
from npga.core.store import checksum
from nphm_tracking.model.backward import BackwardField
from nphm_tracking.model.canonical import CanonicalField
from nphm_tracking.model.mesh import level_set
from nphm_tracking.model.sizes import HeadModelSizes

PUBLISHED_BOUNDS = ((-0.55, -0.5, -0.95), (0.55, 0.75, 0.4))
"""The box that the published code meshes, head units."""


@dataclass(frozen=True)
class Codes:
    """One head in one expression, or a batch of them."""

    z_geo: Float[Tensor, "*b g"]
    z_app: Float[Tensor, "*b a"]
    z_exp: Float[Tensor, "*b e"]


@dataclass(frozen=True)
class HeadQuery:
    """What the model says about posed points.

    ``color`` is None where it was not asked for or the model has none.
    """

    offsets: Float[Tensor, "*b n 3"]
    hyper: Float[Tensor, "*b n h"]
    canonical: Float[Tensor, "*b n c"]
    """[points + offsets, hyper]."""
    anchors: Float[Tensor, "*b k 3"]
    sdf: Float[Tensor, "*b n"]
    color: Float[Tensor, "*b n 3"] | None


@dataclass(frozen=True)
class CodeStatistics:
    """What codes of the training population look like, per dimension."""

    mean: Float[Tensor, "d"]
    std: Float[Tensor, "d"]
    lower: Float[Tensor, "d"]
    upper: Float[Tensor, "d"]

    @staticmethod
    def unknown(size: int) -> "CodeStatistics":
        """A standard normal, unbounded."""
        one = torch.ones(size)
        return CodeStatistics(0 * one, one, -torch.inf * one, torch.inf * one)


@dataclass(frozen=True)
class ReferencePoints:
    """Named places on the average neutral head, to say which region a canonical point is in."""

    points: Float[Tensor, "m 3"]
    region: Int[Tensor, "m"]
    names: tuple[str, ...]


class HeadModel(nn.Module):
    """The whole model; make one with ``load_head_model``, or untrained with sizes and anchors."""

    landmark_motion: Tensor
    """[l 3 e] or [0 3 e]; see `landmark_slopes`."""

    bounds: Tensor
    exp_mean: Tensor
    exp_std: Tensor
    exp_lower: Tensor
    exp_upper: Tensor
    geo_mean: Tensor
    geo_std: Tensor
    geo_lower: Tensor
    geo_upper: Tensor
    landmark_mean: Tensor
    landmark_basis: Tensor
    reference_points: Tensor
    reference_region: Tensor

    def __init__(
        self,
        sizes: HeadModelSizes,
        mean_anchors: Float[Tensor, "k 3"],
        code_names: tuple[str, ...] = (),
    ) -> None:
        """Random weights. ``code_names`` names the expression dimensions where they mean something.

        Raises CheckpointError for anchors of another number than the sizes say.
        """
        super().__init__()
        if tuple(mean_anchors.shape) != (sizes.anchor_count, 3):
            raise CheckpointError(
                f"The mean anchors have shape {tuple(mean_anchors.shape)}, but this head model "
                f"has ({sizes.anchor_count}, 3).",
                "Give the anchors file that belongs to the checkpoint (anchors_65.npy).",
            )
        self.sizes = sizes
        self.expression_names = code_names
        self.region_names: tuple[str, ...] = ()
        self.canonical_field = CanonicalField(sizes, mean_anchors)
        self.compressor = nn.Linear(sizes.geo_size + 3 * sizes.anchor_count, sizes.identity)
        self.backward_mlp = BackwardField(sizes)
        self.register_buffer("bounds", torch.tensor(PUBLISHED_BOUNDS, dtype=mean_anchors.dtype))
        for kind, size in (("exp", sizes.exp), ("geo", sizes.geo_size)):
            stats = CodeStatistics.unknown(size)
            for name in ("mean", "std", "lower", "upper"):
                self.register_buffer(f"{kind}_{name}", getattr(stats, name))
        self.register_buffer("landmark_mean", torch.zeros(0, 3))
        self.register_buffer("landmark_basis", torch.zeros(0, 3, sizes.geo_global))
        self.register_buffer("landmark_motion", torch.zeros(0, 3, sizes.exp))
        self.register_buffer("reference_points", torch.zeros(0, 3))
        self.register_buffer("reference_region", torch.zeros(0, dtype=torch.int64))

    @property
    def geo_size(self) -> int:
        """Length of z_geo."""
        return self.sizes.geo_size

    @property
    def app_size(self) -> int:
        """Length of z_app."""
        return self.sizes.app_size

    @property
    def exp_size(self) -> int:
        """Length of z_exp."""
        return self.sizes.exp

    @property
    def hyper_size(self) -> int:
        """Number of hyper coordinates."""
        return self.sizes.hyper

    @property
    def identity_size(self) -> int:
        """Length of the compressed identity."""
        return self.sizes.identity

    @property
    def landmark_count(self) -> int:
        """Number of landmarks whose canonical place is known; 0 where the model has none."""
        return len(self.landmark_mean)

    @property
    def exp_stats(self) -> CodeStatistics:
        """Expression codes of the training population (the open prior: bounds 0 and 1)."""
        return CodeStatistics(self.exp_mean, self.exp_std, self.exp_lower, self.exp_upper)

    @property
    def geo_stats(self) -> CodeStatistics:
        """Geometry codes of the training population."""
        return CodeStatistics(self.geo_mean, self.geo_std, self.geo_lower, self.geo_upper)

    @property
    def reference(self) -> ReferencePoints:
        """Region-labelled points on the average neutral head (none in a published checkpoint)."""
        return ReferencePoints(self.reference_points, self.reference_region, self.region_names)

    def neutral_codes(self) -> Codes:
        """The average head with a neutral face."""
        exp = self.exp_mean if not self.expression_names else torch.zeros_like(self.exp_mean)
        return Codes(self.geo_mean.clone(), self.geo_mean.new_zeros(self.app_size), exp.clone())

    def anchors(self, z_geo: Float[Tensor, "*b g"]) -> Float[Tensor, "*b k 3"]:
        """Where the anchors are, canonical space."""
        flat = z_geo.reshape(-1, z_geo.shape[-1])
        return self.canonical_field.anchors(flat).reshape(*z_geo.shape[:-1], -1, 3)

    def compress(self, z_geo: Float[Tensor, "*b g"]) -> Float[Tensor, "*b i"]:
        """The identity condition of the backward field."""
        return self.compressor(torch.cat([z_geo, self.anchors(z_geo).flatten(-2)], dim=-1))

    def backward_field(
        self,
        points: Float[Tensor, "*b n 3"],
        identity: Float[Tensor, "*b i"],
        z_exp: Float[Tensor, "*b e"],
    ) -> tuple[Float[Tensor, "*b n 3"], Float[Tensor, "*b n h"]]:
        """Canonical offsets and hyper coordinates of posed points; ``identity``: ``compress``."""
        return self.backward_mlp(points, identity, z_exp)

    def sdf(
        self, canonical: Float[Tensor, "*b n c"], z_geo: Float[Tensor, "*b g"]
    ) -> Float[Tensor, "*b n"]:
        """Signed distance (head units) of [x_canonical, omega]."""
        flat = canonical.reshape(-1, *canonical.shape[-2:])
        value, _ = self.canonical_field(flat, z_geo.reshape(-1, z_geo.shape[-1]))
        return value.reshape(canonical.shape[:-1])

    def color(
        self,
        canonical: Float[Tensor, "*b n c"],
        z_geo: Float[Tensor, "*b g"],
        z_app: Float[Tensor, "*b a"],
    ) -> Float[Tensor, "*b n 3"]:
        """Colour (nominally -1..1) of [x_canonical, omega].

        Raises CheckpointError where the model has none.
        """
        if not self.sizes.has_color:
            raise CheckpointError(
                "This head model has no colour (its checkpoint holds geometry only).",
                "Use the open prior or a MonoNPHM checkpoint for colours.",
            )
        return self._sdf_color(canonical, z_geo, z_app)[1]

    def query(
        self, points: Float[Tensor, "*b n 3"], codes: Codes, with_color: bool = True
    ) -> HeadQuery:
        """Everything about posed points; codes carry the same leading dimensions as the points."""
        anchors = self.anchors(codes.z_geo)
        identity = self.compress(codes.z_geo)
        offsets, hyper = self.backward_field(points, identity, codes.z_exp)
        canonical = torch.cat([points + offsets, hyper], dim=-1)
        if with_color and self.sizes.has_color:
            sdf, color = self._sdf_color(canonical, codes.z_geo, codes.z_app)
        else:
            sdf, color = self.sdf(canonical, codes.z_geo), None
        return HeadQuery(offsets, hyper, canonical, anchors, sdf, color)

    def landmarks(self, z_geo: Float[Tensor, "*b g"]) -> Float[Tensor, "*b l 3"]:
        """Canonical places of the MediaPipe landmarks on this person; ours.

        Raises CheckpointError where the model carries no landmark correspondence.
        """
        if not self.landmark_count:
            raise CheckpointError(
                "This head model knows no landmarks (published checkpoints have none).",
                "Track it with point clouds, or use the open prior for landmarks.",
            )
        known = z_geo[..., : self.landmark_basis.shape[-1]]
        moved = torch.nn.functional.linear(known, self.landmark_basis.flatten(0, 1))
        return self.landmark_mean + moved.unflatten(-1, self.landmark_mean.shape)

    @property
    def landmark_slopes(self) -> Float[Tensor, "l 3 e"] | None:
        """How far unit codes carry the landmarks, head units; None where the model does not know.

        The open prior's codes are weights of linear shapes, so posed = canonical + slopes @ z_exp
        (ours). Measured on the population, it keeps lids and brows that B blurs.
        """
        return self.landmark_motion if len(self.landmark_motion) else None

    def checksum(self) -> str:
        """Sixteen hex digits that name these weights; the same on any device or precision."""
        return checksum({k: v.float() for k, v in self.state_dict().items()})

    def mesh(self, codes: Codes, resolution: int = 128, canonical: bool = False) -> Mesh:
        """The surface of the posed (or the canonical, omega = 0) head, vertices in head space.

        ``resolution`` cells along the box's longest side; colours in 0..1. Raises ConfigError where
        the box holds no surface.
        """

        def carried(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n c"]:
            if canonical:
                return torch.cat([points, points.new_zeros(len(points), self.hyper_size)], dim=-1)
            offsets, hyper = self.backward_field(points, self.compress(codes.z_geo), codes.z_exp)
            return torch.cat([points + offsets, hyper], dim=-1)

        def sdf(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
            return self.sdf(carried(points), codes.z_geo)

        def color(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
            return self.color(carried(points), codes.z_geo, codes.z_app)

        return level_set(sdf, color, self.bounds, resolution)

    def _sdf_color(
        self, canonical: Float[Tensor, "*b n c"], z_geo: Tensor, z_app: Tensor
    ) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n 3"]]:
        flat = canonical.reshape(-1, *canonical.shape[-2:])
        sdf, color = self.canonical_field(
            flat, z_geo.reshape(-1, z_geo.shape[-1]), z_app.reshape(-1, z_app.shape[-1])
        )
        if color is None:
            raise CheckpointError("No appearance code was given.", "Pass z_app to query a colour.")
        return sdf.reshape(canonical.shape[:-1]), color.reshape(*canonical.shape[:-1], 3)
