"""Seeds from clouds and mattes."""

import torch
import trimesh
from tiny_person import body, head_pose, rig

from npga.avatar.attachment import blend_poses, initial_attachment
from npga.capture.types import PointCloud
from npga.core.mesh import Mesh
from npga.core.similarity import Similarity
from npga.fit.seeds import CloudFrame, canonical_cloud, seed_avatar, seen_in, unpose


def ball(radius: float = 0.35) -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())


def torso() -> Similarity:
    pose = head_pose(0.05)
    return Similarity(pose.scale, pose.rotation, torch.tensor([0.01, -0.02, 0.0]))


def posed(points: torch.Tensor) -> torch.Tensor:
    quats = torch.zeros(len(points), 4)
    quats[:, 0] = 1
    weight = initial_attachment(points)
    zero = torch.zeros_like(points)
    return blend_poses(points, quats, zero, weight, head_pose(0.3), torso())[0]


def test_unposing_undoes_posing_also_on_the_neck():
    torch.manual_seed(0)
    points = torch.rand(200, 3) * torch.tensor([0.6, 1.4, 0.6]) - torch.tensor([0.3, 1.1, 0.3])
    back, weight = unpose(posed(points), head_pose(0.3), torso())
    assert (back - points).norm(dim=1).median() < 1e-4
    assert (back - points).norm(dim=1).max() < 0.02
    torch.testing.assert_close(weight, initial_attachment(points), atol=0.05, rtol=0)


def frame_of(points: torch.Tensor, colors: torch.Tensor) -> CloudFrame:
    cloud = PointCloud(posed(points), torch.zeros_like(points), colors)
    return CloudFrame(cloud, torch.ones(3), head_pose(0.3), torso())


def test_clouds_come_home_through_the_backward_field_without_outliers():
    surface = ball()
    canonical = surface.sample(800, 1).points
    expression = torch.tensor([0.0, 0.03, 0.0])
    strays = torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0]])
    colors = torch.rand(802, 3)
    frame = frame_of(torch.cat([canonical + expression, strays]), colors)
    home = canonical_cloud([frame], surface, lambda points, z_exp: -expression * z_exp[:1])
    assert len(home.points) == 800, "the two strays must go"
    upper = canonical[:, 1] > -0.3
    torch.testing.assert_close(home.points[upper], canonical[upper], atol=3e-3, rtol=0)
    assert torch.equal(home.colors, colors[:800])


def test_only_points_on_all_mattes_are_seen_and_they_get_their_colour(data):
    batch = data.batch(0)
    points = torch.cat([0.8 * body().means[:60], torch.tensor([[0.8, 0.0, 0.0], [0.0, 0.0, 0.75]])])
    allowed, _ = seen_in(points, batch)
    assert allowed[:60].float().mean() > 0.95 and not allowed[60:].any()
    front = torch.tensor([[0.0, 0.0, 0.35]])
    torch.testing.assert_close(
        seen_in(front, batch)[1], torch.tensor([[0.5, 0.5, 1.0]]), atol=0.2, rtol=0
    )


def test_an_avatar_is_seeded_with_and_without_clouds(data):
    surface, omega = ball(), torch.rand(ball().vertices.shape[0], 2)
    neutral = data.batch(0)
    torch.manual_seed(0)
    hair = torch.nn.functional.normalize(torch.randn(3000, 3), dim=1) * 0.42
    frame = frame_of(hair, torch.ones(3000, 3) * torch.tensor([0.2, 0.1, 0.0]))
    covered = seed_avatar(surface, omega, neutral, [frame], None, 400, 0)
    assert len(covered.points) == 400
    far = covered.points.norm(dim=1) > 0.4
    assert int(far.sum()) >= 100
    torch.testing.assert_close(
        covered.colors[far], torch.tensor([0.2, 0.1, 0.0]).expand(int(far.sum()), 3)
    )
    bare = seed_avatar(surface, omega, neutral, [], None, 400, 0)
    assert len(bare.points) == 400
    again = seed_avatar(surface, omega, neutral, [], None, 400, 0)
    assert torch.equal(bare.points, again.points) and torch.equal(bare.colors, again.colors)
    on_surface = (bare.points.norm(dim=1) - 0.35).abs() < 0.01
    vertex = torch.cdist(bare.points[on_surface], surface.vertices).argmin(1)
    assert torch.equal(bare.omega[on_surface], omega[vertex])


def test_cameras_are_what_they_say():
    pixels, depth = rig(3).project(torch.zeros(1, 3))
    assert (depth > 0.9).all() and (pixels[:, 0, 0] - 20.5).abs().max() < 1e-3
