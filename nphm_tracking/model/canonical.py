"""The canonical field: [x_canonical, omega] -> signed distance (positive outside) and colour.

A head is described by 65 anchors and one small network per anchor (36 weight sets: mirrored
anchors share one and see a mirrored x) plus one network without an anchor. A query is seen by the
anchor-less network and by those of its 12 nearest anchors, blended by
w_k = exp(-(d_k / s)^2 / 2), s = distance to the 8th nearest anchor / 3.75 (published code).

Letters: b people, n queries, k anchors seen, m members (anchors + 1), r = b n (k + 1) rows.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nphm_tracking.model.backward import SHARPNESS
from nphm_tracking.model.ensemble import LocalNetworks, MemberCodes, RowPlan
from nphm_tracking.model.sizes import HeadModelSizes


@dataclass(frozen=True)
class Neighbourhood:
    """Which members see each query, and how much each counts."""

    member: Int[Tensor, "b n k"]
    """The anchor-less member comes last."""
    weight: Float[Tensor, "b n k"]
    local: Float[Tensor, "r c"]
    """Queries relative to the member, mirrored for odd members of a pair."""
    plan: RowPlan
    row: Int[Tensor, "r"]
    """b * members + member, the row of a per-member table."""


class CanonicalField(nn.Module):
    """Anchors, local geometry networks, and colour networks that hear them through a bottleneck."""

    mean_anchors: Tensor
    member_set: Tensor
    mirror: Tensor

    def __init__(self, sizes: HeadModelSizes, mean_anchors: Float[Tensor, "a 3"]) -> None:
        """Random weights around given mean anchors (head units)."""
        super().__init__()
        self.sizes = sizes
        s = sizes
        width, dims = s.anchor_width, 3 + s.hyper
        self.anchor_layers = nn.ModuleList(
            [
                nn.Linear(s.geo_global, width),
                nn.Linear(width, width),
                nn.Linear(width, s.anchor_count * 3),
            ]
        )
        self.sdf_networks = LocalNetworks(
            s.set_count, s.geo_global + s.geo_local, dims, s.sdf_width, s.sdf_depth, 1
        )
        if s.has_color:
            self.color_networks = LocalNetworks(
                s.set_count,
                s.app_global + s.app_local,
                s.bottleneck,
                s.color_width,
                s.color_depth,
                3,
            )
            self.narrow = nn.Linear(s.sdf_width, s.bottleneck)
            self.widen = nn.Linear(s.bottleneck, s.bottleneck)
        self.softplus = nn.Softplus(beta=SHARPNESS)
        self.relu = nn.ReLU()
        self.register_buffer("mean_anchors", mean_anchors.clone())
        member = torch.arange(s.member_count)
        paired = member < 2 * s.pair_count
        sets = torch.where(paired, member // 2, member - s.pair_count)
        mirror = torch.ones(s.member_count, dims, dtype=mean_anchors.dtype)
        mirror[paired & (member % 2 == 1), 0] = -1.0
        self.register_buffer("member_set", sets, persistent=False)
        self.register_buffer("mirror", mirror, persistent=False)

    def anchors(self, z_geo: Float[Tensor, "b g"]) -> Float[Tensor, "b a 3"]:
        """Where this person's anchors are."""
        hidden = self.relu(self.anchor_layers[0](z_geo[:, : self.sizes.geo_global]))
        moved = self.anchor_layers[2](self.relu(self.anchor_layers[1](hidden)))
        return self.mean_anchors + moved.reshape(len(z_geo), -1, 3)

    def neighbourhood(
        self, canonical: Float[Tensor, "b n c"], anchors: Float[Tensor, "b a 3"]
    ) -> Neighbourhood:
        """Nearest anchors, local coordinates and blending weights of every query."""
        s = self.sizes
        batch, _, dims = canonical.shape
        position = canonical[..., :3]
        with torch.no_grad():
            near = torch.cdist(position, anchors, compute_mode="donot_use_mm_for_euclid_dist")
            near = near.topk(s.neighbours, dim=-1, largest=False, sorted=True).indices
        flat = near + torch.arange(batch, device=near.device)[:, None, None] * s.anchor_count
        gap = position[:, :, None] - anchors.flatten(0, 1)[flat.reshape(-1)].reshape(*near.shape, 3)
        squared = (gap * gap).sum(-1)
        far = torch.full_like(squared[..., :1], s.anchorless_distance**2)
        spread = squared[..., s.blend_neighbour - 1, None] / s.blend_std**2
        strength = -0.5 * torch.cat([squared, far], dim=-1) / spread
        hyper = canonical[:, :, None, 3:].expand(-1, -1, s.neighbours, -1)
        local = torch.cat([torch.cat([gap, hyper], -1), canonical[:, :, None]], dim=2)
        last = torch.full_like(near[..., :1], s.anchor_count)
        member = torch.cat([near, last], dim=-1)
        local = local * self.mirror[member]
        start = torch.arange(batch, device=near.device)[:, None, None] * s.member_count
        return Neighbourhood(
            member=member,
            weight=torch.softmax(strength, dim=-1),
            local=local.reshape(-1, dims),
            plan=RowPlan.of(self.member_set[member.reshape(-1)], s.set_count),
            row=(member + start).reshape(-1),
        )

    def forward(
        self,
        canonical: Float[Tensor, "b n c"],
        z_geo: Float[Tensor, "b g"],
        z_app: Float[Tensor, "b a"] | None = None,
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 3"] | None]:
        """Signed distance (head units) and, where ``z_app`` is given, colour (nominally -1..1).

        A model without colour networks gives None.
        """
        s = self.sizes
        seen = self.neighbourhood(canonical, self.anchors(z_geo))
        codes = MemberCodes(z_geo, s.geo_global, self.member_set)
        colored = z_app is not None and s.has_color
        value, heard = self.sdf_networks(
            seen.local,
            codes,
            seen.row,
            seen.plan,
            self.softplus,
            self.narrow if colored else None,
        )
        sdf = (value.reshape(seen.weight.shape) * seen.weight).sum(-1)
        if z_app is None or not s.has_color:
            return sdf, None
        told = self.widen(self.relu(heard))
        codes = MemberCodes(z_app, s.app_global, self.member_set)
        color, _ = self.color_networks(told, codes, seen.row, seen.plan, self.relu)
        color = color.reshape(*seen.weight.shape, 3)
        return sdf, (color * seen.weight[..., None]).sum(-2)
