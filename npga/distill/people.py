"""Who F is distilled for: random people of a head model, and the tracked ones.

One surface is extracted for the average head; everyone else's points are that head's points pulled
onto their own neutral surface along the gradient of the signed distance, which is far cheaper than
a surface extraction per person and keeps regions and triangles.

z geometry code [g];  x canonical point;  sdf signed distance at [x, omega = 0], head units
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.capture.synthetic.people import EXPRESSIONS
from npga.core.mesh import Mesh
from npga.distill.samples import Expressions, carried
from npga.distill.teacher import Region, Subjects
from nphm_tracking import HeadModel, Track
from nphm_tracking.prior.expressions import sample_expressions

FINE_SHARE = 0.2
"""Share of the training points on the lips, and on the lids; ours."""

MOBILE_SHARE = 0.7
"""Share of the training points that go where expressions move the surface; ours.

Without it most points lie where nothing moves, and F may settle on moving nothing at all.
"""

MOBILITY_CODES = 48

NEAR = {Region.lips: 0.024, Region.lids: 0.016}
"""Points within 6 mm of labelled lips and 4 mm of labelled lids count as such."""

SPREAD = 1.0
"""Random people: standard deviations of the training population's codes."""

MARGIN_SPREAD = 1.4
"""The same for every fourth person of training, who lies beyond the population's range."""

POPULATION = 6000
"""Expressions drawn from the open prior's population."""

UNBOUNDED_STD = 2.5
"""Where a head model knows no bounds of its expression codes: mean +- this many deviations."""


def random_people(model: HeadModel, count: int, generator: torch.Generator) -> Float[Tensor, "s g"]:
    """Geometry codes around the mean of the training population, inside its range."""
    stats = model.geo_stats
    noise = torch.randn(count, model.geo_size, generator=generator).to(stats.mean)
    z_geo = stats.mean + SPREAD * stats.std * noise
    return torch.minimum(torch.maximum(z_geo, stats.lower), stats.upper)


def training_people(
    model: HeadModel, known: Float[Tensor, "k g"], count: int, generator: torch.Generator
) -> Float[Tensor, "s g"]:
    """Whom F is trained on: `known` people, random ones, ones between and ones beyond; ours.

    Of every four random people one lies between two others (known ones included) and one beyond the
    population's range.
    """
    people = random_people(model, count, generator)
    everyone = torch.cat([known.to(people), people])
    mean = model.geo_stats.mean
    for row in range(count):
        if row % 4 == 2:
            pair = torch.randint(0, len(everyone), (2,), generator=generator)
            share = torch.rand((), generator=generator)
            people[row] = torch.lerp(everyone[pair[0]], everyone[pair[1]], share.to(people))
        elif row % 4 == 3:
            people[row] = mean + MARGIN_SPREAD * (people[row] - mean)
    return torch.cat([people, known.to(people)])


