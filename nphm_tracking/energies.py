"""What tracking minimises: pure functions of points, codes and poses.

t frames, n points, l landmarks, e expression size, d = e + 6 unknowns of a frame. Everything is in
head space (1 unit = 250 mm). B is the head model's backward field (posed -> canonical x' and hyper
omega), S its canonical SDF. Per frame

    E = w_s mean_n rho(S(B(x_n)) / sigma_s) + w_l mean_l rho(|x_l - observed_l| / sigma_l) + codes +
    smoothness

Surface points are pushed through B and need no root finding. Landmarks are followed the other way:
the posed place x_l with B(x_l) = c_l moves with the code by the implicit function theorem, and one
Newton step per iteration keeps it exact (MonoNPHM poses its anchors so). Pushing observed landmarks
through B instead (DPHM) has no gradient where a thin part moves far: a closed lid lies where B(x;
0) is eyeball. Pose unknowns of a frame are a small motion in head space, x <- Exp(rotation) x +
translation. The `linearise_*` functions are the fast path of Gauss-Newton: codes are expanded to
one copy per point, so that ONE backward pass yields the Jacobian rows of every point; the slow twin
in the tests is torch.autograd.functional.jacobian.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nphm_tracking.head import TrackableHead, canonical_landmarks


@dataclass(frozen=True)
class Linearised:
    """Residuals of `t` frames and their derivatives with respect to each frame's d unknowns."""

    residual: Float[Tensor, "t m"]
    """Signed, head units."""
    jacobian: Float[Tensor, "t m d"]
    """Columns: e expression weights, 3 rotation (radians), 3 translation (units)."""
    normal: Float[Tensor, "t m 3"]
    """d residual / d x: for the surface term the posed surface normal."""


STEP_MAX = 0.03
"""Longest Newton step of a posed landmark, head units (7.5 mm)."""
LOST_UNITS = 0.02
"""A posed landmark that Newton's method misses by more (5 mm) does not count."""


@dataclass(frozen=True)
class PosedLandmarks:
    """Where a frame's expression puts the canonical landmarks, head units."""

    marks: Float[Tensor, "t l 3"]
    slope: Float[Tensor, "t l 3 e"]
    """d marks / d z_exp, by implicit differentiation: -(dB/dx)^-1 dB/dz."""
    inverse: Float[Tensor, "t l 3 3"]
    """(dB/dx)^-1 at the marks."""
    error: Float[Tensor, "t l"]
    """|B(marks) - canonical| before the last Newton step."""


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


