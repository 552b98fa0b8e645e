"""`npga evaluate`: settings -> a folder with metrics.json and sheets.

Letters: `t` frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from npga.avatar import Avatar, avatar_file, load_avatar
from npga.capture import Capture, open_capture
from npga.core.config import as_plain
from npga.core.device import resolve_device
from npga.core.images import contact_sheet, to_uint8, write_image
from npga.core.output import output_dir
from npga.core.progress import say
from npga.core.store import write_json
from npga.fit.batch import FitData
from npga.fit.config import EvaluateConfig
from npga.fit.evaluate import Judgement, judge, judge_flicker
from npga.fit.instruments import Instruments, open_instruments
from npga.fit.preview import comparison_sheet
from npga.fit.regions import FaceRegions, tinted
from npga.fit.renderer import Renderer
from npga.fit.setup import Split, load_sequence, load_takes, split_of
from nphm_tracking import SequenceTrack, Track, load_track

SHOWN = 6
"""Pictures of a question on the sheet of regions."""

PROTOCOL = {
    "background": "white, by the capture's mattes",
    "regions": "whole picture; weighted by the matte; face, mouth, eyes: hulls of the tracked "
    "head's landmarks times the matte, left out where a camera does not see them; they are as good "
    "as the track: see regions.png",
    "psnr": "mean over pictures of 10 log10(1 / weighted mean squared sRGB error)",
    "ssim": "11x11 Gaussian window, sigma 1.5",
    "lpips": "version 0.1 of AlexNet and VGG16; in a region each layer weighted by the mask",
    "akd": "mean distance of MediaPipe's lips, lids, brows and irises, % of the eyes' distance",
    "csim": "cosine of the identity network's embeddings, faces aligned by MediaPipe",
    "flicker": "mean |x(t-1) - 2 x(t) + x(t+1)| over pixels, minus that of the truth, in 1/255; "
    "frames in a row of every sequence, most frontal camera",
    "baseline": "frozen: the same avatar with its mean training expression, same poses",
}
"""What the numbers mean."""


def run_evaluate(config: EvaluateConfig) -> None:
    """Judge a fitted avatar; write `metrics.json`, two sheets a question and the regions' sheet."""
    with output_dir(config.out, overwrite=config.overwrite, fingerprint=as_plain(config)) as folder:
        capture = open_capture(config.capture, config.participant)
        track = load_track(config.track)
        device = resolve_device(config.device)
        avatar = load_avatar(avatar_file(config.avatar), track.head_model_checksum).to(device)
        split = split_of(
            capture, track, config.sequences, config.held_out_sequence, config.held_out_cameras
        )
        instruments = open_instruments(config, track, device)
        renderer = Renderer(avatar, config.backend, 1.0, config.refine)
        judgements: dict[str, Judgement] = {}
        data: list[FitData] = []
        for question in _questions(config, capture, track, split):
            judgement = judge(renderer, question.data, question.name, instruments)
            if question.in_a_row is not None:
                judgement.flickers = judge_flicker(renderer, question.in_a_row, instruments)
            judgements[question.name] = judgement
            data.append(question.data)
        content = {
            "benchmark": "evaluate",
            "protocol": _protocol(config, capture, split, instruments)
            | {"track_corrected": track.provenance.get("corrections")},
            "rows": [row for name, j in judgements.items() for row in j.rows(name)],
            "pictures": {n: [as_plain(s) for s in j.scores] for n, j in judgements.items()},
        }
        write_json(folder / "metrics.json", content)
        if instruments.regions is not None:
            regions_sheet(folder / "regions.png", instruments.regions, avatar, data)
        for name, judgement in judgements.items():
            comparison_sheet(folder / f"{name}.png", judgement.examples)
            comparison_sheet(folder / f"{name}_worst.png", [c for _, c in judgement.worst])
    for name, judgement in judgements.items():
        say(_line(name, judgement))
    for what, why in instruments.absent.items():
        say(f"evaluate: {what} is null: {why}")


