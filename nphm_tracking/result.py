"""What tracking hands to every later stage: one identity, and codes and head poses of every frame.

g, a, e sizes of the geometry, appearance and expression code (they follow the head model), t frames
of a sequence. A frame whose `ok` is False could not be tracked: its codes are finite but mean
nothing and must not be trained on or shown. The file is `track.safetensors`, format "npga.track".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from npga.core.errors import TrackError
from npga.core.similarity import Similarity
from npga.core.store import load_tensors, save_tensors

FORMAT = "npga.track"
VERSION = 1
TRACK_FILE = "track.safetensors"


@dataclass(frozen=True)
class SequenceTrack:
    """Codes and poses of the tracked frames of one sequence."""

    frames: Int[Tensor, "t"]
    """Frame numbers in the capture's videos."""
    z_exp: Float[Tensor, "t e"]
    """Expression codes."""
    world_from_head: Similarity
    """[t]; head space units to world metres."""
    residual_mm: Float[Tensor, "t"]
    """Median distance of the frame's face points to the tracked surface."""
    ok: Bool[Tensor, "t"]
    """False: the frame failed and is marked, not invented."""
    fps: float
    """Frames per second of the source video (before any stride)."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def torso(self) -> Similarity:
        """world_from_torso: the mean head similarity of the sequence's good frames, unbatched.

        The torso follows the head only a little; one pose per sequence is the honest simple choice
        (ours). Frames with ok=False count only when there are no others.
        """
        chosen = self.ok if bool(self.ok.any()) else torch.ones_like(self.ok)
        return self.world_from_head[chosen].mean()

    def good(self) -> "SequenceTrack":
        """Only the frames that were tracked."""
        return SequenceTrack(
            self.frames[self.ok],
            self.z_exp[self.ok],
            self.world_from_head[self.ok],
            self.residual_mm[self.ok],
            self.ok[self.ok],
            self.fps,
        )

    def index_of(self, frame: int) -> int:
        """The row of a frame number; raises TrackError where it was not tracked."""
        rows = torch.nonzero(self.frames == frame).flatten()
        if len(rows) == 0:
            known = self.frames.tolist()
            raise TrackError(
                f"Frame {frame} is not in this track, which has {len(known)} frames "
                f"from {known[0] if known else '-'} to {known[-1] if known else '-'}.",
                "Ask for a tracked frame, or track again with a smaller every=.",
            )
        return int(rows[0])


@dataclass(frozen=True)
class Track:
    """One person's identity and every tracked sequence."""

    z_geo: Float[Tensor, "g"]
    """Geometry code, shared by all frames."""
    z_app: Float[Tensor, "a"]
    """Appearance code (zeros where the tracker did not fit it)."""
    sequences: dict[str, SequenceTrack]
    """By the capture's sequence names."""
    head_model_checksum: str
    """Of the head model whose codes these are."""
    participant: str
    """The capture's participant."""
    provenance: dict[str, Any]
    """Capture, stages, times, versions: what made this file."""
    landmarks: Float[Tensor, "l 3"] | None = None
    """Canonical places of the used landmarks on this person, head units, the detector's own idea of
    them included; None where the tracker used none."""

    def sequence(self, name: str) -> SequenceTrack:
        """By exact name or unique prefix; raises TrackError naming what is there."""
        hits = [name] if name in self.sequences else []
        hits = hits or [key for key in self.sequences if key.startswith(name)]
        if len(hits) != 1:
            raise TrackError(
                f"Sequence {name!r} matches {len(hits)} of {', '.join(self.sequences)}.",
                "Name one of them, or track it first.",
            )
        return self.sequences[hits[0]]

    def require_model(self, checksum: str) -> None:
        """Refuse to combine these codes with another head model."""
        if checksum != self.head_model_checksum:
            raise TrackError(
                f"The track was made with head model {self.head_model_checksum}, "
                f"but this is head model {checksum}.",
                "Use the head model that tracked it, or run `npga track` again.",
            )


def save_track(track: Track, path: Path | str) -> None:
    """Write `track.safetensors` atomically; refuses a track that holds NaN or disagreeing sizes."""
    tensors = {"z_geo": track.z_geo, "z_app": track.z_app}
    if track.landmarks is not None:
        tensors["landmarks"] = track.landmarks
    for index, (name, sequence) in enumerate(track.sequences.items()):
        _check(name, sequence)
        for key, value in _sequence_tensors(sequence).items():
            tensors[f"sequence.{index}.{key}"] = value
    meta = {
        "head_model_checksum": track.head_model_checksum,
        "participant": track.participant,
        "sequences": list(track.sequences),
        "fps": [s.fps for s in track.sequences.values()],
        "provenance": track.provenance,
    }
    save_tensors(Path(path), tensors, format=FORMAT, version=VERSION, meta=meta)


def load_track(path: Path | str) -> Track:
    """A track from its file or its folder; raises CheckpointError or TrackError."""
    path = Path(path)
    path = path / TRACK_FILE if path.is_dir() else path
    tensors, meta = load_tensors(path, format=FORMAT, version=VERSION)
    sequences = {}
    for index, (name, fps) in enumerate(zip(meta["sequences"], meta["fps"], strict=True)):
        part = {
            key.removeprefix(f"sequence.{index}."): value
            for key, value in tensors.items()
            if key.startswith(f"sequence.{index}.")
        }
        missing = {
            "frames",
            "z_exp",
            "scale",
            "rotation",
            "translation",
            "residual_mm",
            "ok",
        } - set(part)
        if missing:
            raise TrackError(
                f"{path} lacks {', '.join(sorted(missing))} of sequence {name}.",
                "The file was not written by `npga track`; run it again.",
            )
        pose = Similarity(part["scale"], part["rotation"], part["translation"])
        sequences[name] = SequenceTrack(
            part["frames"], part["z_exp"], pose, part["residual_mm"], part["ok"].bool(), float(fps)
        )
        _check(name, sequences[name])
    return Track(
        tensors["z_geo"],
        tensors["z_app"],
        sequences,
        str(meta["head_model_checksum"]),
        str(meta["participant"]),
        dict(meta["provenance"]),
        tensors.get("landmarks"),
    )


def _sequence_tensors(sequence: SequenceTrack) -> dict[str, Tensor]:
    return {
        "frames": sequence.frames.to(torch.int64),
        "z_exp": sequence.z_exp,
        "scale": sequence.world_from_head.scale,
        "rotation": sequence.world_from_head.rotation,
        "translation": sequence.world_from_head.translation,
        "residual_mm": sequence.residual_mm,
        "ok": sequence.ok.to(torch.uint8),
    }


def _check(name: str, sequence: SequenceTrack) -> None:
    tensors = _sequence_tensors(sequence)
    lengths = {key: len(value) for key, value in tensors.items()}
    if len(set(lengths.values())) != 1:
        raise TrackError(
            f"Sequence {name} has rows of unequal number: {lengths}.",
            "Every frame needs one row of each.",
        )
    for key, value in tensors.items():
        if value.is_floating_point() and key != "residual_mm" and not bool(value.isfinite().all()):
            raise TrackError(
                f"Sequence {name} has NaN or infinity in {key}.",
                "A failed frame keeps finite codes and ok=False; this is an error of the tracker.",
            )
