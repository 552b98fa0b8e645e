"""Brightness and mattes: their derivatives, their parts, and where they pull a head."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from acted_face import PLACE, SCALE, ActedFace, equipment, poses, swinging

from npga.core.cameras import Cameras
from npga.core.rotations import rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.drive.driver import single_camera
from nphm_tracking.config import StageConfig
from nphm_tracking.frames import FrameState, Person
from nphm_tracking.head import CodePrior
from nphm_tracking.pictures import (
    BELOW_CHIN,
    EDGE_PX,
    SKIN_FACING,
    SKIN_REACH,
    SURFACE_POINTS,
    Pictures,
    PictureTerms,
    PictureWeights,
    Surface,
    blurred,
    distance_outside,
    fitted_line,
    head_surface,
    sampled,
)
from nphm_tracking.solve import solve_frames

FRAMES = 3
CODES = 52


def plain_state(z_exp: torch.Tensor, pose: Similarity, person: Person) -> FrameState:
    marks = person.landmarks.expand(len(z_exp), -1, -1).clone()
    return FrameState(z_exp, pose.rotation, pose.translation, marks)


def double_person() -> Person:
    """The mean head with F, in float64."""
    motion = copy.deepcopy(equipment().motion)
    motion.forward.double()
    motion.model.double()
    motion._known.clear()
    person = ActedFace.mean().person()
    prior = CodePrior(*(getattr(person.prior, k).double() for k in CodePrior.__dataclass_fields__))
    return replace(
        person, model=motion.model, z_geo=person.z_geo.double(), scale=person.scale.double(),
        landmarks=person.landmarks.double(), prior=prior, slopes=None, motion=motion,
    )  # fmt: skip


def face_points(person: Person) -> Surface:
    """Every fifth landmark as a skin point that looks ahead."""
    points = person.landmarks[::5]
    ahead = torch.tensor([0.0, 0.0, 1.0]).to(points).expand_as(points)
    return Surface(points, ahead, torch.ones_like(points[:, 0]))


def pattern(name: str, camera: Cameras) -> torch.Tensor:
    """Pictures [FRAMES h w] in float64: a slope, or waves much longer than a pixel."""
    down, across = torch.meshgrid(
        torch.arange(camera.height).double() + 0.5, torch.arange(camera.width).double() + 0.5,
        indexing="ij",
    )  # fmt: skip
    slopes = torch.tensor([0.002, -0.003, 0.0025]).double()[:, None, None]
    if name == "slope":
        return 0.5 + slopes * (across - 80) + 0.003 * (down - 60)
    wave = (across / 17).sin() * (down / 13).cos() + (down / 19 + 1).sin()
    return 0.5 + 0.15 * torch.stack([wave, wave.roll(2, 0), wave.roll(3, 1)])


def scene(outside: bool, name: str) -> tuple[Person, FrameState, PictureTerms]:
    """Codes inside their bounds, pictures that do not fit them, hardly robust terms."""
    person = double_person()
    draw = torch.Generator().manual_seed(2)
    codes = (0.1 + 0.3 * torch.rand(FRAMES, CODES, generator=draw)).double()
    pose = swinging(FRAMES, 0.15).to(torch.float64)
    camera = single_camera(160, 120).to(torch.float64)
    shown = pattern(name, camera)
    weights = PictureWeights(
        brightness=0.0 if outside else 150.0, brightness_scale=100.0, matte=0.5, matte_scale_mm=40.0
    )
    field = 40 * (shown - shown.amin()) if outside else None
    terms = PictureTerms(
        [Pictures(shown, field, camera)], face_points(person), person.motion, weights
    )
    state = plain_state(codes, pose, person)
    terms.learn_looks(person, state[torch.tensor([0, 2, 1])])  # of other frames: they do not fit
    return person, state, terms


@pytest.mark.parametrize(("name", "rtol"), [("slope", 1e-4), ("waves", 0.03)])
@pytest.mark.parametrize("outside", [False, True], ids=["brightness", "matte"])
def test_gradients_are_half_the_energys_slopes(outside: bool, name: str, rtol: float) -> None:
    """Of every unknown; on a slope interpolation is exact, on waves it is nearly so."""
    person, state, terms = scene(outside, name)
    rows = torch.arange(FRAMES)
    _, gradient, energy = terms(person, rows, state)
    assert (energy > 1e-5).all()
    slopes, step = torch.zeros_like(gradient), 1e-5
    for column in range(CODES + 6):
        unit = torch.zeros(FRAMES, CODES + 6).double()
        unit[:, column] = step
        up = terms(person, rows, state.moved(unit, person.scale, person.prior))[2]
        down = terms(person, rows, state.moved(-unit, person.scale, person.prior))[2]
        slopes[:, column] = (up - down) / (2 * step)
    size = slopes[:, -6:].abs().amax()
    assert ((2 * gradient - slopes).abs() <= rtol * size).all()
    codes = slopes[:, :CODES]
    assert ((2 * gradient[:, :CODES] - codes).norm() < 3 * rtol * codes.norm()).all()


@pytest.mark.parametrize("outside", [False, True], ids=["brightness", "matte"])
def test_hessians_are_those_of_least_squares(outside: bool) -> None:
    """Symmetric, never negative, and true: a Newton step lowers the energy as far as it says."""
    person, state, terms = scene(outside, "slope")
    rows = torch.arange(FRAMES)
    hessian, gradient, energy = terms(person, rows, state)
    torch.testing.assert_close(hessian, hessian.mT)
    assert torch.linalg.eigvalsh(hessian).amin() > -1e-9 * hessian.abs().amax()
    damped = hessian + 0.05 * torch.diag_embed(hessian.diagonal(dim1=1, dim2=2)) + 1e-9
    step = -0.02 * torch.linalg.solve(damped, gradient[..., None])[..., 0]
    after = terms(person, rows, state.moved(step, person.scale, person.prior))[2]
    said = 2 * (gradient * step).sum(1) + torch.einsum("td,tde,te->t", step, hessian, step)
    assert (said < 0).all()
    torch.testing.assert_close(after - energy, said, rtol=0.1, atol=1e-9)


def test_some_frames_are_as_in_all() -> None:
    person, state, terms = scene(False, "waves")
    whole = terms(person, torch.arange(FRAMES), state)
    rows = torch.tensor([2, 0])
    for some, all_ in zip(terms(person, rows, state[rows]), whole, strict=True):
        torch.testing.assert_close(some, all_[rows])


@pytest.mark.parametrize("outside", [False, True], ids=["brightness", "matte"])
def test_cameras_add_up_as_their_mean(outside: bool) -> None:
    """Several cameras at once, not all with mattes, are what the readable sum over them gives."""
    person, state, terms = scene(outside, "waves")
    (first,) = terms.pictures
    wider = replace(
        first.camera, K=first.camera.K * torch.tensor([0.8, 0.8, 1.0]).double()[:, None]
    )
    beside = None if first.outside is None else first.outside.roll(5, 1)
    second = Pictures(first.brightness.roll(7, 2), beside, wider)
    cameras = [first, second, replace(second, outside=None)]
    rows, looks = torch.tensor([2, 0]), []
    wanted = [torch.zeros(())] * 3
    for one in cameras:
        alone = PictureTerms([one], terms.surface, terms.motion, terms.weights)
        alone.learn_looks(person, state)
        looks.append(alone.looks)
        wanted = [
            a + b / len(cameras)
            for a, b in zip(wanted, alone(person, rows, state[rows]), strict=True)
        ]
    together = PictureTerms(cameras, terms.surface, terms.motion, terms.weights)
    together.learn_looks(person, state)
    assert together.looks is not None
    torch.testing.assert_close(together.looks, torch.cat(looks), equal_nan=True)
    for found, sum_ in zip(together(person, rows, state[rows]), wanted, strict=True):
        torch.testing.assert_close(found, sum_)


def test_gain_and_offset_of_a_picture_do_not_count() -> None:
    """A camera that brightens or darkens moves nothing."""
    person, state, terms = scene(False, "waves")
    (shown,) = terms.pictures
    darker = replace(shown, brightness=shown.brightness * 0.6 + 0.05)
    other = PictureTerms([darker], terms.surface, terms.motion, terms.weights)
    other.looks = terms.looks
    before, after = (one(person, torch.arange(FRAMES), state) for one in (terms, other))
    torch.testing.assert_close(after[2], 0.36 * before[2], rtol=1e-3, atol=0)
    torch.testing.assert_close(after[1], 0.36 * before[1], rtol=1e-3, atol=1e-9)


def test_fitted_lines_are_weighted_least_squares() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y, weight = (torch.rand(4, 30, generator=draw).double() for _ in range(3))
    gain, offset = fitted_line(x, y, weight)
    for n in range(4):
        line = np.polyfit(x[n].numpy(), y[n].numpy(), 1, w=weight[n].sqrt().numpy())
        assert float(gain[n]) == pytest.approx(line[0], rel=1e-4)
        assert float(offset[n]) == pytest.approx(line[1], rel=1e-4)
    nothing = fitted_line(x, y, torch.zeros_like(x))
    assert nothing[0].isfinite().all() and nothing[1].isfinite().all()


def test_fields_are_sampled_at_pixel_centres() -> None:
    draw = torch.Generator().manual_seed(0)
    field = torch.rand(2, 9, 12, generator=draw)
    middle = torch.tensor([[3.5, 4.5], [7.5, 2.5]]).expand(2, -1, -1)
    value, slope = sampled(field, middle)
    torch.testing.assert_close(value, torch.stack([field[:, 4, 3], field[:, 2, 7]], 1))
    across = (field[:, 4, 4] - field[:, 4, 2]) / 2
    down = (field[:, 5, 3] - field[:, 3, 3]) / 2
    torch.testing.assert_close(slope[:, 0], torch.stack([across, down], 1))


def test_a_slope_is_sampled_exactly_and_held_outside() -> None:
    down, across = torch.meshgrid(torch.arange(20.0) + 0.5, torch.arange(30.0) + 0.5, indexing="ij")
    field = (2 * across - 3 * down)[None]
    pixels = torch.rand(1, 50, 2, generator=torch.Generator().manual_seed(1)) * 17 + EDGE_PX
    value, slope = sampled(field, pixels)
    torch.testing.assert_close(value, 2 * pixels[..., 0] - 3 * pixels[..., 1])
    torch.testing.assert_close(slope, torch.tensor([2.0, -3.0]).expand(1, 50, 2))
    value, _ = sampled(field, torch.tensor([[[-50.0, 4.5], [90.0, 4.5]]]))
    torch.testing.assert_close(value, torch.stack([field[:, 4, 0], field[:, 4, -1]], 1))


def test_sampled_slopes_are_those_of_smooth_fields() -> None:
    _, _, terms = scene(False, "waves")
    field = terms.pictures[0].brightness
    at = torch.rand(FRAMES, 40, 2, generator=torch.Generator().manual_seed(3)).double()
    at = 20 + at * torch.tensor([120.0, 80.0])
    _, slope = sampled(field, at)
    for axis in range(2):
        step = torch.zeros(2).double()
        step[axis] = 0.5
        rise = sampled(field, at + step)[0] - sampled(field, at - step)[0]
        assert (slope[..., axis] - rise).abs().max() < 0.04 * slope.abs().max()


def test_distances_are_to_the_nearest_covered_pixel() -> None:
    matte = torch.zeros(14, 17)
    matte[3:6, 4:9], matte[10, 12], matte[0, 0] = 1.0, 0.5, 0.49
    found = distance_outside(matte)
    covered = torch.nonzero(matte >= 0.5).double()
    places = torch.nonzero(torch.ones_like(matte)).double()
    wanted = torch.cdist(places, covered).amin(1).reshape(14, 17).float()
    torch.testing.assert_close(found, wanted)
    assert (found[matte >= 0.5] == 0).all() and found[0, 0] > 0
    assert (distance_outside(torch.zeros(5, 5)) == 0).all()


def test_blurring_keeps_levels_and_slopes() -> None:
    flat = torch.full((2, 9, 11), 0.3)
    torch.testing.assert_close(blurred(flat, 1.5), flat)
    ramp = torch.arange(20.0).expand(1, 8, 20)
    torch.testing.assert_close(blurred(ramp, 1.5)[..., 6:-6], ramp[..., 6:-6])
    dot = torch.zeros(1, 21, 21)
    dot[0, 10, 10] = 1
    spread = blurred(dot, 1.5)[0]
    assert float(spread.sum()) == pytest.approx(1.0, abs=1e-5)
    across = (torch.arange(21.0) - 10).square() @ spread.sum(0)
    assert float(across) == pytest.approx(1.5**2, rel=0.05)


def test_pictures_are_grey_and_told_apart_from_mattes() -> None:
    images = torch.zeros(2, 12, 16, 3)
    images[..., 1] = 1.0
    mattes = torch.zeros(2, 12, 16)
    mattes[:, :, 8:] = 1
    found = Pictures.of(images, mattes, single_camera(16, 12))
    torch.testing.assert_close(found.brightness, torch.full((2, 12, 16), 0.587))
    assert found.outside is not None
    assert found.outside[0, 5].tolist() == [*range(8, 0, -1), *[0] * 8]
    assert Pictures.of(images, None, single_camera(16, 12)).outside is None


def test_the_surface_is_the_head_above_the_chin_with_skin_on_the_face() -> None:
    person = ActedFace.mean().person()
    surface = head_surface(equipment().model, person)
    assert 300 < len(surface.points) <= 2 * SURFACE_POINTS
    assert surface.points[:, 1].amin() > person.landmarks[:, 1].amin() - BELOW_CHIN - 1e-6
    torch.testing.assert_close(surface.normals.norm(dim=1), torch.ones(len(surface.points)))
    skin = surface.skin > 0
    assert 150 < int(skin.sum()) < len(skin)
    assert (surface.normals[skin, 2] > SKIN_FACING).all()
    near = torch.cdist(surface.points[skin], person.landmarks).amin(1)
    assert near.max() < SKIN_REACH
    again = head_surface(equipment().model, person)
    assert torch.equal(again.points, surface.points)


STAGE = StageConfig(landmark_monocular=0.0, landmark=0.0, code=1.0, sparsity=0.0)
"""Pictures alone; codes stay where the prior's mean is."""


