"""Sixteen cameras as NeRSemble arranges them: eight columns in two rows, about a metre away.

Columns run from the subject's left (azimuth +46.5 degrees, world +x) to the right (-46.5), rows
stand at elevation +-16 degrees; every camera looks at the world's origin, a little beside its
nominal place, and all share one K for 2200 x 3208 with an off-centre principal point.
"""

from dataclasses import dataclass

import numpy as np
import torch

from npga.core.cameras import Cameras, look_at

CALIBRATED_WIDTH = 2200
CALIBRATED_HEIGHT = 3208

UPPER_ROW = (
    "222200042", "222200046", "222200036", "220700191",
    "222200037", "222200047", "222200049", "221501007",
)  # fmt: skip
LOWER_ROW = (
    "222200044", "222200040", "222200048", "222200041",
    "222200038", "222200043", "222200039", "222200045",
)  # fmt: skip
SERIALS = (
    "222200042", "222200044", "222200046", "222200040", "222200036", "222200048",
    "220700191", "222200041", "222200037", "222200038", "222200047", "222200043",
    "222200049", "222200039", "222200045", "221501007",
)  # fmt: skip
"""The order of every NeRSemble tool; place 8 is the front camera."""


@dataclass(frozen=True)
class Rig:
    """One session's calibration."""

    intrinsics: np.ndarray
    """3x3, pixels of 2200 x 3208, shared."""
    cam_from_world: dict[str, np.ndarray]
    """4x4 by serial, in the order of SERIALS."""

    def cameras(self, serials: tuple[str, ...], width: int, height: int) -> Cameras:
        """These cameras at a picture size (pure scaling of K)."""
        poses = torch.tensor(np.stack([self.cam_from_world[s] for s in serials]))
        intrinsics = torch.tensor(self.intrinsics).expand(len(serials), 3, 3)
        full = Cameras(intrinsics, poses, CALIBRATED_WIDTH, CALIBRATED_HEIGHT, serials)
        return full.resized(width, height)


def make_rig(rng: np.random.Generator, *, focal: float = 8350.0) -> Rig:
    """A calibration session: nominal places disturbed by millimetres and fractions of a degree."""
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    poses: dict[str, np.ndarray] = {}
    for row, elevation in ((UPPER_ROW, 16.0), (LOWER_ROW, -16.0)):
        for column, serial in enumerate(row):
            azimuth = np.deg2rad(46.5 - 93.0 * column / 7 + rng.normal(0, 0.5))
            tilt = np.deg2rad(elevation + rng.normal(0, 0.5))
            radius = 1.0 + rng.normal(0, 0.012)
            direction = np.array(
                [np.sin(azimuth) * np.cos(tilt), np.sin(tilt), np.cos(azimuth) * np.cos(tilt)]
            )
            target = torch.tensor(rng.normal(0, 0.003, 3))
            poses[serial] = look_at(torch.tensor(radius * direction), target, up).numpy()
    f = focal * (1 + rng.normal(0, 0.01))
    intrinsics = np.array(
        [
            [f, 0.0, CALIBRATED_WIDTH / 2 + rng.uniform(-25, 25)],
            [0.0, f * (1 + rng.normal(0, 4e-4)), CALIBRATED_HEIGHT / 2 + rng.uniform(-25, 25)],
            [0.0, 0.0, 1.0],
        ]
    )
    return Rig(intrinsics, {serial: poses[serial] for serial in SERIALS})
