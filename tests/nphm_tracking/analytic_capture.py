"""A capture in memory of the analytic head: known identity, codes and poses in every frame."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from analytic_head import AnalyticHead
from torch import Tensor

from npga.capture import Capture
from npga.capture.types import Landmarks2D, Layout, PointCloud, SequenceInfo, Views
from npga.core.cameras import Cameras, look_at
from npga.core.errors import CaptureError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity

Z_GEO = torch.tensor([0.5, -0.6, 0.4])
SCALE = 0.26


@dataclass(frozen=True)
class Truth:
    """One sequence."""

    z_exp: Tensor
    pose: Similarity


def ring(count: int, width: int = 200, height: int = 260) -> Cameras:
    """Cameras on an arc in front of the head, 1 m away."""
    poses = []
    for angle in torch.linspace(-0.7, 0.7, count):
        eye = torch.stack([angle.sin(), 0.1 * (3 * angle).cos(), angle.cos()])
        poses.append(look_at(eye, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0])))
    K = torch.tensor([[520.0, 0, width / 2 + 3], [0, 520.0, height / 2 - 4], [0, 0, 1]])
    ids = tuple(f"cam{i}" for i in range(count))
    return Cameras(K.expand(count, 3, 3).clone(), torch.stack(poses), width, height, ids)


def truth(frames: int, seed: int) -> Truth:
    """Smooth codes that start at rest, smooth poses."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(frames)[:, None] / max(frames - 1, 1)
    phase = torch.rand(4, generator=generator)
    z_exp = (torch.sin(6 * time + 6 * phase) * (time > 0.3)).clamp(0, 1)
    turn = 0.25 * torch.sin(4 * time + 3 * torch.rand(3, generator=generator))
    shift = 0.02 * torch.cos(5 * time + 3 * torch.rand(3, generator=generator))
    scale = torch.full((frames,), SCALE)
    return Truth(z_exp, Similarity(scale, matrix_from_rotvec(turn), shift))


@dataclass(frozen=True)
class AnalyticCapture(Capture):
    """`Capture` whose content is computed."""

    truths: dict[str, Truth] = field(default_factory=dict)
    broken: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Frames whose cloud is missing."""
    noise_mm: float = 0.2
    kept: dict[tuple[str, int], PointCloud] = field(default_factory=dict)

    @property
    def sequence_names(self) -> tuple[str, ...]:
        return tuple(self.truths)

    @property
    def sequences(self) -> tuple[SequenceInfo, ...]:
        return tuple(self.sequence(name) for name in self.truths)

    def sequence(self, name_or_prefix: str) -> SequenceInfo:
        names = [n for n in self.truths if n.startswith(name_or_prefix)]
        if not names:
            raise CaptureError(f"no sequence {name_or_prefix}", "name another")
        rig = ring(6)
        count = len(self.truths[names[0]].z_exp)
        return SequenceInfo(names[0], rig.ids, count, 25.0, rig.width, rig.height)

    def cameras(self, serials=None, width=None, height=None) -> Cameras:
        rig = ring(6)
        rig = rig if serials is None else rig.by_id(serials)
        return rig if width is None else rig.resized(width, height)

    def views(
        self, sequence, frames=None, serials=None, width=None, height=None, cache_dir=None
    ) -> Views:
        rig = self.cameras(serials, width, height)
        shape = (len(frames), len(rig), rig.height, rig.width)
        grey = torch.full((*shape, 3), 128, dtype=torch.uint8)
        return Views(
            grey, torch.full(shape, 255, dtype=torch.uint8), rig, tuple(frames), sequence, 25.0
        )

    def has_clouds(self, sequence: str) -> bool:
        return True

    def cloud(self, sequence: str, frame: int) -> PointCloud:
        key = (sequence, frame)
        if key not in self.kept:
            self.kept[key] = self._cloud(sequence, frame)
        return self.kept[key]

    def _cloud(self, sequence: str, frame: int) -> PointCloud:
        if frame in self.broken.get(sequence, ()):
            raise CaptureError(f"no cloud of frame {frame}", "make it")
        head, one = AnalyticHead(), self.truths[sequence]
        generator = torch.Generator().manual_seed(frame)
        canonical = head.surface(Z_GEO, 700, frame)
        world = one.pose[frame].apply(head.posed_points(canonical, one.z_exp[frame]))
        world = world + self.noise_mm / 1000 * torch.randn(world.shape, generator=generator)
        torso = torch.rand(200, 3, generator=generator) * 0.1 - torch.tensor([0.05, 0.35, 0.1])
        stray = world[:10] + 0.03 * torch.randn(10, 3, generator=generator)
        points = torch.cat([world, torso, stray])
        return PointCloud(points, torch.zeros_like(points), torch.full_like(points, 0.5))

    def landmarks(self, sequence: str) -> Landmarks2D | None:
        head, one, rig = AnalyticHead(), self.truths[sequence], ring(6)
        canonical = head.landmarks(Z_GEO)
        pixels = []
        for t in range(len(one.z_exp)):
            world = one.pose[t].apply(head.posed_points(canonical, one.z_exp[t]))
            pixels.append(rig.project(world)[0])
        points = torch.stack(pixels)
        points[:, 2, ::7] += 25.0
        frames = tuple(range(len(one.z_exp)))
        sure = torch.ones(points.shape[:3])
        return Landmarks2D(points, sure, frames, rig.ids, rig.width, rig.height)


def analytic_capture(lengths: dict[str, int], **options: object) -> AnalyticCapture:
    """Sequences of these lengths."""
    truths = {name: truth(count, 10 + i) for i, (name, count) in enumerate(lengths.items())}
    return AnalyticCapture(
        root=Path("memory"),
        participant="007",
        layout=Layout.folder,
        rig=(),
        files=(),
        truths=truths,
        **options,
    )


def rotation_error_deg(left: Tensor, right: Tensor) -> Tensor:
    """Angle between rotations."""
    trace = (left.transpose(-1, -2) @ right).diagonal(dim1=-1, dim2=-2).sum(-1)
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))


def as_array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()
