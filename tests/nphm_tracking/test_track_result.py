"""track.safetensors: round trip and refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from npga.core.errors import CheckpointError, TrackError
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity
from npga.core.store import save_tensors
from nphm_tracking.result import SequenceTrack, Track, load_track, save_track


def sequence(frames: int = 3) -> SequenceTrack:
    turn = matrix_from_rotvec(torch.tensor([0.0, 0.4, 0.0]) * torch.arange(frames)[:, None])
    pose = Similarity(torch.full((frames,), 0.25), turn, torch.randn(frames, 3))
    ok = torch.arange(frames) != 1
    residual = torch.where(ok, 0.5, torch.inf)
    return SequenceTrack(torch.arange(frames) * 2, torch.rand(frames, 4), pose, residual, ok, 24.3)


def track() -> Track:
    sequences = {"EXP-1": sequence(), "EMO-1-shout+laugh": sequence(5)}
    made = {"capture": "here", "settings": {"every": 2}}
    return Track(torch.rand(7), torch.rand(2), sequences, "abc", "031", made)


def test_round_trip(tmp_path: Path) -> None:
    given = track()
    save_track(given, tmp_path / "track.safetensors")
    found = load_track(tmp_path)
    assert torch.equal(found.z_geo, given.z_geo)
    assert list(found.sequences) == list(given.sequences)
    assert (found.participant, found.head_model_checksum) == ("031", "abc")
    assert found.provenance == given.provenance
    for name, one in given.sequences.items():
        other = found.sequences[name]
        assert torch.equal(other.frames, one.frames) and torch.equal(other.ok, one.ok)
        assert torch.equal(other.z_exp, one.z_exp) and other.fps == one.fps
        assert torch.equal(other.residual_mm, one.residual_mm)
        assert torch.equal(other.world_from_head.matrix(), one.world_from_head.matrix())


def test_torso_and_good_leave_failed_frames_out() -> None:
    one = sequence()
    assert len(one.good()) == 2
    assert torch.allclose(one.torso.translation, one.world_from_head.translation[[0, 2]].mean(0))
    half = matrix_from_rotvec(torch.tensor([0.0, 0.4, 0.0]))
    assert torch.allclose(one.torso.rotation, half, atol=1e-5)


def test_names_and_frames_that_are_not_there() -> None:
    given = track()
    assert given.sequence("EMO") is given.sequences["EMO-1-shout+laugh"]
    with pytest.raises(TrackError, match="matches 2"):
        given.sequence("E")
    with pytest.raises(TrackError, match="Frame 3"):
        given.sequence("EXP-1").index_of(3)
    assert given.sequence("EXP-1").index_of(4) == 2
    given.require_model("abc")
    with pytest.raises(TrackError, match="head model"):
        given.require_model("xyz")


def test_broken_tracks_are_not_written(tmp_path: Path) -> None:
    given = track()
    bad = replace(sequence(), z_exp=torch.full((3, 4), torch.nan))
    with pytest.raises(TrackError, match="NaN"):
        save_track(replace(given, sequences={"X": bad}), tmp_path / "t.safetensors")
    bad = replace(sequence(), world_from_head=Similarity.identity(2))
    with pytest.raises(TrackError, match="unequal"):
        save_track(replace(given, sequences={"X": bad}), tmp_path / "t.safetensors")
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_track(tmp_path)
    path = tmp_path / "track.safetensors"
    save_track(track(), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError):
        load_track(path)
    save_tensors(path, {"z_geo": torch.zeros(1)}, format="npga.track", version=99, meta={})
    with pytest.raises(CheckpointError, match="version 99"):
        load_track(path)
    meta = {"sequences": ["A"], "fps": [25.0]}
    save_tensors(path, {"z_geo": torch.zeros(1)}, format="npga.track", version=1, meta=meta)
    with pytest.raises(TrackError, match="lacks"):
        load_track(path)
