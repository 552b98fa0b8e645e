"""Settings of ``npga capture synth``."""

from dataclasses import dataclass
from enum import Enum

from npga.capture.synthetic.motion import SEQUENCES
from npga.capture.synthetic.rig import SERIALS
from npga.core.config import knob
from npga.core.errors import ConfigError


class Haircut(str, Enum):
    """The haircuts there are."""

    short = "short"
    bob = "bob"


@dataclass(frozen=True)
class PersonConfig:
    """One person; settings left at null are the capture's."""

    participant: int = knob(101, "number of the participant's folder, 1..999")
    identity_seed: int = knob(1, "seed of the shape of the head")
    gender: float | None = knob(None, "0 = female .. 1 = male; null = drawn")
    age: float | None = knob(None, "0.5 = young adult .. 1 = old; null = drawn")
    ethnicity: list[float] | None = knob(None, "three shares african, asian, caucasian")
    strength: float = knob(0.9, "scales all expression weights")
    haircut: Haircut = knob(Haircut.short, "short or bob")
    hair: list[float] = knob([0.30, 0.20, 0.12], "hair colour, sRGB 0..1")
    skin: list[float] = knob([0.80, 0.61, 0.52], "skin colour, sRGB 0..1")
    lip: list[float] = knob([0.70, 0.42, 0.40], "lip colour, sRGB 0..1")
    iris: list[float] = knob([0.28, 0.36, 0.42], "iris colour, sRGB 0..1")
    cloth: list[float] = knob([0.25, 0.33, 0.45], "colour of the pullover, sRGB 0..1")
    stubble: float = knob(0.0, "beard shadow, 0..1")
    freckles: int = knob(200, "number of freckles")
    color_terms: int = knob(3, "3 = no colour calibration needed, 11 = a polynomial one")
    width: int | None = knob(None, "picture width")
    height: int | None = knob(None, "picture height")
    cameras: list[str] | None = knob(None, "serials of the cameras that film")
    sequences: list[str] | None = knob(None, "names of the sequences")
    frames: int | None = knob(None, "frames per sequence")
    free_frames: int | None = knob(None, "frames of FREE")
    cloud_points: int | None = knob(None, "points per cloud")


@dataclass(frozen=True)
class CaptureSynthConfig:
    """A synthetic capture in the NeRSemble v2 layout, with its ground truth beside it."""

    out: str = knob("runs/synthetic", "folder to make: capture/, landmarks/, ground_truth/")
    overwrite: bool = knob(False, "replace out if it exists")
    seed: int = knob(0, "seed of calibration, motion and noise")
    width: int = knob(440, "picture width, even")
    height: int = knob(640, "picture height, even")
    cameras: list[str] = knob([], "serials of the cameras that film; empty = all 16")
    sequences: list[str] = knob(
        ["EXP-2-eyes", "EXP-4-lips", "EXP-8-jaw-1", "EMO-1-shout+laugh", "FREE"],
        "names of the sequences",
    )
    frames: int = knob(36, "frames per sequence (every third of 73 fps)")
    free_frames: int = knob(60, "frames of FREE")
    cloud_points: int = knob(3000, "points per cloud; 0 = no clouds")
    landmark_cameras: list[str] = knob(
        ["222200037", "222200038", "222200048", "222200043"], "cameras with landmarks"
    )
    crf: int = knob(18, "x264 quality of the pictures, smaller is better")
    matte_crf: int = knob(18, "x264 quality of the mattes")
    people: list[PersonConfig] = knob(
        [],
        "the people, each {participant: 101, identity_seed: 1, gender: 0..1, age: 0.5..1, "
        "haircut: short|bob, skin: [r, g, b], ...}, see configs/preset/capture_demo.yaml; "
        "empty = one default person",
    )

    def __post_init__(self) -> None:
        """Resolve the defaults and refuse what cannot be filmed (ConfigError)."""
        people = tuple(self.people) or (PersonConfig(),)
        object.__setattr__(self, "people", people)
        numbers = [p.participant for p in people]
        if len(set(numbers)) < len(numbers) or not all(0 < n < 1000 for n in numbers):
            raise ConfigError(
                f"participants {numbers} were given; different numbers of 1..999 were expected.",
                "Give every person a participant of its own.",
            )
        for person in people:
            self._check(self.of(person), person)

    def of(self, person: PersonConfig) -> "PersonSettings":
        """What holds for one person: its own settings, else the capture's."""
        return PersonSettings(
            width=self.width if person.width is None else person.width,
            height=self.height if person.height is None else person.height,
            cameras=tuple(self.cameras if person.cameras is None else person.cameras) or SERIALS,
            sequences=tuple(self.sequences if person.sequences is None else person.sequences),
            frames=self.frames if person.frames is None else person.frames,
            free_frames=self.free_frames if person.free_frames is None else person.free_frames,
            cloud_points=self.cloud_points if person.cloud_points is None else person.cloud_points,
        )

    def _check(self, settings: "PersonSettings", person: PersonConfig) -> None:
        where = f"participant {person.participant}"
        for name in settings.sequences:
            if name not in SEQUENCES:
                raise ConfigError(
                    f"{where}: there is no sequence {name!r}.",
                    f"Use some of {', '.join(SEQUENCES)}.",
                )
        for serial in settings.cameras:
            if serial not in SERIALS:
                raise ConfigError(
                    f"{where}: there is no camera {serial!r}.", f"Use some of {', '.join(SERIALS)}."
                )
        size = (settings.width, settings.height)
        if min(size) < 16 or size[0] % 2 or size[1] % 2:
            raise ConfigError(
                f"{where}: pictures of {size[0]} x {size[1]} were asked for; even sizes from 16 "
                "are needed.",
                "Set width and height, for instance 220 and 320.",
            )
        if min(settings.frames, settings.free_frames) < 2 or settings.cloud_points < 0:
            raise ConfigError(
                f"{where}: {settings.frames} and {settings.free_frames} frames and "
                f"{settings.cloud_points} points were asked for.",
                "Ask for 2 frames or more, and 0 points or more.",
            )


@dataclass(frozen=True)
class PersonSettings:
    """The resolved filming settings of one person."""

    width: int
    height: int
    cameras: tuple[str, ...]
    sequences: tuple[str, ...]
    frames: int
    free_frames: int
    cloud_points: int

    def frames_of(self, sequence: str) -> int:
        """How long a sequence is."""
        return self.free_frames if sequence == "FREE" else self.frames