def test_a_matte_pulls_a_head_inside() -> None:
    """Landmarks that are 2 cm beside give way to a matte; a head inside its matte stays."""
    face = ActedFace.mean(160, 120)
    person, camera = face.person(), face.camera
    surface = face_points(person)
    codes = torch.zeros(2, CODES)
    true = poses(torch.tensor([[0.0, 0.1, 0.0], [0.1, -0.2, 0.0]]))
    down, across = torch.meshgrid(torch.arange(120.0), torch.arange(160.0), indexing="ij")
    pixels = face.pixels(codes, true)[:, ::5]
    places = torch.stack([across, down], -1).flatten(0, 1) + 0.5
    mattes = (torch.cdist(places.expand(2, -1, -1), pixels).amin(2) < 5).float()
    mattes = mattes.unflatten(1, (120, 160))
    pictures = Pictures.of(torch.zeros(2, 120, 160, 3), mattes, camera)
    terms = PictureTerms([pictures], surface, equipment().motion, PictureWeights(brightness=0.0))
    beside = true.translation + torch.tensor([[0.02, 0.0, 0.0], [0.0, -0.02, 0.0]])
    start = plain_state(codes, replace(true, translation=beside), person)
    terms.learn_looks(person, start)
    data = face.observed(codes, start.pose(person.scale)).data
    weak = replace(STAGE, landmark_monocular=0.01)
    rows = torch.arange(2)
    before = terms(person, rows, start)[2]
    assert (before > 3).all()
    end = solve_frames(person, data, start, weak, 25, more=terms)
    assert (terms(person, rows, end)[2] < 0.2 * before).all()
    alone = solve_frames(person, data, start, weak, 25)
    assert (terms(person, rows, alone)[2] > 0.9 * before).all()
    kept = plain_state(codes, true, person)
    assert (terms(person, rows, kept)[2] < 1e-6).all()
    still = solve_frames(person, data, kept, STAGE, 5, more=terms)
    torch.testing.assert_close(still.translation, true.translation, atol=1e-4, rtol=0)


