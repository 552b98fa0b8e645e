"""One frame's code and pose from one camera's landmarks, in numpy: the fast twin of `solve`.

The same damped Gauss-Newton steps as ``solve.solve_frames`` on a single frame without surface
points. There, one frame is some thousand small torch calls, and starting them is what takes the
time; a live driver has one frame at a time. The landmarks' motion stays in torch. Steps end early
once they lower the energy by no more than `CONVERGED` of it.

l landmarks, d = e + 6 unknowns (expression code, rotation, translation in head space).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from nphm_tracking.config import StageConfig
from nphm_tracking.energies import LOST_UNITS
from nphm_tracking.frames import FrameData, FrameState, Person
from nphm_tracking.solve import step_limits

CONVERGED = 1e-3
Array = NDArray[np.floating]


@dataclass(frozen=True)
class _Pose:
    """The unknowns of the frame."""

    z_exp: Float[np.ndarray, " e"]
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class _Equations:
    """The quadratic model of the frame's energy."""

    hessian: Float[np.ndarray, "d d"]
    gradient: Float[np.ndarray, " d"]
    energy: float
    marks: torch.Tensor


@torch.no_grad()
def solve_single(
    person: Person, data: FrameData, state: FrameState, stage: StageConfig, iterations: int
) -> FrameState:
    """As `solve.solve_frames` of one frame; landmarks that are carried forward, and no points."""
    problem = _Problem(person, data, stage)
    best = _Pose(*(t[0].numpy() for t in (state.z_exp, state.rotation, state.translation)))
    kept = problem.equations(best)
    damping = np.float32(1e-3)
    for _ in range(iterations):
        trial = problem.moved(best, problem.step(best, kept, damping))
        found = problem.equations(trial)
        gained = kept.energy - found.energy
        if gained >= 0:
            best, kept, damping = trial, found, damping * np.float32(0.3)
            if gained <= CONVERGED * kept.energy:
                break
        else:
            damping = damping * np.float32(6)
        damping = np.clip(damping, np.float32(1e-6), np.float32(1e4))
    z_exp, rotation, translation = (
        torch.from_numpy(part)[None] for part in (best.z_exp, best.rotation, best.translation)
    )
    return FrameState(z_exp, rotation, translation, kept.marks)