def known_expressions(model: HeadModel, tracks: list[Track], seed: int) -> Expressions:
    """The head model's expression range, what its population shows, and the tracked codes.

    The open prior's population is drawn from the generator of its training expressions; a head
    model without named expressions has only its statistics.
    """
    stats, neutral = model.exp_stats, model.neutral_codes().z_exp
    reach = UNBOUNDED_STD * stats.std
    lower = torch.where(stats.lower.isfinite(), stats.lower, stats.mean - reach)
    upper = torch.where(stats.upper.isfinite(), stats.upper, stats.mean + reach)
    shown = [torch.zeros(0, model.exp_size)]
    if model.expression_names == EXPRESSIONS:
        drawn = sample_expressions(np.random.default_rng(seed), POPULATION)
        shown.append(torch.from_numpy(drawn).float())
    codes = [sequence.good().z_exp for track in tracks for sequence in track.sequences.values()]
    if codes:
        tracked = torch.cat(codes).cpu()
        often = max(1, len(shown[-1]) // (2 * len(tracked)))
        shown.append(tracked.repeat(often, 1))
    parts = (stats.mean, stats.std, lower, upper, neutral, torch.cat(shown))
    return Expressions(*(value.detach().cpu().float() for value in parts))


def average_surface(model: HeadModel, resolution: int) -> Mesh:
    """The neutral surface of the average head."""
    return model.mesh(model.neutral_codes(), resolution, canonical=True)


def regions_of(model: HeadModel, points: Float[Tensor, "v 3"]) -> Int[Tensor, "v"]:
    """`Region` of points on the average head, by distance to the labelled reference points.

    All are `Region.rest` where the head model has no reference points (published checkpoints).
    """
    region = torch.full((len(points),), int(Region.rest), device=points.device)
    reference = model.reference
    for name, radius in NEAR.items():
        if name.name not in reference.names:
            continue
        labelled = reference.points[reference.region == reference.names.index(name.name)]
        for part in torch.arange(len(points), device=points.device).split(4096):
            distance = torch.cdist(points[part], labelled).amin(1)
            region[part[distance < radius]] = int(name)
    return region


def pull_to_surface(
    model: HeadModel, points: Float[Tensor, "v 3"], z_geo: Float[Tensor, "g"], steps: int = 3
) -> Float[Tensor, "v 3"]:
    """Points moved onto the neutral surface of another person, at most 10 mm per step."""
    x = points
    omega = points.new_zeros(len(points), model.hyper_size)
    for _ in range(steps):
        with torch.enable_grad():
            at = x.detach().requires_grad_(True)
            distance = model.sdf(torch.cat([at, omega], -1), z_geo)
            (gradient,) = torch.autograd.grad(distance.sum(), at)
        step = distance.detach()[:, None] * gradient / gradient.square().sum(-1, True).clamp(0.25)
        x = x - step * (0.04 / step.norm(dim=-1, keepdim=True).clamp(min=0.04))
    return x.detach()


@torch.no_grad()
def mobility(
    model: HeadModel, points: Float[Tensor, "v 3"], expressions: Expressions, seed: int
) -> Float[Tensor, "v"]:
    """How far expressions carry points of the average head, roughly, mean over random codes."""
    codes = expressions.draw(MOBILITY_CODES, torch.Generator().manual_seed(seed), margin=0.0)
    identity = model.compress(model.neutral_codes().z_geo[None])
    moved = points.new_zeros(len(points))
    for z_exp in codes.to(points):
        posed = carried(model, None, points[None], points[None, :, :0], z_exp[None], identity)
        moved += (posed[0] - points).norm(dim=-1) / MOBILITY_CODES
    return moved


def subjects_on(
    model: HeadModel,
    points: Float[Tensor, "v 3"],
    region: Int[Tensor, "v"],
    z_geo: Float[Tensor, "s g"],
) -> Subjects:
    """People with these points of the average head on their own surfaces."""
    with torch.no_grad():
        identity = model.compress(z_geo)
    surface = torch.stack([pull_to_surface(model, points, one) for one in z_geo])
    return Subjects(identity, surface, region.expand(len(z_geo), -1).clone())


def sampled_surface(
    model: HeadModel,
    mesh: Mesh,
    count: int,
    seed: int,
    expressions: Expressions | None = None,
) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "v"]]:
    """Points on the average head with their regions.

    Uniform by area; given the expressions to come, MOBILE_SHARE of them where those move the
    surface, and at least FINE_SHARE on the lips and as many on the lids.
    """
    region = regions_of(model, mesh.vertices[mesh.faces].mean(1))
    weights = torch.ones(len(region)).to(mesh.vertices)
    if expressions is not None:
        areas, _ = mesh.face_areas_normals()
        mobile = mobility(model, mesh.vertices, expressions, seed)[mesh.faces].mean(1)
        mobile = mobile * areas.sum() / (mobile * areas).sum().clamp(min=1e-9)
        weights = MOBILE_SHARE * mobile + (1 - MOBILE_SHARE)
        for name in NEAR:
            here = region == int(name)
            area = float(areas[here].sum() / areas.sum())
            weights[here] = weights[here].clamp(min=FINE_SHARE / max(area, FINE_SHARE / 50))
    points = mesh.sample(count, seed, face_weights=weights).points
    return points, regions_of(model, points)
