"""Wrong input gives two lines and an exit code, never a traceback: one test per mistake."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from npga.avatar.forward import ForwardPrior, save_prior
from npga.capture.open import open_capture
from npga.capture.writer import CaptureWriter
from npga.cli import COMMANDS, execute
from npga.core.cameras import Cameras, look_at
from npga.core.store import save_tensors

SERIALS = ("222200037", "222200046", "222200039")


@pytest.fixture(scope="module")
def good_capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cameras, four frames of 44x64."""
    root = tmp_path_factory.mktemp("data") / "capture"
    eyes = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.1, 0.9], [-0.5, 0.1, 0.9]])
    up = torch.tensor([0.0, 1.0, 0.0])
    poses = torch.stack([look_at(e, torch.zeros(3), up) for e in eyes])
    k = torch.tensor([[120.0, 0, 22], [0, 120.0, 32], [0, 0, 1]]).expand(3, 3, 3)
    writer = CaptureWriter(root, "7", Cameras(k.clone(), poses, 44, 64, SERIALS))
    rng = np.random.default_rng(0)
    matte = np.zeros((3, 64, 44), np.uint8)
    matte[:, 16:48, 11:33] = 255
    with writer.sequence("EXP-2-eyes") as sequence:
        for _ in range(4):
            sequence.add(rng.integers(0, 255, (3, 64, 44, 3), np.uint8), matte)
    return root


@pytest.fixture
def capture(good_capture: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(good_capture, tmp_path / "capture"))


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail; its two lines."""
    code = execute(list(argv))
    text = capsys.readouterr().err.strip()
    assert code not in (0, 70), text
    assert "Traceback" not in text
    assert len(text.splitlines()) == 2, text
    return text


def calibration(capture: Path) -> Path:
    return capture / "007" / "calibration" / "camera_params.json"


def check(capsys: pytest.CaptureFixture[str], capture: Path, tmp_path: Path) -> str:
    return refused(capsys, "capture check", f"capture={capture}", f"out={tmp_path / 'check'}")


def split_check(capsys: pytest.CaptureFixture[str], capture: Path, *more: str) -> str:
    return refused(capsys, "capture", "check", f"capture={capture}", *more)


def test_no_such_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    text = split_check(capsys, tmp_path / "nowhere", f"out={tmp_path / 'o'}")
    assert str(tmp_path / "nowhere") in text


def test_a_folder_that_is_no_capture(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "some" / "thing").mkdir(parents=True)
    text = split_check(capsys, tmp_path / "some", f"out={tmp_path / 'o'}")
    assert "no capture" in text
    assert "camera_params.json" in text


def test_a_truncated_video(capsys: pytest.CaptureFixture[str], capture: Path, tmp_path: Path):
    video = capture / "007" / "sequences" / "EXP-2-eyes" / "images" / f"cam_{SERIALS[1]}.mp4"
    video.write_bytes(video.read_bytes()[:900])
    text = refused(capsys, "track", f"capture={capture}", f"out={tmp_path / 'o'}", "landmarks=none")
    assert video.name in text


def test_a_calibration_that_lacks_a_camera(
    capsys: pytest.CaptureFixture[str], capture: Path, tmp_path: Path
):
    content = json.loads(calibration(capture).read_text())
    del content["world_2_cam"][SERIALS[2]]
    calibration(capture).write_text(json.dumps(content))
    text = refused(capsys, "track", f"capture={capture}", f"out={tmp_path / 'o'}")
    assert SERIALS[2] in text


def test_nan_in_a_calibration(capsys: pytest.CaptureFixture[str], capture: Path, tmp_path: Path):
    content = json.loads(calibration(capture).read_text())
    content["world_2_cam"][SERIALS[0]][0][0] = float("nan")
    calibration(capture).write_text(json.dumps(content))
    text = refused(capsys, "track", f"capture={capture}", f"out={tmp_path / 'o'}")
    assert "NaN" in text or "finite" in text
    assert SERIALS[0] in text


def test_an_unknown_sequence(capsys: pytest.CaptureFixture[str], capture: Path, tmp_path: Path):
    text = refused(
        capsys, "track", f"capture={capture}", "sequences=[EXP-9]", f"out={tmp_path / 'o'}"
    )
    assert "EXP-9" in text
    assert "EXP-2-eyes" in text


def test_an_unknown_camera(good_capture: Path):
    from npga.core.errors import CaptureError

    with pytest.raises(CaptureError, match="123456789") as error:
        open_capture(good_capture).cameras(["123456789"])
    assert len(str(error.value).splitlines()) == 2


def test_a_mistyped_key(capsys: pytest.CaptureFixture[str]):
    text = refused(capsys, "fit", "stepz=5")
    assert "stepz" in text
    assert "Did you mean steps?" in text


def test_a_mistyped_command(capsys: pytest.CaptureFixture[str]):
    assert "Did you mean distill?" in refused(capsys, "destill")


def test_a_bare_word(capsys: pytest.CaptureFixture[str]):
    assert "key=value" in refused(capsys, "track", "capture")


def test_a_checkpoint_of_another_version(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "head_model.safetensors"
    save_tensors(
        path, {"a": torch.zeros(1)}, format="nphm_tracking.head_model", version=99, meta={}
    )
    text = refused(capsys, "distill", f"head_model={path}", f"out={tmp_path / 'o'}")
    assert "version 99" in text


def test_a_cuda_back_end_without_cuda(
    capsys: pytest.CaptureFixture[str], good_capture: Path, tmp_path: Path
):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    text = refused(
        capsys,
        "distill",
        "device=cuda",
        f"out={tmp_path / 'o'}",
    )
    assert "CUDA" in text
    assert list(tmp_path.iterdir()) == []


def test_no_disk_space_is_told_before_the_work(
    capsys: pytest.CaptureFixture[str],
    capture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    text = refused(capsys, "capture", "check", f"capture={capture}", f"out={tmp_path / 'o'}")
    assert "free" in text.lower()


def test_a_disk_that_fills_up_during_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/x")

    monkeypatch.setattr("npga.cli._dispatch", full)
    assert "No space left" in refused(capsys, "fit")


def test_every_command_explains_itself_and_its_settings(capsys: pytest.CaptureFixture[str]):
    for name in COMMANDS:
        assert execute([*name.split(), "--help"]) == 0
        shown = capsys.readouterr().out
        assert "out=" in shown
        unexplained = [line for line in shown.splitlines()[2:] if len(line.split(maxsplit=1)) < 2]
        assert not unexplained


def test_no_traceback_in_a_real_process_and_the_import_is_light():
    run = subprocess.run(
        [sys.executable, "-m", "npga", "fit", "nonsense=1"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 2
    heavy = "('numba', 'hydra', 'av', 'mediapipe', 'pycolmap')"
    code = f"import sys, npga, nphm_tracking; print(any(m in sys.modules for m in {heavy}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_prior_is_stored_whole(tmp_path: Path):
    prior = ForwardPrior(5, 4, width=8, depth=2)
    save_prior(tmp_path / "prior.safetensors", prior, "abc")
    assert [p.name for p in tmp_path.iterdir()] == ["prior.safetensors"]
