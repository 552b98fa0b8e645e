"""`npga drive camera=...`: a live camera drives an avatar, seen at once.

One thread reads the camera, and only its newest picture waits; the caller's tracks, draws and shows
it, then takes the next. Tracking and drawing in two threads made both slower on two busy cores (6
to 9 instead of 11 pictures a second), since each is many small steps that hold Python's lock. Only
a calibration is computed aside.
"""

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch

from npga.core.cameras import Cameras
from npga.core.device import resolve_device
from npga.core.errors import NpgaError
from npga.core.images import ImageArray
from npga.core.progress import say
from npga.core.store import write_json
from npga.drive.actor import LiveTracker, Shot
from npga.drive.config import DriveConfig, Show
from npga.drive.driver import KnownDriver, face_chooser
from npga.drive.faces import ChosenFace, FaceFinder
from npga.drive.latency import Latency, Meter, Parts
from npga.drive.outputs import Controls, Outputs, Recorder, Window, captioned
from npga.drive.page import Page
from npga.drive.puppet import Driven
from npga.drive.source import NewestFrame
from npga.drive.stage import Stage
from npga.drive.video import beside
from npga.render.camera_path import camera_path
from npga.render.render import require_new

LOG_S, TEXT_S = 5.0, 0.5
"""Seconds between two lines of the log, and between two read-outs on the picture."""
VIEW_FPS, VIEW_S = 25.0, 12.0
"""A moving view is a path of so many seconds, again and again."""
PAUSE_S = 0.1
"""Between two pictures while a calibration is computed, which needs the processor."""


@dataclass(frozen=True)
class LiveReport:
    """What a live run was like, from the first picture that moved the avatar to the last."""

    frames: int
    """Pictures shown."""
    frames_without_face: int
    seconds: float
    fps: float
    """Pictures shown per second."""
    latency_ms: Latency
    """From the camera to the outputs."""
    camera_fps: float
    dropped: int
    """Pictures of the camera that newer ones replaced before they were taken."""
    calibration_s: float | None
    """That its computation took; None where it did not end."""
    size: tuple[int, int]
    machine: str

    def __str__(self) -> str:
        return (
            f"{self.frames} pictures in {self.seconds:.1f} s, {self.fps:.1f} a second of the "
            f"camera's {self.camera_fps:.1f}; {self.latency_ms}"
        )


def drive_live(config: DriveConfig) -> None:
    """Drive until Ctrl-C, a stop of the outputs or `seconds`; raises NpgaError subclasses.

    With `out`, the mp4 of what was shown and a json of the report.
    """
    out = None if config.out is None else require_new(config.out, overwrite=config.overwrite)
    controls = Controls(config.beside)
    with stopped_by_signals(controls.stop):
        report = run_live(config, controls=controls)
    if out is not None and out.exists():
        write_json(out.with_suffix(".json"), asdict(report))
    say(f"drive: {report}." if report.frames else "drive: stopped before the avatar was driven.")


def run_live(
    config: DriveConfig, finder: FaceFinder | None = None, controls: Controls | None = None
) -> LiveReport:
    """The whole of a live run; `finder` instead of MediaPipe. Raises NpgaError subclasses."""
    assert config.camera is not None
    controls = controls or Controls(config.beside)
    stage = Stage.open(config)
    chooser = (
        face_chooser(config.landmarker, config.face)
        if finder is None
        else ChosenFace(finder, config.face)
    )
    known = KnownDriver.load(config.driver_track, stage.equipment)
    tracker = LiveTracker(stage, chooser, known)
    outputs = open_outputs(config, controls)
    live = Live(stage, tracker, NewestFrame(config.camera), controls, outputs)
    live.run(config.seconds)
    return live.report()


def open_outputs(config: DriveConfig, controls: Controls) -> Outputs:
    """What `show` and `out` ask for; raises OutputError where one is not to be had."""
    outputs = []
    if config.show is Show.web:
        page = Page(config.port, controls)
        say(f"drive: {page.url} shows the avatar; Ctrl-C stops.")
        outputs.append(page)
    elif config.show is Show.window:
        outputs.append(Window(controls))
    if config.out is not None:
        outputs.append(Recorder(Path(config.out)))
    return Outputs(*outputs)


