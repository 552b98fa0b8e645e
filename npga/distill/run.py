"""`npga distill`: head model -> out/prior.safetensors, report.json, report.png."""

import time
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar.forward import ForwardPrior, save_prior
from npga.core import MM_PER_UNIT
from npga.core.config import as_plain
from npga.core.device import resolve_device, seed_everything
from npga.core.images import ImageArray, write_image
from npga.core.mesh import Mesh
from npga.core.output import output_dir
from npga.core.progress import bar, say
from npga.core.store import write_json
from npga.distill import people
from npga.distill.config import DistillConfig
from npga.distill.judge import Judgement, judge
from npga.distill.loop import (
    Schedule,
    distill,
    load_state,
    make_optimizer,
    save_state,
    start_from_statistics,
)
from npga.distill.report import residual_sheet
from npga.distill.samples import Expressions, Sampler
from npga.distill.teacher import Subjects, rest_points
from npga.distill.terms import Terms, cycle_residual
from nphm_tracking import HeadModel, Track, load_head_model, load_track

STATE_FILE = "state.safetensors"
PRIOR_FILE = "prior.safetensors"
JUDGED_POINTS = 8000
"""Surface points per unseen person, so that lips and lids have some hundred each."""

SHEET_SEED = 7919
"""The random streams of judging and of the picture are this far from those of training."""


def run(config: DistillConfig) -> None:
    """Distil F and judge it; raises NpgaError subclasses for what cannot be used."""
    began = time.perf_counter()
    device = resolve_device(config.device)
    model = load_head_model(config.head_model)
    checksum = model.checksum()
    tracks = [load_track(path) for path in config.tracks]
    for track in tracks:
        track.require_model(checksum)
    fingerprint = {
        **{k: v for k, v in as_plain(config).items() if k not in ("out", "overwrite", "device")},
        "head_model_checksum": checksum,
    }
    out = Path(config.out)
    with output_dir(
        out, overwrite=config.overwrite, fingerprint=fingerprint, resumable=True
    ) as folder:
        seed_everything(config.seed)
        model = model.to(device)
        mesh = people.average_surface(model, config.surface_resolution)
        sampler = training_sampler(config, model, mesh, tracks)
        forward = train(config, sampler, folder / STATE_FILE, checksum)
        save_prior(folder / PRIOR_FILE, forward, checksum)
        minutes = (time.perf_counter() - began) / 60
        verdict = report(config, model, mesh, forward, folder, minutes)
        (folder / STATE_FILE).unlink(missing_ok=True)
    say(
        f"distill: {out / PRIOR_FILE}, residual {verdict.residual_mean_mm:.2f} mm "
        f"(95 %: {verdict.residual_p95_mm:.2f}; lips and lids {verdict.lips_lids_mean_mm:.2f}) of "
        f"{verdict.motion_mean_mm:.1f} mm of motion, {verdict.speedup_vs_broyden:.0f} x as fast "
        f"as Broyden; {minutes:.1f} min. Report: {out / 'report.png'}"
    )


def training_sampler(
    config: DistillConfig, model: HeadModel, mesh: Mesh, tracks: list[Track]
) -> Sampler:
    """Random people, the tracked people, and what they may express."""
    generator = torch.Generator().manual_seed(config.seed)
    z_geo = people.random_people(model, config.people, generator)
    known = [track.z_geo.to(z_geo)[None] for track in tracks]
    expressions = people.known_expressions(model, tracks, config.seed)
    points, region = people.sampled_surface(
        model, mesh, config.surface_points, config.seed, expressions
    )
    subjects = people.subjects_on(model, points, region, torch.cat([z_geo, *known]))
    return sampler_for(model, subjects, expressions, config.margin)


def sampler_for(
    model: HeadModel, subjects: Subjects, expressions: Expressions, margin: float
) -> Sampler:
    """The sampler of these people, with their rest points."""
    neutral = expressions.neutral.to(subjects.surface)
    rest_x, rest_omega = rest_points(model, subjects, neutral)
    return Sampler(model, subjects, expressions, rest_x, rest_omega, margin)


