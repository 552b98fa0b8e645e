"""F, the forward motion prior: from a canonical point and an expression code to its offset.

    offset = F([x, omega, (PE(x))], [z_exp, identity])        x in head space, 1 unit = 250 mm

Letters: `b` codes (frames), `n` points, `e` expression size, `i` identity size, `w` width of a
layer, `p` size of the point part of the input (x, omega and their encoding), `c` size of the
condition (z_exp, identity). The condition is the same for all points of a frame, so each layer
that sees the input is split, W [p, c] = W_p p + W_c c, and W_c c is computed once per frame.

The inputs of F and its layers are ours: NPGA gives neither (`facts/npga.md` section 7, 1 and 2).
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from npga.core.errors import CheckpointError
from npga.core.store import load_tensors, save_tensors

PRIOR_FORMAT = "npga.prior"
PRIOR_VERSION = 1


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
        self, points: Float[Tensor, "b n p"], condition: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b n w"]:
        """W_p p + (W_c c + bias), the bracket broadcast over the points of a frame."""
        shift = functional.linear(condition, self.condition, self.bias)
        if points.shape[0] == 1 and shift.shape[0] == 1:
            return functional.linear(points, self.point, shift[0])
        return functional.linear(points, self.point) + shift[:, None]


class ForwardPrior(nn.Module):
    """F: one field for all people of a head model, distilled from its backward field.

    `expression_size` and `identity_size` follow the head model. The hidden layers are
    `depth` x `width` with SiLU; the middle one sees the input again. Inputs are standardised by
    the buffers `point_*`, `expression_*`, `identity_*` (see `standardise`) and the output is in
    units of the buffer `offset_scale`. `head_model_checksum` names the head model F belongs to.
    """

    def __init__(
        self,
        expression_size: int,
        identity_size: int,
        *,
        hyper_size: int = 2,
        width: int = 96,
        depth: int = 4,
        bands: int = 0,
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
        }
        self.bands = bands
        self.skip_at = depth // 2
        self.head_model_checksum = head_model_checksum
        point_size = 3 + hyper_size + 6 * bands
        condition_size = expression_size + identity_size
        self.entry = SplitLinear(point_size, condition_size, width)
        self.reentry = SplitLinear(point_size, condition_size, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.exit = nn.Linear(width, 3)
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
            scale = torch.where(scale > 1e-4, scale, torch.ones_like(scale))
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_scale").copy_(scale)
        self.offset_scale.copy_(offsets.square().mean().sqrt().clamp(min=1e-4))

    def condition(
        self, z_exp: Float[Tensor, "b e"], identity: Float[Tensor, "b i"]
    ) -> Float[Tensor, "b c"]:
        """The standardised condition of each code."""
        expression = (z_exp - self.expression_mean) / self.expression_scale
        return torch.cat([expression, (identity - self.identity_mean) / self.identity_scale], -1)

    def point_part(
        self, x: Float[Tensor, "b n 3"], omega: Float[Tensor, "b n h"]
    ) -> Float[Tensor, "b n p"]:
        """The standardised point part of the input with its encoding."""
        points = (torch.cat([x, omega], dim=-1) - self.point_mean) / self.point_scale
        if self.bands == 0:
            return points
        return torch.cat([points, positional_encoding(points[..., :3], self.bands)], dim=-1)

    def forward(
        self,
        x: Float[Tensor, "b n 3"],
        omega: Float[Tensor, "b n h"],
        z_exp: Float[Tensor, "b e"],
        identity: Float[Tensor, "b i"],
    ) -> Float[Tensor, "b n 3"]:
        """Offset, in head space, that carries canonical point x to its place under z_exp.

        x and omega may have b = 1 while z_exp has more codes: the points are then shared.
        """
        points = self.point_part(x, omega)
        condition = self.condition(z_exp, identity)
        h = functional.silu(self.entry(points, condition))
        for index, layer in enumerate(self.hidden, start=1):
            h = layer(h)
            if index == self.skip_at:
                h = h + self.reentry(points, condition)
            h = functional.silu(h)
        return self.exit(h) * self.offset_scale

    def jacobian(
        self,
        x: Float[Tensor, "b n 3"],
        omega: Float[Tensor, "b n h"],
        z_exp: Float[Tensor, "b e"],
        identity: Float[Tensor, "b i"],
    ) -> Float[Tensor, "b n 3 3"]:
        """d offset / d x by three forward-mode products; entry [r, s] = d offset_r / d x_s."""
        columns = []
        for axis in range(3):
            tangent = torch.zeros_like(x)
            tangent[..., axis] = 1.0
            _, column = torch.func.jvp(
                lambda at: self(at, omega, z_exp, identity), (x,), (tangent,)
            )
            columns.append(column)
        return torch.stack(columns, dim=-1)


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
