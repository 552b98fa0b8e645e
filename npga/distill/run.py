"""`npga distill`: head model -> out/prior.safetensors, report.html, report.json, report.png."""

import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar.forward import ForwardPrior, save_prior
from npga.core.config import as_plain
from npga.core.device import seed_everything
from npga.core.images import ImageArray, write_image
from npga.core.mesh import Mesh
from npga.core.output import output_dir
from npga.core.processes import Processes, processes
from npga.core.progress import bar, say
from npga.core.store import write_json
from npga.distill import people
from npga.distill.config import DistillConfig
from npga.distill.judge import Judgement, examine, held_out_code, held_out_codes, judge
from npga.distill.loop import (
    Schedule,
    distill,
    load_state,
    make_optimizer,
    save_state,
    start_from_statistics,
)
from npga.distill.page import REPORT_FILE, Round, Stage, write_report
from npga.distill.report import residual_sheet
from npga.distill.samples import Expressions, Sampler
from npga.distill.teacher import Subjects, rest_points
from npga.distill.terms import Terms
from nphm_tracking import HeadModel, Track, load_head_model, load_track

STATE_FILE = "state.safetensors"
PRIOR_FILE = "prior.safetensors"
JUDGED_POINTS = 8000
"""Surface points per unseen person, so that lips and lids have some hundred each."""

SHEET_SEED = 7919
"""The random streams of judging and of the picture are this far from those of training."""


def run(config: DistillConfig) -> None:
    """Distil F and judge it; raises NpgaError subclasses for what cannot be used.

    Started by torchrun, its processes share every batch.
    """
    began = time.perf_counter()
    with processes(config.device) as team:
        model = load_head_model(config.head_model)
        checksum = model.checksum()
        tracks = [load_track(path) for path in config.tracks]
        for track in tracks:
            track.require_model(checksum)
        job = Job(config, model.to(team.device), checksum, tracks, team)
        if not team.leads:
            seed_everything(config.seed)
            train(job, job.sampler(), Path(team.told()))
            return
        settings = as_plain(config)
        fingerprint = {k: v for k, v in settings.items() if k not in ("out", "overwrite", "device")}
        fingerprint["head_model_checksum"] = checksum
        out = Path(config.out)
        with output_dir(
            out, overwrite=config.overwrite, fingerprint=fingerprint, resumable=True
        ) as folder:
            seed_everything(config.seed)
            team.told(str(folder))
            forward, log = train(job, job.sampler(), folder)
            save_prior(folder / PRIOR_FILE, forward, checksum)
            verdict = report(job, forward, log, folder, (time.perf_counter() - began) / 60)
            (folder / STATE_FILE).unlink(missing_ok=True)
    minutes = (time.perf_counter() - began) / 60
    say(
        f"distill: {out / PRIOR_FILE}, residual {verdict.residual_mean_mm:.2f} mm "
        f"(95 %: {verdict.residual_p95_mm:.2f}; lips and lids {verdict.lips_lids_mean_mm:.2f}) of "
        f"{verdict.motion_mean_mm:.1f} mm of motion, {verdict.speedup_vs_broyden:.0f} x as fast "
        f"as Broyden; {minutes:.1f} min. Report: {out / REPORT_FILE}"
    )


@dataclass(frozen=True)
class Job:
    """One distillation: what is distilled, for whom, and who works on it."""

    config: DistillConfig
    model: HeadModel
    checksum: str
    tracks: list[Track]
    team: Processes

    @cached_property
    def mesh(self) -> Mesh:
        """The neutral surface of the average head."""
        return people.average_surface(self.model, self.config.surface_resolution)

    def sampler(self) -> Sampler:
        """What is trained on."""
        return training_sampler(self.config, self.model, self.mesh, self.tracks)


def training_sampler(
    config: DistillConfig, model: HeadModel, mesh: Mesh, tracks: list[Track]
) -> Sampler:
    """Random people, the tracked people, those between them, and what they may express."""
    generator = torch.Generator().manual_seed(config.seed)
    none = model.geo_stats.mean.new_zeros(0, model.geo_size)
    known = torch.cat([none, *(track.z_geo.to(none)[None] for track in tracks)])
    z_geo = people.training_people(model, known, config.people, generator)
    expressions = people.known_expressions(model, tracks, config.seed)
    points, region = people.sampled_surface(
        model, mesh, config.surface_points, config.seed, expressions
    )
    subjects = people.subjects_on(model, points, region, z_geo)
    return sampler_for(model, subjects, expressions, config.margin)


def sampler_for(
    model: HeadModel, subjects: Subjects, expressions: Expressions, margin: float
) -> Sampler:
    """The sampler of these people, with their rest points."""
    neutral = expressions.neutral.to(subjects.surface)
    rest_x, rest_omega = rest_points(model, subjects, neutral)
    return Sampler(model, subjects, expressions, rest_x, rest_omega, margin)