class Live:
    """A run, in the caller's thread."""

    def __init__(
        self,
        stage: Stage,
        tracker: LiveTracker,
        source: NewestFrame,
        controls: Controls,
        outputs: Outputs,
    ) -> None:
        self.stage, self.tracker, self.source = stage, tracker, source
        self.controls, self.outputs = controls, outputs
        self.meter = Meter()
        self._views = live_views(stage)
        self._still: ImageArray | None = None
        self._without_face = self._dropped_before = 0
        self._text, self._told_at, self._logged_at = "", 0.0, 0.0

    def run(self, seconds: float | None = None) -> None:
        """Until the controls stop it, the source ends, or so many seconds have passed.

        An error of the camera comes after what was recorded before it is complete.
        """
        lost = None
        with self.outputs:
            self._picture(self.tracker.at_rest, 0.0)  # compiles
            try:
                with self.source:
                    self._show_all(seconds)
            except NpgaError as error:
                lost = error
            finally:
                self.tracker.close()
        if lost is not None:
            raise lost

    def _show_all(self, seconds: float | None) -> None:
        began = time.perf_counter()
        until = float("inf") if seconds is None else began + seconds
        while not self.controls.stop.is_set() and time.perf_counter() < until:
            frame = self.source.take()
            if frame is None:
                return
            if self.controls.calibrate.is_set():
                self.controls.calibrate.clear()
                self.tracker.calibrate_again()
            self._show(self.tracker(frame), began)
            if self.tracker.pending is not None:
                self.controls.stop.wait(PAUSE_S)

    def _show(self, shot: Shot, began: float) -> None:
        picture = self._picture(shot.driven, shot.frame.seconds)
        drawn = time.perf_counter()
        text = shot.message or self._read_out(shot, drawn)
        shown = composed(shot, picture, text, self.controls.driver)
        self.outputs.show(shown, drawn - began, text)
        if shot.message is None:
            self._measure(shot, drawn)

    def _picture(self, driven: Driven, seconds: float) -> ImageArray:
        """The avatar from the camera of this time; at rest it is drawn once."""
        if driven is self.tracker.at_rest and self._still is not None:
            return self._still
        row = int(seconds * VIEW_FPS) % len(self._views)
        picture = self.stage.picture(driven, self._views.select([row]))
        self._still = picture if driven is self.tracker.at_rest else None
        return picture

    def _measure(self, shot: Shot, drawn: float) -> None:
        end = time.perf_counter()
        if not self.meter.pictures:
            self._dropped_before, self._logged_at = self.source.dropped, end
        wait, detect = shot.began - shot.frame.taken, shot.detected - shot.began
        solve = shot.solved - shot.detected
        self.meter.add(end, Parts(wait, detect, solve, drawn - shot.solved, end - drawn))
        self._without_face += not shot.found
        if end - self._logged_at > LOG_S:
            self._logged_at = end
            say(f"drive: {self.meter.recent_fps:.1f} pictures a second, {self.meter.recent()}")

    def _read_out(self, shot: Shot, now: float) -> str:
        """What is told on the picture, renewed now and then."""
        if now - self._told_at > TEXT_S and self.meter.pictures:
            self._told_at = now
            self._text = f"{self.meter.recent_fps:.0f} fps, {self.meter.recent()}"
        return self._text if shot.found else f"no face; {self._text}"

    def report(self) -> LiveReport:
        """Of the run so far."""
        config = self.stage.config
        return LiveReport(
            frames=len(self.meter.pictures),
            frames_without_face=self._without_face,
            seconds=round(self.meter.seconds, 3),
            fps=round(self.meter.fps, 2),
            latency_ms=self.meter.total(),
            camera_fps=round(self.source.rate, 2),
            dropped=self.source.dropped - self._dropped_before if self.meter.pictures else 0,
            calibration_s=self.tracker.calibrated_in,
            size=(config.width, config.height),
            machine=f"{platform.machine()}, {os.cpu_count()} cores, "
            f"{resolve_device(config.device)}, torch {torch.__version__}",
        )


def live_views(stage: Stage) -> Cameras:
    """The path of cameras that is gone along again and again; raises what ``camera_path`` does."""
    config = stage.config
    return camera_path(
        config.view,
        round(VIEW_FPS * VIEW_S),
        VIEW_FPS,
        stage.rest,
        config.width,
        config.height,
        capture=config.capture,
        participant=config.participant,
    )


def composed(shot: Shot, avatar: ImageArray, text: str, driver: bool) -> ImageArray:
    """What is shown: the avatar, the driver beside it where that is wanted, and a text."""
    if driver:
        avatar = beside(shot.frame.image, avatar, shot.found)
    return captioned(avatar, text)


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C, or a polite kill, ends what goes on; a second one breaks it off."""

    def end(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
