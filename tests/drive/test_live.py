"""A live run without a camera: newest first, calibrated, never jumping, recorded by the clock."""

import json
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from live_driver import (
    FPS,
    HEIGHT,
    NO_FACE,
    OPEN,
    REST,
    SMILE,
    WIDTH,
    GreyFinder,
    grey,
    live_config,
    script,
    write_clip,
)

from npga.core.errors import CaptureError, ConfigError, OutputError, TrackError
from npga.core.video import probe_video, read_video
from npga.drive import actor, live
from npga.drive.actor import LiveTracker, Shot, rehearse
from npga.drive.driver import KnownDriver, Seen
from npga.drive.faces import ChosenFace
from npga.drive.latency import Latency, Meter, Parts
from npga.drive.live import drive_live, run_live, stopped_by_signals
from npga.drive.outputs import Controls, Recorder, captioned, open_cv2
from npga.drive.source import Frame, NewestFrame
from npga.drive.stage import Stage

JAW = "jawOpen"


class Rehearsed:
    """A tracker fed by hand, at the pace of a 25 Hz camera whatever the clock says."""

    def __init__(self, folder: Path) -> None:
        self.computed = threading.Event()
        """Calibrations end when it is set."""
        self.stage = Stage.open(live_config(folder))
        known = KnownDriver.load(self.stage.config.driver_track, self.stage.equipment)
        self.tracker = LiveTracker(self.stage, ChosenFace(GreyFinder()), known)
        self.number = 0
        self.jaw = self.stage.equipment.model.expression_names.index(JAW)

    def show(self, pose: int, count: int = 1) -> list[Shot]:
        shots = []
        for _ in range(count):
            shots.append(self.tracker(Frame(grey(pose), self.number / FPS, self.number)))
            self.number += 1
        return shots

    def calibrate(self) -> list[Shot]:
        shots = []
        while self.tracker.pending is None:
            shots += self.show(REST)
        pending = self.tracker.pending
        self.number += 50  # seconds in which it is computed
        shots += self.show(REST)
        self.computed.set()
        pending.result()
        return shots

    def jaws(self, shots: list[Shot]) -> np.ndarray:
        return np.array([float(one.driven.z_exp[self.jaw]) for one in shots])


@pytest.fixture
def rehearsed(tmp_path, monkeypatch):
    one = Rehearsed(tmp_path)

    def slowly(*given):
        assert one.computed.wait(30)
        return rehearse(*given)

    monkeypatch.setattr(actor, "rehearse", slowly)
    yield one
    one.computed.set()
    one.tracker.close()


