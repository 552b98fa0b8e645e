"""F, the forward motion prior: from a canonical point and an expression code to its offset.

    offset = sum_k basis_k(x, omega, PE(x); identity) coefficient_k(z_exp, identity)

x in head space, 1 unit = 250 mm. The two factors are small networks: the basis [3 r] depends on the
point but not on the expression, the coefficients [r] on the expression but not on the point. A new
expression therefore costs one product of a [3n r] matrix with r numbers once the basis of the
points is known, and blendshape-like codes are learned several times faster than by one network
of both (measured on an ICT head: 2.3 mm against 3.6 mm after equal time).

Letters: `b` codes (frames), `n` points, `e` expression size, `i` identity size, `h` hyper
coordinates, `r` rank, `w` width of a layer, `p` size of the point part of the input (x, omega and
their encoding), `c` size of the condition. A layer that sees a condition shared by all points of
a frame is split, W [p, c] = W_p p + W_c c, and W_c c is computed once per frame.

All of this is ours: NPGA gives neither F's inputs nor its layers (`facts/npga.md` section 7, 1-2).
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from npga.core.errors import CheckpointError
from npga.core.similarity import Similarity
from npga.core.store import load_tensors, save_tensors

PRIOR_FORMAT = "npga.prior"
PRIOR_VERSION = 1
SHIPPED_PRIOR = Path(__file__).parent.parent / "assets" / "forward_prior.safetensors"
"""F of the open prior."""
NEIGHBOURHOOD = 0.01
"""Head units (2.5 mm) on each side of a point, over which a turn is taken."""


def positional_encoding(x: Float[Tensor, "*n d"], bands: int) -> Float[Tensor, "*n s"]:
    """sin and cos of x at `bands` octaves, starting at one period per 2 units; s = 2 d bands."""
    if bands == 0:
        return x[..., :0]
    octaves = math.pi * 2.0 ** torch.arange(bands, dtype=x.dtype, device=x.device)
    angles = (x[..., None] * octaves).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class SplitLinear(nn.Module):
    """A linear layer on [point part | condition] whose condition part is applied once per code."""

    def __init__(self, point_size: int, condition_size: int, width: int) -> None:
        super().__init__()
        whole = nn.Linear(point_size + condition_size, width)
        self.point = nn.Parameter(whole.weight.detach()[:, :point_size].clone())
        self.condition = nn.Parameter(whole.weight.detach()[:, point_size:].clone())
        self.bias = nn.Parameter(whole.bias.detach().clone())

    def forward(
        self,
        points: Float[Tensor, "b n p"],
        condition: Float[Tensor, "b c"],
        before: tuple[Float[Tensor, "b n w"], nn.Linear] | None = None,
    ) -> Float[Tensor, "b n w"]:
        """W_p p + (W_c c + bias), the bracket broadcast over the points of a frame.

        `before` = (h, layer) adds layer(h), without a pass of its own over the points.
        """
        shift = functional.linear(condition, self.condition, self.bias)
        if before is not None:
            shift = shift + before[1].bias
        if shift.shape[0] == 1:
            out = functional.linear(points, self.point, shift[0])
        else:
            out = functional.linear(points, self.point) + shift[:, None]
        if before is None:
            return out
        h, layer = before
        return torch.addmm(out.flatten(0, 1), h.flatten(0, 1), layer.weight.T).view_as(out)


def _activated(h: Float[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
    """SiLU, in place where no gradient will need what was there."""
    return functional.silu(h, inplace=not torch.is_grad_enabled())


class ForwardPrior(nn.Module):
    """F: one field for all people of a head model, distilled from its backward field.

    `expression_size` and `identity_size` follow the head model. The basis network has `depth`
    hidden layers x `width` with SiLU, whose middle one sees the input again; `rank` is the number
    of coefficients. Inputs are standardised by the buffers `point_*`, `expression_*`, `identity_*`
    (see `standardise`); the output is in units of the buffer `offset_scale`.
    `head_model_checksum` names the head model F belongs to.
    """

    point_mean: Tensor
    point_scale: Tensor
    expression_mean: Tensor
    expression_scale: Tensor
    identity_mean: Tensor
    identity_scale: Tensor
    offset_scale: Tensor

    def __init__(
        self,
        expression_size: int,
        identity_size: int,
        *,
        hyper_size: int = 2,
        width: int = 96,
        depth: int = 4,
        bands: int = 0,
        rank: int = 48,
        head_model_checksum: str = "",
    ) -> None:
        super().__init__()
        if depth < 2:
            raise CheckpointError(
                f"A forward prior of depth {depth} was asked for; 2 is the least.",
                "Give it 2 layers or more.",
            )
        self.sizes = {
            "expression_size": expression_size,
            "identity_size": identity_size,
            "hyper_size": hyper_size,
            "width": width,
            "depth": depth,
            "bands": bands,
            "rank": rank,
        }
        self.bands = bands
        self.rank = rank
        self.skip_at = depth // 2
        self.head_model_checksum = head_model_checksum
        point_size = 3 + hyper_size + 6 * bands
        self.entry = SplitLinear(point_size, identity_size, width)
        self.reentry = SplitLinear(point_size, identity_size, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.exit = nn.Linear(width, 3 * rank)
        condition_size = expression_size + identity_size
        self.linear = nn.Linear(condition_size, rank)
        self.curved = nn.Sequential(
            nn.Linear(condition_size, width), nn.SiLU(), nn.Linear(width, rank)
        )
        for name, size in (
            ("point", 3 + hyper_size),
            ("expression", expression_size),
            ("identity", identity_size),
        ):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.register_buffer("offset_scale", torch.ones(()))

    @property
    def expression_size(self) -> int:
        """Size of z_exp."""
        return self.sizes["expression_size"]

    @property
    def identity_size(self) -> int:
        """Size of the identity compression."""
        return self.sizes["identity_size"]

    @property
    def hyper_size(self) -> int:
        """Number of hyper coordinates omega."""
        return self.sizes["hyper_size"]

    @torch.no_grad()
    def standardise(
        self,
        points: Float[Tensor, "m q"],
        expressions: Float[Tensor, "k e"],
        identities: Float[Tensor, "l i"],
        offsets: Float[Tensor, "m 3"],
    ) -> None:
        """Set the buffers from samples: points are [x, omega]; call once, before training."""
        for name, values in (
            ("point", points),
            ("expression", expressions),
            ("identity", identities),
        ):
            scale = values.std(0, correction=0)
            scale = torch.where(scale > 1e-4, scale.clamp(min=0.1 * scale.max()), 1.0)
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_scale").copy_(scale)
        self.offset_scale.copy_(offsets.square().mean().sqrt().clamp(min=1e-4))

    def trunk(
        self,
        x: Float[Tensor, "b n 3"],
        omega: Float[Tensor, "b n h"],
        identity: Float[Tensor, "b i"],
    ) -> Float[Tensor, "b n w"]:
        """The last hidden layer of the basis."""
        points = (torch.cat([x, omega], dim=-1) - self.point_mean) / self.point_scale
        if self.bands:
            encoded = positional_encoding(points[..., :3], self.bands)
            points = torch.cat([points, encoded], dim=-1)
        person = (identity - self.identity_mean) / self.identity_scale
        h = _activated(self.entry(points, person))
        for index, layer in enumerate(self.hidden, start=1):
            assert isinstance(layer, nn.Linear)
            again = index == self.skip_at
            h = _activated(self.reentry(points, person, (h, layer)) if again else layer(h))
        return h

    @property
    def unit(self) -> Float[Tensor, ""]:
        """Head units of one unit of the basis."""
        return self.offset_scale / self.rank**0.5

    def basis(
        self,
        x: Float[Tensor, "b n 3"],
        omega: Float[Tensor, "b n h"],
        identity: Float[Tensor, "b i"],
    ) -> Float[Tensor, "b n 3 r"]:
        """How each point moves per coefficient, in head units; it knows no expression."""
        return (self.exit(self.trunk(x, omega, identity)) * self.unit).unflatten(-1, (3, self.rank))

    @torch.no_grad()
    def basis_turns(
        self,
        x: Float[Tensor, "b n 3"],
        omega: Float[Tensor, "b n h"],
        identity: Float[Tensor, "b i"],
    ) -> Float[Tensor, "b n 3 r"]:
        """How the neighbourhood of each point turns per coefficient: half the curl of the basis.

        Where x + offset turns by an angle, this combines to the axis times the angle's sine. By
        central differences over `NEIGHBOURHOOD`: distillation gave F no derivatives, and those at
        a point have ripples of the positional encoding. No gradient.
        """
        slopes = []
        for axis in range(3):
            step = torch.zeros_like(x[0, 0])
            step[axis] = NEIGHBOURHOOD
            ahead, behind = (self.trunk(x + to, omega, identity) for to in (step, -step))
            slopes.append((ahead - behind) * (self.unit / (4 * NEIGHBOURHOOD)))
        rows = self.exit.weight.unflatten(0, (3, self.rank))
        turns = []
        for axis in range(3):
            one, two = (axis + 1) % 3, (axis + 2) % 3
            turns.append(slopes[one] @ rows[two].T - slopes[two] @ rows[one].T)
        return torch.stack(turns, dim=-2)

    def coefficients(
        self, z_exp: Float[Tensor, "b e"], identity: Float[Tensor, "#b i"]
    ) -> Float[Tensor, "b r"]:
        """What an expression asks of the basis."""
        condition = self._condition(z_exp, identity)
        return self.linear(condition) + self.curved(condition)

    def _condition(self, z_exp: Tensor, identity: Tensor) -> Tensor:
        """Code and identity, standardised, side by side."""
        expression = (z_exp - self.expression_mean) / self.expression_scale
        person = (identity - self.identity_mean) / self.identity_scale
        return torch.cat([expression, person.expand(len(expression), -1)], dim=-1)

    @torch.no_grad()
    def coefficient_slopes(
        self, z_exp: Float[Tensor, "b e"], identity: Float[Tensor, "#b i"]
    ) -> Float[Tensor, "b r e"]:
        """d coefficients / d z_exp in closed form (the twin is torch.func.jacrev); no gradient."""
        condition = self._condition(z_exp, identity)
        inner, outer = (layer for layer in self.curved if isinstance(layer, nn.Linear))
        asked = inner(condition)
        share = asked.sigmoid()
        bend = share * (1 + asked * (1 - share))  # the derivative of SiLU
        size = self.expression_size
        slopes = (outer.weight * bend[:, None]) @ inner.weight[:, :size]
        return (self.linear.weight[:, :size] + slopes) / self.expression_scale

    def forward(
        self,
        x: Float[Tensor, "#b n 3"],
        omega: Float[Tensor, "#b n h"],
        z_exp: Float[Tensor, "b e"],
        identity: Float[Tensor, "#b i"],
    ) -> Float[Tensor, "b n 3"]:
        """Offset, in head space, that carries canonical point x to its place under z_exp.

        x, omega and identity may have b = 1 while z_exp has more codes: they are then shared. The
        same as `combine(basis, coefficients)`, but the coefficients meet the exit layer first: 3
        instead of 3 r numbers per point. Who asks many codes of the same points keeps the basis.
        """
        hidden = self.trunk(x, omega, identity)
        asked = self.coefficients(z_exp, identity) * self.unit
        weight = torch.einsum("br,crw->bwc", asked, self.exit.weight.unflatten(0, (3, self.rank)))
        bias = asked @ self.exit.bias.unflatten(0, (3, self.rank)).T
        return torch.baddbmm(bias[:, None], hidden.expand(len(asked), -1, -1), weight)

    def posed(
        self,
        x: Float[Tensor, "#b n 3"],
        omega: Float[Tensor, "#b n h"],
        z_exp: Float[Tensor, "b e"],
        identity: Float[Tensor, "#b i"],
        world_from_head: Similarity | None = None,
    ) -> Float[Tensor, "b n 3"]:
        """Where canonical points are under an expression: head units, or metres with a pose.

        Differentiable in everything given, the pose (one per code) included.
        """
        points = x + self(x, omega, z_exp, identity)
        return points if world_from_head is None else world_from_head.apply(points)

    def jacobian(
        self,
        x: Float[Tensor, "b n 3"],
        omega: Float[Tensor, "b n h"],
        z_exp: Float[Tensor, "b e"],
        identity: Float[Tensor, "b i"],
    ) -> Float[Tensor, "b n 3 3"]:
        """d offset / d x, one reverse pass per row; entry [r, s] = d offset_r / d x_s.

        Points do not see each other, so the gradient of a sum over points is every point's own.
        Differentiable itself where gradients are enabled.
        """
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            offset = self(at, omega, z_exp, identity)
            rows = [
                torch.autograd.grad(
                    offset[..., row].sum(), at, retain_graph=True, create_graph=keep
                )[0]
                for row in range(3)
            ]
        return torch.stack(rows, dim=-2)


def combine(
    basis: Float[Tensor, "#b n 3 r"], coefficients: Float[Tensor, "b r"]
) -> Float[Tensor, "b n 3"]:
    """sum_k basis_k coefficient_k; a basis of b = 1 is shared by all codes."""
    _, n, _, rank = basis.shape
    if basis.shape[0] == 1:
        flat = coefficients @ basis.reshape(3 * n, rank).T
        return flat.reshape(len(coefficients), n, 3)
    return (basis.flatten(1, 2) @ coefficients[..., None]).reshape(-1, n, 3)


def save_prior(path: str | Path, prior: ForwardPrior, head_model_checksum: str) -> None:
    """Write F to `path` with its sizes and the checksum of the head model it was distilled from."""
    meta = {"sizes": prior.sizes, "head_model_checksum": head_model_checksum}
    tensors = {name: value.detach() for name, value in prior.state_dict().items()}
    save_tensors(path, tensors, format=PRIOR_FORMAT, version=PRIOR_VERSION, meta=meta)


def load_prior(path: str | Path, head_model_checksum: str | None = None) -> ForwardPrior:
    """Read F from `path`; where a checksum is given, the file must belong to that head model.

    Raises CheckpointError for a damaged file, missing weights or another head model.
    """
    tensors, meta = load_tensors(path, format=PRIOR_FORMAT, version=PRIOR_VERSION)
    found = meta["head_model_checksum"]
    if head_model_checksum is not None and found != head_model_checksum:
        raise CheckpointError(
            f"{path} was distilled from head model {found}, not from {head_model_checksum}.",
            "Run `npga distill` for the head model in use, or name the head model it came from.",
        )
    sizes = {name: int(size) for name, size in meta["sizes"].items()}
    prior = ForwardPrior(**sizes, head_model_checksum=found)
    try:
        prior.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold the weights its sizes ask for: {error}",
            "Write it again with `npga distill`.",
        ) from error
    return prior.eval()


def prior_file(path: str | None) -> Path:
    """The file: `prior.safetensors` where a folder was given, the shipped F for None."""
    if path is None:
        return SHIPPED_PRIOR
    place = Path(path)
    return place / "prior.safetensors" if place.is_dir() else place