def test_brightness_leads_a_shifted_head_back() -> None:
    """A texture that moves with the head; one frame is darker; another starts 8 mm beside.

    The camera is far, so that the pictures of a shifted head are shifted pictures.
    """
    person = ActedFace.mean().person()
    camera = single_camera(200, 160, 4000.0)
    shifts = torch.tensor([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [0.0, -0.012, 0.0]])
    far = torch.tensor([0.0, 0.0, 10 * PLACE[2]])
    true = poses(torch.zeros(3, 3), far + shifts)
    down, across = torch.meshgrid(torch.arange(160.0), torch.arange(200.0), indexing="ij")
    per_metre = 4000 / (-float(far[2]) - 0.4 * SCALE)
    right, low = (per_metre * shifts[:, k, None, None] for k in (0, 1))
    x, y = across - right, down + low
    shown = 0.5 + 0.2 * (x / 7).sin() * (y / 9).cos() + 0.1 * (x / 15 + y / 11).sin()
    shown[1] = 0.7 * shown[1] + 0.1
    images = shown[..., None].expand(-1, -1, -1, 3)
    terms = PictureTerms(
        [Pictures.of(images, None, camera)], face_points(person), equipment().motion
    )
    state = plain_state(torch.zeros(3, CODES), true, person)
    terms.learn_looks(person, state)
    beside = true.translation + torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.008, 0, 0]])
    start = replace(state, translation=beside)
    rows = torch.arange(3)
    before = terms(person, rows, start)[2]
    data = ActedFace.mean().observed(torch.zeros(3, CODES), swinging(3)).data
    # Turning and shifting a far head look alike: landmarks of the true turn hold it.
    end = solve_frames(person, data, start, replace(STAGE, code=10.0), 20, more=terms)
    after = terms(person, rows, end)[2]
    assert before[2] > 20 * before[0] and after[2] < 0.1 * before[2]
    turn = rotvec_from_matrix(true.rotation.mT @ end.rotation)[2]
    moved = person.landmarks.mean(0)
    apart = end.translation[2] - true.translation[2]
    apart = apart + SCALE * torch.linalg.cross(turn, moved)
    assert float(1000 * apart[:2].norm()) < 1.5
