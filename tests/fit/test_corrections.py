"""A track that is a little wrong is pulled back by the pictures; what is a habit of it is not."""

from dataclasses import replace

import pytest
import torch
from tiny_person import CPU, Knobs, body, rig, take, tiny_avatar, tiny_session

from npga.avatar import ForwardField
from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.fit.batch import FitData
from npga.fit.config import Corrected, DensifyConfig, OptimConfig
from npga.fit.corrections import Corrections
from npga.fit.densify import DensityState
from npga.fit.graph import CanonicalGraph
from npga.fit.loop import fit
from npga.fit.renderer import Renderer
from npga.fit.runlog import RunLog
from npga.fit.schedule import Schedule, build_optimizer
from npga.fit.terms import Terms
from npga.raster import Backend
from nphm_tracking.model.head_model import CodeStatistics

LEARN = OptimConfig(**{name: 0.0 for name in vars(OptimConfig()) if name != "final"})
LEARN = replace(LEARN, moves=2e-3, codes=1e-2, final=0.1)
"""Only corrections learn."""


@pytest.fixture(scope="module")
def truth() -> FitData:
    return FitData((take("EXP-1", 5, rig()), take("EXP-2", 4, rig())))


def true_session(wrong: FitData, knobs: Knobs, gauge: bool = True):
    """A session whose avatar is the person: its frozen F opens the jaw, G and the CNN are still."""
    session = tiny_session(wrong, knobs)
    avatar, person = tiny_avatar(wrong, 150), body()
    with torch.no_grad():
        for name in ("means", "quats", "log_scales", "logit_opacities", "colors"):
            getattr(avatar, name).copy_(getattr(person, name))
        avatar.logit_attachment.fill_(50.0)
        for layer in (avatar.prior.linear, avatar.prior.curved[2]):
            layer.weight.zero_()
            layer.bias.zero_()
        avatar.prior.linear.weight[0, 0] = 1.0
    basis = torch.zeros(150, 3, avatar.prior.rank)
    basis[:, 1, 0] = -0.15 * (person.means[:, 1] < 0)
    shares = avatar.shares(avatar.code_motion(basis, torch.ones(150)))
    still = torch.zeros_like(basis)
    avatar.field = lambda turns=None: ForwardField(basis, still, shares)
    corrections = Corrections(wrong, knobs.corrected, gauge=gauge)
    weights = {"l1": 1.0, "ssim": 0.2, "small_codes": 1e-4, "smooth_corrections": 1e-5}
    constant = DensifyConfig(start=10_000)
    return replace(
        session,
        avatar=avatar,
        corrections=corrections,
        renderer=Renderer(avatar, Backend.cpu, 1.0, False),
        terms=Terms(weights),
        densifier=replace(
            session.densifier, config=constant,
            graph=CanonicalGraph(avatar.means, avatar.code_motion()),
            state=DensityState.blank(150, CPU),
        ),
        optimizer=build_optimizer(avatar, corrections, LEARN),
        schedule=Schedule(LEARN, knobs.steps, corrections_from=knobs.corrections_from,
                          prior_mode=knobs.prior_mode),
    )  # fmt: skip


def learned(wrong: FitData, folder, corrected=Corrected.both, gauge=True, steps=150) -> Corrections:
    folder.mkdir(exist_ok=True)
    session = true_session(wrong, Knobs(steps=steps, corrected=corrected), gauge)
    fit(
        session.avatar, session.corrections, wrong.stream(0, session.sampling, CPU),
        session.renderer, session.terms, session.densifier, session.optimizer, session.schedule,
        RunLog(folder, steps), steps=steps,
    )  # fmt: skip
    return session.corrections


def with_codes(truth: FitData, change) -> FitData:
    """The same pictures, tracked with other codes."""
    return FitData(tuple(replace(q, z_exp=change(q.z_exp)) for q in truth.sequences))


