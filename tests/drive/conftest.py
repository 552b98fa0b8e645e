"""The acted face of the tracking tests, and a small avatar that speaks the open prior's codes."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "nphm_tracking"))

from acted_face import equipment

from npga.avatar import Avatar, AvatarSizes, CanonicalPoints, ExpressionStats
from npga.avatar.forward import ForwardPrior
from npga.avatar.store import save_avatar
from npga.core.similarity import Similarity


def small_avatar(count: int = 60) -> Avatar:
    """A ball of Gaussians whose training codes reached from 0 to 0.7."""
    model = equipment().model
    torch.manual_seed(0)
    points = 0.25 * torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    start = CanonicalPoints(
        points, torch.rand(count, 3), torch.full((count, 3), -2.5), points,
        torch.zeros(count, 2), torch.ones(count), torch.full((count,), 0.99),
    )  # fmt: skip
    size = model.exp_size
    prior = ForwardPrior(size, 3, width=8, depth=2, head_model_checksum=model.checksum())
    prior.offset_scale.fill_(0.2)
    zero, one = torch.zeros(size), torch.ones(size)
    codes = ExpressionStats(0.1 * one, zero, 0.7 * one, zero)
    rest = Similarity(torch.tensor(0.25), torch.eye(3), torch.tensor([0.0, 0.1, -0.1]))
    return Avatar(start, prior, torch.zeros(3), codes, rest, AvatarSizes(detail_width=8))


@pytest.fixture(scope="session")
def avatar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with avatar.safetensors."""
    folder = tmp_path_factory.mktemp("avatar")
    save_avatar(
        folder / "avatar.safetensors", small_avatar(), prior_checksum="00", participant="017"
    )
    return folder
