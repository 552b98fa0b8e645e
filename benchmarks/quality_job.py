"""One variant of ``bench_quality``: fit, judge, write ``result.json``; run in a process of its own.

python benchmarks/quality_job.py <job.json>
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks._results import machine
from benchmarks.baselines.judging import (
    Regions,
    Shown,
    chosen_frames,
    draw,
    face_box,
    judge,
    regions_of,
)
from benchmarks.baselines.variants import VARIANTS, open_variant
from npga.avatar import AVATAR_FILE, AvatarSizes, save_avatar
from npga.avatar.store import blank_avatar
from npga.core.config import compose_config
from npga.core.device import (
    flush_denormals,
    peak_gpu_memory_gb,
    peak_memory_gb,
    resolve_device,
    synchronize,
)
from npga.core.errors import CheckpointError
from npga.core.images import to_uint8, write_image
from npga.core.lpips import Lpips, load_lpips
from npga.core.similarity import Similarity
from npga.core.store import checksum, write_json
from npga.fit.batch import FitBatch, FitData
from npga.fit.config import Corrected, FitConfig, SearchConfig
from npga.fit.correct import correct, search_terms
from npga.fit.corrections import Corrections
from npga.fit.regions import RegionMasks, face_regions
from npga.fit.run import Session, train
from npga.fit.setup import Inputs, Split, load_inputs, load_takes, load_training, split_of


@dataclass(frozen=True)
class Job:
    """What one process does."""

    variant: str
    seed: int
    settings: list[str]
    """Of ``npga fit``, those of the variant left out."""
    out: str
    judge_stride: int
    """Every so many-th tracked frame of the held-out sequence."""
    novel_stride: int
    """The same of the training sequences."""
    front: str
    """Serial of the camera that the grid shows."""
    at_once: int
    """How many jobs share the machine."""
    lpips_weights: str | None
    correct: bool
    """Whether to ask once more with codes and poses that this variant found in FREE's pictures."""


@dataclass(frozen=True)
class Judged:
    """What a fitted variant is asked, and with what it is looked at."""

    regions: Regions
    lpips: Lpips | None
    novel_view: FitData
    self_reenactment: FitData
    shown: list[Shown]
    searched: FitData | None
    """The held-out frames as the training cameras see them; None where no correction is asked."""