def train(config: DistillConfig, sampler: Sampler, state: Path, checksum: str) -> ForwardPrior:
    """F after all steps, taken up from `state` where that exists."""
    teacher, network = sampler.teacher, config.network
    forward = ForwardPrior(
        teacher.exp_size,
        teacher.identity_size,
        hyper_size=teacher.hyper_size,
        width=network.width,
        depth=network.depth,
        rank=network.rank,
        bands=network.bands,
        head_model_checksum=checksum,
    ).to(sampler.rest_x.device)
    optimizer = make_optimizer(forward)
    start = 0
    if state.exists():
        start = load_state(state, forward, optimizer)
        say(f"distill: taking up at step {start} of {config.schedule.steps}.")
    else:
        start_from_statistics(forward, sampler, seed=config.seed)
    schedule = Schedule(**as_plain(config.schedule))
    terms = Terms(**as_plain(config.terms))
    with bar("distill", schedule.steps, start) as shown:

        def observe(step: int, means: dict[str, float]) -> None:
            save_state(state, forward, optimizer, step)
            shown.set_postfix_str(" ".join(f"{k} {v:.3f}" for k, v in means.items()))
            shown.update(step - shown.n)

        distill(
            forward,
            sampler,
            terms,
            schedule,
            optimizer,
            seed=config.seed,
            start=start,
            observer=observe,
        )
    return forward.eval()


def unseen_sampler(
    config: DistillConfig, model: HeadModel, mesh: Mesh
) -> tuple[Float[Tensor, "s g"], Sampler]:
    """People (their geometry codes) and expressions that training never draws."""
    seed = config.seed + SHEET_SEED
    z_geo = people.random_people(model, config.judge_people, torch.Generator().manual_seed(seed))
    points, region = people.sampled_surface(model, mesh, JUDGED_POINTS, seed)
    unseen = people.subjects_on(model, points, region, z_geo)
    expressions = people.known_expressions(model, [], seed)
    return z_geo, sampler_for(model, unseen, expressions, config.margin)


def report(
    config: DistillConfig,
    model: HeadModel,
    mesh: Mesh,
    forward: ForwardPrior,
    folder: Path,
    minutes: float,
) -> Judgement:
    """Judge F on people and expressions it never saw; writes report.json and report.png."""
    seed = config.seed + SHEET_SEED
    z_geo, sampler = unseen_sampler(config, model, mesh)
    expressions = sampler.expressions
    verdict = judge(
        forward, sampler, codes=config.judge_codes, points=config.judge_points, seed=seed
    )
    write_image(folder / "report.png", sheet(model, mesh, expressions, forward, z_geo[:1], seed))
    write_json(
        folder / "report.json",
        {
            **asdict(verdict),
            "minutes": round(minutes, 2),
            "protocol": {
                "people": "random codes around the training mean, not trained on",
                "expressions": "random draws from the trusted range, not trained on",
                "points": "uniform by area on the neutral surface, omega of the rest pose",
                "broyden": "start at the canonical point, 30 iterations, 12.5 micrometres",
                "threads": torch.get_num_threads(),
                "steps": config.schedule.steps,
                "seed": config.seed,
            },
        },
    )
    return verdict


@torch.no_grad()
def sheet(
    model: HeadModel,
    mesh: Mesh,
    expressions: Expressions,
    forward: ForwardPrior,
    z_geo: torch.Tensor,
    seed: int,
) -> ImageArray:
    """The residual map of one unseen person: at rest, and under five unseen expressions."""
    whole = people.subjects_on(
        model, mesh.vertices, torch.zeros(len(mesh.vertices), dtype=torch.int64), z_geo
    )
    sampler = sampler_for(model, whole, expressions, 0.0)
    drawn = expressions.draw(5, torch.Generator().manual_seed(seed), margin=0.0)
    codes = torch.cat([expressions.neutral[None], drawn]).to(sampler.rest_x)
    posed, residuals = [], []
    for z_exp in codes:
        asked = (sampler.rest_x, sampler.rest_omega, z_exp[None], whole.identity)
        posed.append((sampler.rest_x + forward(*asked))[0].cpu())
        residual = cycle_residual(forward, model, *asked)[0]
        residuals.append(MM_PER_UNIT * residual.norm(dim=-1).cpu())
    titles = ["at rest"] + [f"expression {n}" for n in range(1, len(codes))]
    return residual_sheet(mesh.faces.cpu(), posed, residuals, titles)
