"""Seeds: where they lie, how many, and what colour they have."""

import torch
import trimesh

from npga.avatar.attachment import NECK_BOTTOM, NECK_TOP, initial_attachment
from npga.avatar.initial import (
    EYES,
    MOUTH,
    ColoredPoints,
    hair_seeds,
    inner_seeds,
    nearest_colors,
    spread_scales,
    start_from,
    surface_seeds,
    thin,
)
from npga.core.mesh import Mesh


def ball(radius: float = 0.4) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return Mesh(torch.tensor(body.vertices).float(), torch.tensor(body.faces).long())


def test_surface_seeds_lie_on_the_surface_and_crowd_at_the_foci():
    focus = torch.tensor([[0.0, 0.0, 0.4]])
    points = surface_seeds(ball(), 3000, 0, focus)
    assert points.shape == (3000, 3)
    assert ((points.norm(dim=1) - 0.4).abs() < 0.01).all()
    near = ((points - focus).norm(dim=1) < 0.1).sum()
    opposite = ((points + focus).norm(dim=1) < 0.1).sum()
    assert near > 3 * opposite


def test_hair_lies_outside_on_top_and_behind():
    points = hair_seeds(ball(), 500, 0)
    assert len(points) == 500
    assert (points.norm(dim=1) > 0.39).all() and (points[:, 1] > 0.1).all()


def test_inner_seeds_fill_mouth_and_eyes():
    eyes, mouth = torch.tensor(EYES), torch.tensor(MOUTH)
    points = inner_seeds(400, 0, mouth, eyes)
    assert len(points) == 400
    behind = (points - mouth).norm(dim=1) < 0.2
    assert 190 <= int(behind.sum()) <= 210
    assert (torch.cdist(points[~behind], eyes).amin(1) < 0.06).all()


def test_thinning_spreads_points_evenly():
    torch.manual_seed(0)
    crowd, spread = 0.05 * torch.rand(5000, 3), torch.rand(1000, 3)
    points = ColoredPoints(torch.cat([crowd, spread]), torch.rand(6000, 3))
    kept = thin(points, 600, 0)
    assert len(kept.points) == 600
    in_crowd = (kept.points < 0.05).all(1).sum()
    assert in_crowd < 60, "a twelfth of the volume must not keep five sixths of the points"
    assert thin(points, 10000, 0) is points


def test_colors_come_from_the_nearest_known_point():
    known = ColoredPoints(torch.tensor([[0.0, 0, 0], [1, 0, 0]]), torch.eye(3)[:2])
    colors = nearest_colors(torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.0, 0.2]]), known)
    assert torch.equal(colors, torch.eye(3)[[1, 0]])
    nothing = ColoredPoints(torch.zeros(0, 3), torch.zeros(0, 3))
    assert torch.equal(nearest_colors(torch.rand(4, 3), nothing), torch.full((4, 3), 0.5))


def test_scales_follow_the_spacing():
    grid = torch.cartesian_prod(*[0.02 * torch.arange(5.0)] * 3)
    torch.testing.assert_close(spread_scales(grid).exp(), torch.full((125, 3), 0.7 * 0.02))


def test_reach_fades_with_distance_and_attachment_with_height():
    places = torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, 0.56], [0.0, 0.0, 1.0], [0.0, 0.4, 0.0]])
    seeds = ColoredPoints(places, torch.rand(4, 3))
    start = start_from(seeds, torch.zeros(4, 2), ball())
    assert start.reach[0] == 1 and 0.3 < start.reach[1] < 0.7 and start.reach[2] == 0
    heights = torch.tensor([[0, NECK_TOP + 0.1, 0], [0, NECK_BOTTOM - 0.1, 0]])
    middle = torch.tensor([[0, (NECK_TOP + NECK_BOTTOM) / 2, 0]])
    weights = initial_attachment(torch.cat([heights, middle]))
    torch.testing.assert_close(weights, torch.tensor([0.99, 0.01, 0.5]))
