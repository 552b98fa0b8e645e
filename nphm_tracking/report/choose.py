"""Which frames a report shows, and what can be said of them in words."""

from dataclasses import dataclass

import torch

from nphm_tracking.config import TrackConfig
from nphm_tracking.observe import Observed
from nphm_tracking.result import SequenceTrack, Track


@dataclass(frozen=True)
class FrameChoice:
    """One frame of one sequence."""

    one: Observed
    row: int

    @property
    def frame(self) -> int:
        """Its number in the capture's videos."""
        return int(self.one.frames[self.row])


def expressive_frames(track: Track, observed: list[Observed]) -> list[FrameChoice]:
    """Of each sequence that has a good frame, the one whose code is farthest from neutral."""
    chosen = []
    for one in observed:
        sequence = track.sequences[one.name]
        if bool(sequence.ok.any()):
            chosen.append(FrameChoice(one, int(_expressiveness(sequence).argmax())))
    return chosen


def most_expressive(track: Track, choices: list[FrameChoice]) -> FrameChoice:
    """The one of these frames whose code is farthest from neutral."""
    return max(
        choices, key=lambda c: float(_expressiveness(track.sequences[c.one.name])[c.row].item())
    )


def _expressiveness(sequence: SequenceTrack) -> torch.Tensor:
    return torch.where(sequence.ok, sequence.z_exp.abs().sum(1), -torch.inf)


def worst_frames(track: Track, observed: list[Observed], count: int) -> list[FrameChoice]:
    """The so many frames with the largest residuals, the largest first; frames without any lead."""
    every = [FrameChoice(one, row) for one in observed for row in range(len(one.frames))]
    every.sort(key=lambda c: -float(track.sequences[c.one.name].residual_mm[c.row]))
    return every[:count]


def reason(track: Track, choice: FrameChoice, config: TrackConfig) -> str:
    """Why a frame failed; empty for a good one."""
    sequence = track.sequences[choice.one.name]
    if bool(sequence.ok[choice.row]):
        return ""
    if not bool(choice.one.enough[choice.row]):
        return f"failed: fewer than {config.points_min} surface points on the face (points_min)"
    return f"failed: above the limit of {config.residual_max_mm:g} mm (residual_max_mm)"


def distance_text(track: Track, choice: FrameChoice) -> str:
    """The frame's residual in words."""
    residual = float(track.sequences[choice.one.name].residual_mm[choice.row])
    return f"{residual:.2f} mm" if residual < float("inf") else "no distance"


def good_residuals(track: Track) -> torch.Tensor:
    """[n]: the residuals of all good frames, mm."""
    return torch.cat([s.residual_mm[s.ok] for s in track.sequences.values()])
