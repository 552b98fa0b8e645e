"""`mode=accurate`: all frames of a take at once, then refined by its pictures, window by window.

First the batch twin of following: every frame's code and pose with neighbours coupled. Then windows
of `WINDOW` frames, each with the brightness its own face shows and with mattes where MediaPipe has
them (`nphm_tracking.pictures`). Windows overlap; each takes over in the middle of the overlap.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.errors import TrackError
from npga.core.images import ImageArray, resize_area
from npga.core.progress import bar, say
from npga.drive.driver import Equipment
from npga.drive.source import Frame
from nphm_tracking.config import StageConfig, StageKind
from nphm_tracking.detectors import PersonMatte
from nphm_tracking.follow import LOST_MM, SCORE, Calibration, Followed
from nphm_tracking.frames import FrameData, FrameState, LandmarkMiss
from nphm_tracking.observe import Observed
from nphm_tracking.pictures import Pictures, PictureTerms, head_surface
from nphm_tracking.solve import solve_frames
from nphm_tracking.track import spread_poses

TOGETHER = StageConfig(
    kind=StageKind.joint, iterations=20, score=SCORE, smooth_code=0.01, smooth_pose=0.01
)
REFINING = replace(TOGETHER, iterations=6)
ROUNDS = 2
"""Of looks learned and frames refined, in each window."""
WINDOW, OVERLAP = 48, 8
WIDTH = 320
"""Pixels of the pictures' longer side."""


def solve_take(
    equipment: Equipment,
    calibration: Calibration,
    observed: Observed,
    frames: Iterator[Frame],
    camera: Cameras,
) -> list[Followed]:
    """Every frame of a take; `frames` are its pictures, in order."""
    person, data = calibration.person, observed.data
    if data.scores is not None:
        data = replace(data, scores=calibration.targets(data.scores))
    count = len(observed.frames)
    state = FrameState(
        person.prior.mean.expand(count, -1).clone(),
        observed.start.rotation,
        observed.start.translation,
        person.landmarks.expand(count, -1, -1).clone(),
    )
    state = solve_frames(person, data, state, TOGETHER)
    state = spread_poses(state, observed.enough)
    state = refine(equipment, calibration, data, state, frames, camera)
    marks = person.posed_landmarks(state).marks
    apart = LandmarkMiss.of(data, state, marks, person.scale).error.norm(dim=-1)
    residual = 1000 * person.scale * apart.median(1).values
    poses = state.pose(person.scale)
    return [
        Followed(
            state.z_exp[n],
            poses[n],
            float(residual[n]) if observed.enough[n] else float("inf"),
            bool(observed.enough[n]) and float(residual[n]) <= LOST_MM,
        )
        for n in range(count)
    ]


def refine(
    equipment: Equipment,
    calibration: Calibration,
    data: FrameData,
    state: FrameState,
    frames: Iterator[Frame],
    camera: Cameras,
) -> FrameState:
    """The state after the pictures had their say."""
    person = calibration.person
    surface = head_surface(equipment.model, person)
    matte = open_matte()
    state = FrameState(*(getattr(state, name).clone() for name in state.__dataclass_fields__))
    count = len(state.z_exp)
    kept: list[tuple[ImageArray, Tensor | None]] = []
    with bar("refine", count) as shown:
        for first in range(0, count, WINDOW - OVERLAP):
            last = min(first + WINDOW, count)
            kept += [small(f.image, matte) for f in islice(frames, last - first - len(kept))]
            rows = torch.arange(first, last)
            pictures = gathered(kept, camera)
            terms = PictureTerms([pictures], surface, equipment.motion)
            part, part_data = state[rows], windowed(data, first, last)
            for _ in range(ROUNDS):
                terms.learn_looks(person, part)
                part = solve_frames(person, part_data, part, REFINING, more=terms)
            fresh = slice(OVERLAP // 2 if first else 0, last - first)
            for name in state.__dataclass_fields__:
                getattr(state, name)[rows[fresh]] = getattr(part, name)[fresh]
            kept = kept[-OVERLAP:]
            shown.update(last - (first + OVERLAP if first else 0))
            if last == count:
                break
    return state


def windowed(data: FrameData, first: int, last: int) -> FrameData:
    """The observations of a window, its frames still coupled."""
    part = data[slice(first, last)]
    return replace(part, linked=data.linked[first : last - 1])


def open_matte() -> PersonMatte | None:
    """None, with a note, where this MediaPipe has no segmentation."""
    try:
        return PersonMatte()
    except TrackError:
        say("drive: this MediaPipe has no person segmentation; pictures are compared without.")
        return None


def small(
    image: ImageArray, matte: PersonMatte | None
) -> tuple[ImageArray, Float[Tensor, "h w"] | None]:
    """A picture at working size, and its matte."""
    scale = min(1.0, WIDTH / max(image.shape[:2]))
    width, height = (max(2, round(n * scale)) for n in image.shape[1::-1])
    shrunk = resize_area(image, width, height)
    return shrunk, None if matte is None else torch.from_numpy(np.array(matte(shrunk)))


def gathered(kept: list[tuple[ImageArray, Tensor | None]], camera: Cameras) -> Pictures:
    """The pictures of a window."""
    images = torch.from_numpy(np.stack([image for image, _ in kept])).float() / 255
    mattes = [matte for _, matte in kept if matte is not None]
    height, width = images.shape[1:3]
    together = torch.stack(mattes) if len(mattes) == len(kept) else None
    return Pictures.of(images, together, camera.resized(width, height))
