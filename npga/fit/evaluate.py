"""How good an avatar is on what it was not trained on, against the same avatar that stands still.

Two questions, both asked from held-out cameras with tracked poses and codes: `novel_view` on
training sequences, and `self_reenactment` on the held-out sequence. The baseline `frozen` is the
same avatar with its mean training expression and the same poses, drawn in the same run; quality is
told as the difference to it. Metrics are means over the pictures that have them: on the whole
picture on white, weighted by the matte, and in the face regions that a camera sees (`regions.py`).
Flicker is measured on frames in a row.

Letters: `c` cameras, `h w` pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from npga.avatar import Avatar
from npga.core.metrics import flicker
from npga.core.progress import track_progress
from npga.fit.batch import FitBatch, FitData
from npga.fit.instruments import Instruments
from npga.fit.preview import Compared
from npga.fit.regions import RegionMasks
from npga.fit.renderer import Renderer
from npga.fit.scores import METRICS, PIXELWISE, Score, Truth, seen_masks, unit_of

KEPT = 8
"""Pictures on a sheet."""


@dataclass(frozen=True)
class PictureScores:
    """Metrics of one held-out picture drawn all ways."""

    sequence: str
    frame: int
    camera: str
    avatar: Score
    raw: Score
    """Without the refiner."""
    frozen: Score

    @property
    def gain_db(self) -> float:
        """Matte PSNR over the frozen avatar's."""
        return self.avatar.psnr_matte_db - self.frozen.psnr_matte_db


@dataclass(frozen=True)
class Flicker:
    """`core.metrics.flicker` of a frame and its neighbours, with and without the refiner."""

    avatar_matte: float
    avatar_face: float | None
    """None where the camera does not see the face."""
    raw_matte: float
    raw_face: float | None


@dataclass
class Judgement:
    """All pictures of one question."""

    scores: list[PictureScores] = field(default_factory=list)
    flickers: list[Flicker] = field(default_factory=list)
    examples: list[Compared] = field(default_factory=list)
    """Spread evenly over frames and cameras."""
    worst: list[tuple[float, Compared]] = field(default_factory=list)
    """The lowest matte PSNR first."""
    instruments: Instruments = field(default_factory=Instruments)

    def rows(self, name: str) -> list[dict[str, object]]:
        """Means over all pictures as benchmark rows `<name>.<who>.<metric>`."""
        why = self.instruments.why
        rows: list[dict[str, object]] = []
        for who in ("avatar", "raw", "frozen"):
            for metric in PIXELWISE if who == "raw" else METRICS:
                values = [getattr(getattr(score, who), metric) for score in self.scores]
                rows.append(_row(f"{name}.{who}.{metric}", values, unit_of(metric), why(metric)))
        for who in ("avatar", "raw"):
            for region in ("matte", "face"):
                values = [getattr(one, f"{who}_{region}") for one in self.flickers]
                reason = why(region) if self.flickers else "no frames in a row were drawn"
                rows.append(_row(f"{name}.{who}.flicker_{region}", values, "1/255", reason))
        gains = [score.gain_db for score in self.scores]
        rows.append(_row(f"{name}.gain_over_frozen_db", gains, "dB", ""))
        for region in ("face", "mouth", "eyes"):
            metric = f"psnr_{region}_db"
            pairs = ((getattr(s.avatar, metric), getattr(s.frozen, metric)) for s in self.scores)
            gains = [one - other for one, other in pairs if None not in (one, other)]
            rows.append(_row(f"{name}.gain_over_frozen_{region}_db", gains, "dB", why(metric)))
        return rows


def _row(name: str, values: Sequence[float | None], unit: str, why: str) -> dict[str, object]:
    known = [value for value in values if value is not None]
    if not known:
        return {"id": name, "value": None, "unit": unit, "pictures": 0, "why": why}
    mean = round(sum(known) / len(known), 4)
    return {"id": name, "value": mean, "unit": unit, "pictures": len(known)}


