"""A person of a few Gaussians whose lower half drops with the first code; four cameras."""

from dataclasses import dataclass

import torch

from npga.avatar import Avatar, AvatarSizes, CanonicalPoints, ExpressionStats, ForwardPrior
from npga.core.cameras import Cameras, look_at
from npga.core.gaussians import Gaussians
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.fit.batch import FitData, FitSequence, Sampling
from npga.fit.config import Corrected, DensifyConfig, OptimConfig, PriorMode, TermWeights
from npga.fit.corrections import Corrections
from npga.fit.densify import Densifier, DensityState
from npga.fit.graph import CanonicalGraph
from npga.fit.renderer import Renderer
from npga.fit.run import Session
from npga.fit.schedule import Schedule, build_optimizer
from npga.fit.terms import TERMS, Terms
from npga.raster import Backend, rasterize

WIDTH, HEIGHT = 40, 48
CPU = torch.device("cpu")
MODEL = "00112233445566aa"


def rig(count: int = 4) -> Cameras:
    """Cameras on an arc one metre in front of the head."""
    angles = torch.linspace(-0.7, 0.7, count)
    eyes = torch.stack([angles.sin(), 0.1 * torch.ones(count), angles.cos()], 1)
    up = torch.tensor([0.0, 1.0, 0.0])
    poses = torch.stack([look_at(eye, torch.zeros(3), up) for eye in eyes])
    K = torch.tensor([[120.0, 0.0, 20.5], [0.0, 120.0, 23.0], [0.0, 0.0, 1.0]])
    return Cameras(K.expand(count, 3, 3), poses, WIDTH, HEIGHT, tuple("abcdefgh"[:count]))


def body(count: int = 150) -> Gaussians:
    """A coloured ball in head space."""
    generator = torch.Generator().manual_seed(3)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    return Gaussians(
        0.35 * direction,
        quats,
        torch.full((count, 3), -2.6),
        torch.full((count,), 3.0),
        (0.5 + 0.5 * direction).clamp(0, 1),
    )


def opened(gaussians: Gaussians, z_exp: torch.Tensor) -> Gaussians:
    """The truth: the lower half drops by 0.15 z_0, as a jaw would."""
    means = gaussians.means.clone()
    means[:, 1] -= 0.15 * z_exp[0] * (means[:, 1] < 0)
    return Gaussians(
        means, gaussians.quats, gaussians.log_scales, gaussians.logit_opacities, gaussians.colors
    )


def head_pose(turn: float) -> Similarity:
    return Similarity(
        torch.tensor(0.25), matrix_from_rotvec(torch.tensor([0.0, turn, 0.0])), torch.zeros(3)
    )


def take(name: str, frames: int, cameras: Cameras) -> FitSequence:
    """Codes from 0 to 1, a slow turn of the head."""
    codes = torch.zeros(frames, 3)
    codes[:, 0] = torch.linspace(0, 1, frames)
    poses = Similarity.stack([head_pose(0.1 * t / frames) for t in range(frames)])
    images, mattes = [], []
    for t in range(frames):
        posed = opened(body(), codes[t]).transformed(poses[t])
        drawn = rasterize(posed, cameras, background=torch.ones(3), backend=Backend.cpu)
        images.append((drawn.image.clamp(0, 1) * 255).round().byte())
        mattes.append((drawn.alpha.clamp(0, 1) * 255).round().byte())
    return FitSequence(
        name, torch.stack(images), torch.stack(mattes), cameras, tuple(range(frames)), codes,
        poses, poses.mean(), background_removed=True,
    )  # fmt: skip


def tiny_data() -> FitData:
    return FitData((take("EXP-1", 4, rig()), take("EXP-2", 3, rig())))


def tiny_avatar(data: FitData, count: int = 120) -> Avatar:
    torch.manual_seed(5)
    points = body(count).means + 0.02 * torch.randn(count, 3)
    start = CanonicalPoints(
        points, torch.full((count, 3), 0.5), torch.full((count, 3), -2.9), points,
        torch.zeros(count, 2), torch.ones(count), torch.full((count,), 0.98), opacity=0.5,
    )  # fmt: skip
    prior = ForwardPrior(3, 4, width=8, depth=2, rank=4, head_model_checksum=MODEL)
    torch.nn.init.zeros_(prior.exit.weight)
    torch.nn.init.zeros_(prior.exit.bias)
    stats = ExpressionStats.of(data.expressions, torch.zeros(3))
    sizes = AvatarSizes(  # F is still
        features=6, screen_features=4, detail_width=16, refiner_width=8, shares=False
    )
    return Avatar(start, prior, torch.zeros(4), stats, data.sequences[0].torso, sizes)


@dataclass(frozen=True)
class Knobs:
    steps: int = 20
    every: int = 7
    prior_mode: PriorMode = PriorMode.frozen
    corrected: Corrected = Corrected.both
    corrections_from: float = 0.0


def tiny_session(data: FitData, knobs: Knobs | None = None) -> Session:
    """Everything that the loop needs, small."""
    knobs = knobs or Knobs()
    avatar = tiny_avatar(data)
    corrections = Corrections(data, knobs.corrected)
    terms = Terms({name: getattr(TermWeights(), name) for name in TERMS})
    densify = DensifyConfig(start=5, every=knobs.every, stop=0.9, probe_frames=3)
    state = DensityState.blank(len(avatar), CPU)
    graph = CanonicalGraph(avatar.means, avatar.code_motion())
    return Session(
        avatar, corrections, data, Renderer(avatar, Backend.cpu, 1.0, True), terms,
        Densifier(densify, data, graph, 160, knobs.steps, 0, Backend.cpu, state),
        build_optimizer(avatar, corrections, OptimConfig()),
        Schedule(
            OptimConfig(), knobs.steps, knobs.prior_mode, corrections_from=knobs.corrections_from
        ),
        Sampling(2, 24, 0), CPU,
    )  # fmt: skip
