"""`npga drive video=...` from end to end, with a detector that knows the landmarks."""

import json
import sys
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from acted_face import ActedFace, another_identity, equipment, swinging, talking

import npga.drive.accurate as accurate
import npga.drive.driver as driver
import npga.drive.track as tracking
import nphm_tracking.follow as following
from npga.cli import main
from npga.core.config import compose_config
from npga.core.errors import CaptureError, CheckpointError, ConfigError, OutputError, TrackError
from npga.core.rotations import rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.core.video import VideoWriter, probe_video, read_video
from npga.drive.config import DriveConfig
from npga.drive.driver import Seen, single_camera
from npga.drive.faces import ChosenFace
from npga.drive.run import run
from npga.drive.source import Frame
from npga.drive.video import beside
from nphm_tracking import SequenceTrack, Track, detectors, load_track, save_track
from nphm_tracking.detectors import FoundFace
from nphm_tracking.follow import IDENTITY, Calibration, calibrate
from nphm_tracking.frames import FrameState
from nphm_tracking.pictures import Surface

COUNT, FPS = 24, 12.0
WIDTH, HEIGHT = 160, 120
WITHOUT = (9, 10)
"""Frames without a face."""
QUICK = replace(IDENTITY, frames=6, iterations=4, identity_steps=2)

Frames = list[list[FoundFace]]


class Marked:
    """Finds in a picture of grey level 10 n what was made for frame n."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def faces(self, image: np.ndarray) -> list[FoundFace]:
        return self.frames[round(float(image.mean()) / 10)]


@pytest.fixture
def detect(monkeypatch: pytest.MonkeyPatch) -> Callable[[Frames], None]:
    """Puts a detector that knows the frames in MediaPipe's place, and calibrates in a hurry."""
    monkeypatch.setattr(following, "OFFSET_ROUNDS", 1)
    monkeypatch.setattr(driver, "calibrate", lambda *known: calibrate(*known, QUICK))

    def install(frames: Frames) -> None:
        monkeypatch.setattr(
            tracking, "face_chooser", lambda _, rank: ChosenFace(Marked(frames), rank)
        )

    return install


