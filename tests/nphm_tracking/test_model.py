"""The head model against the published code's outputs, its slow twin, and itself in batches."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from npga.core.errors import CheckpointError
from nphm_tracking.model.ensemble import MemberCodes, RowPlan
from nphm_tracking.model.head_model import Codes, HeadModel
from nphm_tracking.model.load import load_head_model, save_head_model
from nphm_tracking.model.reference import reference_query
from nphm_tracking.model.sizes import HeadModelSizes

FIXTURE = Path(__file__).parents[3] / "shared" / "fixtures" / "mononphm"
SMALL = HeadModelSizes(
    anchor_count=11,
    pair_count=4,
    neighbours=5,
    blend_neighbour=4,
    geo_global=6,
    geo_local=3,
    app_global=5,
    app_local=2,
    exp=7,
    identity=4,
    anchor_width=8,
    backward_width=16,
    backward_depth=4,
    backward_skip=2,
    sdf_width=10,
    sdf_depth=3,
    color_width=9,
    color_depth=2,
    bottleneck=5,
)


def small_model(seed: int = 0) -> HeadModel:
    """Random weights large enough that every input matters; float64."""
    torch.manual_seed(seed)
    model = HeadModel(SMALL, torch.randn(11, 3) * 0.3).double()
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn_like(value) * (1.2 / value.shape[-1] ** 0.5))
    return model


def random_codes(*batch: int, seed: int = 1) -> Codes:
    torch.manual_seed(seed)
    sizes = (SMALL.geo_size, SMALL.app_size, SMALL.exp)
    return Codes(*(torch.randn(*batch, s, dtype=torch.float64) for s in sizes))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not FIXTURE.is_dir():
        pytest.skip("the MonoNPHM fixture is not at ../shared/fixtures/mononphm")
    spec = importlib.util.spec_from_file_location("make_state", FIXTURE / "make_state.py")
    make_state = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_state)
    folder = tmp_path_factory.mktemp("mononphm")
    (folder / "checkpoints").mkdir()
    expected = np.load(FIXTURE / "reference_outputs.npz")
    np.save(folder / "anchors_65.npy", expected["mean_anchors"])
    make_state.save_checkpoint(
        folder / "checkpoints" / "checkpoint_epoch_2500.tar", int(expected["seed"])
    )
    return folder


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-4)])
def test_agrees_with_published_code(checkpoint: Path, dtype: torch.dtype, tolerance: float) -> None:
    expected = np.load(FIXTURE / "reference_outputs.npz")
    model = load_head_model(checkpoint).to(dtype)
    if dtype == torch.float64:
        model.canonical_field.mean_anchors.copy_(torch.from_numpy(expected["mean_anchors"]))
    codes = Codes(*(torch.from_numpy(expected[k]).to(dtype) for k in ("z_geo", "z_app", "z_exp")))
    found = model.query(torch.from_numpy(expected["queries"]).to(dtype), codes)
    for name in ("offsets", "hyper", "canonical", "anchors", "sdf", "color"):
        worst = np.abs(getattr(found, name).double().numpy() - expected[name]).max()
        assert worst < tolerance, f"{name} differs by {worst}"


def test_infers_published_sizes(checkpoint: Path) -> None:
    assert load_head_model(checkpoint).sizes == HeadModelSizes()


def test_refuses_damaged_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    held = torch.load(checkpoint / "checkpoints" / "checkpoint_epoch_2500.tar", weights_only=True)
    anchors = checkpoint / "anchors_65.npy"
    lost = {**held, "id_decoder": dict(held["id_decoder"])}
    del lost["id_decoder"]["mlp_pos.2.bias"]
    torch.save(lost, tmp_path / "lost.tar")
    with pytest.raises(CheckpointError, match="lacks mlp_pos.2.bias"):
        load_head_model(tmp_path / "lost.tar", mean_anchors=anchors)
    wrong = {**held, "ex_decoder": dict(held["ex_decoder"])}
    wrong["ex_decoder"]["defDeepSDF.lin2.weight"] = torch.zeros(400, 300)
    torch.save(wrong, tmp_path / "wrong.tar")
    with pytest.raises(CheckpointError, match=r"shape|size"):
        load_head_model(tmp_path / "wrong.tar", mean_anchors=anchors)
    torch.save({"epoch": 1}, tmp_path / "other.tar")
    with pytest.raises(CheckpointError, match="holds no id_decoder"):
        load_head_model(tmp_path / "other.tar", mean_anchors=anchors)
    (tmp_path / "cut.tar").write_bytes(
        (checkpoint / "checkpoints" / "checkpoint_epoch_2500.tar").read_bytes()[:100_000]
    )
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_head_model(tmp_path / "cut.tar", mean_anchors=anchors)
    with pytest.raises(CheckpointError, match="anchors"):
        load_head_model(tmp_path / "other.tar", mean_anchors=tmp_path / "none.npy")


def test_batched_model_equals_reference_twin() -> None:
    model = small_model()
    torch.manual_seed(3)
    points = (torch.randn(40, 3, dtype=torch.float64) * 0.4).requires_grad_()
    codes = Codes(*(c.requires_grad_() for c in vars(random_codes()).values()))
    inputs = [points, codes.z_geo, codes.z_app, codes.z_exp, *model.parameters()]
    fast, slow = model.query(points, codes), reference_query(model, points, codes)
    for name in ("offsets", "hyper", "canonical", "anchors", "sdf", "color"):
        torch.testing.assert_close(getattr(fast, name), getattr(slow, name), rtol=1e-9, atol=1e-11)
    gradients = []
    for found in (fast, slow):
        total = (found.sdf * torch.linspace(-1, 1, 40)).sum() + (found.color**2).sum()
        gradients.append(torch.autograd.grad(total + found.hyper.sum(), inputs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("people", [2, 100])
def test_weight_sets_in_blocks_and_one_by_one_agree(people: int) -> None:
    """Values and gradients of the two ways to run the local networks, few and many people."""
    model = small_model()
    networks, field = model.canonical_field.sdf_networks, model.canonical_field
    torch.manual_seed(4)
    row = torch.randint(0, people * SMALL.member_count, (900,))
    given = torch.randn(900, 5, dtype=torch.float64, requires_grad=True)
    z_geo = random_codes(people).z_geo.requires_grad_()
    codes = MemberCodes(z_geo, SMALL.geo_global, field.member_set)
    chosen = field.member_set[row % SMALL.member_count]
    found = []
    for in_blocks in (True, False):
        plan = RowPlan.of(chosen, SMALL.set_count, in_blocks)
        assert bool(plan.runs) is not in_blocks
        out, heard = networks(given, codes, row, plan, field.softplus, field.narrow)
        inputs = [given, z_geo, *networks.parameters(), *field.narrow.parameters()]
        slopes = torch.autograd.grad((out**2).sum() + heard.sin().sum(), inputs)
        found.append([out, heard, *slopes])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_every_network_is_batch_invariant() -> None:
    model = small_model()
    codes = random_codes(5)
    points = torch.randn(5, 30, 3, dtype=torch.float64) * 0.4
    together = model.query(points, codes)
    compressed = model.compress(codes.z_geo)
    for i in range(5):
        own = Codes(codes.z_geo[i], codes.z_app[i], codes.z_exp[i])
        alone = model.query(points[i], own)
        for name in ("offsets", "hyper", "anchors", "sdf", "color"):
            torch.testing.assert_close(getattr(together, name)[i], getattr(alone, name))
        torch.testing.assert_close(compressed[i], model.compress(codes.z_geo[i]))
    shuffled = torch.randperm(30)
    again = model.query(points[:, shuffled], codes)
    torch.testing.assert_close(again.sdf, together.sdf[:, shuffled])


def test_mirrored_heads_mirror() -> None:
    """Mirrored anchors with swapped local codes give the mirrored field (omega = 0)."""
    model = small_model()
    field = model.canonical_field
    with torch.no_grad():
        for value in (*field.sdf_networks.parameters(), *field.color_networks.parameters()):
            value[SMALL.pair_count :].zero_()
        field.anchor_layers[2].weight.zero_()
        field.anchor_layers[2].bias.zero_()
        field.mean_anchors[1:8:2] = field.mean_anchors[0:8:2] * torch.tensor([-1.0, 1.0, 1.0])
        field.mean_anchors[8:, 0] = 0.0
    codes = random_codes()
    swap = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6, 8, 9, 10, 11])
    local = codes.z_geo[6:].reshape(12, 3)[swap].reshape(-1)
    mirrored = torch.cat([codes.z_geo[:6], local])
    canonical = torch.randn(50, 5, dtype=torch.float64) * 0.3
    flipped = canonical * torch.tensor([-1.0, 1, 1, 1, 1])
    torch.testing.assert_close(model.sdf(canonical, codes.z_geo), model.sdf(flipped, mirrored))


def test_saved_model_loads_with_the_same_checksum(tmp_path: Path) -> None:
    model = small_model().float()
    save_head_model(tmp_path / "m.safetensors", model, half=False)
    again = load_head_model(tmp_path / "m.safetensors")
    assert again.checksum() == model.checksum() == model.double().checksum()
    assert again.sizes == SMALL
    with torch.no_grad():
        again.compressor.bias[0] += 1e-3
    assert again.checksum() != model.checksum()
    with pytest.raises(CheckpointError, match="no landmarks"):
        again.landmarks(torch.zeros(SMALL.geo_size))


def test_sizes_refuse_what_cannot_be() -> None:
    with pytest.raises(CheckpointError, match="symmetric pairs"):
        HeadModelSizes(anchor_count=10, pair_count=6)
    with pytest.raises(CheckpointError, match="does not hold"):
        HeadModelSizes(neighbours=4)
    with pytest.raises(CheckpointError, match="mean anchors"):
        HeadModel(SMALL, torch.zeros(5, 3))
