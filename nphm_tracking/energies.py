"""What tracking minimises: pure functions of points, codes and poses.

t frames, n points, l landmarks, e expression size, d = e + 6 unknowns of a frame. Everything is in
head space (1 unit = 250 mm). B is the head model's backward field (posed -> canonical x' and hyper
omega), S its canonical SDF. Per frame

    E = w_s mean_n rho(S(B(x_n)) / sigma_s) + w_l mean_l rho(|B(x_l) - c_l| / sigma_l) + codes +
    smoothness

No root finding: observed points are pushed through B (facts: DPHM's landmark term; MonoNPHM 4.2).
Pose unknowns of a frame are a small motion in head space, x <- Exp(rotation) x + translation. The
`linearise_*` functions are the fast path of Gauss-Newton: codes are expanded to one copy per point,
so that ONE backward pass yields the Jacobian rows of every point; the slow twin in the tests is
torch.autograd.functional.jacobian.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nphm_tracking.head import TrackableHead


@dataclass(frozen=True)
class Linearised:
    """Residuals of `t` frames and their derivatives with respect to each frame's d unknowns."""

    residual: Float[Tensor, "t m"]
    """Signed, head units."""
    jacobian: Float[Tensor, "t m d"]
    """Columns: e expression weights, 3 rotation (radians), 3 translation (units)."""
    normal: Float[Tensor, "t m 3"]
    """d residual / d x: for the surface term the posed surface normal."""


def robust_weight(residual: Float[Tensor, "*b"], scale: float) -> Float[Tensor, "*b"]:
    """Geman-McClure's weight for reweighted least squares: 1 at 0, about 0 beyond 3 scales."""
    return (1 + (residual / scale).square()).reciprocal().square()


def robust_loss(residual: Float[Tensor, "*b"], scale: float) -> Float[Tensor, "*b"]:
    """Geman-McClure's loss r^2 / (1 + r^2 / scale^2): quadratic near 0, at most scale^2."""
    squared = residual.square()
    return squared / (1 + squared / scale**2)


def surface_residual(
    model: TrackableHead,
    points: Float[Tensor, "t n 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "t e"],
) -> Float[Tensor, "t n"]:
    """S(B(x)) of posed head-space points: signed distance in head units, positive outside."""
    canonical = canonical_points(model, points, z_geo, z_exp)
    return model.sdf(canonical.flatten(0, 1), z_geo).reshape(points.shape[:2])


def canonical_points(
    model: TrackableHead,
    points: Float[Tensor, "t n 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "t e"],
) -> Float[Tensor, "t n k"]:
    """B(x): canonical position and hyper coordinates of posed points."""
    identity = model.compress(z_geo[None]).expand(len(points), -1)
    offsets, hyper = model.backward_field(points, identity, z_exp)
    return torch.cat([points + offsets, hyper], dim=-1)


def landmark_residual(
    model: TrackableHead,
    observed: Float[Tensor, "t l 3"],
    canonical: Float[Tensor, "l 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "t e"],
) -> Float[Tensor, "t l 3"]:
    """B(observed landmark) minus the identity's canonical landmark, head units."""
    return canonical_points(model, observed, z_geo, z_exp)[..., :3] - canonical


def code_energy(
    code: Float[Tensor, "*b d"], mean: Float[Tensor, "d"], std: Float[Tensor, "d"]
) -> Float[Tensor, ""]:
    """Mean over the batch of |(z - mean) / std|^2: the negative log of a Gaussian prior."""
    return ((code - mean) / std).square().sum(-1).mean()


def bound_energy(
    code: Float[Tensor, "*b d"], lower: Float[Tensor, "d"], upper: Float[Tensor, "d"]
) -> Float[Tensor, ""]:
    """Mean over the batch of the squared excess over the bounds; 0 inside."""
    excess = torch.relu(lower - code) + torch.relu(code - upper)
    return excess.square().sum(-1).mean()


def smooth_energy(values: Float[Tensor, "t d"], linked: Float[Tensor, "u"]) -> Float[Tensor, ""]:
    """Sum of squared steps between neighbours; `linked` is 0 across a sequence border."""
    return (linked[:, None] * (values[1:] - values[:-1]).square()).sum()


def linearise_surface(
    model: TrackableHead,
    points: Float[Tensor, "t n 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "t e"],
) -> Linearised:
    """`surface_residual` and its Jacobian from one backward pass."""
    with torch.enable_grad():
        position, code, canonical = _expanded(model, points, z_geo, z_exp)
        residual = model.sdf(canonical, z_geo).reshape(-1)
        normal, slope = torch.autograd.grad(residual.sum(), [position, code])
    jacobian = _with_pose(position.detach(), normal, slope)
    frames, count = points.shape[:2]
    return Linearised(
        residual.detach().reshape(frames, count),
        jacobian.reshape(frames, count, -1),
        normal.reshape(frames, count, 3),
    )


def linearise_landmarks(
    model: TrackableHead,
    observed: Float[Tensor, "t l 3"],
    canonical: Float[Tensor, "l 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "t e"],
) -> Linearised:
    """`landmark_residual` flattened to [t 3l] (x, y, z of each landmark) and its Jacobian."""
    frames, count = observed.shape[:2]
    with torch.enable_grad():
        position, code, pushed = _expanded(model, observed, z_geo, z_exp)
        rows, normals = [], []
        for axis in range(3):
            normal, slope = torch.autograd.grad(
                pushed[:, axis].sum(), [position, code], retain_graph=axis < 2
            )
            rows.append(_with_pose(position.detach(), normal, slope))
            normals.append(normal)
    residual = pushed.detach()[:, :3].reshape(frames, count, 3) - canonical
    return Linearised(
        residual.flatten(1),
        torch.stack(rows, 1).reshape(frames, count * 3, -1),
        torch.stack(normals, 1).reshape(frames, count * 3, 3),
    )


def _expanded(
    model: TrackableHead, points: Tensor, z_geo: Tensor, z_exp: Tensor
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m e"], Float[Tensor, "m k"]]:
    """Points and codes as leaves with one row per point, and B of them."""
    count = points.shape[1]
    position = points.detach().reshape(-1, 3).clone().requires_grad_()
    code = z_exp.detach().repeat_interleave(count, 0).requires_grad_()
    with torch.no_grad():
        identity = model.compress(z_geo[None])
    identity = identity.expand(len(position), -1)
    offsets, hyper = model.backward_field(position[:, None], identity, code)
    return position, code, torch.cat([position + offsets[:, 0], hyper[:, 0]], -1)


def _with_pose(position: Tensor, normal: Tensor, slope: Tensor) -> Float[Tensor, "m d"]:
    """Jacobian rows: d/dz, then d/d rotation = x cross normal, then d/d translation = normal."""
    return torch.cat([slope, torch.linalg.cross(position, normal), normal], dim=-1)
