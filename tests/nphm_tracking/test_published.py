"""Published checkpoints in all their flavours: what lies in them beside weights, and what lacks."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from npga.core.errors import CheckpointError
from nphm_tracking.model.head_model import Codes, HeadModel
from nphm_tracking.model.load import load_head_model
from nphm_tracking.model.published import read_published
from nphm_tracking.model.reference import reference_query

SHAPES = Path(__file__).parents[3] / "shared" / "fixtures" / "mononphm" / "state_dict_shapes.json"
ANCHORS, PAIRS, LOCAL, SHARED, EXPRESSION, IDENTITY, HYPER = 39, 16, 32, 64, 200, 32, 2
WIDTH, POSITIONS, BACKWARD = 20, 128, 48
"""Narrower than the released model, whose other sizes are as above."""


def linear(table: dict[str, Tensor], name: str, out: int, given: int) -> None:
    table[f"{name}.weight"] = torch.randn(out, given) / given**0.5
    table[f"{name}.bias"] = torch.randn(out) * 0.1


def backward_flavour() -> dict[str, object]:
    """NPHM's backward model as DPHM publishes it: 39 anchors, geometry only, 6 x 512 backward."""
    torch.manual_seed(0)
    identity: dict[str, Tensor] = OrderedDict()
    for member in range(ANCHORS + 1 - PAIRS):
        name = f"deepSDFensemble.layers.{member}.layers"
        for layer, (out, given) in enumerate(
            [(WIDTH, SHARED + LOCAL + 3 + HYPER), *[(WIDTH, WIDTH)] * 3, (1, WIDTH)]
        ):
            linear(identity, f"{name}.{2 * layer}", out, given)
    for layer, (out, given) in enumerate(
        [(POSITIONS, SHARED), (POSITIONS, POSITIONS), (3 * ANCHORS, POSITIONS)]
    ):
        linear(identity, f"mlp_pos.{2 * layer}", out, given)
    expression: dict[str, Tensor] = OrderedDict()
    seen = 3 + IDENTITY + EXPRESSION
    linear(expression, "compressor.0", IDENTITY, SHARED + (ANCHORS + 1) * LOCAL + 3 * ANCHORS)
    for layer in range(7):
        given = seen if layer == 0 else BACKWARD + (seen if layer == 3 else 0)
        linear(expression, f"defDeepSDF.lin{layer}", 3 + HYPER if layer == 6 else BACKWARD, given)
    return {"epoch": 6000, "id_decoder": identity, "ex_decoder": expression}


def write(folder: Path, held: dict[str, object]) -> Path:
    (folder / "checkpoints").mkdir()
    torch.save(held, folder / "checkpoints" / "checkpoint_epoch_6000.tar")
    np.save(folder / "anchors_39.npy", np.random.default_rng(0).normal(0, 0.3, (1, ANCHORS, 3)))
    return folder


def test_the_39_anchor_backward_flavour_loads_and_has_no_color(tmp_path: Path) -> None:
    model = load_head_model(write(tmp_path, backward_flavour())).double()
    sizes = model.sizes
    assert (sizes.anchor_count, sizes.pair_count, sizes.neighbours) == (39, 16, 8)
    assert (sizes.blend_std, sizes.geo_size, sizes.exp, sizes.identity) == (4.0, 1344, 200, 32)
    assert not sizes.has_color and sizes.app_size == 0
    codes = Codes(
        torch.randn(1344, dtype=torch.float64) * 0.3,
        torch.zeros(0, dtype=torch.float64),
        torch.randn(200, dtype=torch.float64) * 0.3,
    )
    points = torch.randn(20, 3, dtype=torch.float64) * 0.4
    fast, slow = model.query(points, codes), reference_query(model, points, codes)
    assert fast.color is None and slow.color is None
    for name in ("offsets", "hyper", "anchors", "sdf"):
        torch.testing.assert_close(getattr(fast, name), getattr(slow, name), rtol=1e-9, atol=1e-11)
    with pytest.raises(CheckpointError, match="no colour"):
        model.color(fast.canonical, codes.z_geo, codes.z_app)


def test_the_folders_configuration_decides_what_no_tensor_shows(tmp_path: Path) -> None:
    folder = write(tmp_path, backward_flavour())
    (folder / "configs.yaml").write_text("decoder: {id: {nneigh: 10, blend_std: 3.5}}")
    sizes = read_published(folder).sizes
    assert (sizes.neighbours, sizes.blend_std) == (10, 3.5)


def test_everything_beside_the_weights_may_be_there_or_not(tmp_path: Path) -> None:
    """Optimiser states (published code stores some as 1-tuples), codebooks, epochs."""
    held = backward_flavour()
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    table = torch.randn(12, EXPRESSION) * 0.1
    held |= {
        "optimizer": optimizer.state_dict(),
        "optimizer_lat": (optimizer.state_dict(),),
        "optimizer_lat_val": (optimizer.state_dict(),),
        "latent_codes": OrderedDict({"codebook.exp.embedding.weight": table}),
        "latent_codes_val": None,
    }
    model = load_head_model(write(tmp_path, held))
    torch.testing.assert_close(model.exp_stats.mean, table.mean(0))
    torch.testing.assert_close(model.exp_stats.upper, table.amax(0))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    held = backward_flavour()
    held["config"] = Path("somewhere")  # any object that is no plain tensor
    with pytest.raises(CheckpointError, match="cannot be read as a torch checkpoint"):
        load_head_model(write(tmp_path, held))


def test_half_a_color_branch_names_the_missing_key(tmp_path: Path) -> None:
    held = backward_flavour()
    linear(held["id_decoder"], "communcation_bottleneck2", 16, 16)
    with pytest.raises(CheckpointError, match=r"lacks aggr_app\.layers\.0\.layers\.0\.weight"):
        load_head_model(write(tmp_path, held))


def test_anchors_of_another_model_are_refused_by_their_number(tmp_path: Path) -> None:
    folder = write(tmp_path, backward_flavour())
    np.save(folder / "other.npy", np.zeros((65, 3)))
    with pytest.raises(CheckpointError, match=r"\(65, 3\).*\(39, 3\)"):
        load_head_model(folder, mean_anchors=folder / "other.npy")


def test_full_size_tables_name_every_tensor_of_the_model() -> None:
    """Our model has exactly the weights that the published state dict lists, no more, no less."""
    if not SHAPES.is_file():
        pytest.skip("the MonoNPHM fixture is not at ../shared/fixtures/mononphm")
    from nphm_tracking.model.sizes import HeadModelSizes

    published = json.loads(SHAPES.read_text())
    numbers = sum(int(np.prod(s)) for table in published.values() for s in table.values())
    model = HeadModel(HeadModelSizes(), torch.zeros(65, 3))
    assert sum(p.numel() for p in model.parameters()) == numbers
