"""One head in one expression from surface points: identity, expression, pose and scale together.

Levenberg-Marquardt on r = S(B(x)), the signed distance of every point: no correspondences, no
landmarks, no root finding. One backward pass with all codes expanded to one copy per point yields
all rows of the Jacobian; the slow twin in the tests is torch.autograd.functional.jacobian. Ours;
the surface term is MonoNPHM's and DPHM's.

Letters: n points, g geometry code, e expression code, d = g + e + 7 unknowns (codes, rotation,
translation, log scale of a small motion in head space).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.errors import TrackError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from nphm_tracking.align import METRES_PER_UNIT
from nphm_tracking.energies import linearise_head, robust_loss, robust_weight
from nphm_tracking.head import CodePrior, expression_prior, geometry_prior
from nphm_tracking.model.head_model import HeadModel

CHUNK_POINTS = 2048
"""Points per network pass: bounds the memory, changes no result."""
EARLY_POINTS = 1200
"""Points of all but the last iterations."""


@dataclass(frozen=True)
class PointFitConfig:
    """Weights of the fit; energies are mm^2 per point and squared standard deviations."""

    iterations: int = 24
    final_iterations: int = 6
    """The last so many see all points; the others EARLY_POINTS of them."""
    robust_mm: float = 6.0
    robust_final_mm: float = 3.0
    geometry: float = 3e-4
    """Weight of |(z_geo - mean) / std|^2, summed."""
    expression: float = 3e-3
    sparsity: float = 0.02
    """Weight of the sum of z_exp where its lower bound is 0."""
    log_scale_std: float = 0.08
    """Spread of the logarithm of head sizes; 0 fixes the scale."""


@dataclass(frozen=True)
class PointFit:
    """A head fitted to a cloud."""

    z_geo: Float[Tensor, "g"]
    z_exp: Float[Tensor, "e"]
    world_from_head: Similarity
    residual_mm: Float[Tensor, "n"]
    """First-order signed distance of every point."""


@dataclass(frozen=True)
class _State:
    z_geo: Tensor
    z_exp: Tensor
    pose: Similarity

    def moved(self, step: Float[Tensor, "d"], expression: CodePrior) -> "_State":
        geo, exp = len(self.z_geo), len(self.z_exp)
        z_exp = self.z_exp + step[geo : geo + exp]
        z_exp = torch.minimum(torch.maximum(z_exp, expression.lower), expression.upper)
        turn, shift, grow = step[geo + exp :].split([3, 3, 1])
        rotation = matrix_from_rotvec(turn[None])[0]
        scale = self.pose.scale * torch.exp(-grow[0])
        turned = self.pose.rotation @ rotation.T
        moved = self.pose.translation - scale * (turned @ shift)
        return _State(self.z_geo + step[:geo], z_exp, Similarity(scale, turned, moved))


def fit_points(
    model: HeadModel,
    points: Float[Tensor, "n 3"],
    start: Similarity | None = None,
    config: PointFitConfig | None = None,
    seed: int = 0,
) -> PointFit:
    """The head whose surface passes nearest to ``points`` (world metres), from ``start`` on.

    ``start`` is world_from_head, right to about a centimetre (None: points are in head units x 0.25
    m already; see ``align`` for clouds). Raises TrackError for too few or non-finite points.
    """
    config = config or PointFitConfig()
    if len(points) < 50 or not bool(points.isfinite().all()):
        raise TrackError(
            f"A head cannot be fitted to {len(points)} points, or some are not finite.",
            "Give at least 50 finite surface points in metres.",
        )
    if start is None:
        start = Similarity(
            points.new_tensor(METRES_PER_UNIT), torch.eye(3).to(points), points.new_zeros(3)
        )
    geometry, expression = geometry_prior(model), expression_prior(model)
    state = _State(geometry.mean.clone(), expression.mean.clone(), start)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    early = points[order[:EARLY_POINTS]]
    size = points.new_tensor(float(start.scale))
    damping = 1e-2
    kept = None
    for number in range(config.iterations):
        late = number >= config.iterations - config.final_iterations
        share = number / max(config.iterations - 1, 1)
        scale_mm = config.robust_mm + share * (config.robust_final_mm - config.robust_mm)
        used = points if late else early
        kept = _equations(model, used, state, geometry, expression, config, scale_mm, size)
        for _ in range(4):
            step = _step(kept, state, expression, damping, config)
            trial = state.moved(step, expression)
            energy = _energy(model, used, trial, geometry, expression, config, scale_mm, size)
            if energy <= kept.energy:
                state, damping = trial, max(damping * 0.3, 1e-6)
                break
            damping = min(damping * 8, 1e4)
    with torch.no_grad():
        residual = _residual_mm(model, points, state)
    return PointFit(state.z_geo, state.z_exp, state.pose, residual)


@dataclass(frozen=True)
class _Equations:
    hessian: Float[Tensor, "d d"]
    gradient: Float[Tensor, "d"]
    energy: float


def _equations(
    model: HeadModel,
    points: Tensor,
    state: _State,
    geometry: CodePrior,
    expression: CodePrior,
    config: PointFitConfig,
    scale_mm: float,
    size: Tensor,
) -> _Equations:
    to_mm = 1000 * state.pose.scale
    local = state.pose.inverse().apply(points)
    count = len(state.z_geo) + len(state.z_exp) + 7
    hessian = points.new_zeros(count, count, dtype=torch.float64)
    gradient = points.new_zeros(count, dtype=torch.float64)
    for part in local.split(CHUNK_POINTS):
        residual, jacobian = linearise_head(model, part, state.z_geo, state.z_exp)
        residual, jacobian = residual * to_mm, jacobian * to_mm
        weight = robust_weight(residual, scale_mm) / len(local)
        weighted = jacobian * weight[:, None]
        hessian += (weighted.T @ jacobian).double()
        gradient += (weighted.T @ residual).double()
    diagonal, slope = _prior_terms(state, geometry, expression, config, size)
    hessian.diagonal().add_(diagonal.double())
    energy = _energy(model, points, state, geometry, expression, config, scale_mm, size)
    return _Equations(hessian, gradient + slope.double(), energy)


def _prior_terms(
    state: _State,
    geometry: CodePrior,
    expression: CodePrior,
    config: PointFitConfig,
    size: Tensor,
) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """Half the second derivative and half the gradient of the code terms."""
    geo = config.geometry / geometry.std.square()
    exp = config.expression / expression.std.square()
    pull = 0.5 * config.sparsity * (expression.lower >= 0)
    grow = 1e-2 / config.log_scale_std**2 if config.log_scale_std else 0.0
    pose = geo.new_tensor([0.0] * 6 + [grow])
    larger = torch.log(size / state.pose.scale)
    slope = torch.cat(
        [
            geo * (state.z_geo - geometry.mean),
            exp * (state.z_exp - expression.mean) + pull,
            geo.new_zeros(6),
            grow * larger[None],
        ]
    )
    return torch.cat([geo, exp, pose]), slope


def _energy(
    model: HeadModel,
    points: Tensor,
    state: _State,
    geometry: CodePrior,
    expression: CodePrior,
    config: PointFitConfig,
    scale_mm: float,
    size: Tensor,
) -> float:
    with torch.no_grad():
        data = robust_loss(_residual_mm(model, points, state), scale_mm).mean()
    diagonal, _ = _prior_terms(state, geometry, expression, config, size)
    away = torch.cat(
        [
            state.z_geo - geometry.mean,
            state.z_exp - expression.mean,
            state.z_geo.new_zeros(6),
            torch.log(size / state.pose.scale)[None],
        ]
    )
    sparse = config.sparsity * (state.z_exp * (expression.lower >= 0)).sum()
    return float(data + (diagonal * away.square()).sum() + sparse)


def _residual_mm(model: HeadModel, points: Tensor, state: _State) -> Float[Tensor, "n"]:
    local = state.pose.inverse().apply(points)
    identity = model.compress(state.z_geo)
    offsets, hyper = model.backward_field(local, identity, state.z_exp)
    sdf = model.sdf(torch.cat([local + offsets, hyper], dim=-1), state.z_geo)
    return sdf * 1000 * state.pose.scale


def _step(
    equations: _Equations,
    state: _State,
    expression: CodePrior,
    damping: float,
    config: PointFitConfig,
) -> Float[Tensor, "d"]:
    """The damped step; expression codes at a bound that push outwards stay (Bertsekas 1982)."""
    geo, exp = len(state.z_geo), len(state.z_exp)
    slope = equations.gradient[geo : geo + exp]
    free = torch.ones_like(equations.gradient, dtype=torch.bool)
    code = state.z_exp
    free[geo : geo + exp] = ~(
        ((code <= expression.lower) & (slope > 0)) | ((code >= expression.upper) & (slope < 0))
    )
    free[-1] = config.log_scale_std > 0
    matrix = equations.hessian.clone()
    matrix.diagonal().mul_(1 + damping).add_(1e-9)
    rows = torch.nonzero(free).flatten()
    step = torch.zeros_like(equations.gradient)
    step[rows] = -torch.linalg.solve(matrix[rows][:, rows], equations.gradient[rows])
    step[geo + exp : geo + exp + 6] = step[geo + exp : geo + exp + 6].clamp(-0.1, 0.1)
    return step.to(state.z_geo)
