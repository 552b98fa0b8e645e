"""Masks of face, mouth and eyes: where they lie, and when they are empty."""

from dataclasses import replace

import pytest
import torch
from tiny_person import HEIGHT, WIDTH, head_pose, tiny_avatar, tiny_session

from npga.core.cameras import Cameras, look_at
from npga.fit.regions import MOUTH_MARGIN, FaceRegions, PixelWeights, face_regions, tinted
from npga.fit.terms import TERMS, Scene, Terms
from nphm_tracking import load_head_model
from nphm_tracking.landmarks import LID_IDS, LIP_IDS

UP = torch.tensor([0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def person() -> FaceRegions:
    """The open prior's average face, which drops its lips with the first of three codes."""
    model = load_head_model()
    known = face_regions(model, model.neutral_codes().z_geo)
    slopes = torch.zeros(478, 3, 3)
    slopes[sorted(LIP_IDS), 1, 0] = -0.1
    return FaceRegions(known.points, slopes)


def views(*eyes: tuple[float, float, float]) -> Cameras:
    poses = torch.stack([look_at(torch.tensor(eye), torch.zeros(3), UP) for eye in eyes])
    K = torch.tensor([[240.0, 0.0, 40.0], [0.0, 240.0, 48.0], [0.0, 0.0, 1.0]])
    ids = tuple("abcdefgh"[: len(eyes)])
    return Cameras(K.expand(len(eyes), 3, 3), poses, 80, 96, ids)


def batch_of(data, cameras: Cameras, matte: float = 1.0):
    count = len(cameras)
    return replace(
        data.batch(0),
        cameras=cameras,
        world_from_head=head_pose(0.0),
        image=torch.ones(count, 96, 80, 3),
        matte=torch.full((count, 96, 80), matte),
    )


def centre(mask: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    return torch.stack([(mask * columns).sum(), (mask * rows).sum()]) / mask.sum()


def test_regions_lie_on_their_landmarks_and_inside_the_face(person, data):
    batch = batch_of(data, views((0.0, 0.0, 1.0)))
    masks = person.masks(batch, tiny_avatar(data))
    posed = batch.world_from_head.apply(person.points)
    for mask, ids in ((masks.mouth, LIP_IDS), (masks.eyes, LID_IDS)):
        pixels = batch.cameras.project(posed[sorted(ids)])[0][0]
        assert (centre(mask[0]) - pixels.mean(0)).norm() < 1.0
        inside = mask[0][pixels[:, 1].long(), pixels[:, 0].long()]
        assert (inside == 1).all(), "the margin takes in all landmarks"
        assert (mask[0] <= masks.face[0] + 1e-6).all()
    lips = batch.cameras.project(posed[sorted(LIP_IDS)])[0][0]
    margin = MOUTH_MARGIN * 0.25 * 240
    width = float((masks.mouth[0].amax(0) > 0.5).sum())
    assert abs(width - float(lips[:, 0].amax() - lips[:, 0].amin()) - 2 * margin) < 2.0
    left, right = masks.eyes[0, :, 40:].sum(), masks.eyes[0, :, :40].sum()
    assert left > 0 and abs(left / right - 1) < 0.2


def test_masks_follow_expression_matte_and_pose(person, data):
    cameras = views((0.0, 0.0, 1.0))
    avatar = tiny_avatar(data)
    still = person.masks(batch_of(data, cameras), avatar)
    dropped = replace(batch_of(data, cameras), z_exp=torch.tensor([1.0, 0.0, 0.0]))
    moved = person.masks(dropped, avatar)
    assert abs(float((centre(moved.mouth[0]) - centre(still.mouth[0]))[1]) - 0.1 * 0.25 * 240) < 1
    torch.testing.assert_close(moved.eyes, still.eyes)
    half = person.masks(batch_of(data, cameras, matte=0.5), avatar)
    torch.testing.assert_close(half.face, 0.5 * still.face)


def test_a_camera_behind_sees_nothing_and_one_at_the_side_half_the_eyes(person, data):
    cameras = views((0.0, 0.0, -1.0), (1.0, 0.0, 0.0), (0.94, 0.0, 0.34), (0.0, 0.0, 1.0))
    masks = person.masks(batch_of(data, cameras), tiny_avatar(data))
    for mask in (masks.face, masks.mouth, masks.eyes):
        assert mask[0].sum() == 0
    assert masks.face[1].sum() == 0 and masks.eyes[1].sum() > 0
    assert masks.mouth[2].sum() > 0
    assert 0 < masks.eyes[2].sum() < 0.6 * masks.eyes[3].sum()


def test_without_slopes_f_moves_the_points(person, data):
    avatar = tiny_avatar(data)
    with torch.no_grad():
        avatar.prior.exit.bias.fill_(0.5)
    moved = FaceRegions(person.points, None).posed(
        torch.ones(3), avatar.prior, avatar.identity
    )  # fmt: skip
    omega = torch.zeros(1, 478, 2)
    offset = avatar.prior(person.points[None], omega, torch.ones(1, 3), avatar.identity[None])[0]
    assert offset.abs().max() > 0
    torch.testing.assert_close(moved, person.points + offset)


def test_a_head_model_without_landmarks_gets_the_average_face_on_its_own_surface():
    model = load_head_model()
    z_geo = model.geo_mean + 0.5 * model.geo_std
    known = face_regions(model, z_geo)
    assert known.slopes is not None
    for name in ("landmark_mean", "landmark_basis", "landmark_motion"):
        setattr(model, name, torch.zeros(0, 3))
    pulled = face_regions(model, z_geo)
    assert pulled.slopes is None
    skin = torch.cat([pulled.points[:468], torch.zeros(468, model.hyper_size)], 1)
    assert model.sdf(skin, z_geo).abs().median() < 0.004, "within 1 mm of the surface"
    assert (pulled.points - known.points).norm(dim=1).median() < 0.04, "1 cm from the known places"


def test_a_tint_shows_the_regions_and_nothing_else(person, data):
    batch = batch_of(data, views((0.0, 0.0, 1.0)))
    masks = person.masks(batch, tiny_avatar(data))
    grey = torch.full((96, 80, 3), 0.5)
    shown = tinted(grey, masks, 0)
    for channel, mask in ((0, masks.mouth), (1, masks.face), (2, masks.eyes)):
        assert torch.equal(shown[..., channel] > 0.5, mask[0] > 0)


def test_pixels_of_mouth_and_eyes_weigh_more_and_masks_are_made_once(person, data, monkeypatch):
    session = tiny_session(data)
    weights = PixelWeights(person, mouth=4.0, eyes=1.5)
    batch = session.data.at_step(0, session.sampling)
    masks = person.masks(batch, session.avatar)
    expected = 1 + 4 * masks.mouth + 1.5 * masks.eyes
    given = weights(batch, session.avatar)
    assert given.shape == (2, HEIGHT, WIDTH) and given.max() > 4
    torch.testing.assert_close(given, expected, atol=0.02, rtol=0)
    monkeypatch.setattr(FaceRegions, "masks", lambda *_: pytest.fail("drawn again"))
    posed = session.avatar.decode(batch.z_exp, batch.world_from_head, batch.torso)
    rendered = session.renderer(posed, batch.cameras, batch.window)
    scene = Scene(rendered, batch, session.avatar, posed, session.densifier.graph, None)
    losses = Terms({"l1": 1.0, "refined_l1": 1.0}, weights)(scene)
    error = (rendered.raw - batch.image).abs()
    torch.testing.assert_close(losses["l1"], (error * given[..., None]).mean())
    assert losses["l1"] > TERMS["l1"](scene)
    window = rendered.window
    error = (rendered.refined - window.of(batch.image)).abs() * window.of(given)[..., None]
    torch.testing.assert_close(losses["refined_l1"], error.mean())
