"""Depth, normals and transparency of Gaussians whose surface is known."""

import numpy as np
import pytest
import torch

from npga.avatar.store import load_avatar
from npga.core.cameras import Cameras, look_at
from npga.core.errors import ConfigError
from npga.core.gaussians import Gaussians
from npga.raster import Backend, rasterize
from npga.render.config import Pass
from npga.render.layers import Layers, draw_layers
from npga.render.pictures import (
    Look,
    background_level,
    color_picture,
    depth_mm,
    depth_picture,
    normals_picture,
    pass_picture,
)
from npga.render.run import drive_of
from npga.render.trajectory import front_camera
from nphm_tracking import load_track


def camera(width=60, height=50) -> Cameras:
    """At z = 1 m, looking at the origin."""
    pose = look_at(torch.tensor([0.0, 0, 1]), torch.zeros(3), torch.tensor([0.0, 1, 0]))
    intrinsics = torch.tensor([[150.0, 0, width / 2], [0, 150, height / 2], [0, 0, 1]])
    return Cameras(intrinsics[None], pose[None], width, height, ("front",))


def layers_of(points, radius=0.004) -> Layers:
    count = len(points)
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    cloud = Gaussians(
        points, quats, torch.full((count, 3), radius).log(), torch.full((count,), 4.0),
        torch.full((count, 3), 0.5),
    )  # fmt: skip
    images = rasterize(cloud, camera(), background=torch.ones(3), backend=Backend.reference)
    return Layers(images.image, images.alpha, images.depth, camera())


def plane(slope_x=0.0, slope_y=0.0) -> Layers:
    """z = slope_x x + slope_y y, a square of 20 cm."""
    x, y = torch.meshgrid(*[torch.linspace(-0.1, 0.1, 41)] * 2, indexing="ij")
    return layers_of(torch.stack([x, y, slope_x * x + slope_y * y], -1).reshape(-1, 3))


def ball(radius=0.12) -> Layers:
    torch.manual_seed(0)
    points = radius * torch.nn.functional.normalize(torch.randn(6000, 3), dim=-1)
    return layers_of(points)


def test_depth_of_a_plane_is_its_distance_and_zero_beside_it():
    layers = plane()
    depth = layers.depth()[0]
    solid = depth > 0
    assert torch.allclose(depth[solid], torch.tensor(1.0), atol=1e-5)
    assert solid[25, 30] and not solid[0, 0]
    assert solid.float().mean() == pytest.approx(30 * 30 / 3000, rel=0.2)
    millimetres = depth_mm(layers)
    assert millimetres.dtype == np.uint16 and set(np.unique(millimetres)) == {0, 1000}


def test_depth_is_the_rasters_over_alpha():
    layers = plane(0.5, 0.2)
    solid = layers.alpha >= 0.5
    expected = (layers.accumulated_z / layers.alpha)[solid]
    assert torch.allclose(layers.depth()[solid], expected)
    column = layers.depth()[0, 25, 20:41]  # nearer to the right: z grows with x
    assert (column.diff() < 0).all()


@pytest.mark.parametrize("slopes", [(0.0, 0.0), (0.6, 0.0), (0.0, -0.5), (-0.4, 0.3)])
def test_normals_of_a_plane(slopes):
    normals = plane(*slopes).normals()[0, 18:32, 23:37].reshape(-1, 3)
    expected = torch.nn.functional.normalize(torch.tensor([-slopes[0], -slopes[1], 1.0]), dim=0)
    assert torch.allclose(normals.norm(dim=1), torch.tensor(1.0), atol=1e-5)
    angles = torch.rad2deg((normals @ expected).clamp(-1, 1).acos())
    assert angles.median() < 3 and angles.max() < 10


