"""Generated people without anny: a sphere is dressed, lit, filmed and read back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from npga.capture import open_capture
from npga.capture.color import correct_exact
from npga.capture.synthetic import shading
from npga.capture.synthetic.actor import Actor, Look, blend_neck, vertex_normals
from npga.capture.synthetic.config import CaptureSynthConfig, PersonConfig
from npga.capture.synthetic.figure import Figure
from npga.capture.synthetic.grading import backdrop, make_matrix, stored_colors
from npga.capture.synthetic.hair import HairLook
from npga.capture.synthetic.light import studio
from npga.capture.synthetic.motion import LOOK_LIMIT_RAD, SEQUENCES, make_motion
from npga.capture.synthetic.noise import fbm
from npga.capture.synthetic.observe import LandmarkPlaces, observe_landmarks, sample_cloud
from npga.capture.synthetic.people import EXPRESSIONS
from npga.capture.synthetic.rig import SERIALS, UPPER_ROW, make_rig
from npga.capture.synthetic.skin import SkinLook, wrinkle_activation
from npga.capture.writer import CaptureWriter
from npga.core.errors import ConfigError
from npga.core.similarity import Similarity

HEAD = Similarity(torch.tensor(0.25), torch.eye(3), torch.tensor([0.0, 0.0, 0.03]))
FRONT = ("222200037", "222200038", "222200041")


def sphere_figure() -> Figure:
    """A ball for a head; jawOpen makes it taller downwards, its lower part follows the torso."""
    rings, sectors, radius = 30, 40, 0.4
    theta, phi = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, rings),
        np.arange(sectors) * 2 * np.pi / sectors,
        indexing="ij",
    )
    unit = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], -1)
    points = radius * unit.reshape(-1, 3) + np.array([0, 0.1, -0.15])
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(sectors), indexing="ij")
    a, b = i * sectors + j, i * sectors + (j + 1) % sectors
    faces = np.concatenate(
        [np.stack([a, a + sectors, b], -1), np.stack([b, a + sectors, b + sectors], -1)]
    )
    faces = faces.reshape(-1, 3).astype(np.int32)
    jaw = EXPRESSIONS.index("jawOpen")

    def posed(weights: np.ndarray, gaze: np.ndarray) -> np.ndarray:
        out = points.copy()
        out[:, 1] -= 0.1 * weights[jaw] * (points[:, 1] < 0)
        return out

    return Figure(
        template=points,
        neutral=points,
        faces=faces,
        material=np.full(len(faces), shading.SKIN, np.uint8),
        torso_weight=(points[:, 1] < -0.2).astype(float),
        hairy=points[faces][..., 1].mean(1) > 0.2,
        eye_centres=np.array([[0.12, 0.11, 0.1], [-0.12, 0.11, 0.1]]),
        names=EXPRESSIONS,
        posed=posed,
    )


@pytest.fixture(scope="module")
def actor() -> Actor:
    """The dressed ball."""
    look = Look(SkinLook(), HairLook(locks=150), (0.3, 0.4, 0.5), (0.2, 0.3, 0.5), collar=-0.2)
    return Actor(sphere_figure(), look, studio())


def test_noise_repeats_and_is_bounded() -> None:
    points = np.random.default_rng(0).uniform(-5, 5, (2000, 3))
    values = fbm(points, 7.0, seed=3)
    assert np.array_equal(values, fbm(points, 7.0, seed=3))
    assert not np.array_equal(values, fbm(points, 7.0, seed=4))
    assert np.abs(values).max() <= 1 and values.std() > 0.1 and abs(values.mean()) < 0.1


def test_rig_is_nersembles() -> None:
    rig = make_rig(np.random.default_rng(0))
    cameras = rig.cameras(SERIALS, 220, 320)
    assert len(cameras) == 16 and tuple(rig.cam_from_world) == SERIALS
    rotation = cameras.cam_from_world[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).double(), atol=1e-9)
    pixels, depth = cameras.project(torch.zeros(1, 3, dtype=torch.float64))
    assert ((depth > 0.9) & (depth < 1.1)).all()
    assert (pixels[:, 0] - torch.tensor([110.0, 160.0])).abs().max() < 12
    centres = rig.cameras(UPPER_ROW, 220, 320).centres_world()
    assert (centres[:-1, 0] > centres[1:, 0]).all() and (centres[:, 1:] > 0.1).all()


@pytest.mark.parametrize("name", list(SEQUENCES))
def test_motion_is_smooth_and_its_look_agrees_with_the_gaze(name: str) -> None:
    motion = make_motion(name, 24, EXPRESSIONS, np.random.default_rng(1), np.zeros(3))
    assert motion.weights.shape == (24, 52) and motion.gaze.shape == (24, 2, 2)
    assert motion.weights.min() >= 0 and motion.weights.max() <= 1
    steps = torch.linalg.norm(motion.world_from_head.translation.diff(dim=0), dim=1)
    assert steps.max() < 0.01
    yaw = motion.gaze[:, :, 0].mean(1) / LOOK_LIMIT_RAD
    out, inwards = (EXPRESSIONS.index(f"eyeLook{s}Left") for s in ("Out", "In"))
    looked = motion.weights[:, out] - motion.weights[:, inwards]
    assert np.abs(looked - np.clip(yaw, -1, 1)).max() < 1e-5


def test_free_holds_combinations_of_no_other_sequence() -> None:
    elsewhere = [
        frozenset(p.weights) for n, poses in SEQUENCES.items() if n != "FREE" for p in poses
    ]
    for pose in SEQUENCES["FREE"][1:]:
        assert not any(frozenset(pose.weights) <= e for e in elsewhere)


@pytest.mark.parametrize("terms", [3, 11])
def test_stored_colors_invert_the_calibration(terms: int) -> None:
    rng = np.random.default_rng(2)
    matrix = make_matrix(terms, rng)
    grey = rng.integers(70, 190, (20, 20, 1))
    true = (grey + rng.integers(-35, 36, (20, 20, 3))).astype(np.uint8)
    corrected = correct_exact(stored_colors(true, matrix) / 255.0, matrix) * 255
    assert np.abs(corrected - true).max() < (0.01 if terms == 3 else 2.0)
    assert np.abs(corrected - true).mean() < 0.5


def test_wrinkles_follow_the_expression(actor: Actor) -> None:
    assert (wrinkle_activation({}) == 0).all()
    smile = wrinkle_activation({"mouthSmileLeft": 1.0, "cheekSquintLeft": 1.0})
    assert smile[3] > 0.5 and smile[5] > 0.5 and smile[4] == smile[6] == 0
    calm, folded = actor.maps.bumped(0 * smile), actor.maps.bumped(smile)
    assert np.abs(folded - calm)[..., :2].max() > 0.3 and calm[..., 2].min() == 1
    assert folded[..., 2].min() < 0.9


def test_neck_blends_head_and_torso() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    torso = Similarity(torch.tensor(0.25), torch.eye(3), torch.tensor([0.1, 0.0, 0.0]))
    head, low = (
        blend_neck(points, np.zeros(5), HEAD, torso),
        blend_neck(points, np.ones(5), HEAD, torso),
    )
    assert np.allclose(head, HEAD.apply(torch.tensor(points).float()).numpy(), atol=1e-6)
    assert np.allclose(low, torso.apply(torch.tensor(points).float()).numpy(), atol=1e-6)


def test_normals_point_outwards() -> None:
    figure = sphere_figure()
    normals = vertex_normals(figure.neutral, figure.faces)
    outward = figure.neutral - np.array([0, 0.1, -0.15])
    cosine = (normals * outward).sum(1) / np.linalg.norm(outward, axis=1)
    assert cosine[40:-40].min() > 0.97


def test_a_moment_is_lit_matted_and_sampled(actor: Actor) -> None:
    cameras = make_rig(np.random.default_rng(0)).cameras(FRONT, 66, 96)
    stage = actor.stage(np.zeros(52), np.zeros((2, 2)), HEAD, HEAD)
    wall = np.zeros((96, 66, 3))
    dark = [actor.shoot(stage, cameras, i, wall) for i in range(3)]
    light = actor.shoot(stage, cameras, 0, wall + 1)
    alpha = dark[0].matte / 255.0
    mixed = dark[0].color + (1 - alpha[..., None]) * 255
    assert np.abs(light.color.astype(float) - mixed).max() <= 2
    assert 0.15 < alpha.mean() < 0.7 and len(np.unique(dark[0].matte)) == 5
    solid = dark[0].color[dark[0].matte == 255].astype(float)
    assert solid.mean() > 40 and solid.std() > 10

    pixels, _ = cameras.project(torch.tensor(stage.figure_vertices))
    column, row = pixels[0].numpy().astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < 66) & (row < 96)
    near = dark[0].matte[row[inside], column[inside]] > 0
    assert near.mean() > 0.98

    cloud = sample_cloud(stage, dark, cameras, 300, np.random.default_rng(0))
    assert len(cloud) == 300
    pixels, _ = cameras.project(cloud.points.double())
    column, row = pixels[0].numpy().astype(int).clip(0, 65).T
    assert (dark[0].matte[row.clip(0, 95), column] > 0).mean() > 0.97
    assert torch.allclose(cloud.normals.norm(dim=1), torch.ones(300), atol=1e-3)


def test_landmarks_say_which_are_hidden(actor: Actor) -> None:
    cameras = make_rig(np.random.default_rng(0)).cameras(FRONT, 66, 96)
    stage = actor.stage(np.zeros(52), np.zeros((2, 2)), HEAD, HEAD)
    shots = [actor.shoot(stage, cameras, i, np.zeros((96, 66, 3))) for i in range(3)]
    faces = actor.figure.faces
    middle = stage.figure_vertices[faces].mean(1)
    level = np.abs(middle[:, 1] - 0.02) < 0.02
    front = np.flatnonzero(level & (middle[:, 2] > 0.085))[:5]
    back = np.flatnonzero(level & (middle[:, 2] < -0.095))[:5]
    places = LandmarkPlaces(np.concatenate([front, back]), np.full((10, 3), 1 / 3))
    points, seen = observe_landmarks(
        places, stage.figure_vertices, faces, shots, cameras, np.random.default_rng(0)
    )
    assert points.shape == (3, 10, 2)
    assert seen[:, :5].mean() > 0.9 and seen[:, 5:].max() == 0


def test_film_can_be_read_back(actor: Actor, tmp_path: Path) -> None:
    cameras = make_rig(np.random.default_rng(0)).cameras(FRONT, 66, 96)
    rng = np.random.default_rng(4)
    matrices = {serial: make_matrix(11, rng) for serial in FRONT}
    walls = [backdrop(66, 96, rng) for _ in FRONT]
    writer = CaptureWriter(tmp_path / "capture", 7, cameras, crf=8, matte_crf=8)
    writer.write_color_calibration(matrices)
    true = []
    with writer.sequence("FREE") as file:
        for jaw in (0.0, 1.0):
            weights = np.zeros(52)
            weights[EXPRESSIONS.index("jawOpen")] = jaw
            stage = actor.stage(weights, np.zeros((2, 2)), HEAD, HEAD)
            shots = [actor.shoot(stage, cameras, i, walls[i]) for i in range(3)]
            true.append(shots)
            cloud = sample_cloud(stage, shots, cameras, 100, rng)
            pairs = zip(shots, FRONT, strict=True)
            stored = np.stack([stored_colors(s.color, matrices[i]) for s, i in pairs])
            file.add(stored, np.stack([s.matte for s in shots]), cloud)
    capture = open_capture(tmp_path / "capture")
    views = capture.views("FREE", (0, 1), FRONT, 66, 96, tmp_path / "cache")
    for frame, shots in enumerate(true):
        for camera, shot in enumerate(shots):
            read = views.images[frame, camera].numpy().astype(float)
            assert np.abs(read - shot.color).mean() < 6
            matte = views.mattes[frame, camera].numpy().astype(float)
            assert np.abs(matte - shot.matte).mean() < 4
    assert len(capture.cloud("FREE", 1)) == 100


def test_config_refuses_what_cannot_be_filmed() -> None:
    with pytest.raises(ConfigError, match="even"):
        CaptureSynthConfig(width=101)
    with pytest.raises(ConfigError, match="EXP-99"):
        CaptureSynthConfig(sequences=["EXP-99"])
    with pytest.raises(ConfigError, match="participant"):
        CaptureSynthConfig(people=[PersonConfig(), PersonConfig()])
    with pytest.raises(ConfigError, match="frames"):
        CaptureSynthConfig(people=[PersonConfig(frames=1)])