def acted(face: ActedFace | None = None) -> Frames:
    """Somebody who talks, turns and is away for a moment, with scores."""
    face = face or ActedFace.mean(WIDTH, HEIGHT)
    codes = talking(COUNT)
    found = [[one] for one in face.faces(codes, swinging(COUNT, 0.15), codes)]
    for n in WITHOUT:
        found[n] = []
    return found


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of greys, with three seconds of sound."""
    folder = tmp_path_factory.mktemp("film")
    tone = 0.3 * np.sin(np.arange(3 * 16000) / 6)
    with wave.open(str(folder / "a.wav"), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes((32767 * tone).astype("<i2").tobytes())
    with VideoWriter(folder / "talk.mp4", FPS, audio=folder / "a.wav") as video:
        for n in range(COUNT):
            video.write(np.full((HEIGHT, WIDTH, 3), 10 * n, np.uint8))
    return folder / "talk.mp4"


def config(avatar: Path, film: Path, out: Path, *more: str) -> DriveConfig:
    return compose_config(
        DriveConfig,
        "drive",
        [f"avatar={avatar}", f"video={film}", f"out={out}", "width=48", "height=64", "device=cpu",
         *more],
    )  # fmt: skip


def degrees(left: Similarity, right: Similarity) -> torch.Tensor:
    return torch.rad2deg(rotvec_from_matrix(left.rotation.mT @ right.rotation).norm(dim=-1))


def sound_seconds(path: Path) -> float | None:
    with av.open(str(path)) as opened:
        if not opened.streams.audio:
            return None
        stream = opened.streams.audio[0]
        return float(stream.duration * stream.time_base)


def test_video_track_and_json_are_written(avatar_folder, film, tmp_path, detect) -> None:
    detect(acted())
    out = tmp_path / "made" / "drive.mp4"
    run(config(avatar_folder, film, out))
    names = {path.name for path in out.parent.iterdir()}
    assert names == {"drive.mp4", "drive.json", "drive_track.safetensors"}
    info = probe_video(out)
    assert info.fps == pytest.approx(FPS)
    pictures = list(read_video(out))
    assert len(pictures) == COUNT
    assert info.width >= 48 + round(64 * WIDTH / HEIGHT) and info.height >= 64
    assert sound_seconds(out) == pytest.approx(COUNT / FPS, abs=0.07)
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["video"] == "talk.mp4" and told["mode"] == "fast" and told["frames"] == COUNT
    assert told["frames_without_face"] == list(WITHOUT) and told["fps"] == FPS
    assert told["size"] == [WIDTH, HEIGHT] and not told["focal_given"]
    assert told["focal_px"] == pytest.approx(1.2 * WIDTH)
    assert len(told["hull_distance"]) == COUNT and max(told["hull_distance"]) > 0
    residual = told["landmark_residual_mm"]
    assert [n for n, one in enumerate(residual) if one is None] == list(WITHOUT)
    assert max(one for one in residual if one is not None) < 1.5
    track = load_track(out.with_name("drive_track.safetensors"))
    assert track.head_model_checksum == equipment().model.checksum()
    take = track.sequence("talk")
    assert take.frames.tolist() == list(range(COUNT)) and take.fps == FPS
    assert torch.nonzero(~take.ok).flatten().tolist() == list(WITHOUT)
    good, true = take.good(), swinging(COUNT, 0.15)[take.ok]
    assert degrees(good.world_from_head, true).max() < 3.0
    away = (good.world_from_head.translation - true.translation).norm(dim=1)
    assert away.max() < 0.03
    jaw = equipment().model.expression_names.index("jawOpen")
    assert (good.z_exp[:, jaw] - talking(COUNT)[take.ok][:, jaw]).abs().mean() < 0.06


@pytest.fixture
def known(tmp_path: Path) -> str:
    """Setting for a driver who was tracked before, with another size: nothing is calibrated."""
    face = ActedFace.mean(WIDTH, HEIGHT)
    pose = Similarity(torch.full((2,), 0.26), torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3))
    good = torch.ones(2, dtype=torch.bool)
    take = SequenceTrack(torch.arange(2), talking(2), pose, torch.ones(2), good, 25.0)
    model = equipment().model
    track = Track(
        face.z_geo, torch.zeros(model.app_size), {"A": take}, model.checksum(), "001", {},
        face.person().landmarks,
    )  # fmt: skip
    save_track(track, tmp_path / "known.safetensors")
    return f"driver_track={tmp_path}/known.safetensors"


def test_a_part_of_the_video_alone(avatar_folder, film, tmp_path, detect, known) -> None:
    """From a second to a second, without driver, sound and track; an old result is replaced."""
    detect(acted())
    out = tmp_path / "drive.mp4"
    out.write_text("old")
    plain = ["beside=false", "audio=false", "save_track=false", "start_s=0.5", "end_s=1.25"]
    with pytest.raises(OutputError, match="exists already"):
        run(config(avatar_folder, film, out, known, *plain))
    assert out.read_text() == "old"
    run(config(avatar_folder, film, out, known, *plain, "overwrite=true", "focal=200"))
    info = probe_video(out)
    assert (info.width, info.height) == (48, 64) and len(list(read_video(out))) == 9
    assert sound_seconds(out) is None
    assert not out.with_name("drive_track.safetensors").exists()
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["frames_without_face"] == [n - 6 for n in WITHOUT]
    assert told["focal_given"] and told["focal_px"] == pytest.approx(200)


def test_a_known_driver_has_their_size(avatar_folder, film, tmp_path, detect, known) -> None:
    """The same pixels of a head of 0.26 m a unit are that much farther away; sound starts late."""
    detect(acted())
    run(config(avatar_folder, film, tmp_path / "a.mp4", known, "start_s=1", "refine=false"))
    take = load_track(tmp_path / "a_track.safetensors").sequence("talk")
    assert take.frames.tolist() == list(range(12, 24))
    assert torch.allclose(take.world_from_head.scale, torch.tensor(0.26))
    true = swinging(COUNT, 0.15)[12:]
    ratio = take.world_from_head.translation[:, 2] / true.translation[:, 2]
    assert (ratio - 0.26 / 0.25).abs().max() < 0.02
    assert degrees(take.world_from_head, true).max() < 1.0
    assert sound_seconds(tmp_path / "a.mp4") == pytest.approx(1.0, abs=0.07)


def test_the_second_face_can_drive(avatar_folder, film, tmp_path, detect, known) -> None:
    """Of two, the smaller; the larger one stands left of it."""
    near = swinging(COUNT, 0.15)
    near = replace(near, translation=near.translation + torch.tensor([-0.12, 0.0, 0.1]))
    far = replace(near, translation=near.translation + torch.tensor([0.28, 0.0, -0.2]))
    face, codes = ActedFace.mean(WIDTH, HEIGHT), talking(COUNT)
    pairs = zip(face.faces(codes, near), face.faces(codes, far), strict=True)
    detect([list(pair) for pair in pairs])
    settings = ["end_s=0.6", "face=2", "beside=false"]
    run(config(avatar_folder, film, tmp_path / "a.mp4", known, *settings))
    take = load_track(tmp_path / "a_track.safetensors").sequence("talk")
    assert (take.world_from_head.translation[:, 0] > 0.05).all()
    assert degrees(take.world_from_head, far[: len(take)]).max() < 1.0


def test_all_frames_at_once_with_pictures(
    avatar_folder, film, tmp_path, detect, known, monkeypatch
) -> None:
    """`mode=accurate` in three windows, without and with mattes; pictures of grey change little.

    Neighbours are coupled, which costs a head that turns by 2 degrees a frame about as much.
    """
    detect(acted())
    monkeypatch.setattr(accurate, "WINDOW", 8)
    monkeypatch.setattr(accurate, "OVERLAP", 2)
    monkeypatch.setattr(accurate, "REFINING", replace(accurate.REFINING, iterations=2))

    def absent() -> None:
        raise TrackError("Nothing to segment with.", "Install it.")

    asked = []

    class Everything(detectors.PersonMatte):
        def __init__(self) -> None: ...

        def __call__(self, image: np.ndarray) -> np.ndarray:
            asked.append(image.shape)
            return np.ones(image.shape[:2], np.float32)

    windows, gathered = [], accurate.gathered

    def watched(kept, camera):
        windows.append([round(float(image.mean()) / 10) for image, _ in kept])
        return gathered(kept, camera)

    monkeypatch.setattr(accurate, "gathered", watched)
    turns = []
    for name, matte in (("a", absent), ("b", Everything)):
        monkeypatch.setattr(accurate, "PersonMatte", matte)
        settings = ["mode=accurate", "beside=false", "end_s=1.5"]
        run(config(avatar_folder, film, tmp_path / f"{name}.mp4", known, *settings))
        take = load_track(tmp_path / f"{name}_track.safetensors").sequence("talk")
        assert len(take) == 18
        assert torch.nonzero(~take.ok).flatten().tolist() == list(WITHOUT)
        true = swinging(COUNT, 0.15)[:18]
        assert degrees(take.world_from_head, true)[take.ok].max() < 3.0
        assert degrees(take.world_from_head, true)[take.ok].median() < 1.5
        turns.append(take.world_from_head.rotation)
        told = json.loads((tmp_path / f"{name}.json").read_text())
        assert told["mode"] == "accurate" and told["frames_without_face"] == list(WITHOUT)
    assert windows == 2 * [list(range(8)), list(range(6, 14)), list(range(12, 18))]
    assert asked == [(HEIGHT, WIDTH, 3)] * 18
    assert (turns[0] - turns[1]).abs().max() < 0.01


def test_windows_take_over_in_the_middle_of_their_overlap(monkeypatch) -> None:
    """Every frame is refined; a solver that writes its window's number shows by which."""
    face, count = ActedFace.mean(WIDTH, HEIGHT), 18
    observed = face.observed(talking(count), swinging(count, 0.15))
    person = face.person()
    pose, marks = observed.start, person.landmarks.expand(count, -1, -1)
    state = FrameState(torch.zeros(count, 52), pose.rotation, pose.translation, marks.clone())
    called = []

    def numbered(person, data, state, stage, iterations=None, more=None):
        called.append(len(data.linked))
        return replace(state, z_exp=torch.full_like(state.z_exp, len(called)))

    points = person.landmarks
    surface = Surface(points, torch.nn.functional.normalize(points, dim=1), torch.ones(len(points)))
    for name, value in (
        ("solve_frames", numbered), ("WINDOW", 8), ("OVERLAP", 2), ("ROUNDS", 1),
        ("open_matte", lambda: None), ("head_surface", lambda *known: surface),
    ):  # fmt: skip
        monkeypatch.setattr(accurate, name, value)
    grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    frames = (Frame(grey, n / FPS, n) for n in range(count))
    known = Calibration(person)
    found = accurate.refine(equipment(), known, observed.data, state, frames, face.camera)
    assert found.z_exp[:, 0].tolist() == [1] * 7 + [2] * 6 + [3] * 5
    assert called == [7, 7, 5]  # neighbours in a window stay coupled
    assert (state.z_exp == 0).all()


