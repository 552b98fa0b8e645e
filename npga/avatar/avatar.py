"""The avatar: canonical Gaussians, and what an expression and two poses make of them.

    x_head  = x + a reach F(x, omega, z_exp) + G.centre          head space, 1 unit = 250 mm
    q_head  = exp(G.rotation) exp(a reach turn F) q,    s_head = s + G.log_scale, opacity alike
    color   = (c + G.color) light(turned normal, T_head)          see `light.py`
    x_world = a T_head x_head + (1 - a) T_torso x_head            `attachment.blend_poses`

Letters: `n` Gaussians, `e` expression size, `i` identity size, `h` hyper coordinates omega,
`f` latent features, `k` blended channels = 3 (sRGB) + screen features. `a` is the attachment
(1 = head), `reach` how far F carries a Gaussian: it starts at 1, fading to 0 far from the surface
that F was distilled on, and learns (teeth stay where lips go).

NPGA's parts with our sizes; attachment, reach, torso, light and G's shares of codes are ours.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from npga.avatar.attachment import TorsoFollow, blend_poses
from npga.avatar.detail import Detail, Residuals
from npga.avatar.field import ForwardField, code_motion, code_shares
from npga.avatar.forward import ForwardPrior, combine
from npga.avatar.light import Light
from npga.avatar.recorded import RecordedDecode
from npga.avatar.refiner import Refiner
from npga.avatar.types import AvatarSizes, CanonicalPoints, ExpressionStats, Posed
from npga.core.gaussians import Gaussians
from npga.core.rotations import quat_multiply, quat_rotate, small_turn
from npga.core.similarity import Similarity


class Avatar(nn.Module):
    """One person's avatar; see the module docstring. `prior` may be fine-tuned with the rest."""

    ROWS = (
        "means",
        "quats",
        "log_scales",
        "logit_opacities",
        "colors",
        "features",
        "normals",
        "omega",
        "logit_attachment",
        "reach",
    )
    """Parameters with one row per Gaussian."""
    CONSTANT_ROWS: tuple[str, ...] = ()
    """Buffers with one row per Gaussian."""

    identity: Tensor
    neck_lower: Tensor
    neck_upper: Tensor
    expression_mean: Tensor
    expression_lower: Tensor
    expression_upper: Tensor
    expression_neutral: Tensor

    def __init__(
        self,
        start: CanonicalPoints,
        prior: ForwardPrior,
        identity: Float[Tensor, " i"],
        expressions: ExpressionStats,
        rest: Similarity,
        sizes: AvatarSizes | None = None,
    ) -> None:
        super().__init__()
        sizes = sizes or AvatarSizes()
        self._forget()
        n = len(start.points)
        self.sizes = sizes
        self.means = nn.Parameter(start.points.clone())
        quats = torch.zeros(n, 4)
        quats[:, 0] = 1.0
        self.quats = nn.Parameter(quats)
        self.log_scales = nn.Parameter(start.log_scales.clone())
        self.logit_opacities = nn.Parameter(torch.full((n,), start.opacity).logit())
        self.colors = nn.Parameter(start.colors.clone())
        self.features = nn.Parameter(0.01 * torch.randn(n, sizes.features))
        self.normals = nn.Parameter(start.normals.clone())
        self.omega = nn.Parameter(start.omega.clone())
        self.logit_attachment = nn.Parameter(start.attachment.logit())
        self.reach = nn.Parameter(start.reach.clone())

        self.prior = prior
        condition_size = prior.expression_size + (3 if sizes.neck else 0)
        self.detail = Detail(
            sizes.features,
            condition_size,
            width=sizes.detail_width,
            depth=sizes.detail_depth,
            bands=sizes.detail_bands,
        )
        self.refiner = Refiner(sizes.screen_features, sizes.refiner_width)
        self.torso = TorsoFollow(rest)
        self.light = Light()
        self.register_buffer("identity", identity.clone())
        self.register_buffer("neck_lower", torch.full((3,), -0.3))
        self.register_buffer("neck_upper", torch.full((3,), 0.3))
        for name in ("mean", "lower", "upper", "neutral"):
            self.register_buffer(f"expression_{name}", getattr(expressions, name).clone())

    def __len__(self) -> int:
        return len(self.means)

    @property
    def expressions(self) -> ExpressionStats:
        """Mean, hull and neutral of the training expressions."""
        return ExpressionStats(
            self.expression_mean,
            self.expression_lower,
            self.expression_upper,
            self.expression_neutral,
        )

    @property
    def attachment(self) -> Float[Tensor, " n"]:
        """a, 1 = moves with the head, 0 = with the torso."""
        return self.logit_attachment.sigmoid()

    @property
    def expression_span(self) -> Float[Tensor, " e"]:
        """Range of each number of the training codes; of those that hardly moved, 0.2."""
        return (self.expression_upper - self.expression_lower).clamp(min=0.2)

    def clamp_to_hull(self, z_exp: Float[Tensor, "*t e"]) -> Float[Tensor, "*t e"]:
        """Codes brought inside the box of the training codes."""
        return torch.minimum(torch.maximum(z_exp, self.expression_lower), self.expression_upper)

    def detail_condition(
        self,
        z_exp: Float[Tensor, " e"],
        world_from_head: Similarity,
        rest: Similarity | None,
    ) -> Float[Tensor, " c"]:
        """What G is conditioned on: the code inside the hull, in units of its range, and the neck.

        Numbers that never moved in training have no say. The neck's angles are kept inside those
        of training too.
        """
        moved = (self.clamp_to_hull(z_exp) - self.expression_neutral) / self.expression_span
        if not self.sizes.neck:
            return moved
        neck = self.torso.head_motion(world_from_head, rest)[:3]
        neck = torch.minimum(torch.maximum(neck, self.neck_lower), self.neck_upper)
        return torch.cat([moved, 2.0 * neck])

    @torch.no_grad()
    def observe_necks(self, necks: Float[Tensor, "t 3"]) -> None:
        """Set the hull of the head's rotation vectors against the torso at rest (training)."""
        self.neck_lower.copy_(necks.amin(0))
        self.neck_upper.copy_(necks.amax(0))

    @torch.no_grad()
    def observe_conditions(self, conditions: Float[Tensor, "t c"]) -> None:
        """Set where G is 0: the mean condition of the training frames (before training)."""
        self.detail.middle.copy_(conditions.mean(0))

    @torch.no_grad()
    def field(self, turns: Float[Tensor, "n 3 r"] | None = None) -> ForwardField:
        """F at the canonical centres; kept until the avatar is trained again or moved.

        `turns` of a moment ago, where given, are believed: they take six passes through F, the rest
        takes one.
        """
        if self._field is None or self.training:
            where = (self.means[None], self.omega[None], self.identity[None])
            basis = self.prior.basis(*where)[0]
            turns = self.prior.basis_turns(*where)[0] if turns is None else turns
            self._field = ForwardField(basis, turns, self.shares(self.code_motion(basis)))
        return self._field

    @torch.no_grad()
    def code_motion(
        self,
        basis: Float[Tensor, "n 3 r"] | None = None,
        carried: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n 3 e"]:
        """`field.code_motion` of the Gaussians, or of places where F has this basis."""
        if basis is None:
            basis = self.prior.basis(self.means[None], self.omega[None], self.identity[None])[0]
        carried = self.attachment * self.reach.clamp(min=0) if carried is None else carried
        slopes = self.prior.coefficient_slopes(self.expression_mean[None], self.identity[None])[0]
        return code_motion(basis, slopes, self.expression_span, carried)

    def shares(self, motion: Float[Tensor, "n 3 e"]) -> Float[Tensor, "n e"]:
        """How much of each number of a code G sees where F moves like that."""
        if not self.sizes.shares:
            return motion.new_ones(len(motion), self.prior.expression_size)
        return code_shares(motion)

    @torch.no_grad()
    def detail_hidden(self) -> Float[Tensor, "n w"]:
        """G's h of every Gaussian; kept as long as the field."""
        if self._hidden is None or self.training:
            self._hidden = self.detail.hidden(self.features, self.means)
        return self._hidden

    def train(self, mode: bool = True) -> "Avatar":
        """As in torch; forgets what was kept for decoding."""
        self._forget()
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> "Avatar":
        self._forget()
        return super()._apply(fn, recurse)

    def _forget(self) -> None:
        self._field: ForwardField | None = None
        self._hidden: Tensor | None = None
        self._recorded: RecordedDecode[Posed] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies: what a GPU recorded belongs to this avatar's tensors alone."""
        return {**self.__dict__, "_recorded": None}

    def frozen_coefficients(self, z_exp: Float[Tensor, " e"]) -> Float[Tensor, " r"]:
        """F's coefficients; gradients go to the code where it asks for them, never to F."""
        with torch.no_grad():
            coefficients = self.prior.coefficients(z_exp[None], self.identity[None])[0]
        if not (z_exp.requires_grad and torch.is_grad_enabled()):
            return coefficients
        slopes = self.prior.coefficient_slopes(z_exp[None], self.identity[None])[0]
        return coefficients + slopes @ (z_exp - z_exp.detach())

    def decode(
        self,
        z_exp: Float[Tensor, " e"],
        world_from_head: Similarity,
        world_from_torso: Similarity | None = None,
        *,
        field: ForwardField | None = None,
    ) -> Posed:
        """The Gaussians in the world under one code and one head pose.

        `world_from_torso` is the torso's rest pose in this take (its mean head pose will do); the
        avatar's own where it is not given. What the torso learned to follow of the head comes on
        top. With a `field` that has a basis no gradient reaches F, which saves most of its cost:
        positions learn through the identity part of x + F(x), and codes that ask for a gradient
        get the whole of it, since F is linear in its coefficients.
        """
        learns = self.training or torch.is_grad_enabled()
        if learns or field is not None:
            field = self.field().without_basis() if field is None else field
            return self._decode(z_exp, world_from_head, world_from_torso, field)
        if not self.means.is_cuda:
            return self._decode_still(z_exp, world_from_head, world_from_torso)
        torso = self.torso.rest if world_from_torso is None else world_from_torso
        if self._recorded is None:
            self._recorded = RecordedDecode(self._decode_still, z_exp, world_from_head, torso)
        return self._recorded(z_exp, world_from_head, torso)

    def _decode_still(
        self, z_exp: Tensor, world_from_head: Similarity, world_from_torso: Similarity | None
    ) -> Posed:
        """A decode with all that no frame changes kept from the one before."""
        field, hidden = self.field(), self.detail_hidden()
        return self._decode(z_exp, world_from_head, world_from_torso, field, hidden)

    def _decode(
        self,
        z_exp: Tensor,
        world_from_head: Similarity,
        world_from_torso: Similarity | None,
        field: ForwardField,
        hidden: Tensor | None = None,
    ) -> Posed:
        condition = self.detail_condition(z_exp, world_from_head, world_from_torso)
        attachment = self.attachment
        carried = (attachment * self.reach)[:, None]
        coefficients = self.frozen_coefficients(z_exp)[None]
        if field.basis is None:
            offset = self.prior(
                self.means[None], self.omega[None], z_exp[None], self.identity[None]
            )[0]
        else:
            offset = combine(field.basis[None], coefficients)[0]
        offset = carried * offset
        if hidden is None:
            hidden = self.detail.hidden(self.features, self.means)
        residuals = self.detail.residuals(hidden, condition, field.shares)
        assert field.turns is not None
        turn = small_turn(carried * combine(field.turns[None], coefficients)[0])
        bent = quat_multiply(small_turn(residuals.rotation), turn)
        means, quats, log_scales = blend_poses(
            self.means + offset + residuals.centre,
            quat_multiply(bent, self.quats),
            self.log_scales + residuals.log_scale,
            attachment,
            world_from_head,
            self.torso(world_from_head, world_from_torso),
        )
        normals = quat_rotate(turn, self.normals)
        gaussians = self.drawn(means, quats, log_scales, normals, residuals, world_from_head)
        return Posed(gaussians, offset, residuals)

    def drawn(
        self,
        means: Tensor,
        quats: Tensor,
        log_scales: Tensor,
        normals: Tensor,
        residuals: Residuals,
        world_from_head: Similarity,
    ) -> Gaussians:
        """Gaussians placed in the world, with the opacities and channels that are drawn.

        `normals` are those under the expression, in head space.
        """
        now, rest = world_from_head.rotation, self.torso.rotation
        light = self.light(self.normals, normals, self.attachment, now, rest)
        features = self.features[:, : self.sizes.screen_features]
        return Gaussians(
            means=means,
            quats=quats,
            log_scales=log_scales,
            logit_opacities=self.logit_opacities + residuals.logit_opacity,
            colors=torch.cat([light * (self.colors + residuals.color), features], dim=-1),
        )

    def pose(
        self,
        z_exp: Float[Tensor, " e"],
        world_from_head: Similarity,
        world_from_torso: Similarity | None = None,
        *,
        field: ForwardField | None = None,
        with_features: bool = True,
    ) -> Gaussians:
        """`decode`'s Gaussians; without features the colours are the three of sRGB."""
        gaussians = self.decode(z_exp, world_from_head, world_from_torso, field=field).gaussians
        if with_features:
            return gaussians
        return Gaussians(
            gaussians.means,
            gaussians.quats,
            gaussians.log_scales,
            gaussians.logit_opacities,
            gaussians.colors[:, :3],
        )

    def background(self, rgb: float = 1.0) -> Float[Tensor, " k"]:
        """A grey background for `pose`'s channels; its features are 0."""
        channels = 3 + self.sizes.screen_features
        values = torch.zeros(channels, device=self.means.device)
        values[:3] = rgb
        return values

    def refine(
        self, image: Float[Tensor, "c h w k"], alpha: Float[Tensor, "c h w"]
    ) -> Float[Tensor, "c h w 3"]:
        """The refiner's picture from a rendering with features."""
        return self.refiner(image, alpha)
