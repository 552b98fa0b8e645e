"""What evaluating only the nearest members saves: row ``query_speedup`` of bench_tracking.

Both sides answer the same queries of a head model of the published size (random weights) with the
same values: once the model's own evaluation, once every member on every query, member by member as
a list of MLPs with its codes beside each row, of which the nearest then count. A second row has all
members run through the model's own batched networks instead.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks._results import row
from nphm_tracking.model.canonical import Neighbourhood
from nphm_tracking.model.ensemble import MemberCodes, RowPlan
from nphm_tracking.model.head_model import Codes, HeadModel
from nphm_tracking.model.sizes import HeadModelSizes

QUERIES, REPEATS = 4096, 5


@dataclass(frozen=True)
class Question:
    """Canonical points of one head."""

    canonical: Float[Tensor, "1 n c"]
    codes: Codes


def query_rows() -> list[dict]:
    """The two ratios; every side's values are compared first."""
    model, asked = _published_size(), _question()
    with torch.no_grad():
        ways: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
            "nearest": lambda: _nearest(model, asked),
            "listed": lambda: _all_listed(model, asked),
            "batched": lambda: _all_batched(model, asked),
        }
        sdf, color = ways["nearest"]()
        for name in ("listed", "batched"):
            other_sdf, other_color = ways[name]()
            torch.testing.assert_close(sdf, other_sdf, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(color, other_color, rtol=1e-4, atol=1e-5)
        seconds = {name: _seconds(way) for name, way in ways.items()}
    count = model.sizes.member_count
    note = (
        f"{QUERIES} queries, SDF and colour, float32, {torch.get_num_threads()} threads: "
        f"{1000 * seconds['nearest']:.0f} ms against {{:.0f}} ms for all {count}"
    )
    listed, batched = seconds["listed"], seconds["batched"]
    return [
        row(
            "query_speedup",
            listed / seconds["nearest"],
            "x",
            ">= 5",
            note.format(1000 * listed) + ", one MLP after the other",
        ),
        row(
            "query_speedup_same_code",
            batched / seconds["nearest"],
            "x",
            note=note.format(1000 * batched) + ", through our batched networks",
        ),
    ]


def _published_size() -> HeadModel:
    torch.manual_seed(0)
    model = HeadModel(HeadModelSizes(), torch.randn(65, 3) * 0.3)
    return model.eval().requires_grad_(False)


def _question() -> Question:
    sizes = HeadModelSizes()
    torch.manual_seed(1)
    canonical = torch.randn(1, QUERIES, 3 + sizes.hyper) * 0.3
    codes = Codes(
        torch.randn(1, sizes.geo_size) * 0.3,
        torch.randn(1, sizes.app_size) * 0.3,
        torch.randn(1, sizes.exp),
    )
    return Question(canonical, codes)


def _seconds(way: Callable[[], object]) -> float:
    way()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        way()
        taken.append(time.perf_counter() - start)
    return median(taken)


def _nearest(model: HeadModel, asked: Question) -> tuple[Tensor, Tensor]:
    sdf, color = model.canonical_field(asked.canonical, asked.codes.z_geo, asked.codes.z_app)
    return sdf, color


def _local(model: HeadModel, asked: Question) -> tuple[Neighbourhood, Float[Tensor, "m n c"]]:
    """Blending of the nearest members, and all queries relative to every member."""
    field, s = model.canonical_field, model.sizes
    anchors = field.anchors(asked.codes.z_geo)
    seen = field.neighbourhood(asked.canonical, anchors)
    origin = torch.cat([anchors[0], anchors.new_zeros(1, 3)])
    origin = torch.cat([origin, origin.new_zeros(s.member_count, s.hyper)], dim=1)
    return seen, (asked.canonical[0] - origin[:, None]) * field.mirror[:, None]


def _blend(
    seen: Neighbourhood, value: Float[Tensor, "m n"], color: Float[Tensor, "m n 3"]
) -> tuple[Tensor, Tensor]:
    rows = seen.member[0].T
    weight = seen.weight[0].T
    sdf = (value.gather(0, rows) * weight).sum(0)
    chosen = color.gather(0, rows[..., None].expand(-1, -1, 3))
    return sdf[None], (chosen * weight[..., None]).sum(0)[None]


def _all_listed(model: HeadModel, asked: Question) -> tuple[Tensor, Tensor]:
    field = model.canonical_field
    seen, local = _local(model, asked)
    geo = MemberCodes(asked.codes.z_geo, model.sizes.geo_global, field.member_set).of_members()[0]
    app = MemberCodes(asked.codes.z_app, model.sizes.app_global, field.member_set).of_members()[0]
    values, colors = [], []
    for member, held in enumerate(field.member_set.tolist()):
        given = torch.cat([geo[member].expand(QUERIES, -1), local[member]], dim=1)
        value, hidden = _mlp(field.sdf_networks, held, given, field.softplus)
        told = field.widen(field.relu(field.narrow(hidden)))
        given = torch.cat([app[member].expand(QUERIES, -1), told], dim=1)
        color, _ = _mlp(field.color_networks, held, given, field.relu)
        values.append(value[:, 0])
        colors.append(color)
    return _blend(seen, torch.stack(values), torch.stack(colors))


def _mlp(networks, held: int, given: Tensor, activation) -> tuple[Tensor, Tensor]:
    hidden = given
    last = len(networks.weights) - 1
    for layer in range(last):
        before = torch.addmm(networks.biases[layer][held], hidden, networks.weights[layer][held].T)
        hidden = activation(before)
    out = torch.addmm(networks.biases[last][held], hidden, networks.weights[last][held].T)
    return out, before  # pyright: ignore[reportPossiblyUnbound]


def _all_batched(model: HeadModel, asked: Question) -> tuple[Tensor, Tensor]:
    field, s = model.canonical_field, model.sizes
    seen, local = _local(model, asked)
    row = torch.arange(s.member_count).repeat_interleave(QUERIES)
    plan = RowPlan.of(field.member_set[row], s.set_count)
    codes = MemberCodes(asked.codes.z_geo, s.geo_global, field.member_set)
    given = local.flatten(0, 1)
    value, heard = field.sdf_networks(given, codes, row, plan, field.softplus, field.narrow)
    told = field.widen(field.relu(heard))
    codes = MemberCodes(asked.codes.z_app, s.app_global, field.member_set)
    color, _ = field.color_networks(told, codes, row, plan, field.relu)
    shape = (s.member_count, QUERIES)
    return _blend(seen, value.reshape(shape), color.reshape(*shape, 3))
