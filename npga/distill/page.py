"""The report of a distillation: one page that shows where F is wrong, and by how much.

Letters: `v` vertices of the average head, `e` expression size.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar.forward import ForwardPrior
from npga.core.charts import CHART_STYLE, Line, line_chart
from npga.core.images import ImageArray, contact_sheet
from npga.core.mesh import Mesh
from npga.core.page import Element, element, facts, figure, page, picture, section, write_page
from npga.distill.judge import Found, HeldOutCode, Judgement, examine, held_out_code
from npga.distill.report import SCALE_MM, residual_views
from npga.distill.samples import Sampler
from npga.distill.teacher import Region

REPORT_FILE = "report.html"
WORST = 6
NAMED = 3
"""A code is told by so many of its largest controls."""

GRID: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("jaw open", ("jawOpen",)),
    ("jaw left", ("jawLeft",)),
    ("smile", ("mouthSmileLeft", "mouthSmileRight")),
    ("pucker", ("mouthPucker",)),
    ("funnel", ("mouthFunnel",)),
    ("eyes closed", ("eyeBlinkLeft", "eyeBlinkRight")),
    ("brows up", ("browInnerUp", "browOuterUpLeft", "browOuterUpRight")),
    ("frown", ("browDownLeft", "browDownRight")),
    ("cheeks puffed", ("cheekPuff",)),
    ("sneer", ("noseSneerLeft", "noseSneerRight")),
)
"""Expressions of the grid where the head model names its controls; each at its upper bound."""


@dataclass(frozen=True)
class Round:
    """The means of the terms over one round of training."""

    step: int
    terms: dict[str, float]


@dataclass(frozen=True)
class Stage:
    """What the page looks at: unseen people, on one mesh, under unseen expressions."""

    forward: ForwardPrior
    sampler: Sampler
    """Its surface points are the vertices of `mesh`, carried to each person."""
    mesh: Mesh
    names: tuple[str, ...]
    """Of the expression controls; empty where the head model has none."""


def grid_codes(stage: Stage, count: int, seed: int) -> list[tuple[str, Float[Tensor, " e"]]]:
    """Titles and codes: neutral, then named expressions, or random ones where none are named."""
    expressions = stage.sampler.expressions
    rows = [("neutral", expressions.neutral.clone())]
    if all(name in stage.names for _, controls in GRID for name in controls):
        for title, controls in GRID:
            code = expressions.neutral.clone()
            for name in controls:
                code[stage.names.index(name)] = expressions.upper[stage.names.index(name)]
            rows.append((title, code))
        return rows[:count]
    drawn = expressions.draw(count - 1, torch.Generator().manual_seed(seed), margin=0.0)
    return rows + [(f"random {number}", code) for number, code in enumerate(drawn, start=1)]


def told(code: Float[Tensor, " e"], stage: Stage) -> str:
    """The largest controls of a code."""
    away = (code.cpu() - stage.sampler.expressions.neutral).abs()
    largest = away.argsort(descending=True)[:NAMED].tolist()
    name = {i: stage.names[i] if stage.names else f"z[{i}]" for i in largest}
    return ", ".join(f"{name[i]} {float(code[i]):.2f}" for i in largest if away[i] > 0.02)


def write_report(
    path: Path,
    verdict: Judgement,
    stage: Stage,
    codes: list[HeldOutCode],
    log: list[Round],
    seed: int,
) -> None:
    """The whole page; `codes` are those whose worst are shown."""
    found = [examine(stage.forward, stage.sampler.teacher, code) for code in codes]
    body = [
        *_header(verdict),
        _regions(codes, found),
        _grid(stage, seed),
        _worst(stage, codes, found),
        _folds(stage, codes, found),
        *([_training(log)] if log else []),
    ]
    write_page(path, page("Distillation", *body, style=CHART_STYLE + STYLE))


STYLE = """
.grid { align-items: start; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; }
"""


def _header(verdict: Judgement) -> list[Element]:
    rows = [
        ("residual, mean", f"{verdict.residual_mean_mm:.2f} mm"),
        ("residual, 95 %", f"{verdict.residual_p95_mm:.2f} mm"),
        ("lips and lids, mean", f"{verdict.lips_lids_mean_mm:.2f} mm"),
        ("points move, mean", f"{verdict.motion_mean_mm:.2f} mm"),
        ("against Broyden", f"{verdict.agreement_mean_mm:.2f} mm"),
        ("Broyden converged", f"{verdict.broyden_converged_percent:.1f} %"),
        ("fold-overs", f"{verdict.fold_over_percent:.3f} %"),
        ("as fast as Broyden", f"{verdict.speedup_vs_broyden:.0f} x"),
    ]
    about = (
        f"F on {verdict.people} people under {verdict.codes} expressions that it was not trained "
        "on. The residual is |B(x + F(x)) - x|: how far the frozen backward field says that a "
        "point has missed its place."
    )
    return [element("h1", "Distillation of F"), element("p", about), facts(rows)]


def _regions(codes: list[HeldOutCode], found: list[Found]) -> Element:
    region = torch.cat([code.region for code in codes])
    residual = torch.cat([one.residual_mm for one in found])
    motion = torch.cat([one.motion_mm for one in found])
    head = ("region", "points", "moves, mm", "mean, mm", "median", "95 %", "worst")
    rows = [element("tr", *(element("th", text) for text in head))]
    for kind in Region:
        here = region == int(kind)
        if not bool(here.any()):
            continue
        values = residual[here]
        cells = [kind.name, str(int(here.sum())), f"{float(motion[here].mean()):.2f}"]
        cells += [f"{float(values.mean()):.2f}", f"{float(values.median()):.2f}"]
        cells += [f"{float(_quantile(values, 0.95)):.2f}", f"{float(values.max()):.2f}"]
        rows.append(element("tr", *(element("td", text) for text in cells)))
    about = "The residual on the neutral surface's vertices, by region."
    return section("By region", about, element("table", *rows))


def _quantile(values: Tensor, share: float) -> Tensor:
    """torch.quantile refuses more than 16 million values."""
    return values.sort().values[int(share * (len(values) - 1))]


def _views(stage: Stage, code: HeldOutCode, found: Found) -> ImageArray:
    asked = (code.x, code.omega, code.z_exp, code.identity)
    with torch.no_grad():
        posed = stage.forward.posed(*asked)[0].cpu()
    views = residual_views(Mesh(posed, stage.mesh.faces.cpu()), found.residual_mm.cpu())
    return contact_sheet(views, len(views))


def _code_figure(stage: Stage, code: HeldOutCode, found: Found, title: str) -> Element:
    mean, motion = float(found.residual_mm.mean()), float(found.motion_mm.mean())
    worst = float(found.residual_mm.max())
    text = f": mean {mean:.2f} mm of {motion:.2f} mm moved, worst {worst:.1f} mm"
    return figure(picture(_views(stage, code, found), title), element("b", title), text)


def _grid(stage: Stage, seed: int) -> Element:
    figures = []
    for number, (title, z_exp) in enumerate(grid_codes(stage, len(GRID) + 1, seed)):
        person = number % len(stage.sampler.subjects)
        code = held_out_code(stage.sampler, person, z_exp.to(stage.sampler.rest_x))
        found = examine(stage.forward, stage.sampler.teacher, code)
        figures.append(_code_figure(stage, code, found, f"{title}, person {person + 1}"))
    about = (
        f"The posed surface, coloured by its residual: grey 0, purple {SCALE_MM:.0f} mm or more."
    )
    return section("Expressions", about, element("div", *figures, class_="grid"))


def _worst(stage: Stage, codes: list[HeldOutCode], found: list[Found]) -> Element:
    means = torch.stack([one.residual_mm.mean() for one in found])
    figures = []
    for i in means.argsort(descending=True)[:WORST].tolist():
        title = f"person {codes[i].person + 1}, {told(codes[i].z_exp[0], stage)}"
        figures.append(_code_figure(stage, codes[i], found[i], title))
    about = f"The codes with the largest mean residual of {len(codes)} unseen ones."
    return section("Worst cases", about, element("div", *figures, class_="grid"))


def _folds(stage: Stage, codes: list[HeldOutCode], found: list[Found]) -> Element:
    counts = [int(one.folds.sum()) for one in found]
    about = "Where det(I + dF/dx) is 0 or less, F turns space inside out."
    if sum(counts) == 0:
        return section("Fold-overs", f"{about} There are none on the surfaces of these codes.")
    rows = [element("tr", *(element("th", t) for t in ("person", "expression", "points")))]
    for index in sorted(range(len(codes)), key=lambda i: -counts[i])[:WORST]:
        if counts[index]:
            cells = (str(codes[index].person + 1), told(codes[index].z_exp[0], stage))
            row = [element("td", text) for text in (*cells, str(counts[index]))]
            rows.append(element("tr", *row))
    return section("Fold-overs", about, element("table", *rows))


def _training(log: list[Round]) -> Element:
    charts = []
    for name in log[0].terms:
        values = [one.terms[name] for one in log]
        highest = max(*values, 1e-3)
        line = Line([one.step for one in log], values, [False] * len(log), highest, "", "step")
        chart = line_chart(line, highest, f"term {name}")
        charts.append(figure(chart, element("b", name), f": {values[-1]:.3f} at the end"))
    about = "The weighted terms, means over rounds; below stand the steps."
    return section("Training", about, element("div", *charts, class_="grid"))
