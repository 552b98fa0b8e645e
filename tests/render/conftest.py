"""A small avatar and a track of its person."""

import pytest
import torch

from npga.avatar import Avatar, AvatarSizes, CanonicalPoints, ExpressionStats
from npga.avatar.forward import ForwardPrior
from npga.avatar.store import save_avatar
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from nphm_tracking import SequenceTrack, Track, save_track

MODEL = "00112233445566aa"


def make_avatar() -> Avatar:
    """Forty Gaussians in a ball whose size and place follow the first expression code."""
    torch.manual_seed(0)
    n = 40
    points = 0.25 * torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)
    start = CanonicalPoints(
        points, torch.rand(n, 3), torch.full((n, 3), -2.5), points, torch.zeros(n, 2),
        torch.ones(n), torch.full((n,), 0.99),
    )  # fmt: skip
    prior = ForwardPrior(4, 3, width=8, depth=2, head_model_checksum=MODEL)
    prior.offset_scale.fill_(0.5)
    zero, one = torch.zeros(4), torch.ones(4)
    expressions = ExpressionStats(0.3 * one, zero, one, zero)
    rest = Similarity(torch.tensor(0.25), torch.eye(3), torch.tensor([0.0, 0.1, -0.1]))
    return Avatar(start, prior, torch.zeros(3), expressions, rest, AvatarSizes(detail_width=8))


def make_take(frames: int = 6) -> SequenceTrack:
    """Every third video frame; the fourth of them was not tracked."""
    turns = torch.zeros(frames, 3)
    turns[:, 1] = torch.linspace(-0.3, 0.3, frames)
    poses = Similarity(
        torch.full((frames,), 0.25),
        matrix_from_rotvec(turns),
        torch.tensor([0.0, 0.1, -0.1]).expand(frames, 3),
    )
    ok = torch.ones(frames, dtype=torch.bool)
    ok[3] = False
    codes = torch.linspace(0, 1.2, frames)[:, None].repeat(1, 4)
    return SequenceTrack(3 * torch.arange(frames), codes, poses, torch.ones(frames), ok, 30.0)


@pytest.fixture
def person(tmp_path):
    """A folder with avatar.safetensors and track.safetensors."""
    save_avatar(
        tmp_path / "avatar.safetensors", make_avatar(), prior_checksum="00", participant="017"
    )
    track = Track(torch.zeros(4), torch.zeros(4), {"FREE": make_take()}, MODEL, "017", {})
    save_track(track, tmp_path / "track.safetensors")
    return tmp_path
