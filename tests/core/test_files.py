"""Stores, outputs, videos and settings: whole or absent, and refusals in two lines."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from npga.core.config import compose_config, knob
from npga.core.errors import CaptureError, CheckpointError, ConfigError, NpgaError, OutputError
from npga.core.output import output_dir, require_space
from npga.core.store import checksum, load_tensors, save_tensors
from npga.core.video import VideoWriter, probe_video, read_video


def two_lines(error: pytest.ExceptionInfo[NpgaError]) -> bool:
    return len(str(error.value).splitlines()) == 2


def test_tensors_come_back_with_their_metadata(tmp_path: Path):
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4)}
    save_tensors(tmp_path / "x.safetensors", tensors, format="t", version=1, meta={"k": [1, 2]})
    back, meta = load_tensors(tmp_path / "x.safetensors", format="t", version=1)
    assert torch.equal(back["a"], tensors["a"])
    assert torch.equal(back["b"], tensors["b"])
    assert meta == {"k": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_other_formats_versions_and_truncated_files_are_refused(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.randn(300)}, format="npga.avatar", version=3, meta={})
    with pytest.raises(CheckpointError, match="holds npga.avatar, but npga.track") as error:
        load_tensors(path, format="npga.track", version=1)
    assert two_lines(error)
    with pytest.raises(CheckpointError, match="version 3, but this program reads version 1"):
        load_tensors(path, format="npga.avatar", version=1)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tensors(path, format="npga.avatar", version=3)
    with pytest.raises(CheckpointError, match="There is no file"):
        load_tensors(tmp_path / "none", format="npga.avatar", version=3)


def test_checksum_depends_on_values_and_not_on_order():
    a, b = torch.randn(5), torch.randn(4)
    assert checksum({"a": a, "b": b}) == checksum({"b": b, "a": a})
    assert checksum({"a": a, "b": b}) != checksum({"a": a, "b": b + 1e-6})
    assert checksum({"a": a}) != checksum({"c": a})


def test_an_output_is_whole_or_absent(tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(RuntimeError), output_dir(out, overwrite=False, fingerprint={}) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with output_dir(out, overwrite=False, fingerprint={}) as folder:
        (folder / "result").write_text("first")
    assert [p.name for p in out.iterdir()] == ["result"]


def test_an_output_is_never_silently_replaced(tmp_path: Path):
    out = tmp_path / "run"
    with output_dir(out, overwrite=False, fingerprint={}) as folder:
        (folder / "result").write_text("first")
    with (
        pytest.raises(OutputError, match="exists already") as error,
        output_dir(out, overwrite=False, fingerprint={}),
    ):
        pass
    assert two_lines(error)
    assert "overwrite=true" in str(error.value)
    with pytest.raises(KeyboardInterrupt), output_dir(out, overwrite=True, fingerprint={}):
        raise KeyboardInterrupt
    assert (out / "result").read_text() == "first", "the old result outlives a failed replacement"
    with output_dir(out, overwrite=True, fingerprint={}) as folder:
        (folder / "result").write_text("second")
    assert (out / "result").read_text() == "second"


def test_an_interrupted_resumable_run_is_taken_up_only_with_its_own_settings(tmp_path: Path):
    out = tmp_path / "run"
    with (
        pytest.raises(KeyboardInterrupt),
        output_dir(out, overwrite=False, fingerprint={"steps": 2}, resumable=True) as folder,
    ):
        (folder / "state").write_text("half")
        raise KeyboardInterrupt
    with (
        pytest.raises(OutputError, match="interrupted run with other settings"),
        output_dir(out, overwrite=False, fingerprint={"steps": 3}, resumable=True),
    ):
        pass
    with output_dir(out, overwrite=False, fingerprint={"steps": 2}, resumable=True) as folder:
        assert (folder / "state").read_text() == "half"
    assert out.is_dir()


def test_a_full_disk_is_told_before_the_work(tmp_path: Path):
    with pytest.raises(OutputError, match="needs 1000000.00 GB") as error:
        require_space(tmp_path / "not" / "yet", 10**15, "The cache")
    assert two_lines(error)


def test_videos_keep_count_size_and_look(tmp_path: Path):
    path = tmp_path / "v.mp4"
    ramp = np.linspace(0, 255, 48).astype(np.uint8)
    frames = [np.stack([np.tile(np.roll(ramp, 3 * t), (33, 1))] * 3, -1) for t in range(5)]
    with VideoWriter(path, fps=73 / 3, crf=8) as video:
        for frame in frames:
            video.write(frame)
    info = probe_video(path)
    assert (info.width, info.height, info.frame_count) == (48, 34, 5)
    assert info.fps == pytest.approx(73 / 3, abs=0.01)
    back = list(read_video(path))
    assert len(back) == 5
    worst = max(np.abs(b[:33].astype(int) - f).mean() for b, f in zip(back, frames, strict=True))
    assert worst < 6


def test_a_failed_video_leaves_nothing(tmp_path: Path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "v.mp4", fps=25) as video:
        video.write(np.zeros((16, 16, 3), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_video_is_refused(tmp_path: Path):
    path = tmp_path / "v.mp4"
    with VideoWriter(path, fps=25) as video:
        for _ in range(10):
            video.write(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CaptureError, match="cannot be decoded") as error:
        probe_video(path)
    assert two_lines(error)


class Colour(str, Enum):
    red = "red"
    blue = "blue"


@dataclass(frozen=True)
class Optim:
    lr: float = knob(1e-3, "step size")


@dataclass(frozen=True)
class ToyConfig:
    out: str = knob("runs/toy", "where")
    steps: int = knob(10, "how many")
    colour: Colour = knob(Colour.red, "which")
    optim: Optim = knob(Optim(), "how")
    names: list[str] = knob([], "who")

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} is below 1.", "Give at least one step.")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.yaml").write_text("defaults: [toy_schema, _self_]\nsteps: 20\n")
    monkeypatch.setattr("npga.core.config.configs_folder", lambda: tmp_path)


@pytest.mark.usefixtures("toy")
def test_settings_come_from_schema_yaml_and_overrides():
    config = compose_config(
        ToyConfig, "toy", ["optim.lr=0.5", "colour=blue", "names=[EMO-1-shout+laugh]", "out=a+b"]
    )
    assert config == ToyConfig(
        steps=20, optim=Optim(0.5), colour=Colour.blue, names=["EMO-1-shout+laugh"], out="a+b"
    )


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "no setting 'stepz'"),
        ("optim.lrr=3", "no setting 'optim.lrr'"),
        ("+optim.typo=3", "no setting 'optim.typo'"),
        ("steps=many", "steps"),
        ("colour=green", "green"),
        ("steps=0", "below 1"),
    ],
)
def test_wrong_settings_are_refused_in_two_lines(override: str, message: str):
    with pytest.raises(ConfigError, match=message) as error:
        compose_config(ToyConfig, "toy", [override])
    assert two_lines(error)
