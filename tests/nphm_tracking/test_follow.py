"""A face followed frame by frame: against the truth, its batch twin, gaps and scores.

Landmarks are made by the shipped F and head model, so that what is left is what priors take.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from acted_face import (
    SCALE,
    ActedFace,
    another_identity,
    equipment,
    named,
    poses,
    swinging,
    talking,
)

import nphm_tracking.follow as following
from npga.core.errors import TrackError
from npga.core.rotations import rotvec_from_matrix
from npga.core.similarity import Similarity
from nphm_tracking import SequenceTrack, Track
from nphm_tracking.follow import (
    FOLLOWING,
    IDENTITY,
    Calibration,
    FaceFollower,
    Followed,
    calibrate,
    known_person,
    rest_rows,
)
from nphm_tracking.frames import FrameState
from nphm_tracking.solve import solve_frames
from nphm_tracking.track import start_solution

QUICK = replace(IDENTITY, frames=6, iterations=4, identity_steps=2)


def follower(face: ActedFace, rest_scores: torch.Tensor | None = None) -> FaceFollower:
    """Of a face that is known exactly."""
    return equipment().follower(Calibration(face.person(), rest_scores), face.camera)


def followed(
    face: ActedFace, pixels: torch.Tensor, scores: torch.Tensor | None = None
) -> list[Followed]:
    run = follower(face)
    return [run.follow(one, None if scores is None else scores[n]) for n, one in enumerate(pixels)]


def codes_of(found: list[Followed]) -> torch.Tensor:
    return torch.stack([one.z_exp for one in found])


def poses_of(found: list[Followed]) -> Similarity:
    return Similarity.stack([one.world_from_head for one in found])


def degrees(left: Similarity, right: Similarity) -> torch.Tensor:
    return torch.rad2deg(rotvec_from_matrix(left.rotation.mT @ right.rotation).norm(dim=-1))


def millimetres(left: Similarity, right: Similarity) -> torch.Tensor:
    return 1000 * (left.translation - right.translation).norm(dim=-1)


@pytest.fixture(params=["mean", "another"])
def face(request: pytest.FixtureRequest) -> ActedFace:
    return ActedFace.mean() if request.param == "mean" else ActedFace(another_identity())


def test_poses_and_codes_are_recovered(face: ActedFace) -> None:
    true, codes = swinging(40), talking(40)
    pixels = face.pixels(codes, true)
    found = followed(face, pixels)
    assert all(one.found for one in found)
    assert degrees(poses_of(found), true).max() < 0.5
    assert millimetres(poses_of(found), true).max() < 3.0
    missed = (face.pixels(codes_of(found), poses_of(found)) - pixels).norm(dim=-1)
    assert missed.mean() < 0.4 and missed.max() < 4.0  # of 640 pixels
    assert max(one.residual_mm for one in found) < 0.5
    told = codes.amax(0) > 0.1
    assert (codes_of(found) - codes)[:, told].abs().mean() < 0.06


def test_a_known_size_is_kept_and_its_depth_found() -> None:
    """A head that is 10 % larger than the guess stands 10 % farther for the same pixels."""
    face, true = ActedFace.mean(), swinging(40)[:8]
    pixels = face.pixels(talking(40)[:8], true)
    large = replace(face.person(), scale=torch.tensor(1.1 * SCALE))
    run = equipment().follower(Calibration(large), face.camera)
    found = poses_of([run.follow(one) for one in pixels])
    torch.testing.assert_close(found.scale, torch.full((8,), 1.1 * SCALE))
    assert millimetres(replace(true, translation=1.1 * true.translation), found).max() < 3.0


def test_one_at_a_time_is_as_good_as_all_at_once() -> None:
    """`solve_frames` on the same frames, from the mean code on; nothing couples them here."""
    face, true, codes = ActedFace.mean(), swinging(24), talking(24)
    observed = face.observed(codes, true)
    person = face.person()
    start = start_solution(equipment().model, [observed], equipment().motion).states["acted"]
    batch = solve_frames(person, observed.data, start, FOLLOWING, 15)
    found = followed(face, face.pixels(codes, true))
    assert degrees(batch.pose(person.scale), poses_of(found)).max() < 0.4
    assert millimetres(batch.pose(person.scale), poses_of(found)).max() < 1.5
    apart = (batch.z_exp - codes_of(found)).abs()
    assert apart.mean() < 0.01 and apart.median() < 0.002


def test_scores_pull_what_landmarks_leave_open() -> None:
    """Gaze hardly moves landmarks of this head; a jaw is seen, whatever a detector says."""
    face = ActedFace.mean()
    true = poses(torch.tensor([[0.05, 0.1, 0.0]] * 3))
    code = named(eyeLookDown=0.6, jawOpen=0.5)
    pixels = face.pixels(code.expand(3, -1), true)
    gaze, jaw = named(eyeLookDown=1.0) > 0, named(jawOpen=1.0) > 0
    plain = codes_of(followed(face, pixels))[-1]
    guided = codes_of(followed(face, pixels, code.expand(3, -1)))[-1]
    assert (plain[gaze] < 0.3).all()
    assert (guided[gaze] - 0.6).abs().max() < 0.12
    wrong = codes_of(followed(face, pixels, torch.zeros(3, len(code))))[-1]
    for found in (plain, guided, wrong):
        assert abs(float(found[jaw]) - 0.5) < 0.06


def test_unknown_scores_say_nothing() -> None:
    face, codes = ActedFace.mean(), talking(4)
    pixels = face.pixels(codes, swinging(4))
    unknown = torch.full_like(codes, torch.nan)
    plain, nothing = followed(face, pixels), followed(face, pixels, unknown)
    torch.testing.assert_close(codes_of(plain), codes_of(nothing))
    half = unknown.clone()
    half[:, 4] = 0.5
    assert codes_of(followed(face, pixels, half)).isfinite().all()


def test_scores_count_from_the_face_at_rest() -> None:
    rest = torch.tensor([0.0, 0.4, 0.95])
    targets = Calibration(ActedFace.mean().person(), rest).targets
    torch.testing.assert_close(targets(rest[None])[0], torch.zeros(3))
    torch.testing.assert_close(targets(torch.ones(1, 3))[0], torch.tensor([1.0, 1.0, 0.25]))
    assert targets(torch.tensor([[0.0, 0.2, torch.nan]]))[0].tolist()[:2] == [0.0, 0.0]
    plain = Calibration(ActedFace.mean().person()).targets(rest[None])
    assert torch.equal(plain, rest[None])


def test_missing_frames_are_marked_and_following_goes_on() -> None:
    face, true, codes = ActedFace.mean(), swinging(30), talking(30)
    pixels = face.pixels(codes, true)
    run = follower(face)
    early = run.follow(None)
    assert not early.found and torch.equal(early.z_exp, run.person.prior.mean)
    before = [run.follow(one) for one in pixels[:5]][-1]
    gap = [run.follow(None) for _ in range(3)]
    for one in gap:
        assert not one.found and one.residual_mm == float("inf")
        assert torch.equal(one.z_exp, before.z_exp)
        assert torch.equal(one.world_from_head.matrix(), before.world_from_head.matrix())
    after = run.follow(pixels[22])  # somewhere else by now
    assert after.found
    assert degrees(after.world_from_head, true[22]) < 0.5
    assert millimetres(after.world_from_head, true[22]) < 3.0


def no_face() -> Iterator[torch.Tensor]:
    """Landmarks that no head has."""
    count = len(equipment().mean.landmark_ids)
    yield 400 * torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    yield torch.full((count, 2), 200.0)
    yield torch.full((count, 2), torch.nan)
    yield torch.linspace(0, 400, count)[:, None].expand(count, 2)


def test_what_is_no_face_is_marked_and_raises_nothing() -> None:
    face, true, codes = ActedFace.mean(), swinging(3), talking(3)
    pixels = face.pixels(codes, true)
    run = follower(face)
    before = run.follow(pixels[0])
    for wrong in no_face():
        found = run.follow(wrong)
        assert not found.found and torch.equal(found.z_exp, before.z_exp)
    after = run.follow(pixels[1])
    assert after.found and degrees(after.world_from_head, true[1]) < 0.5


def smiling_take(count: int = 30, resting: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of somebody who smiles and talks but in a few frames, and which these are."""
    rest = torch.zeros(count, dtype=torch.bool)
    rest[torch.linspace(2, count - 3, resting).round().long()] = True
    smile = torch.linspace(0.6, 0.9, count)[:, None] * named(mouthSmile=1.0, cheekSquint=0.6)
    codes = smile + talking(count) * (named(mouthSmile=1.0) == 0)
    return torch.where(rest[:, None], torch.zeros(()), codes), rest


