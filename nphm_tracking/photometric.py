"""The stage `pictures`: every frame once more, with what several cameras' pictures say of it.

Clouds know no slide along the surface, and detected landmarks hardly know lower lids and brows;
skin takes its brightness along. The looks of a person (see `pictures`) are learned per camera from
frames of all takes, so that no take's own bias becomes its looks; then every take is solved with
pictures, clouds and landmarks together, and so for some rounds. Ours.

c cameras, t frames, n surface points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.capture import Capture
from nphm_tracking.config import TrackConfig
from nphm_tracking.frames import FrameState, LandmarkMotion, Person
from nphm_tracking.landmarks import frontal_cameras
from nphm_tracking.observe import Observed, used_cameras
from nphm_tracking.pictures import (
    Pictures,
    PictureTerms,
    PictureWeights,
    Surface,
    median_looks,
)

LOADED = 32
"""Frames whose colours are in memory at once."""
LOOK_FRAMES = 18
"""Frames of a take, evenly spread, that the looks are learned from."""


@dataclass(frozen=True)
class CapturePictures:
    """Where the stage takes pictures from, and what carries a person's surface."""

    capture: Capture
    serials: tuple[str, ...]
    width: int
    cache: str | None
    motion: LandmarkMotion

    @staticmethod
    def of(
        capture: Capture, names: Sequence[str], config: TrackConfig, motion: LandmarkMotion
    ) -> "CapturePictures | None":
        """The most frontal cameras of all these takes that are not held out; None without any.

        Raises as `used_cameras`.
        """
        seen = [used_cameras(capture.sequence(name).serials, config) for name in names]
        shown = tuple(
            serial
            for serial in seen[0]
            if serial not in config.held_out_cameras and all(serial in take for take in seen)
        )
        if not shown:
            return None
        serials = frontal_cameras(capture.cameras(shown), config.cameras_for_pictures)
        return CapturePictures(capture, serials, config.pictures_width, config.cache, motion)

    def load(self, name: str, frames: list[int]) -> list[Pictures]:
        """Of every camera, at half precision: 2 bytes a pixel for as long as a take is solved.

        Raises CaptureError.
        """
        info = self.capture.sequence(name)
        width = min(self.width, info.width)
        height = round(info.height * width / info.width)
        parts: list[list[Pictures]] = [[] for _ in self.serials]
        for first in range(0, len(frames), LOADED):
            some = frames[first : first + LOADED]
            views = self.capture.views(name, some, self.serials, width, height, self.cache)
            for number, part in enumerate(parts):
                images = views.images[:, number].float() / 255
                one = Pictures.of(images, None, views.cameras.select([number]))
                part.append(replace(one, brightness=one.brightness.half()))
        return [
            Pictures(torch.cat([p.brightness for p in part]), None, part[0].camera)
            for part in parts
        ]


class Photometry:
    """The picture terms of one round of the stage; looks are learned when they are first asked for.

    So a round that was interrupted finds the looks it began with, and one that is done needs none.
    """

    def __init__(
        self,
        pictures: CapturePictures,
        observed: list[Observed],
        person: Person,
        surface: Surface,
        states: Mapping[str, FrameState],
        weights: PictureWeights,
    ) -> None:
        self.pictures, self.observed = pictures, observed
        self.person, self.surface, self.states = person, surface, states
        self.weights = weights
        self._looks: Float[Tensor, "c n"] | None = None

    def terms(self, one: Observed) -> PictureTerms:
        """Of all frames of a take."""
        if self._looks is None:
            self._looks = self._learned()
        terms = self._blank(one, one.frames)
        terms.looks = self._looks
        return terms

    def _learned(self) -> Float[Tensor, "c n"]:
        """The face's brightness over frames of all takes."""
        evened = []
        for one in self.observed:
            usable = torch.nonzero(one.enough).flatten()
            if len(usable):
                count = min(LOOK_FRAMES, len(usable))
                rows = usable[torch.linspace(0, len(usable) - 1, count).long()]
                terms = self._blank(one, one.frames[rows])
                evened.append(terms.evened(self.person, self.states[one.name][rows]))
        return median_looks(evened)

    def _blank(self, one: Observed, frames: Int[Tensor, " t"]) -> PictureTerms:
        shown = self.pictures.load(one.name, frames.tolist())
        return PictureTerms(shown, self.surface, self.pictures.motion, self.weights)