class _Problem:
    """What was seen, and what is known beforehand."""

    def __init__(self, person: Person, data: FrameData, stage: StageConfig) -> None:
        assert data.landmark_ray is not None
        self.person, self.stage = person, stage
        self.scale = np.float32(person.scale)
        self.to_mm = np.float32(1000) * self.scale
        self.points, self.ray = data.landmarks[0].numpy(), data.landmark_ray[0].numpy()
        weight = data.landmark_weight[0].numpy()
        self.each = np.float32(stage.landmark_monocular) * weight / max(weight.sum(), 1)
        prior = person.prior
        self.mean, self.lower, self.upper = (
            t.numpy() for t in (prior.mean, prior.lower, prior.upper)
        )
        calm = float(data.code_weight[0])
        self.precision = np.float32(stage.code * calm) / np.square(prior.std.numpy())
        self.pull = np.float32(0.5 * stage.sparsity * calm) * (self.lower >= 0)
        self.scores, self.known = None, None
        if data.scores is not None:
            scores = data.scores[0].numpy()
            self.known = np.float32(stage.score) * ~np.isnan(scores)
            self.scores = np.nan_to_num(scores, nan=0.0)
        self.limit = step_limits(prior).numpy()

    def equations(self, pose: _Pose) -> _Equations:
        """Landmark and code terms."""
        posed = self.person.carried(self.person.landmarks, torch.from_numpy(pose.z_exp)[None])
        marks, slope = posed.marks[0].numpy(), posed.slope[0].numpy()
        lost = posed.error[0].numpy() >= LOST_UNITS
        stage, size = self.stage, len(pose.z_exp)
        observed = ((self.points - pose.translation) @ pose.rotation) / self.scale
        ray = self.ray @ pose.rotation
        miss = marks - observed
        along = (miss * ray).sum(1, keepdims=True) * ray
        observed, error = observed + along, (miss - along) * self.to_mm
        squared = np.square(error).sum(1)
        relative = squared / np.float32(stage.landmark_scale_mm**2)
        base = self.each * ~lost
        rows = np.concatenate([slope, _cross(observed), _shifts(len(observed))], -1)
        rows = (rows - ray[..., None] * (ray[:, None] @ rows)) * self.to_mm
        jacobian = rows.reshape(-1, size + 6)
        weighted = jacobian * np.repeat(base / np.square(1 + relative), 3)[:, None]
        hessian, gradient = weighted.T @ jacobian, weighted.T @ error.ravel()
        energy = (base * squared / (1 + relative)).sum()
        energy += (self.each * lost).sum() * stage.landmark_scale_mm**2
        curvature, slopes, own = self._code_terms(pose.z_exp)
        hessian[range(size), range(size)] += curvature
        gradient[:size] += slopes
        return _Equations(hessian, gradient, float(energy) + own, posed.marks)

    def _code_terms(self, z_exp: Array) -> tuple[Array, Array, float]:
        away = z_exp - self.mean
        gradient = self.precision * away + self.pull
        energy = (self.precision * np.square(away) + 2 * self.pull * z_exp).sum()
        if self.known is None or self.scores is None:
            return self.precision, gradient, float(energy)
        apart = z_exp - self.scores
        energy = energy + (self.known * np.square(apart)).sum()
        return self.precision + self.known, gradient + self.known * apart, float(energy)

    def step(self, pose: _Pose, equations: _Equations, damping: np.float32) -> Array:
        """The projected, damped Gauss-Newton step; float64 inside."""
        size, gradient = len(pose.z_exp), equations.gradient
        slope, free = gradient[:size], np.ones(len(gradient), dtype=bool)
        low = (pose.z_exp <= self.lower) & (slope > 0)
        free[:size] = ~(low | ((pose.z_exp >= self.upper) & (slope < 0)))
        hessian = equations.hessian.astype(np.float64)
        diagonal = hessian.diagonal().copy()
        np.fill_diagonal(hessian, diagonal + (damping * diagonal + 1e-6))
        step = np.zeros(len(gradient))
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], -gradient[free].astype(float))
        return np.clip(step.astype(np.float32), -self.limit, self.limit)

    def moved(self, pose: _Pose, step: Array) -> _Pose:
        """After a step; codes are clipped to their bounds."""
        size = len(pose.z_exp)
        z_exp = np.clip(pose.z_exp + step[:size], self.lower, self.upper)
        rotation = pose.rotation @ _turn(step[size : size + 3]).T
        shift = rotation @ step[size + 3 :]
        return _Pose(z_exp, rotation, pose.translation - self.scale * shift)


def _cross(points: Float[np.ndarray, "l 3"]) -> Float[np.ndarray, "l 3 3"]:
    """[x] with [x] w = x cross w."""
    matrix = np.zeros((len(points), 3, 3), dtype=points.dtype)
    x, y, z = points.T
    matrix[:, 0, 1], matrix[:, 0, 2], matrix[:, 1, 2] = -z, y, -x
    matrix[:, 1, 0], matrix[:, 2, 0], matrix[:, 2, 1] = z, -y, x
    return matrix


def _shifts(count: int) -> Float[np.ndarray, "l 3 3"]:
    return np.broadcast_to(-np.eye(3, dtype=np.float32), (count, 3, 3))


def _turn(rotvec: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(rotvec))
    cross = _cross(rotvec[None])[0].astype(np.float64)
    if angle < 1e-4:
        sine, cosine = 1 - angle**2 / 6, 0.5 - angle**2 / 24
    else:
        sine, cosine = np.sin(angle) / angle, (1 - np.cos(angle)) / angle**2
    return (np.eye(3) + sine * cross + cosine * (cross @ cross)).astype(np.float32)