@pytest.mark.parametrize("with_scores", [False, True])
def test_rest_is_where_the_expression_is_least(with_scores: bool) -> None:
    """Though four frames in five smile, so that the median face does."""
    face = ActedFace.mean()
    codes, rest = smiling_take()
    observed = face.observed(codes, swinging(len(codes), 0.15))
    if with_scores:
        observed = replace(observed, data=replace(observed.data, scores=0.1 + 0.8 * codes))
    start = start_solution(equipment().model, [observed], equipment().motion).states["acted"]
    rows = rest_rows(observed, face.person(), start, IDENTITY)
    assert len(rows) >= 3 and bool(rest[rows].all())
    assert rows.tolist() == sorted(rows.tolist())


def test_frames_without_a_face_are_no_rest() -> None:
    face = ActedFace.mean()
    codes, rest = smiling_take()
    found = ~rest
    found[-3] = True
    observed = face.observed(codes, swinging(len(codes), 0.15), found)
    scores = torch.where(found[:, None], codes, torch.nan)
    observed = replace(observed, data=replace(observed.data, scores=scores))
    start = start_solution(equipment().model, [observed], equipment().motion).states["acted"]
    assert rest_rows(observed, face.person(), start, IDENTITY).tolist() == [len(codes) - 3]


def test_calibration_on_a_smiling_take_knows_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rest scores are the resting face's, and the smile is not taken for the person's shape."""
    monkeypatch.setattr(following, "OFFSET_ROUNDS", 2)
    face = ActedFace.mean()
    codes, rest = smiling_take(20, 5)
    true = swinging(20, 0.15)
    observed = face.observed(codes, true)
    scores = 0.1 + 0.8 * codes
    observed = replace(observed, data=replace(observed.data, scores=scores))
    found = calibrate(equipment().model, equipment().motion, observed, QUICK)
    assert found.rest_scores is not None
    torch.testing.assert_close(found.rest_scores, scores[rest][0])
    assert float(found.person.scale) == pytest.approx(SCALE)
    away = 250 * (found.person.landmarks - face.person().landmarks).norm(dim=1)
    assert away.mean() < 2.0
    run = equipment().follower(found, face.camera)
    smile = named(mouthSmile=1.0) > 0
    seen = [
        run.follow(one, score).z_exp[smile].mean()
        for one, score in zip(face.pixels(codes, true), scores, strict=True)
    ]
    seen = torch.stack(seen)
    assert seen[rest].max() < 0.1
    assert (seen[~rest] - codes[~rest][:, smile].mean(1)).abs().max() < 0.2


def track_of(face: ActedFace, landmarks: bool, scale: float = SCALE) -> Track:
    """As if tracked by many cameras."""
    take = SequenceTrack(
        torch.arange(3), talking(3), poses(torch.zeros(3, 3), scale=scale), torch.ones(3),
        torch.ones(3, dtype=torch.bool), 25.0,
    )  # fmt: skip
    model = equipment().model
    marks = face.person().landmarks if landmarks else None
    return Track(
        face.z_geo, torch.zeros(model.app_size), {"A": take}, model.checksum(), "001", {}, marks
    )


def test_a_known_person_is_taken_as_known() -> None:
    face = ActedFace(another_identity())
    codes, rest = smiling_take()
    observed = face.observed(codes, swinging(len(codes), 0.15))
    model, motion = equipment().model, equipment().motion
    found = known_person(model, motion, observed, track_of(face, True, 0.26))
    assert torch.equal(found.person.z_geo, face.z_geo)
    assert torch.equal(found.person.landmarks, face.person().landmarks)
    assert float(found.person.scale) == pytest.approx(0.26) and found.rest_scores is None
    scores = 0.1 + 0.8 * codes
    observed = replace(observed, data=replace(observed.data, scores=scores))
    found = known_person(model, motion, observed, track_of(face, True))
    torch.testing.assert_close(found.rest_scores, scores[rest][0])


def test_a_track_without_landmarks_is_refused() -> None:
    face = ActedFace.mean()
    observed = face.observed(talking(3), swinging(3))
    with pytest.raises(TrackError, match="holds no landmarks") as error:
        known_person(equipment().model, equipment().motion, observed, track_of(face, False))
    assert str(error.value).count("\n") == 1


def test_the_state_is_not_shared_between_followers() -> None:
    """Two followers of one calibration, fed in turns, find what each finds alone."""
    face, codes = ActedFace.mean(), talking(8)
    left, right = face.pixels(codes, swinging(8)), face.pixels(codes.flip(0), swinging(8, 0.1))
    one, other = follower(face), follower(face)
    mixed = [(one.follow(a), other.follow(b)) for a, b in zip(left, right, strict=True)]
    torch.testing.assert_close(codes_of([a for a, _ in mixed]), codes_of(followed(face, left)))
    torch.testing.assert_close(codes_of([b for _, b in mixed]), codes_of(followed(face, right)))
    assert isinstance(one._state, FrameState)
