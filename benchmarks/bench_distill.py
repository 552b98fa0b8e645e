"""How well F inverts the head model's backward field, and what each part of its training gives.

    python benchmarks/bench_distill.py [--steps 0] [--ablation-steps 4000] [--head-model FILE]

The F that ships (``--steps 0``), or one trained here as ``npga distill`` trains it (no tracks), is
judged on people and expressions that it was not trained on. The ablations are trained here with
fewer steps, the whole objective too, so that they compare with one another. Writes
benchmarks/results/distill-<machine>.json and the residual map of the judged F beside it.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._results import ROOT, row, write_results
from benchmarks.distill_landmarks import landmark_rows
from npga.avatar.forward import ForwardPrior, load_prior, prior_file
from npga.core.config import as_plain, compose_config
from npga.core.device import flush_denormals, resolve_device
from npga.core.images import write_image
from npga.core.progress import bar, say
from npga.distill import people
from npga.distill.config import DistillConfig
from npga.distill.judge import Judgement, judge
from npga.distill.loop import Schedule, distill, make_optimizer, start_from_statistics
from npga.distill.run import (
    JUDGED_POINTS,
    SHEET_SEED,
    new_forward,
    on_vertices,
    sheet,
    training_sampler,
    unseen_sampler,
)
from npga.distill.samples import Sampler
from npga.distill.terms import Terms
from nphm_tracking import HeadModel, load_head_model


class WithoutOmega(ForwardPrior):
    """F that does not see the hyper coordinates."""

    def trunk(self, x: Tensor, omega: Tensor, identity: Tensor) -> Tensor:
        """As without them."""
        return super().trunk(x, torch.zeros_like(omega), identity)


class WithoutIdentity(ForwardPrior):
    """F that does not see whose head it moves."""

    def trunk(self, x: Tensor, omega: Tensor, identity: Tensor) -> Tensor:
        """As for the mean person."""
        return super().trunk(x, omega, self.identity_mean.expand_as(identity))

    def coefficients(self, z_exp: Tensor, identity: Tensor) -> Tensor:
        """As for the mean person."""
        return super().coefficients(z_exp, self.identity_mean.expand_as(identity))


@dataclass(frozen=True)
class Variant:
    """One way to train F."""

    name: str
    terms: Terms
    kind: type[ForwardPrior] = ForwardPrior


def variants(terms: Terms) -> list[Variant]:
    """The whole objective, its parts, and F with less to see."""
    return [
        Variant("both", terms),
        Variant("pairs_only", replace(terms, cycle=0.0)),
        Variant("cycle_only", replace(terms, pair=0.0)),
        Variant("without_omega", terms, WithoutOmega),
        Variant("without_identity", terms, WithoutIdentity),
    ]


def trained(
    variant: Variant, config: DistillConfig, sampler: Sampler, steps: int
) -> tuple[ForwardPrior, float]:
    """F after so many steps, and the minutes they took."""
    torch.manual_seed(config.seed)
    forward = new_forward(config, sampler, kind=variant.kind)
    start_from_statistics(forward, sampler, seed=config.seed)
    schedule = replace(Schedule(**as_plain(config.schedule)), steps=steps)
    began = time.perf_counter()
    with bar(f"distill {variant.name}", steps) as shown:

        def observe(step: int, means: dict[str, float]) -> None:
            shown.set_postfix_str(" ".join(f"{k} {v:.3f}" for k, v in means.items()))
            shown.update(step - shown.n)

        optimizer = make_optimizer(forward)
        distill(
            forward,
            sampler,
            variant.terms,
            schedule,
            optimizer,
            seed=config.seed,
            observer=observe,
        )
    return forward.eval(), (time.perf_counter() - began) / 60


def asked_for(
    steps: int, whole: Variant, config: DistillConfig, sampler: Sampler, model: HeadModel
) -> tuple[ForwardPrior, float]:
    """F trained here, and the minutes it took; or the shipped one."""
    if steps:
        return trained(whole, config, sampler, steps)
    shipped = load_prior(prior_file(None), model.checksum())
    return shipped.to(sampler.rest_x.device), 0.0


def main_rows(found: Judgement) -> list[dict]:
    """The figures of the judged F against their bars."""
    share = f"Broyden converged at {found.broyden_converged_percent:.1f} % of the points"
    return [
        row("residual_mean_mm", found.residual_mean_mm, "mm", "<= 0.20"),
        row("residual_p95_mm", found.residual_p95_mm, "mm", "<= 0.6"),
        row("lips_lids_mean_mm", found.lips_lids_mean_mm, "mm", "<= 0.40"),
        row("lips_mean_mm", found.lips_mean_mm, "mm"),
        row("lids_mean_mm", found.lids_mean_mm, "mm"),
        row("moving_mean_mm", found.moving_mean_mm, "mm", note="points that move 1 mm or more"),
        row("motion_mean_mm", found.motion_mean_mm, "mm", note="how far points move at all"),
        row("agreement_mean_mm", found.agreement_mean_mm, "mm", "<= 0.25", share),
        row("fold_over_percent", found.fold_over_percent, "%", "<= 0.05"),
        row("speedup_vs_broyden", found.speedup_vs_broyden, "x", ">= 15"),
    ]


def ablation_rows(name: str, found: Judgement) -> list[dict]:
    """The figures of an ablation; stated, without bars."""
    keys = ("residual_mean_mm", "residual_p95_mm", "lips_lids_mean_mm", "agreement_mean_mm")
    held = asdict(found)
    rows = [row(f"ablation_{name}_{key}", held[key], "mm") for key in keys]
    return [*rows, row(f"ablation_{name}_fold_over_percent", found.fold_over_percent, "%")]


def main() -> None:
    """Train, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=0, help="0 judges the F that ships")
    parser.add_argument("--ablation-steps", type=int, default=4000, help="0 keeps them")
    parser.add_argument("--head-model", default=None)
    parser.add_argument("--points", type=int, default=8000, help="a code, of Broyden's")
    args = parser.parse_args()
    flush_denormals()
    config = compose_config(
        DistillConfig,
        "distill",
        ["out=unused", "judge_people=8", "judge_codes=48", f"judge_points={args.points}"],
    )
    model = load_head_model(args.head_model).to(resolve_device("auto"))
    mesh = people.average_surface(model, config.surface_resolution)
    sampler = training_sampler(config, model, mesh, [])
    z_geo, strangers = unseen_sampler(config, model, mesh)
    whole, *_ = every = variants(Terms(**as_plain(config.terms)))
    seed = config.seed + SHEET_SEED

    def judged(forward: ForwardPrior) -> Judgement:
        return judge(
            forward, strangers, codes=config.judge_codes, points=config.judge_points, seed=seed
        )

    forward, minutes = asked_for(args.steps, whole, config, sampler, model)
    rows = main_rows(judged(forward))
    if args.steps:
        rows.append(row("minutes", minutes, "min"))
    rows += landmark_rows(forward, model, strangers, z_geo, seed)
    picture = ROOT / "benchmarks" / "results" / "distill-residuals.png"
    shown = on_vertices(model, mesh, strangers.expressions, z_geo[:1])
    write_image(picture, sheet(mesh, shown, forward, seed))
    for variant in every if args.ablation_steps else []:
        forward, _ = trained(variant, config, sampler, args.ablation_steps)
        rows += ablation_rows(variant.name, judged(forward))
    protocol = {
        "head_model": model.checksum(),
        "judged": f"trained here, {args.steps} steps" if args.steps else "the F that ships",
        "ablation_steps": args.ablation_steps,
        "people": f"{config.judge_people} random codes, not trained on",
        "expressions": f"{config.judge_codes} random draws, not trained on",
        "points": f"{JUDGED_POINTS} per person, uniform by area on the neutral surface",
        "broyden": "start at the canonical point, 30 iterations, 12.5 micrometres",
        "points_a_call": args.points,
        "threads": torch.get_num_threads(),
        "seed": config.seed,
    }
    path = write_results("distill", protocol, rows, keep=not args.ablation_steps)
    say(f"bench_distill: {path}, {picture}")


if __name__ == "__main__":
    main()
