"""Smooth random fields in space, the same everywhere and always for one seed.

`fbm` sums octaves of value noise: lattice values hashed from integer coordinates, blended with
the quintic 6t^5 - 15t^4 + 10t^3. Values lie in about -1..1 with mean near 0. (Perlin 2002.)
"""

import numba
import numpy as np


@numba.njit(cache=True, inline="always")
def _lattice(i: int, j: int, k: int, seed: int) -> float:
    """Hash of a lattice point to -1..1."""
    h = (
        np.uint32(i) * np.uint32(374761393)
        + np.uint32(j) * np.uint32(668265263)
        + np.uint32(k) * np.uint32(2147483647)
        + np.uint32(seed) * np.uint32(1274126177)
    )
    h = np.uint32(h ^ (h >> np.uint32(13))) * np.uint32(1103515245)
    h = np.uint32(h ^ (h >> np.uint32(16))) * np.uint32(2654435761)
    h = np.uint32(h ^ (h >> np.uint32(15)))
    return h / 2147483647.5 - 1.0


@numba.njit(cache=True)
def value_noise(x: float, y: float, z: float, seed: int) -> float:
    """One octave at one point, in -1..1."""
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    u, v, w = x - i, y - j, z - k
    u = u * u * u * (u * (u * 6.0 - 15.0) + 10.0)
    v = v * v * v * (v * (v * 6.0 - 15.0) + 10.0)
    w = w * w * w * (w * (w * 6.0 - 15.0) + 10.0)
    total = 0.0
    for di in range(2):
        for dj in range(2):
            for dk in range(2):
                weight = (u if di else 1.0 - u) * (v if dj else 1.0 - v) * (w if dk else 1.0 - w)
                total += weight * _lattice(i + di, j + dj, k + dk, seed)
    return total


@numba.njit(cache=True, parallel=True)
def _fbm(points: np.ndarray, octaves: int, gain: float, seed: int) -> np.ndarray:
    """Octaves at points [n 3] that are already scaled by the base frequency."""
    out = np.zeros(len(points), np.float32)
    for n in numba.prange(len(points)):
        frequency, amplitude, total, norm = 1.0, 1.0, 0.0, 0.0
        for octave in range(octaves):
            total += amplitude * value_noise(
                points[n, 0] * frequency,
                points[n, 1] * frequency,
                points[n, 2] * frequency,
                seed + 101 * octave,
            )
            norm += amplitude
            frequency *= 2.03
            amplitude *= gain
        out[n] = total / norm
    return out


def fbm(
    points: np.ndarray, frequency: float, *, octaves: int = 4, gain: float = 0.5, seed: int = 0
) -> np.ndarray:
    """Fractal noise at points [... 3]; `frequency` in lattice cells per unit; returns [...]."""
    flat = np.ascontiguousarray(points.reshape(-1, 3) * frequency, dtype=np.float64)
    return _fbm(flat, octaves, gain, seed).reshape(points.shape[:-1])


def smoothstep(low: float | np.ndarray, high: float | np.ndarray, value: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; `low > high` turns it around."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