def linearise_head(
    model: TrackableHead,
    points: Float[Tensor, "n 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "*n e"],
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n d"]]:
    """Signed distances (head units) and their derivatives by codes and a small motion.

    ``z_exp`` is one code for all points, or one per point.
    Columns: geometry code, expression code, rotation (radians), translation and logarithm of the
    scale of x <- exp(scale) Exp(rotation) x + translation.
    """
    count = len(points)
    with torch.enable_grad():
        place = points.detach()[:, None].clone().requires_grad_()
        geo = z_geo.detach().expand(count, -1).clone().requires_grad_()
        exp = z_exp.detach().expand(count, -1).clone().requires_grad_()
        identity = model.compress(geo)
        offsets, hyper = model.backward_field(place, identity, exp)
        sdf = model.sdf(torch.cat([place + offsets, hyper], dim=-1), geo)[:, 0]
        normal, by_geo, by_exp = torch.autograd.grad(sdf.sum(), [place, geo, exp])
    normal, at = normal[:, 0], place.detach()[:, 0]
    turn = torch.linalg.cross(at, normal)
    grow = (at * normal).sum(1, keepdim=True)
    return sdf.detach(), torch.cat([by_geo, by_exp, turn, normal, grow], dim=1)


def geometry_slopes(
    model: TrackableHead,
    marks: Float[Tensor, "t l 3"],
    posed: PosedLandmarks,
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "t e"],
) -> Float[Tensor, "t l 3 g"]:
    """How the geometry code moves posed landmarks where B is inverted.

    By implicit differentiation of B(x; z_geo) = canonical(z_geo).
    """
    canonical = canonical_slopes(model, z_geo, marks)
    with torch.enable_grad():
        frames, count = marks.shape[:2]
        place = marks.detach().reshape(-1, 1, 3)
        geo = z_geo.detach().expand(len(place), -1).clone().requires_grad_()
        code = z_exp.detach().repeat_interleave(count, 0)
        offsets, _ = model.backward_field(place, model.compress(geo), code)
        slopes = [
            torch.autograd.grad(
                offsets[..., axis].sum(), geo, retain_graph=True, materialize_grads=True
            )[0]
            for axis in range(3)
        ]
    slope = torch.stack(slopes, 1).reshape(frames, count, 3, -1)
    return posed.inverse @ (canonical - slope)


def canonical_slopes(
    model: TrackableHead, z_geo: Float[Tensor, "g"], marks: Float[Tensor, "t l 3"]
) -> Float[Tensor, "t l 3 g"]:
    """How the geometry code moves the canonical landmarks, and carried ones with them."""
    with torch.enable_grad():
        slopes = torch.autograd.functional.jacobian(
            lambda code: canonical_landmarks(model, code), z_geo.detach(), vectorize=True
        )
    return slopes[: marks.shape[1]].expand(len(marks), -1, -1, -1)


def carried_landmarks(
    canonical: Float[Tensor, "l 3"], slopes: Float[Tensor, "l 3 e"], z_exp: Float[Tensor, "t e"]
) -> PosedLandmarks:
    """canonical + slopes @ z_exp: for head models whose codes move landmarks linearly; ours."""
    frames, count = len(z_exp), len(canonical)
    eye = torch.eye(3, dtype=canonical.dtype, device=canonical.device)
    return PosedLandmarks(
        canonical + torch.einsum("lce,te->tlc", slopes, z_exp),
        slopes.expand(frames, -1, -1, -1),
        eye.expand(frames, count, 3, 3),
        canonical.new_zeros(frames, count),
    )


def follow_landmarks(
    model: TrackableHead,
    marks: Float[Tensor, "t l 3"],
    canonical: Float[Tensor, "l 3"],
    z_geo: Float[Tensor, "g"],
    z_exp: Float[Tensor, "t e"],
    rounds: int = 2,
) -> PosedLandmarks:
    """Where B(x; z_exp) = canonical, by Newton's method from nearby `marks`.

    Damped inverses and limited steps keep points finite where B folds; `error` tells them apart.
    """
    frames, count = marks.shape[:2]
    shape = (frames, count, 3)
    target = canonical.expand(shape).reshape(-1, 3)
    held = marks.reshape(-1, 3)
    for number in range(rounds):
        last = number == rounds - 1
        with torch.enable_grad():
            position, code, pushed = _expanded(model, held.reshape(shape), z_geo, z_exp)
            rows, slopes = [], []
            for axis in range(3):
                wanted = [position, code] if last else [position]
                found = torch.autograd.grad(pushed[:, axis].sum(), wanted, retain_graph=axis < 2)
                rows.append(found[0])
                slopes.append(found[-1])
        inverse = damped_inverse(torch.stack(rows, 1))
        miss = pushed.detach()[:, :3] - target
        step = -(inverse @ miss[..., None]).squeeze(-1)
        held = held + limited(step, STEP_MAX)
    slope = -(inverse @ torch.stack(slopes, 1))  # pyright: ignore[reportPossiblyUnbound]
    return PosedLandmarks(
        held.reshape(shape),
        slope.reshape(*shape, -1),
        inverse.reshape(*shape, 3),
        miss.norm(dim=1).reshape(frames, count),
    )


def limited(step: Float[Tensor, "*b 3"], longest: float) -> Float[Tensor, "*b 3"]:
    """The step, or its direction with length `longest` where it is longer."""
    return step * (longest / step.norm(dim=-1, keepdim=True).clamp_min(longest))


def damped_inverse(matrix: Float[Tensor, "m 3 3"]) -> Float[Tensor, "m 3 3"]:
    """(A^T A + eps)^-1 A^T: the inverse up to a ten-thousandth, finite where A is singular."""
    turned = matrix.transpose(1, 2)
    eye = 1e-4 * torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    return torch.linalg.solve(turned @ matrix + eye, turned)


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
