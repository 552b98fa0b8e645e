"""How good an avatar is on what it was not trained on, against the same avatar that stands still.

Two questions, both asked from held-out cameras with tracked poses and codes: `novel_view` on
training sequences, and `self_reenactment` on the held-out sequence. The baseline `frozen` is the
same avatar with its mean training expression and the same poses, drawn in the same run; quality is
told as the difference to it. Metrics are means over pictures of PSNR and SSIM, on the whole
picture on white and weighted by the matte.

Letters: `c` cameras, `h w` pixels.
"""

from dataclasses import dataclass, field

import torch

from npga.avatar import Avatar
from npga.core.metrics import psnr, ssim
from npga.core.progress import track_progress
from npga.fit.batch import FitBatch, FitData
from npga.fit.preview import Compared
from npga.fit.renderer import Renderer

KEPT = 8
"""Pictures on a sheet."""


@dataclass(frozen=True)
class Score:
    """Metrics of one picture drawn one way."""

    psnr_matte_db: float
    psnr_whole_db: float
    ssim_matte: float
    ssim_whole: float


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


@dataclass
class Judgement:
    """All pictures of one question."""

    scores: list[PictureScores] = field(default_factory=list)
    examples: list[Compared] = field(default_factory=list)
    """Spread evenly over frames and cameras."""
    worst: list[tuple[float, Compared]] = field(default_factory=list)
    """The lowest matte PSNR first."""

    def rows(self, name: str) -> list[dict[str, object]]:
        """Means over all pictures as benchmark rows `<name>.<who>.<metric>`."""
        rows: list[dict[str, object]] = []
        for who in ("avatar", "raw", "frozen"):
            for metric in ("psnr_matte_db", "psnr_whole_db", "ssim_matte", "ssim_whole"):
                values = [getattr(getattr(score, who), metric) for score in self.scores]
                unit = "dB" if metric.endswith("db") else "1"
                rows.append(_row(f"{name}.{who}.{metric}", values, unit))
        gains = [score.gain_db for score in self.scores]
        rows.append(_row(f"{name}.gain_over_frozen_db", gains, "dB"))
        return rows


def _row(name: str, values: list[float], unit: str) -> dict[str, object]:
    mean = sum(values) / max(1, len(values))
    return {"id": name, "value": round(mean, 4), "unit": unit, "pictures": len(values)}


@torch.no_grad()
def judge(renderer: Renderer, data: FitData, label: str) -> Judgement:
    """Draw every frame of `data` from all its cameras, and compare."""
    judgement = Judgement()
    device = renderer.avatar.means.device
    every = max(1, len(data) // KEPT)
    for index in track_progress(range(len(data)), label):
        batch = data.batch(index).to(device)
        pictures = _draw(renderer, batch)
        for camera in range(len(batch.cameras)):
            scores = _score(batch, pictures, camera)
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


def _score(batch: FitBatch, pictures: _Pictures, camera: int) -> PictureScores:
    truth, matte = batch.image[camera], batch.matte[camera]

    def score(picture: torch.Tensor) -> Score:
        return Score(
            psnr(picture, truth, matte),
            psnr(picture, truth),
            ssim(picture, truth, matte),
            ssim(picture, truth),
        )

    return PictureScores(
        batch.sequence,
        batch.frame,
        batch.cameras.ids[camera],
        score(pictures.avatar[camera]),
        score(pictures.raw[camera]),
        score(pictures.frozen[camera]),
    )