def test_the_newest_picture_wins_and_the_others_are_counted(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", [REST, OPEN])
    ages = []
    with NewestFrame(str(clip)) as source:
        for n in range(1, 4):
            while source.received < 4 * n:
                time.sleep(0.002)
            frame = source.take()
            assert frame is not None
            ages.append(time.perf_counter() - frame.taken)
            assert frame.number >= 4 * n - 1, "an older picture was handed out"
        dropped, received, rate = source.dropped, source.received, source.rate
    assert received - 4 <= dropped <= received - 3
    assert max(ages) < 0.5, "the delay grows"
    assert rate < 2 * FPS, "the file is played faster than it was filmed"


def test_a_camera_that_is_not_there_is_refused_in_words(tmp_path):
    with (
        NewestFrame(str(tmp_path / "none.mp4")) as source,
        pytest.raises(CaptureError, match="cannot be opened"),
    ):
        source.take()


def test_the_driver_is_told_what_to_do_until_calibrated(rehearsed):
    assert "no face" in str(rehearsed.show(NO_FACE)[0].message)
    shots = rehearsed.calibrate()
    assert "face at rest: 0.2 s" in str(shots[0].message)
    assert "calibrating" in str(shots[-1].message)
    assert all(one.driven is rehearsed.tracker.at_rest for one in shots)
    assert len(shots) == 6 + 1, "0.2 s at 25 Hz"
    first = rehearsed.show(REST)[0]
    assert first.message is None
    assert rehearsed.tracker.driving
    assert rehearsed.tracker.calibrated_in is not None


def test_gaps_do_not_count_as_a_face_at_rest(rehearsed):
    rehearsed.show(REST)
    rehearsed.show(NO_FACE, 50)
    assert rehearsed.show(REST)[0].message is not None
    assert rehearsed.tracker.pending is None, "two faces are no calibration"


def test_a_lost_face_relaxes_and_comes_back_without_a_jump(rehearsed):
    rehearsed.calibrate()
    opened = rehearsed.jaws(rehearsed.show(OPEN, 25))
    assert opened[0] < 0.3 * opened[-1], "the avatar leaves its rest smoothly"
    assert opened[-1] > 0.5
    lost = rehearsed.show(NO_FACE, 75)
    gone = rehearsed.jaws(lost)
    assert not lost[0].driven.found
    assert np.allclose(gone[:7], opened[-1], atol=0.02), "an expression is held at first"
    assert abs(gone[-1]) < 0.05, "then it goes to rest"
    back = rehearsed.jaws(rehearsed.show(OPEN, 25))
    assert abs(back[-1] - opened[-1]) < 0.02
    steps = np.abs(np.diff(np.concatenate([opened, gone, back])))
    assert steps.max() < 0.3 * opened[-1], "a jump"


def test_the_head_turns_about_the_rest_that_was_calibrated(rehearsed):
    rehearsed.calibrate()
    still = rehearsed.show(REST, 10)[-1].driven
    rest = rehearsed.stage.rest
    assert torch.allclose(still.world_from_head.rotation, rest.rotation, atol=0.02)
    assert torch.allclose(still.world_from_head.translation, rest.translation, atol=0.005)
    turned = rehearsed.show(SMILE, 40)[-1].driven.world_from_head.rotation
    assert float(turned[0, 2]) == pytest.approx(np.sin(0.2), abs=0.03)


def test_calibrating_again_makes_another_face_the_rest(rehearsed):
    rehearsed.calibrate()
    driven = rehearsed.jaws(rehearsed.show(OPEN, 25))
    assert driven[-1] > 0.5
    rehearsed.tracker.calibrate_again()
    again = []
    while rehearsed.tracker.pending is None:
        again += rehearsed.show(OPEN)
    rehearsed.tracker.pending.result()
    assert "face at rest" in str(again[0].message)
    shown = rehearsed.jaws(rehearsed.show(OPEN, 25))
    names = rehearsed.tracker._actor.puppet.retargeting.driver.neutral
    assert float(names[rehearsed.jaw]) > 0.5, "what was shown is now the rest"
    assert np.isfinite(shown).all()


def test_an_unknown_driver_is_calibrated_from_what_was_seen(tmp_path):
    stage = Stage.open(live_config(tmp_path, driver_track=None))
    count = 8
    seen = Seen([script()[REST]] * count, [n / FPS for n in range(count)], WIDTH, HEIGHT)
    driver = rehearse(stage, seen)
    jaw = stage.equipment.model.expression_names.index(JAW)
    rest = driver(script()[REST], 1.0).z_exp[jaw]
    jaws = [float(driver(script()[OPEN], 1 + n / FPS).z_exp[jaw]) for n in range(1, 6)]
    assert abs(float(rest)) < 0.05
    assert jaws[-1] > 0.4


def test_a_calibration_without_a_face_is_told(tmp_path):
    stage = Stage.open(live_config(tmp_path))
    seen = Seen([None] * 8, [n / FPS for n in range(8)], WIDTH, HEIGHT)
    with pytest.raises(TrackError):
        rehearse(stage, seen)


def test_a_run_is_measured_and_recorded_by_the_clock(tmp_path, capsys):
    write_clip(tmp_path / "clip.mp4", [REST] * 25 + [OPEN] * 25)
    config = live_config(tmp_path, out=str(tmp_path / "out.mp4"), seconds=30.0)
    controls = Controls(driver=True)

    class Stopping(GreyFinder):
        def faces(self, image):
            if self.calls >= 24:
                controls.stop.set()
            return super().faces(image)

    began = time.perf_counter()
    report = run_live(config, Stopping(), controls)
    lasted = time.perf_counter() - began
    assert lasted < 20, "the stop was not seen"
    assert report.frames >= 15
    assert report.latency_ms.total.p50 is not None
    assert report.latency_ms.total.p50 <= report.latency_ms.total.p95
    for part in ("detect", "solve", "draw", "show"):
        assert getattr(report.latency_ms, part).p50 > 0
    info = probe_video(tmp_path / "out.mp4")
    assert (info.width, info.height) == (2 * ((64 * 32 // 48 + 24 + 2) // 2), 32 + 18 + 36)
    count = sum(1 for _ in read_video(tmp_path / "out.mp4"))
    assert report.seconds - 0.1 < count / 30 < lasted + 0.1


def test_it_ends_after_the_seconds_that_were_asked_for(tmp_path, monkeypatch, capsys):
    write_clip(tmp_path / "clip.mp4", [NO_FACE] * 5)
    monkeypatch.setattr(live, "face_chooser", lambda *_: ChosenFace(GreyFinder()))
    config = live_config(tmp_path, seconds=0.4, out=str(tmp_path / "out.mp4"))
    before = signal.getsignal(signal.SIGINT)
    drive_live(config)
    assert signal.getsignal(signal.SIGINT) is before
    told = json.loads((tmp_path / "out.json").read_text())
    assert told["frames"] == 0
    assert told["latency_ms"]["total"]["p50"] is None
    assert "stopped before" in capsys.readouterr().out
    with pytest.raises(OutputError, match="exists already"):
        drive_live(config)


def test_what_was_recorded_survives_the_camera(tmp_path, monkeypatch):
    write_clip(tmp_path / "clip.mp4", [NO_FACE] * 5)
    take, taken = NewestFrame.take, []

    def failing(self, timeout=5.0):
        taken.append(1)
        if len(taken) > 3:
            raise CaptureError("camera=0 is gone.", "Plug it in.")
        return take(self, timeout)

    monkeypatch.setattr(NewestFrame, "take", failing)
    with pytest.raises(CaptureError, match="is gone"):
        run_live(live_config(tmp_path, out=str(tmp_path / "out.mp4")), GreyFinder())
    assert probe_video(tmp_path / "out.mp4").frame_count > 0


def test_the_first_signal_asks_and_the_second_breaks_off():
    stop = threading.Event()
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        signal.raise_signal(signal.SIGTERM)


def test_the_recorder_keeps_to_the_clock(tmp_path):
    with Recorder(tmp_path / "x.mp4", fps=20) as recorder:
        for seconds, level in ((0.0, 0), (0.01, 90), (1.0, 180), (1.5, 250)):
            size = (20, 30, 3) if seconds < 1 else (24, 26, 3)
            recorder.show(np.full(size, level, np.uint8), seconds)
    means = [round(float(frame.mean())) for frame in read_video(tmp_path / "x.mp4")]
    assert len(means) == 30
    assert max(abs(m - 90) for m in means[:19]) < 6
    assert all(abs(m - 180 * 26 / 30) < 8 for m in means[21:])


def test_latency_by_parts():
    meter = Meter()
    for n in range(101):
        meter.add(10 + n / 20, Parts(0.001 * n, 0.01, 0.02, 0.03, 0.0))
    assert meter.fps == pytest.approx(20)
    assert meter.recent_fps == pytest.approx(20)
    total = meter.total()
    assert (total.wait.p50, total.wait.p95) == (50, 95)
    assert (total.total.p50, total.total.p95) == (110, 155)
    assert meter.recent().wait.p50 == 80, "of the last two seconds"
    assert "p50 110, p95 155 ms (wait 50" in str(total)
    assert "p50 -" in str(Latency.of([]))


def test_a_caption_does_not_change_the_width():
    wide, narrow = np.zeros((8, 300, 3), np.uint8), np.zeros((8, 60, 3), np.uint8)
    text = "look at the camera, face at rest: 1.2 s"
    assert captioned(wide, text).shape == (8 + 36, 300, 3)
    assert captioned(narrow, text).shape == (8 + 36, 60, 3)
    assert captioned(wide, text).max() > 200


def test_a_window_needs_a_display(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutputError, match="needs a display"):
        open_cv2()


def test_a_port_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="port=70000"):
        live_config(tmp_path, port=70000)
