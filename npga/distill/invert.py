"""Invert a backward field point by point: Newton, Broyden, fixed point.

B : posed point x -> canonical point B(x) = x + offset(x), for one person and expression
y : the canonical point that is wanted;  r(x) = B(x) - y  the residual, in head units (1 = 250 mm)
J : dB/dx, 3x3 per point;  H : Broyden's running estimate of its inverse

All three solvers stop point by point: a point that has converged or diverged costs nothing more,
and the best iterate seen is what comes back. `restarted` gives the points that are left other
starts, and only those.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Field = Callable[[Tensor], Tensor]
"""Posed points [m 3] to canonical points [m 3]; each row depends on its own row only."""

TOLERANCE = 5e-5
"""Converged below this residual, head units (12.5 micrometres; MonoNPHM's own threshold)."""

DIVERGED = 0.3
"""A point whose residual grows past this (75 mm) is given up."""


@dataclass(frozen=True)
class Inversion:
    """What a solver found."""

    points: Float[Tensor, "n 3"]
    """Posed points: the best iterate of each."""
    residual: Float[Tensor, "n"]
    """|B(points) - canonical|, head units."""
    converged: Bool[Tensor, "n"]
    """Residual below the tolerance."""
    iterations: Int[Tensor, "n"]
    """Steps taken by each point."""
    evaluations: int
    """Point evaluations of B in all, a Jacobian counted as four."""


def field_jacobian(
    field: Field, points: Float[Tensor, "*m 3"]
) -> tuple[Float[Tensor, "*m 3"], Float[Tensor, "*m 3 3"]]:
    """Value and Jacobian of a field at each point, by three reverse passes; both detached."""
    with torch.enable_grad():
        x = points.detach().requires_grad_(True)
        value = field(x)
        rows = [
            torch.autograd.grad(value[..., k].sum(), x, retain_graph=k < 2)[0] for k in range(3)
        ]
    return value.detach(), torch.stack(rows, dim=-2)


class _Progress:
    """The bookkeeping the solvers share: best iterate, residual, who is still running."""

    def __init__(self, start: Tensor, residual: Tensor, tolerance: float) -> None:
        self.tolerance = tolerance
        self.points = start.clone()
        self.residual = residual.norm(dim=-1)
        self.residual[~self.residual.isfinite()] = float("inf")
        self.iterations = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        self.evaluations = len(start)
        self.active = self._running(torch.arange(len(start), device=start.device), self.residual)

    def _running(self, rows: Tensor, residual: Tensor) -> Tensor:
        limit = self.residual[rows].clamp(min=DIVERGED) * 2.0
        keep = residual.isfinite() & (residual >= self.tolerance) & (residual <= limit)
        return rows[keep]

    def update(self, points: Tensor, residual: Tensor, evaluations: int) -> Tensor:
        """Take the new iterates of the active rows; returns which of them go on (mask)."""
        rows, size = self.active, residual.norm(dim=-1)
        self.iterations[rows] += 1
        self.evaluations += evaluations
        better = size < self.residual[rows]
        self.points[rows[better]] = points[better]
        self.residual[rows[better]] = size[better]
        self.active = self._running(rows, size)
        return torch.isin(rows, self.active)

    def result(self) -> Inversion:
        """Everything found so far."""
        converged = self.residual < self.tolerance
        return Inversion(self.points, self.residual, converged, self.iterations, self.evaluations)


def _solve3(jacobian: Tensor, right: Tensor) -> Tensor:
    """J^-1 r per point through the pseudo-inverse, so that a singular J cannot raise."""
    return (torch.linalg.pinv(jacobian) @ right[..., None])[..., 0]


@torch.no_grad()
def newton(
    field: Field,
    canonical: Float[Tensor, "n 3"],
    start: Float[Tensor, "n 3"] | None = None,
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = 20,
    max_halvings: int = 3,
) -> Inversion:
    """Newton's method with the exact 3x3 Jacobian and step halving; starts at `canonical`."""
    x = canonical.clone() if start is None else start.clone()
    progress = _Progress(x, field(x) - canonical, tolerance)
    x = x[progress.active]
    for _ in range(max_iterations):
        if len(progress.active) == 0:
            break
        goal = canonical[progress.active]
        value, jacobian = field_jacobian(field, x)
        residual = value - goal
        step, used = _solve3(jacobian, residual), 4 * len(x)
        scale = torch.ones_like(x[:, :1])
        trial, trial_residual = x - step, field(x - step) - goal
        used += len(x)
        for _ in range(max_halvings):
            worse = ~(trial_residual.norm(dim=-1) < residual.norm(dim=-1))
            if not bool(worse.any()):
                break
            scale[worse] *= 0.5
            trial[worse] = (x - scale * step)[worse]
            trial_residual[worse] = field(trial[worse]) - goal[worse]
            used += int(worse.sum())
        x = trial[progress.update(trial, trial_residual, used)]
    return progress.result()


@torch.no_grad()
def broyden(
    field: Field,
    canonical: Float[Tensor, "n 3"],
    start: Float[Tensor, "n 3"] | None = None,
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = 30,
) -> Inversion:
    """Broyden's good method, H from the Jacobian at the start; MonoNPHM's and DPHM's solver."""
    x = canonical.clone() if start is None else start.clone()
    value, jacobian = field_jacobian(field, x)
    residual = value - canonical
    progress = _Progress(x, residual, tolerance)
    progress.evaluations += 3 * len(x)
    keep = progress.active
    x, residual = x[keep], residual[keep]
    inverse = torch.linalg.pinv(jacobian[keep])
    for _ in range(max_iterations):
        if len(progress.active) == 0:
            break
        step = -(inverse @ residual[..., None])[..., 0]
        x = x + step
        new_residual = field(x) - canonical[progress.active]
        change = new_residual - residual
        # H += (s - H c) s^T H / (s^T H c), the rank-one update of the inverse
        backprojected = (inverse @ change[..., None])[..., 0]
        row = (step[:, None, :] @ inverse)[:, 0]
        denominator = (step * backprojected).sum(-1)
        safe = torch.where(denominator.abs() > 1e-20, denominator, torch.ones_like(denominator))
        update = (step - backprojected)[:, :, None] * row[:, None, :] / safe[:, None, None]
        inverse = inverse + update * (denominator.abs() > 1e-20)[:, None, None]
        keep = progress.update(x, new_residual, len(x))
        x, residual, inverse = x[keep], new_residual[keep], inverse[keep]
    return progress.result()


@torch.no_grad()
def fixed_point(
    field: Field,
    canonical: Float[Tensor, "n 3"],
    start: Float[Tensor, "n 3"] | None = None,
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = 60,
) -> Inversion:
    """x <- y - offset(x), which converges only where |d offset / dx| < 1 (not at open lips)."""
    x = canonical.clone() if start is None else start.clone()
    residual = field(x) - canonical
    progress = _Progress(x, residual, tolerance)
    x, residual = x[progress.active], residual[progress.active]
    for _ in range(max_iterations):
        if len(progress.active) == 0:
            break
        x = x - residual
        residual = field(x) - canonical[progress.active]
        keep = progress.update(x, residual, len(x))
        x, residual = x[keep], residual[keep]
    return progress.result()


@runtime_checkable
class Solver(Protocol):
    """`newton`, `broyden` or `fixed_point`."""

    def __call__(
        self, field: Field, canonical: Tensor, start: Tensor | None = None, *, tolerance: float
    ) -> Inversion:
        """Posed points of canonical ones."""
        ...


@torch.no_grad()
def restarted(
    solver: Solver,
    field: Field,
    canonical: Float[Tensor, "n 3"],
    found: Inversion,
    starts: Sequence[Float[Tensor, "n 3"]],
    *,
    tolerance: float = TOLERANCE,
) -> Inversion:
    """`found`, improved from other starts; points that have converged are not asked again.

    `iterations` and `evaluations` count all tries. Ours: MonoNPHM's code runs every start for every
    point.
    """
    points, residual = found.points.clone(), found.residual.clone()
    iterations, evaluations = found.iterations.clone(), found.evaluations
    for start in starts:
        left = torch.nonzero(residual >= tolerance).flatten()
        if len(left) == 0:
            break
        again = solver(field, canonical[left], start[left], tolerance=tolerance)
        better = again.residual < residual[left]
        points[left[better]] = again.points[better]
        residual[left[better]] = again.residual[better]
        iterations[left] += again.iterations
        evaluations += again.evaluations
    return Inversion(points, residual, residual < tolerance, iterations, evaluations)
