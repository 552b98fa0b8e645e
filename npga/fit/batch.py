"""What a fit is trained on: pictures of tracked frames, served one frame and some cameras a time.

One step shows one frame from several cameras, because the avatar is decoded once per frame. The
truth stands on the background: matte * picture + (1 - matte) * background. Order: every epoch is a
permutation of all frames that depends on the seed and the epoch only, so that any step's batch can
be told without replaying the steps before it.

Letters: `t` frames, `c` cameras, `h w` pixels, `e` expression size.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.errors import TrackError
from npga.core.similarity import Similarity

CPU = torch.device("cpu")
TRIES = 256
"""Pixels that are tried for the centre of a window."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, pictures: Tensor) -> Tensor:
        """This part of [c h w ...] pictures."""
        return pictures[:, self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class FitSequence:
    """The tracked frames of one sequence with their pictures."""

    name: str
    images: UInt8[Tensor, "t c h w 3"]
    mattes: UInt8[Tensor, "t c h w"]
    cameras: Cameras
    frames: tuple[int, ...]
    z_exp: Float[Tensor, "t e"]
    world_from_head: Similarity
    """[t]"""
    torso: Similarity
    """Rest pose of the torso in this take, unbatched."""
    background_removed: bool = False
    """The pictures stand on white already; otherwise the mattes put them there."""

    def __len__(self) -> int:
        return len(self.frames)

    def pinned(self) -> "FitSequence":
        """The same, with pictures in memory that a GPU can fetch from while it computes."""
        return replace(self, images=self.images.pin_memory(), mattes=self.mattes.pin_memory())


@dataclass(frozen=True)
class FitBatch:
    """One frame from some cameras, on the device of the fit."""

    sequence: str
    frame: int
    index: int
    """Which of all training frames this is (for the corrections of the track)."""
    z_exp: Float[Tensor, " e"]
    world_from_head: Similarity
    torso: Similarity
    cameras: Cameras
    image: Float[Tensor, "c h w 3"]
    """The truth on the background."""
    matte: Float[Tensor, "c h w"]
    window: Window
    """The part that the refiner is trained on, and SSIM is taken of."""

    def to(self, device: torch.device) -> "FitBatch":
        """The same batch elsewhere."""
        return FitBatch(
            self.sequence,
            self.frame,
            self.index,
            self.z_exp.to(device),
            self.world_from_head.to(device),
            self.torso.to(device),
            self.cameras.to(device),
            self.image.to(device),
            self.matte.to(device),
            self.window,
        )


@dataclass(frozen=True)
class FitData:
    """All frames that an avatar is trained on (or judged on)."""

    sequences: tuple[FitSequence, ...]
    background: float = 1.0

    def __post_init__(self) -> None:
        """Refuse to start without a frame."""
        if len(self) == 0:
            raise TrackError(
                "No tracked frame is left to train on.",
                "Track more sequences, or lower frame_stride.",
            )

    def __len__(self) -> int:
        return sum(len(sequence) for sequence in self.sequences)

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """(sequence, row) of every frame."""
        return tuple((s, t) for s, q in enumerate(self.sequences) for t in range(len(q)))

    @property
    def expressions(self) -> Float[Tensor, "t e"]:
        """The codes of all frames."""
        return torch.cat([sequence.z_exp for sequence in self.sequences])

    @property
    def bytes(self) -> int:
        """Memory of pictures and mattes."""
        return sum(q.images.nbytes + q.mattes.nbytes for q in self.sequences)

    def ready_for(self, device: torch.device) -> "FitData":
        """The same data where batches for that device are made fastest."""
        if device.type != "cuda":
            return self
        return replace(self, sequences=tuple(sequence.pinned() for sequence in self.sequences))

    def batch(
        self, index: int, cameras: list[int] | None = None, device: torch.device = CPU
    ) -> FitBatch:
        """Frame `index` of all frames, seen by these cameras (default: all).

        Bytes travel to the device, and become floats there.
        """
        s, t = self.places[index]
        sequence = self.sequences[s]
        chosen = list(range(len(sequence.cameras))) if cameras is None else cameras

        def fetch(pictures: Tensor) -> Tensor:
            rows = [pictures[t, c].to(device, non_blocking=True) for c in chosen]
            return torch.stack(rows).float() / 255

        matte, image = fetch(sequence.mattes), fetch(sequence.images)
        if not (sequence.background_removed and self.background == 1.0):
            image = torch.lerp(torch.full_like(image, self.background), image, matte[..., None])
        return FitBatch(
            sequence=sequence.name,
            frame=sequence.frames[t],
            index=index,
            z_exp=sequence.z_exp[t].to(device),
            world_from_head=sequence.world_from_head[t].to(device),
            torso=sequence.torso.to(device),
            cameras=sequence.cameras.select(chosen).to(device),
            image=image,
            matte=matte,
            window=Window(0, 0, matte.shape[2], matte.shape[1]),
        )

    def at_step(self, step: int, sampling: "Sampling", device: torch.device = CPU) -> FitBatch:
        """The batch of a step: epochs are permutations, cameras a random choice without repeats."""
        seed = sampling.seed
        epoch, place = divmod(step, len(self))
        index = int(torch.randperm(len(self), generator=_generator(seed, epoch, 0))[place])
        s, t = self.places[index]
        mattes = self.sequences[s].mattes[t]
        generator = _generator(seed, step, 1)
        shuffled = torch.randperm(len(mattes), generator=generator).tolist()
        chosen = shuffled[: sampling.cameras_per_step]
        window = random_window([mattes[c] for c in chosen], sampling.window, generator)
        return replace(self.batch(index, chosen, device), window=window)

    def stream(self, start: int, sampling: "Sampling", device: torch.device) -> Iterator[FitBatch]:
        """The batches of steps `start`, `start` + 1, ... without end."""
        for step in itertools.count(start):
            yield self.at_step(step, sampling, device)


@dataclass(frozen=True)
class Sampling:
    """How batches are drawn."""

    cameras_per_step: int
    window: int
    """Side of the refiner's window in pixels."""
    seed: int


def random_window(
    mattes: list[UInt8[Tensor, "h w"]], side: int, generator: torch.Generator
) -> Window:
    """A square window whose centre lies on a matte of the batch, moved inside the picture.

    Pixels are tried until one is covered; of pictures almost without matte the middle is taken.
    """
    height, width = mattes[0].shape
    box_h, box_w = min(side, height), min(side, width)
    tries = torch.rand(TRIES, 2, generator=generator) * torch.tensor([height, width])
    centre = next(
        (
            (row, column)
            for row, column in tries.long().tolist()
            if any(int(matte[row, column]) > 127 for matte in mattes)
        ),
        (height // 2, width // 2),
    )
    top = min(max(0, centre[0] - box_h // 2), height - box_h)
    left = min(max(0, centre[1] - box_w // 2), width - box_w)
    return Window(left, top, box_w, box_h)


def _generator(seed: int, number: int, purpose: int) -> torch.Generator:
    """A generator of its own for every (seed, number, purpose)."""
    return torch.Generator().manual_seed(((seed * 2 + purpose) * 1_000_003 + number) % 2**63)
