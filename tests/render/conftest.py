"""A folder with a small avatar and a track of its person."""

import pytest
import torch
from driven_person import MODEL, make_avatar, make_take

from npga.avatar.store import save_avatar
from nphm_tracking import Track, save_track


@pytest.fixture
def person(tmp_path):
    """A folder with avatar.safetensors and track.safetensors."""
    save_avatar(
        tmp_path / "avatar.safetensors", make_avatar(), prior_checksum="00", participant="017"
    )
    track = Track(torch.zeros(4), torch.zeros(4), {"FREE": make_take()}, MODEL, "017", {})
    save_track(track, tmp_path / "track.safetensors")
    return tmp_path