def refused(*settings: str) -> str:
    with pytest.raises(ConfigError) as error:
        compose_config(DriveConfig, "drive", ["avatar=a", *settings])
    assert str(error.value).count("\n") == 1
    return str(error.value)


def test_settings_that_cannot_be_meant_are_refused() -> None:
    assert "one of the two" in refused("video=a.mp4", "camera=0")
    assert "one of the two" in refused()
    assert "not before end_s" in refused("video=a.mp4", "start_s=3", "end_s=2")
    assert "not before end_s" in refused("video=a.mp4", "start_s=2", "end_s=2")
    assert "start_s=-1.0" in refused("video=a.mp4", "start_s=-1")
    for focal in (0, -5):
        assert "focal length is positive" in refused("video=a.mp4", f"focal={focal}")
    assert "two numbers" in refused("video=a.mp4", "centre=[1,2,3]")
    for name in ("face", "width", "height"):
        assert f"{name}=0" in refused("video=a.mp4", f"{name}=0")
    assert "mode" in refused("video=a.mp4", "mode=exact")


def test_a_video_without_a_face_is_refused(avatar_folder, film, tmp_path, detect) -> None:
    out = tmp_path / "a.mp4"
    detect([[] for _ in range(COUNT)])
    with pytest.raises(TrackError, match=r"face 1 was found in 0 of 24 frames") as error:
        run(config(avatar_folder, film, out))
    assert str(error.value).count("\n") == 1
    detect(acted())
    with pytest.raises(TrackError, match=r"face 2 was found in 0 of 24 frames"):
        run(config(avatar_folder, film, out, "face=2"))
    with pytest.raises(TrackError, match=r"found in 0 of 0 frames"):
        run(config(avatar_folder, film, out, "start_s=60"))
    with pytest.raises(TrackError, match=r"found in 4 of 4 frames"):
        run(config(avatar_folder, film, out, "end_s=0.3"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_video_or_no_avatar_is_refused(
    avatar_folder, film, tmp_path, detect, capsys
) -> None:
    detect(acted())
    out = tmp_path / "a.mp4"
    (tmp_path / "text.mp4").write_text("no video")
    for audio in ("true", "false"):
        with pytest.raises(CaptureError, match=r"video=.*none\.mp4 is not there"):
            run(config(avatar_folder, tmp_path / "none.mp4", out, f"audio={audio}"))
        with pytest.raises(CaptureError, match=r"text\.mp4 cannot be opened"):
            run(config(avatar_folder, tmp_path / "text.mp4", out, f"audio={audio}"))
    with pytest.raises(CheckpointError):
        run(config(tmp_path / "text.mp4", film, out))
    with pytest.raises(OutputError, match=r"ends in \.mp4"):
        run(config(avatar_folder, film, tmp_path / "a.gif"))
    with pytest.raises(SystemExit) as ended:
        main(["drive", f"avatar={avatar_folder}", f"video={tmp_path}/none.mp4", f"out={out}"])
    assert ended.value.code == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 2 and "Traceback" not in told[0]


def test_without_mediapipe_the_extra_is_named(avatar_folder, film, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setattr(detectors, "distributions", list)
    with pytest.raises(TrackError, match=r"npga\[tracking\]"):
        run(config(avatar_folder, film, tmp_path / "a.mp4"))


def test_given_intrinsics_are_in_pixels_of_the_video() -> None:
    """A video that was shrunk to half its size while it was decoded."""
    seen = Seen([None], [0.0], 640, 360, shrunk=0.5)
    camera = seen.camera(1500.0, [700.0, 300.0])
    assert camera.K[0].tolist() == [[750.0, 0.0, 350.0], [0.0, 750.0, 150.0], [0.0, 0.0, 1.0]]
    guessed = seen.camera(None, None).K[0]
    assert guessed[0, 0] == pytest.approx(1.2 * 640) and guessed[:2, 2].tolist() == [320, 180]


def test_the_camera_looks_at_faces_that_look_at_it() -> None:
    """The world's right and up are the picture's; what looks along +z at -z looks into it."""
    camera = single_camera(640, 480)
    points = torch.tensor([[0.0, 0.0, -1.0], [0.1, 0.0, -1.0], [0.0, 0.1, -1.0]])
    pixels, depth = camera.project(points)
    assert torch.allclose(depth, torch.ones(1, 3))
    assert pixels[0, 0].tolist() == [320, 240]
    assert pixels[0, 1, 0] > 320 and pixels[0, 2, 1] < 240


def test_a_driver_who_is_away_is_grey() -> None:
    camera = np.zeros((60, 80, 3), np.uint8)
    camera[..., 0] = 200
    avatar = np.full((30, 20, 3), 90, np.uint8)
    there, away = beside(camera, avatar), beside(camera, avatar, False)
    assert there.shape == away.shape and there.shape[1] == 40 + 20
    assert (there[-10:, :40] == (200, 0, 0)).all() and (there[-10:, 40:] == 90).all()
    assert (away[-10:, :40] == 66).all() and (away[-10:, 40:] == 90).all()


def test_scores_go_to_codes_of_their_names() -> None:
    face = ActedFace(another_identity(), WIDTH, HEIGHT)
    codes = talking(3)
    found = face.faces(codes, swinging(3), codes)[1]
    scores = equipment().scores(found)
    assert scores is not None
    unknown = scores.isnan()
    names = equipment().model.expression_names
    assert [names[n] for n in torch.nonzero(unknown).flatten().tolist()] == ["tongueOut"]
    torch.testing.assert_close(scores[~unknown], codes[1][~unknown])
    assert equipment().scores(FoundFace(found.points)) is None
    torch.testing.assert_close(
        equipment().used(found), face.pixels(codes, swinging(3))[1], atol=1e-4, rtol=0
    )
