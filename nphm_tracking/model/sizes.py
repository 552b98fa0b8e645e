"""How large a head model is; everything else follows from these numbers and the weights.

The defaults are the published MonoNPHM. A loader infers them from the tensors' shapes.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from npga.core.errors import CheckpointError


@dataclass(frozen=True)
class HeadModelSizes:
    """Layer widths, code lengths and the constants of the blending."""

    anchor_count: int = 65
    pair_count: int = 30
    """Anchors 2i, 2i+1 for i < pair_count mirror each other and share weights."""
    neighbours: int = 12
    """Anchors that see a query, besides the anchor-less member."""
    blend_neighbour: int = 8
    """The blending width follows the distance to this nearest anchor (8 in the published code)."""
    blend_std: float = 3.75
    anchorless_distance: float = 0.75
    """Constant distance of the anchor-less member, head units."""
    geo_global: int = 64
    geo_local: int = 32
    app_global: int = 64
    app_local: int = 32
    exp: int = 100
    identity: int = 16
    """Length of the identity condition that the backward field sees."""
    hyper: int = 2
    anchor_width: int = 64
    backward_width: int = 400
    backward_depth: int = 6
    """Hidden layers."""
    backward_skip: int = 3
    """Hidden layer that sees the input again."""
    sdf_width: int = 200
    sdf_depth: int = 4
    color_width: int = 200
    """0 = the model has no colour (the published backward flavour of NPHM)."""
    color_depth: int = 4
    bottleneck: int = 16
    """Channels through which the geometry talks to the colour."""

    def __post_init__(self) -> None:
        """Refuse numbers that no model can have."""
        if 2 * self.pair_count > self.anchor_count:
            raise CheckpointError(
                f"{self.pair_count} symmetric pairs need more than {self.anchor_count} anchors.",
                "The sizes belong to another model: give both numbers that belong together.",
            )
        if not self.blend_neighbour <= self.neighbours <= self.anchor_count:
            raise CheckpointError(
                f"blend_neighbour {self.blend_neighbour} <= neighbours {self.neighbours} <= "
                f"anchors {self.anchor_count} does not hold.",
                "Give a head model whose three numbers are in that order.",
            )

    @property
    def member_count(self) -> int:
        """Anchors plus the anchor-less member."""
        return self.anchor_count + 1

    @property
    def has_color(self) -> bool:
        """Whether there are colour networks."""
        return self.color_width > 0

    @property
    def midline_count(self) -> int:
        """Anchors without a mirror image."""
        return self.anchor_count - 2 * self.pair_count

    @property
    def set_count(self) -> int:
        """Weight sets: pairs share one."""
        return self.member_count - self.pair_count

    @property
    def geo_size(self) -> int:
        """Length of z_geo."""
        return self.geo_global + self.member_count * self.geo_local

    @property
    def app_size(self) -> int:
        """Length of z_app."""
        return self.app_global + self.member_count * self.app_local

    def to_meta(self) -> dict[str, Any]:
        """For the metadata of a weights file."""
        return asdict(self)

    @staticmethod
    def from_meta(meta: dict[str, Any]) -> "HeadModelSizes":
        """From the metadata of a weights file; raises CheckpointError for missing keys."""
        names = [f.name for f in fields(HeadModelSizes)]
        missing = [n for n in names if n not in meta]
        if missing:
            raise CheckpointError(
                f"The head model's sizes lack {missing}.", "Make the weights file again."
            )
        return HeadModelSizes(**{n: meta[n] for n in names})