def test_perturbed_poses_and_codes_are_pulled_back(truth, tmp_path):
    generator = torch.Generator().manual_seed(1)
    noise = 0.12 * torch.randn(9, generator=generator)
    moves = 0.04 * torch.randn(9, 6, generator=generator)
    moves[:, 3:] *= 0.5
    sequences, start = [], 0
    for one in truth.sequences:
        part = slice(start, start + len(one))
        start += len(one)
        noise[part] -= noise[part].mean()
        moves[part] -= moves[part].mean(0)
        codes = one.z_exp.clone()
        codes[:, 0] += noise[part]
        step = Similarity(
            torch.ones(len(one)), matrix_from_rotvec(moves[part, :3]), moves[part, 3:]
        )
        sequences.append(
            replace(one, z_exp=codes, world_from_head=one.world_from_head.compose(step))
        )
    wrong = FitData(tuple(sequences))
    corrections = learned(wrong, tmp_path)
    turns, codes = [], []
    for index, (s, row) in enumerate(truth.places):
        batch = wrong.batch(index)
        frame = corrections.of(batch)
        true = truth.sequences[s].world_from_head[row]
        for pose in (batch.world_from_head, frame.world_from_head):
            turns.append(rotvec_from_matrix(true.rotation.T @ pose.rotation).norm())
        for code in (batch.z_exp, frame.z_exp):
            codes.append((code - truth.sequences[s].z_exp[row])[0].abs())
    turned, moved = torch.stack(turns).view(-1, 2).mean(0), torch.stack(codes).view(-1, 2).mean(0)
    assert turned[1] < 0.5 * turned[0] and moved[1] < 0.6 * moved[0], (turned, moved)
    assert corrections.codes[:, 1:].abs().max() == 0, "what no picture shows does not move"


def test_a_constant_offset_is_not_learned_but_told(truth, tmp_path):
    wrong = with_codes(truth, lambda z: z + torch.tensor([0.1, 0.0, 0.0]))
    held = learned(wrong, tmp_path, steps=90)
    free = learned(wrong, tmp_path / "free", gauge=False, steps=90)
    assert held.offsets()[1].abs().max() < 1e-6 and held.taken_codes[:, 0].max() < -0.03
    assert free.offsets()[1][:, 0].max() < -0.05 and free.taken_codes.abs().max() == 0


def test_a_common_factor_is_not_learned_but_told(truth, tmp_path):
    wrong = with_codes(truth, lambda z: 0.8 * z + 0.1 * z.mean(0))
    held = learned(wrong, tmp_path, steps=90)
    free = learned(wrong, tmp_path / "free", gauge=False, steps=90)
    assert held.factors().abs().max() < 1e-5 and held.taken_factors[0] > 0.03
    assert free.factors()[0] > 0.05


def test_offsets_and_factors_go_and_bounds_hold(data):
    generator = torch.Generator().manual_seed(2)
    limits = CodeStatistics(torch.zeros(3), torch.ones(3), torch.zeros(3), torch.ones(3))
    corrections = Corrections(data, Corrected.both, limits)
    with torch.no_grad():
        corrections.moves.copy_(torch.randn(7, 6, generator=generator))
        corrections.codes.copy_(0.3 * torch.randn(7, 3, generator=generator) + 0.2)
    own = corrections.moves.detach().clone()
    corrections.settle()
    inside = data.expressions + corrections.codes.detach()
    assert inside.min() >= 0 and inside.max() <= 1
    moves, _ = corrections.offsets()
    assert moves.abs().max() < 1e-6
    for part in (slice(0, 4), slice(4, 7)):
        expected = own[part] - own[part].mean(0)
        torch.testing.assert_close(corrections.moves.detach()[part], expected)
    for _ in range(200):
        corrections.settle()
    _, codes = corrections.offsets()
    assert codes.abs().max() < 0.01, "bounds and gauge agree in the end"


def test_switches(data):
    batch = data.batch(3)
    for what in Corrected:
        corrections = Corrections(data, what)
        with torch.no_grad():
            corrections.moves += 0.1
            corrections.codes += 0.2
        frame = corrections.of(batch)
        same = torch.equal(frame.world_from_head.rotation, batch.world_from_head.rotation)
        assert same == (what is Corrected.none)
        assert torch.equal(frame.z_exp, batch.z_exp) == (what is not Corrected.both)
        assert frame.z_exp.requires_grad == (what is Corrected.both)
        assert (frame.correction is None) == (what is Corrected.none)


def test_nothing_is_corrected_before_the_avatar_has_settled(data, tmp_path):
    session = tiny_session(data, Knobs(steps=12, corrections_from=0.5))
    moved = []

    def note(step):
        moved.append(float(session.corrections.moves.detach().abs().max()))

    fit(
        session.avatar, session.corrections, session.data.stream(0, session.sampling, CPU),
        session.renderer, session.terms, session.densifier, session.optimizer, session.schedule,
        RunLog(tmp_path, 12, hooks=((1, note),)), steps=12,
    )  # fmt: skip
    assert max(moved[:6]) == 0 and min(moved[6:12]) > 0


def test_smoothness_compares_with_the_neighbours_of_the_take(data):
    corrections = Corrections(data, Corrected.both)
    with torch.no_grad():
        corrections.codes[:, 0] = torch.tensor([0.0, 1.0, 2.0, 5.0, 7.0, 8.0, 9.0])
    beside = [corrections.of(data.batch(i)).correction.code_beside[0].item() for i in range(7)]
    assert beside == [1.0, 1.0, 3.0, 2.0, 8.0, 8.0, 8.0]
