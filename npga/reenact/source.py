"""What a driver does, from a track or from codes alone, in one type.

t frames, e expression size. `curves` reads codes from files.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from npga.core.audio import AudioTrack
from npga.core.errors import ConfigError
from npga.core.similarity import Similarity
from npga.reenact.openings import Gaps
from npga.reenact.retarget import Face
from nphm_tracking import HeadModel, Track


@dataclass(frozen=True)
class Performance:
    """A driver's codes and head poses over a take."""

    name: str
    """Who does what, for titles."""
    frames: Int[Tensor, "t"]
    """Frame numbers at `fps`, counted from the driver's video or recording."""
    z_exp: Float[Tensor, "t e"]
    world_from_head: Similarity
    """[t]"""
    rest: Similarity
    """The pose that the head moves about, unbatched."""
    ok: Bool[Tensor, "t"]
    """False: the frame is not known, its codes mean nothing."""
    face: Face
    fps: float
    """Frames per second of what `frames` count."""
    placed: bool = True
    """Whether poses are in a capture's world; else only their motion about `rest` counts."""

    def __len__(self) -> int:
        return len(self.frames)

    def used(self, every: int = 1, *, hold: bool = False) -> "Performance":
        """Every n-th of the known frames, all known.

        With `hold` unknown ones between them stay and show their nearest known one, so that time
        runs evenly (sound needs that). Raises ConfigError where no frame is known.
        """
        known = torch.nonzero(self.ok).flatten()
        if len(known) == 0:
            raise ConfigError(
                f"No frame of {self.name} was tracked.", "Track it again, or name another take."
            )
        rows = known
        if hold:
            rows = torch.arange(int(known[0]), int(known[-1]) + 1)
        rows = rows[::every]
        shown = known[(rows[:, None] - known[None]).abs().argmin(1)] if hold else rows
        return replace(
            self,
            frames=self.frames[rows],
            z_exp=self.z_exp[shown],
            world_from_head=self.world_from_head[shown],
            ok=self.ok[shown],
        )

    @property
    def rate(self) -> float:
        """Rows per second."""
        if len(self) < 2:
            return self.fps
        spacing = float((self.frames[1:] - self.frames[:-1]).double().median())
        return self.fps / max(1.0, spacing)

    def sound(self, audio: AudioTrack | None) -> AudioTrack | None:
        """The sound from the first row on."""
        if audio is None:
            return None
        return AudioTrack(audio.path, audio.start_s + float(self.frames[0]) / self.fps)


def take_of(track: Track, sequence: str, model: HeadModel | None = None) -> Performance:
    """A track's take, by its name or a unique prefix; raises TrackError for another.

    With the track's head model, the person's openings are calibrated on all their takes.
    """
    take = track.sequence(sequence)
    name = next(key for key, value in track.sequences.items() if value is take)
    return Performance(
        f"{track.participant} {name}",
        take.frames,
        take.z_exp,
        take.world_from_head,
        take.torso,
        take.ok,
        face_of(track, model),
        take.fps,
    )


def face_of(track: Track, model: HeadModel | None = None) -> Face:
    """A tracked person's calibration; raises ConfigError where no frame was tracked."""
    codes = torch.cat([take.good().z_exp for take in track.sequences.values()])
    return Face.of_codes(codes, None if model is None else Gaps.of(model, track.z_geo))