def regions_sheet(path: Path, regions: FaceRegions, avatar: Avatar, data: list[FitData]) -> None:
    """Where the regions lie in a few true pictures of every question: look before you believe."""
    tiles, labels = [], []
    for asked in data:
        for number in range(min(SHOWN, len(asked))):
            batch = asked.batch(number * len(asked) // min(SHOWN, len(asked)))
            camera = number % len(batch.cameras)
            masks = regions.masks(batch, avatar)
            tiles.append(to_uint8(tinted(batch.image[camera], masks, camera)))
            labels.append(f"{batch.sequence} {batch.frame} {batch.cameras.ids[camera]}")
    write_image(path, contact_sheet(tiles, SHOWN, labels))


@dataclass(frozen=True)
class Question:
    """What is asked of an avatar."""

    name: str
    data: FitData
    in_a_row: FitData | None
    """Frames that follow each other, from one camera; None where there are none."""


def _questions(
    config: EvaluateConfig, capture: Capture, track: Track, split: Split
) -> Iterator[Question]:
    """Every question that this capture can be asked."""
    cameras = split.held_out_cameras or split.training_cameras
    if not split.held_out_cameras:
        say("evaluate: no held-out camera in this rig; all pictures come from training cameras.")
    frontal = cameras[capture.cameras(cameras).frontal()]

    def frames_in_a_row(names: tuple[str, ...]) -> FitData | None:
        sequences = []
        for name in names:
            rows = rows_in_a_row(track.sequence(name), config.flicker_frames)
            if len(rows) < 3:
                continue
            sequences.append(
                load_sequence(
                    capture,
                    track,
                    name,
                    [frontal],
                    stride=config.frame_stride,
                    width=config.width,
                    height=config.height,
                    cache_dir=config.cache_dir,
                    rows=rows,
                )
            )
        return FitData(tuple(sequences)) if sequences else None

    asked = [("novel_view", split.training_sequences)]
    if split.held_out_sequence is not None:
        asked.append(("self_reenactment", (split.held_out_sequence,)))
    for name, sequences in asked:
        in_a_row = frames_in_a_row(sequences)  # first: the cache then serves the others
        yield Question(name, load_takes(config, capture, track, sequences, cameras), in_a_row)


def rows_in_a_row(sequence: SequenceTrack, most: int) -> Int[Tensor, " t"]:
    """The middle `most` rows of the longest run of good frames at the track's own step."""
    good = torch.nonzero(sequence.ok).flatten()
    frames = sequence.frames[good]
    if len(good) < 2:
        return good[:0]
    gaps = frames[1:] - frames[:-1]
    breaks = torch.nonzero(gaps != gaps.min()).flatten() + 1
    edges = [0, *breaks.tolist(), len(good)]
    first, last = max(pairwise(edges), key=lambda run: run[1] - run[0])
    spare = max(0, last - first - most)
    return good[first + spare // 2 : last - (spare - spare // 2)]


def _protocol(
    config: EvaluateConfig, capture: Capture, split: Split, instruments: Instruments
) -> dict[str, Any]:
    return PROTOCOL | {
        "participant": capture.participant,
        "resolution": [config.height, config.width],
        "refiner": config.refine,
        "frame_stride": config.frame_stride,
        "flicker_frames": config.flicker_frames,
        "vgg_pictures": config.vgg_pictures,
        "identity_model": config.identity_model,
        "absent": instruments.absent,
        "split": as_plain(split),
        "cameras_were_trained_on": not split.held_out_cameras,
    }


def _line(name: str, judgement: Judgement) -> str:
    rows = {str(row["id"]): row["value"] for row in judgement.rows(name)}
    face = rows[f"{name}.avatar.psnr_face_db"]
    return (
        f"evaluate: {name}: PSNR {rows[f'{name}.avatar.psnr_matte_db']:.2f} dB on the matte, "
        + ("" if face is None else f"{face:.2f} dB on the face, ")
        + f"{rows[f'{name}.gain_over_frozen_db']:+.2f} dB over frozen, "
        f"SSIM {rows[f'{name}.avatar.ssim_matte']:.3f}, {len(judgement.scores)} pictures."
    )