def new_forward(
    config: DistillConfig,
    sampler: Sampler,
    checksum: str = "",
    kind: type[ForwardPrior] = ForwardPrior,
) -> ForwardPrior:
    """F before its first step, on the sampler's device."""
    teacher, network = sampler.teacher, config.network
    forward = kind(
        teacher.exp_size,
        teacher.identity_size,
        hyper_size=teacher.hyper_size,
        width=network.width,
        depth=network.depth,
        rank=network.rank,
        bands=network.bands,
        head_model_checksum=checksum,
    )
    return forward.to(sampler.rest_x.device)


def train(job: Job, sampler: Sampler, folder: Path) -> tuple[ForwardPrior, list[Round]]:
    """F after all steps, taken up from the folder's state where it has one; and the log."""
    config, team, state = job.config, job.team, folder / STATE_FILE
    forward = new_forward(config, sampler, job.checksum)
    optimizer = make_optimizer(forward)
    start, log = 0, []
    if state.exists():
        start = load_state(state, forward, optimizer)
        say(f"distill: taking up at step {start} of {config.schedule.steps}.")
    else:
        start_from_statistics(forward, sampler, seed=config.seed)
    schedule = Schedule(**as_plain(config.schedule))
    with bar("distill", schedule.steps, start) as shown:

        def observe(step: int, means: dict[str, float]) -> None:
            log.append(Round(step, means))
            if team.leads:
                save_state(state, forward, optimizer, step)
                shown.set_postfix_str(" ".join(f"{k} {v:.3f}" for k, v in means.items()))
                shown.update(step - shown.n)

        distill(
            forward,
            sampler,
            Terms(**as_plain(config.terms)),
            schedule,
            optimizer,
            seed=config.seed,
            start=start,
            observer=observe,
            team=team,
        )
    return forward.eval(), log


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
    job: Job, forward: ForwardPrior, log: list[Round], folder: Path, minutes: float
) -> Judgement:
    """Judge F on people and expressions it never saw; writes report.html, .json and .png."""
    config, model, mesh = job.config, job.model, job.mesh
    seed = config.seed + SHEET_SEED
    z_geo, sampler = unseen_sampler(config, model, mesh)
    verdict = judge(
        forward, sampler, codes=config.judge_codes, points=config.judge_points, seed=seed
    )
    whole = on_vertices(model, mesh, sampler.expressions, z_geo)
    write_image(folder / "report.png", sheet(mesh, whole, forward, seed))
    write_report(
        folder / REPORT_FILE,
        verdict,
        Stage(forward, whole, mesh, tuple(model.expression_names)),
        held_out_codes(whole, config.judge_codes, seed),
        log,
        seed,
    )
    write_json(
        folder / "report.json",
        {
            **asdict(verdict),
            "minutes": round(minutes, 2),
            "protocol": {
                "people": "random codes around the training mean, not trained on",
                "expressions": "random draws from the trusted range, not trained on",
                "points": "uniform by area on the neutral surface, omega of the rest pose",
                "broyden": "starts at the canonical point, 30 iterations, 12.5 micrometres",
                "threads": torch.get_num_threads(),
                "steps": config.schedule.steps,
                "seed": config.seed,
            },
        },
    )
    return verdict


def on_vertices(
    model: HeadModel, mesh: Mesh, expressions: Expressions, z_geo: Float[Tensor, "s g"]
) -> Sampler:
    """The same people with the mesh's vertices as their surface points."""
    region = people.regions_of(model, mesh.vertices)
    subjects = people.subjects_on(model, mesh.vertices, region, z_geo)
    return sampler_for(model, subjects, expressions, 0.0)


@torch.no_grad()
def sheet(mesh: Mesh, sampler: Sampler, forward: ForwardPrior, seed: int) -> ImageArray:
    """The residual map of one unseen person: at rest, and under five unseen expressions."""
    expressions = sampler.expressions
    drawn = expressions.draw(5, torch.Generator().manual_seed(seed), margin=0.0)
    codes = torch.cat([expressions.neutral[None], drawn]).to(sampler.rest_x)
    posed, residuals = [], []
    for z_exp in codes:
        code = held_out_code(sampler, 0, z_exp)
        asked = (code.x, code.omega, code.z_exp, code.identity)
        posed.append(forward.posed(*asked)[0].cpu())
        residuals.append(examine(forward, sampler.teacher, code).residual_mm.cpu())
    titles = ["at rest"] + [f"expression {n}" for n in range(1, len(codes))]
    return residual_sheet(mesh.faces.cpu(), posed, residuals, titles)