def main() -> None:
    """Do the job."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    flush_denormals()
    if job.at_once > 1:
        torch.set_num_threads(max(1, machine()["cores"] // job.at_once))
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    variant = VARIANTS[job.variant]
    config = compose_config(FitConfig, "fit", [*job.settings, *variant.settings])
    inputs = load_inputs(config)
    split = split_of(
        inputs.capture,
        inputs.track,
        config.sequences,
        config.held_out_sequence,
        config.held_out_cameras,
    )
    device = resolve_device(config.device)
    judged = questions(job, config, inputs, split)
    began = time.perf_counter()
    data = load_training(config, inputs.capture, inputs.track, split).ready_for(device)
    prior_checksum = checksum(inputs.prior.state_dict())
    session = open_variant(variant, config, inputs, data, device)
    opened = time.perf_counter()
    train(session, config, out, 0)
    synchronize(device)
    seconds = {"open": opened - began, "fit": time.perf_counter() - opened}
    avatar = session.avatar.eval()
    if job.variant == "full":
        participant = inputs.capture.participant
        save_avatar(
            out / AVATAR_FILE, avatar, prior_checksum=prior_checksum, participant=participant
        )
    result = {
        "variant": job.variant,
        "seed": job.seed,
        "at_once": job.at_once,
        "steps": config.steps,
        "gaussians": len(avatar),
        "seconds": seconds,
        "peak_gpu_gb": peak_gpu_memory_gb(device),
        "peak_gb": peak_memory_gb(),
        "scores": scores(judged, session, inputs),
        "shown": [asdict(shown) for shown in judged.shown],
        "lpips": judged.lpips is not None,
    }
    write_tiles(out, judged, session)
    write_json(out / "result.json", result)


def questions(job: Job, config: FitConfig, inputs: Inputs, split: Split) -> Judged:
    """Held-out pictures, regions and LPIPS; made before the fit, so that what is missing is told.

    Regions come from the tracked head and the distilled F, the same for every variant.
    """
    cameras = split.held_out_cameras or split.training_cameras

    def load(names: tuple[str, ...], stride: int, cameras: tuple[str, ...] = cameras) -> FitData:
        wanted = replace(config, frame_stride=stride)
        return load_takes(wanted, inputs.capture, inputs.track, names, cameras)

    owner = blank_avatar(1, AvatarSizes(), inputs.prior)
    owner.identity.copy_(inputs.model.compress(inputs.track.z_geo.float()))
    faces = face_regions(inputs.model, inputs.track.z_geo.float())
    try:
        lpips = load_lpips("alex", job.lpips_weights).to(resolve_device(config.device))
    except CheckpointError:
        lpips = None
    assert split.held_out_sequence is not None
    held_out = (split.held_out_sequence,)
    reenacted = load(held_out, job.judge_stride)
    searched = load(held_out, job.judge_stride, split.training_cameras) if job.correct else None
    return Judged(
        regions=regions_of(faces, owner),
        lpips=lpips,
        novel_view=load(split.training_sequences, job.novel_stride),
        self_reenactment=reenacted,
        shown=chosen_frames(reenacted, faces, owner, job.front),
        searched=searched,
    )


def scores(judged: Judged, session: Session, inputs: Inputs) -> dict[str, dict[str, float]]:
    """{question: {metric: mean}}; ``frozen`` is self-reenactment by the mean expression.

    ``corrected``: self-reenactment with the corrected track, in the tracked codes' regions.
    """
    tracked = judged.self_reenactment

    def ask(data: FitData, still: bool = False) -> dict[str, float]:
        return judge(session.renderer, data, judged.regions, judged.lpips, still)

    found = {
        "novel_view": ask(judged.novel_view),
        "self_reenactment": ask(tracked),
        "frozen": ask(tracked, still=True),
    }
    if judged.searched is not None:
        data = corrected(judged.searched, tracked, session, inputs)

        def regions(batch: FitBatch) -> RegionMasks:
            return judged.regions(tracked.batch(batch.index, device=session.device))

        found["corrected"] = judge(session.renderer, data, regions, judged.lpips, still=False)
    return found


def corrected(searched: FitData, shown: FitData, session: Session, inputs: Inputs) -> FitData:
    """Held-out pictures with the codes and poses that the avatar finds in other cameras'."""
    corrections = Corrections(searched, Corrected.both, inputs.model.exp_stats, gauge=False)
    corrections = corrections.to(session.device)
    search = SearchConfig()
    terms = search_terms(search, inputs.model, inputs.track)
    correct(session.renderer, searched, terms, corrections, search)
    batches = [searched.batch(index, [0], session.device) for index in range(len(searched))]
    with torch.no_grad():
        frames = [corrections.of(batch) for batch in batches]
    (one,) = shown.sequences
    codes = torch.stack([frame.z_exp for frame in frames]).cpu()
    poses = Similarity.stack([frame.world_from_head for frame in frames]).to("cpu")
    return replace(shown, sequences=(replace(one, z_exp=codes, world_from_head=poses),))


@torch.no_grad()
def write_tiles(out: Path, judged: Judged, session: Session) -> None:
    """``tile_<n>_{truth,drawn,frozen}.png`` around the face."""
    device = session.device
    for number, shown in enumerate(judged.shown):
        batch = judged.self_reenactment.batch(shown.index, [shown.camera], device)
        rows, columns = face_box(judged.regions(batch), 0)
        pictures = {
            "truth": batch.image,
            "drawn": draw(session.renderer, batch),
            "frozen": draw(session.renderer, batch, still=True),
        }
        for name, picture in pictures.items():
            tile = to_uint8(picture[0, rows, columns])
            write_image(out / f"tile_{number}_{name}.png", tile)


if __name__ == "__main__":
    main()