def test_normals_of_a_ball_point_outwards():
    layers = ball()
    normals, depth = layers.normals()[0], layers.depth()[0]
    rows, columns = torch.nonzero(depth > 0, as_tuple=True)
    z = depth[rows, columns]
    x, y = (columns + 0.5 - 30) / 150 * z, -(rows + 0.5 - 25) / 150 * z
    outwards = torch.nn.functional.normalize(torch.stack([x, y, 1 - z], -1), dim=-1)
    inner = (x**2 + y**2).sqrt() < 0.09
    angles = torch.rad2deg((normals[rows, columns] * outwards).sum(-1).clamp(-1, 1).acos())
    assert angles[inner].median() < 8
    assert (normals[rows, columns][:, 2] > 0).all()  # towards the camera
    picture = normals_picture(layers, transparent=False)
    assert picture[25, 42, 0] > 170 > 90 > picture[25, 18, 0]  # right is red
    assert picture[13, 30, 1] > 170 > 90 > picture[37, 30, 1]  # up is green
    assert (picture[0, 0] == 128).all()


def test_a_view_of_nothing_has_empty_passes():
    layers = layers_of(torch.tensor([[0.0, 0.0, 5.0]]))
    look = Look(None, (0.5, 1.5))
    assert (layers.normals() == 0).all() and (depth_mm(layers) == 0).all()
    for kind in Pass:
        picture = pass_picture(kind, layers, look)
        if picture.shape[-1] == 4:
            assert (picture[..., 3] == 0).all()
        elif kind is not Pass.normals:
            assert (picture == 0).all()


def test_a_depth_picture_is_bright_near_dark_far_and_black_where_nothing_is():
    layers = plane(0.8)
    picture = depth_picture(layers, (0.9, 1.1))[..., 0]
    assert picture[25, 40] > picture[25, 30] > picture[25, 20] >= 25
    assert picture[0, 0] == 0


def avatar_layers(person, refine=True) -> Layers:
    avatar = load_avatar(person / "avatar.safetensors")
    drive = drive_of(load_track(person).sequence("FREE"))
    with torch.no_grad():
        avatar.colors.clamp_(0.1, 0.9)
        avatar.refiner.layers[-1].bias.fill_(-0.05)
    return draw_layers(
        avatar, drive.z_exp[1], drive.world_from_head[1], drive.world_from_torso,
        front_camera(drive.world_from_torso, 80, 110), refine=refine,
    )  # fmt: skip


@pytest.mark.parametrize("refine", [True, False])
def test_transparent_over_a_grey_is_the_picture_on_that_grey(person, refine):
    layers = avatar_layers(person, refine)
    assert 0.02 < float(((layers.alpha > 0.05) & (layers.alpha < 0.95)).float().mean())
    rgba = color_picture(layers, None).astype(float)
    alpha = rgba[..., 3:] / 255
    for level in (1.0, 0.0, 0.4):
        over = rgba[..., :3] * alpha + 255 * level * (1 - alpha)
        assert np.abs(over - color_picture(layers, level)).max() <= 2


def test_colours_reach_a_little_into_what_is_transparent(person):
    rgba = color_picture(avatar_layers(person), None)
    clear = rgba[..., 3] == 0
    assert clear.any() and (rgba[0, 0] == 0).all()
    edge = clear & np.roll(~clear, 1, axis=1)
    assert rgba[edge][:, :3].max(1).min() > 10


def test_another_background_is_not_what_the_refiner_sees(person):
    plain, refined = avatar_layers(person, False), avatar_layers(person, True)
    change = [refined.over(level) - plain.over(level) for level in (1.0, 0.3)]
    assert change[0].abs().max() > 0.03
    assert torch.allclose(change[0], change[1], atol=1e-5)


def test_words_and_numbers_of_backgrounds():
    words = ("white", "black", "0.25", "transparent")
    assert [background_level(word) for word in words] == [1.0, 0.0, 0.25, None]
    for word in ("blue", "1.5", "nan"):
        with pytest.raises(ConfigError, match="is no background"):
            background_level(word)
