"""A driver before a camera without MediaPipe: the grey of a picture says what the face does.

Grey 40 + 8 n is pose n of a script; darker pictures show no face. Landmarks are those of the head
model that ships, moved by F and projected.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from npga.avatar import Avatar, AvatarSizes, CanonicalPoints, ExpressionStats
from npga.avatar.forward import ForwardPrior
from npga.avatar.store import save_avatar
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.core.video import VideoWriter
from npga.drive.config import DriveConfig, Show
from npga.drive.driver import Equipment, single_camera
from npga.raster import Backend
from nphm_tracking import SequenceTrack, Track, save_track
from nphm_tracking.detectors import FoundFace

WIDTH, HEIGHT, FPS = 64, 48, 25.0
SCALE = 0.25
NO_FACE = -4
REST, OPEN, SMILE = 0, 1, 2
"""Poses of the script."""


@cache
def equipment() -> Equipment:
    return Equipment.open(None, None)


def code(**values: float) -> torch.Tensor:
    names = equipment().model.expression_names
    z_exp = torch.zeros(len(names))
    for name, value in values.items():
        z_exp[names.index(name)] = value
    return z_exp


def pose(turn: float = 0.0) -> Similarity:
    """Straight before the camera, 0.6 m away."""
    rotation = matrix_from_rotvec(torch.tensor([0.0, turn, 0.0]))
    return Similarity(torch.tensor(SCALE), rotation, torch.tensor([0.0, 0.0, -0.6]))


@cache
def script() -> tuple[FoundFace, ...]:
    """Rest, open mouth, a smile with a turned head."""
    kit = equipment()
    places = kit.model.landmarks(kit.model.geo_mean)
    codes = [code(), code(jawOpen=0.7), code(mouthSmileLeft=0.6, mouthSmileRight=0.6)]
    camera = single_camera(WIDTH, HEIGHT)
    posed = kit.motion(places, kit.model.geo_mean, torch.stack(codes)).marks
    world = [pose(turn).apply(posed[n]) for n, turn in enumerate((0.0, 0.0, 0.2))]
    return tuple(FoundFace(camera.project(points)[0][0].numpy()) for points in world)


def grey(number: int) -> np.ndarray:
    """The picture of a pose."""
    return np.full((HEIGHT, WIDTH, 3), 40 + 8 * number, np.uint8)


@dataclass
class GreyFinder:
    """Finds the face that a picture's grey stands for."""

    calls: int = 0

    def faces(self, image: np.ndarray) -> list[FoundFace]:
        self.calls += 1
        number = round((float(image.mean()) - 40) / 8)
        return [script()[number]] if number >= 0 else []


def write_clip(path: Path, numbers: list[int]) -> Path:
    """A video of these poses."""
    with VideoWriter(path, FPS) as video:
        for number in numbers:
            video.write(grey(number))
    return path


def write_driver(path: Path) -> None:
    """The driver's own track: with it a calibration takes no time."""
    model = equipment().model
    marks = model.landmarks(model.geo_mean)[list(equipment().mean.landmark_ids)]
    one = SequenceTrack(
        torch.arange(1), torch.zeros(1, model.exp_size), Similarity.stack([pose()]),
        torch.ones(1), torch.ones(1, dtype=torch.bool), FPS,
    )  # fmt: skip
    track = Track(
        model.geo_mean, torch.zeros(model.app_size), {"REST": one}, model.checksum(), "driver", {},
        landmarks=marks,
    )  # fmt: skip
    save_track(track, path)


def write_avatar(path: Path) -> None:
    """Forty Gaussians that speak the codes of the head model that ships."""
    torch.manual_seed(0)
    model, n = equipment().model, 40
    points = 0.25 * torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)
    start = CanonicalPoints(
        points, torch.rand(n, 3), torch.full((n, 3), -2.5), points, torch.zeros(n, 2),
        torch.ones(n), torch.full((n,), 0.99),
    )  # fmt: skip
    size = model.exp_size
    prior = ForwardPrior(size, 3, width=8, depth=2, head_model_checksum=model.checksum())
    zero, one = torch.zeros(size), torch.ones(size)
    rest = Similarity(torch.tensor(0.25), torch.eye(3), torch.zeros(3))
    stats = ExpressionStats(0.3 * one, zero, one, zero)
    avatar = Avatar(start, prior, torch.zeros(3), stats, rest, AvatarSizes(detail_width=8))
    save_avatar(path, avatar, prior_checksum="00", participant="017")


def live_config(folder: Path, **values: object) -> DriveConfig:
    """Files that live driving needs, and settings that make it quick."""
    write_avatar(folder / "avatar.safetensors")
    write_driver(folder / "driver.safetensors")
    common: dict[str, object] = {
        "avatar": str(folder),
        "driver_track": str(folder / "driver.safetensors"),
        "camera": str(folder / "clip.mp4"),
        "show": Show.none,
        "width": 24,
        "height": 32,
        "calibrate_s": 0.2,
        "backend": Backend.reference,
        "device": "cpu",
    }
    return DriveConfig(**{**common, **values})
