"""Rotations: the only file that owns quaternions.

q = (w, x, y, z), R the 3x3 matrix that acts on column vectors, r = angle * axis (rotation vector,
radians). All functions take leading batch dimensions and are differentiable, also at r = 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def matrix_from_quat(quat: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation of a quaternion of any length > 0 (normalised here)."""
    w, x, y, z = torch.nn.functional.normalize(quat, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(*quat.shape[:-1], 3, 3)


def quat_from_matrix(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """The unit quaternion of a rotation matrix, w >= 0 (Shepperd: the best-conditioned row)."""
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    candidates = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, a, b, c], -1),
            torch.stack([a, 1 + xx - yy - zz, d, e], -1),
            torch.stack([b, d, 1 - xx + yy - zz, f], -1),
            torch.stack([c, e, f, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    picked = torch.take_along_dim(candidates, best[..., None, None], -2).squeeze(-2)
    quat = torch.nn.functional.normalize(picked, dim=-1)
    return torch.where(quat[..., :1] < 0, -quat, quat)


def quat_multiply(
    left: Float[Tensor, "*b 4"], right: Float[Tensor, "*b 4"]
) -> Float[Tensor, "*b 4"]:
    """The Hamilton product: rotating by ``right`` first, then by ``left``."""
    aw, ax, ay, az = left.unbind(-1)
    bw, bx, by, bz = right.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def small_turn(rotvec: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4"]:
    """The quaternion (1, r / 2), not normalised: turns by r to the second order.

    Its angle is 2 atan(|r| / 2); where |r| is the sine of an angle, it is that angle to 2 degrees
    in 30.
    """
    return torch.cat([torch.ones_like(rotvec[..., :1]), rotvec / 2], dim=-1)


def quat_rotate(
    quats: Float[Tensor, "*b 4"], vectors: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b 3"]:
    """Vectors turned by quaternions of any length but 0; the twin is `matrix_from_quat`."""
    real, imaginary = quats[..., :1], quats[..., 1:]
    across = torch.linalg.cross(imaginary, vectors)
    bent = real * across + torch.linalg.cross(imaginary, across)
    return vectors + bent * (2 / quats.square().sum(-1, keepdim=True))


def matrix_from_rotvec(rotvec: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rodrigues' formula with a series near zero, so that the gradient at 0 is exact."""
    squared = (rotvec * rotvec).sum(-1)[..., None, None]
    small = squared < 1e-8
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / angle**2)
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    cross = cross.reshape(*rotvec.shape[:-1], 3, 3)
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return eye + sine * cross + cosine * (cross @ cross)


def rotvec_from_matrix(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """The rotation vector, angle in [0, pi]."""
    quat = quat_from_matrix(rotation)
    vector, w = quat[..., 1:], quat[..., 0]
    length = vector.norm(dim=-1)
    small = length < 1e-7
    safe = torch.where(small, torch.ones_like(length), length)
    factor = torch.where(small, 2 / w.clamp_min(1e-12), 2 * torch.atan2(safe, w) / safe)
    return vector * factor[..., None]


def mean_rotation(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation nearest to all (largest eigenvector of sum q q^T; Markley et al. 2007)."""
    quats = quat_from_matrix(rotations)
    _, vectors = torch.linalg.eigh(torch.einsum("ni,nj->ij", quats, quats))
    return matrix_from_quat(vectors[:, -1])
