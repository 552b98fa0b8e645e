"""Which detector is opened, and what is said where none can be."""

import sys
from pathlib import Path

import numpy as np
import pytest

from npga.core.errors import TrackError
from nphm_tracking import detectors
from nphm_tracking.detectors import (
    FaceLandmarker,
    FaceMesh,
    LandmarkDetector,
    installed_landmarkers,
    open_detector,
)

MEDIA = Path(__file__).parents[3] / "shared" / "media"


class Package:
    """An installed package with the given files."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.folder = folder
        self.files = [Path(name) for name in files]

    def locate_file(self, file: Path) -> Path:
        return self.folder / file


class Opened:
    """Stands for a landmarker of some file."""

    count = 478

    def __init__(self, task: Path, faces_max: int = 1) -> None:
        self.task = task

    def detect(self, image: np.ndarray) -> np.ndarray | None:
        return None


def test_without_mediapipe_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setattr(detectors, "distributions", list)
    with pytest.raises(TrackError, match=r"npga\[tracking\]"):
        open_detector()


def test_an_absent_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrackError, match=r"landmarker=.*none\.task is not there"):
        open_detector(tmp_path / "none.task")


def test_model_files_are_found_inside_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "face_landmarker_v2.task").write_bytes(b"x")
    held = [
        Package(tmp_path, "faces/__init__.py", "faces/hand_landmarker.task"),
        Package(tmp_path, "faces/face_landmarker.task"),  # listed, but gone
        Package(tmp_path, "faces/face_landmarker_v2.task"),
    ]
    monkeypatch.setattr(detectors, "distributions", lambda: held)
    assert list(installed_landmarkers()) == [tmp_path / "faces" / "face_landmarker_v2.task"]
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setattr(detectors, "FaceLandmarker", Opened)
    opened = open_detector()
    assert isinstance(opened, Opened)
    assert opened.task == tmp_path / "faces" / "face_landmarker_v2.task"


def test_another_file_is_no_landmarker(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe", reason="the extra tracking is not installed")
    (tmp_path / "wrong.task").write_bytes(b"no model")
    with pytest.raises(TrackError, match="is no face landmarker"):
        FaceLandmarker(tmp_path / "wrong.task")


@pytest.mark.filterwarnings("ignore:SymbolDatabase.GetPrototype")
def test_both_forms_find_the_same_face() -> None:
    pytest.importorskip("mediapipe", reason="the extra tracking is not installed")
    task = next(installed_landmarkers(), None)
    if task is None:
        pytest.skip("no installed package holds face_landmarker*.task")
    clips = sorted(MEDIA.glob("*.mp4"))
    if not clips:
        pytest.skip("../shared/media is not here")
    image = _first_picture(clips[0])
    both = FaceMesh(), FaceLandmarker(task)
    found = [one.detect(image) for one in both]
    assert all(isinstance(one, LandmarkDetector) for one in both)
    assert found[0] is not None and found[1] is not None
    eyes = np.linalg.norm(found[0][33] - found[0][263])
    assert np.median(np.linalg.norm(found[0] - found[1], axis=1)) < 0.06 * eyes
    assert all(one.detect(np.zeros_like(image)) is None for one in both)


def _first_picture(clip: Path) -> np.ndarray:
    import av

    with av.open(str(clip)) as held:
        return next(held.decode(video=0)).to_ndarray(format="rgb24")