@torch.no_grad()
def judge(
    renderer: Renderer, data: FitData, label: str, instruments: Instruments | None = None
) -> Judgement:
    """Draw every frame of `data` from all its cameras, and compare."""
    judgement = Judgement(instruments=instruments or Instruments())
    device = renderer.avatar.means.device
    every = max(1, len(data) // KEPT)
    turn = _Turn(sum(len(q) * len(q.cameras) for q in data.sequences), judgement.instruments)
    for index in track_progress(range(len(data)), label):
        batch = data.batch(index).to(device)
        pictures = _draw(renderer, batch)
        masks = _masks(judgement.instruments, batch, renderer.avatar)
        for camera in range(len(batch.cameras)):
            vgg = turn.comes(len(judgement.scores))
            scores = _score(judgement.instruments, batch, pictures, masks, camera, vgg)
            judgement.scores.append(scores)
            compared = Compared(
                f"{batch.sequence} {batch.frame} {batch.cameras.ids[camera]}",
                batch.image[camera].cpu(),
                pictures.avatar[camera].cpu(),
                pictures.frozen[camera].cpu(),
            )
            if index % every == 0 and camera == (index // every) % len(batch.cameras):
                judgement.examples.append(compared)
            judgement.worst.append((scores.avatar.psnr_matte_db, compared))
            judgement.worst = sorted(judgement.worst, key=lambda pair: pair[0])[:KEPT]
    return judgement


@torch.no_grad()
def judge_flicker(
    renderer: Renderer, data: FitData, instruments: Instruments | None = None
) -> list[Flicker]:
    """Flicker of all inner frames of sequences whose frames follow each other."""
    found: list[Flicker] = []
    shown: list[_Shown] = []
    for index in track_progress(range(len(data)), "flicker"):
        batch = data.batch(index).to(renderer.avatar.means.device)
        if shown and shown[-1].batch.sequence != batch.sequence:
            shown = []
        posed = renderer.avatar.decode(batch.z_exp, batch.world_from_head, batch.torso)
        rendered = renderer(posed, batch.cameras)
        shown = [*shown, _Shown(batch, rendered.refined, rendered.raw)][-3:]
        if len(shown) == 3:
            masks = _masks(instruments or Instruments(), shown[1].batch, renderer.avatar)
            found += [_flicker(shown, masks, camera) for camera in range(len(batch.cameras))]
    return found


@dataclass(frozen=True)
class _Shown:
    """One frame drawn, [c h w 3]."""

    batch: FitBatch
    avatar: Tensor
    raw: Tensor


def _flicker(shown: list[_Shown], masks: RegionMasks | None, camera: int) -> Flicker:
    """Of the middle one of three frames."""
    truth = torch.stack([one.batch.image[camera] for one in shown])
    avatar = torch.stack([one.avatar[camera] for one in shown])
    raw = torch.stack([one.raw[camera] for one in shown])
    matte = shown[1].batch.matte[camera]
    face = seen_masks(masks, camera).get("face")
    return Flicker(
        flicker(avatar, truth, matte),
        None if face is None else flicker(avatar, truth, face.to(truth)),
        flicker(raw, truth, matte),
        None if face is None else flicker(raw, truth, face.to(truth)),
    )


@dataclass(frozen=True)
class _Turn:
    """Chooses at most `instruments.vgg_pictures` of all pictures, evenly."""

    pictures: int
    instruments: Instruments

    def comes(self, place: int) -> bool:
        """Whether the picture at this place is chosen."""
        most = min(self.instruments.vgg_pictures, self.pictures)
        return place * most // self.pictures < (place + 1) * most // self.pictures


def _masks(instruments: Instruments, batch: FitBatch, avatar: Avatar) -> RegionMasks | None:
    regions = instruments.regions
    return None if regions is None else regions.masks(batch, avatar)


@dataclass(frozen=True)
class _Pictures:
    """[c h w 3] drawn three ways."""

    avatar: torch.Tensor
    raw: torch.Tensor
    frozen: torch.Tensor


def _draw(renderer: Renderer, batch: FitBatch) -> _Pictures:
    avatar: Avatar = renderer.avatar
    moving = renderer(avatar.decode(batch.z_exp, batch.world_from_head, batch.torso), batch.cameras)
    still = renderer(
        avatar.decode(avatar.expression_mean, batch.world_from_head, batch.torso), batch.cameras
    )
    return _Pictures(moving.refined.clamp(0, 1), moving.raw.clamp(0, 1), still.refined.clamp(0, 1))


def _score(
    instruments: Instruments,
    batch: FitBatch,
    pictures: _Pictures,
    masks: RegionMasks | None,
    camera: int,
    vgg: bool,
) -> PictureScores:
    seen = seen_masks(masks, camera)
    truth = Truth(batch.image[camera], batch.matte[camera], seen, instruments, vgg=vgg)
    return PictureScores(
        batch.sequence,
        batch.frame,
        batch.cameras.ids[camera],
        avatar=truth.score(pictures.avatar[camera]),
        raw=truth.score(pictures.raw[camera], pixelwise=True),
        frozen=truth.score(pictures.frozen[camera]),
    )
