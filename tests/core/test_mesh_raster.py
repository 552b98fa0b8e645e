"""The mesh rasteriser against a slow twin that tests every pixel against every triangle."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from npga.core.cameras import Cameras, look_at
from npga.core.errors import NpgaError
from npga.core.mesh_raster import MeshFragments, rasterize_mesh

ROOT = Path(__file__).resolve().parents[2]


def rasterize_slowly(
    vertices: torch.Tensor, faces: torch.Tensor, cameras: Cameras
) -> MeshFragments:
    """The twin: intersects the ray of each pixel centre with each triangle, in float64.

    Moeller-Trumbore: o + t d = w0 a + w1 b + w2 c; t is the depth because d has camera z = 1.
    """
    face_images, bary_images, depth_images = [], [], []
    for camera in range(len(cameras.K)):
        pose = cameras.cam_from_world[camera].double()
        points = vertices.double() @ pose[:3, :3].T + pose[:3, 3]
        triangle = points[faces]
        y, x = torch.meshgrid(
            torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij"
        )
        pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).double()
        rays = pixels @ torch.linalg.inv(cameras.K[camera].double()).T
        origin, edge1, edge2 = (
            triangle[:, 0],
            triangle[:, 1] - triangle[:, 0],
            triangle[:, 2] - triangle[:, 0],
        )
        p = torch.linalg.cross(rays[:, :, None], edge2[None, None])
        determinant = (p * edge1).sum(-1)
        w1 = -(p * origin).sum(-1) / determinant
        q = torch.linalg.cross(-origin, edge1)
        w2 = (rays[:, :, None] * q).sum(-1) / determinant
        t = (edge2 * q).sum(-1) / determinant
        hit = (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1) & (t > 0)
        t = torch.where(hit, t, torch.inf)
        depth, face = t.min(dim=2)
        found = torch.isfinite(depth)
        take = face[..., None]
        w1, w2 = w1.gather(2, take)[..., 0], w2.gather(2, take)[..., 0]
        bary = torch.stack([1 - w1 - w2, w1, w2], dim=-1)
        face_images.append(torch.where(found, face, -1))
        bary_images.append(torch.where(found[..., None], bary, 0.0))
        depth_images.append(torch.where(found, depth, 0.0))
    return MeshFragments(
        torch.stack(face_images), torch.stack(bary_images), torch.stack(depth_images)
    )


def two_cameras(width: int = 60, height: int = 44) -> Cameras:
    """Two cameras with different, off-centre intrinsics around the origin."""
    poses = torch.stack(
        [
            look_at(torch.tensor(eye), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
            for eye in ([0.2, 0.1, 1.0], [-0.6, -0.2, 0.9])
        ]
    )
    intrinsics = torch.tensor([[[70.0, 0, 33], [0, 66, 20], [0, 0, 1]]]).repeat(2, 1, 1)
    intrinsics[1, 0, 2] = 27.0
    return Cameras(intrinsics, poses, width, height, ("a", "b"))


def triangle_soup(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random triangles through each other, some leaving the image."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 1, 3, generator=generator) - 0.5
    corners = centres + 0.4 * (torch.rand(count, 3, 3, generator=generator) - 0.5)
    return corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3)


def sphere(rings: int, sectors: int, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A latitude-longitude sphere without poles."""
    theta = torch.linspace(0.05, np.pi - 0.05, rings)
    phi = torch.arange(sectors) * (2 * np.pi / sectors)
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    points = torch.stack([t.sin() * p.cos(), t.cos(), t.sin() * p.sin()], dim=-1).reshape(-1, 3)
    i, j = torch.meshgrid(torch.arange(rings - 1), torch.arange(sectors), indexing="ij")
    a, b = i * sectors + j, i * sectors + (j + 1) % sectors
    c, d = a + sectors, b + sectors
    faces = torch.stack([torch.stack([a, b, c], -1), torch.stack([b, d, c], -1)], 0)
    return radius * points, faces.reshape(-1, 3)


def test_equals_the_slow_twin() -> None:
    vertices, faces = triangle_soup(40, seed=1)
    cameras = two_cameras()
    fast = rasterize_mesh(vertices, faces, cameras)
    slow = rasterize_slowly(vertices, faces, cameras)
    assert (slow.face >= 0).float().mean() > 0.2
    same = fast.face == slow.face
    assert same.float().mean() > 0.999
    assert torch.allclose(fast.depth[same].double(), slow.depth[same], atol=1e-5)
    assert torch.allclose(fast.bary[same].double(), slow.bary[same], atol=1e-4)


def test_barycentrics_rebuild_the_point_behind_the_pixel() -> None:
    vertices, faces = triangle_soup(30, seed=2)
    cameras = two_cameras()
    fragments = rasterize_mesh(vertices, faces, cameras)
    camera, row, column = torch.nonzero(fragments.face >= 0, as_tuple=True)
    corners = vertices[faces[fragments.face[camera, row, column]]]
    points = (corners * fragments.bary[camera, row, column][..., None]).sum(1)
    pixels, depth = cameras.project(points)
    chosen = torch.arange(len(points))
    expected = torch.stack([column + 0.5, row + 0.5], dim=-1)
    assert (pixels[camera, chosen] - expected).abs().max() < 1e-2
    assert (depth[camera, chosen] - fragments.depth[camera, row, column]).abs().max() < 1e-4


def test_nearer_triangle_occludes_whatever_the_order() -> None:
    near = torch.tensor([[-0.3, -0.3, 0.2], [0.3, -0.3, 0.2], [0.0, 0.4, 0.2]])
    far = near * torch.tensor([2.0, 2.0, 0.0]) - torch.tensor([0.0, 0.0, 0.2])
    vertices = torch.cat([near, far])
    cameras = two_cameras().select([0])
    one = rasterize_mesh(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]), cameras)
    two = rasterize_mesh(vertices, torch.tensor([[3, 4, 5], [0, 1, 2]]), cameras)
    assert torch.equal(one.depth, two.depth)
    assert torch.equal(one.face == 0, two.face == 1)
    assert (one.face == 0).any() and (one.face == 1).any()


def test_closed_surface_has_no_cracks() -> None:
    vertices, faces = sphere(60, 90, 0.25)
    cameras = two_cameras(240, 200)
    zoomed = Cameras(
        cameras.K * torch.tensor([[4.0], [4.0], [1.0]]),
        cameras.cam_from_world,
        240,
        200,
        ("a", "b"),
    )
    face = rasterize_mesh(vertices, faces, zoomed).face
    pixels, _ = zoomed.project(torch.zeros(1, 3))
    for camera in range(2):
        column, row = pixels[camera, 0].long().tolist()
        assert (face[camera, row - 30 : row + 30, column - 30 : column + 30] >= 0).all()


def test_projected_vertices_land_on_the_mask() -> None:
    vertices, faces = sphere(30, 40, 0.15)
    cameras = two_cameras(240, 176)
    cameras = Cameras(
        cameras.K * torch.tensor([[4.0], [4.0], [1.0]]),
        cameras.cam_from_world,
        240,
        176,
        ("a", "b"),
    )
    mask = rasterize_mesh(vertices, faces, cameras).face >= 0
    pixels, _ = cameras.project(0.98 * vertices)
    column, row = pixels[..., 0].floor().long(), pixels[..., 1].floor().long()
    for camera in range(2):
        assert mask[camera, row[camera], column[camera]].all()


def test_geometry_behind_the_camera_is_dropped() -> None:
    vertices, faces = triangle_soup(10, seed=3)
    behind = vertices + torch.tensor([0.0, 0.0, 5.0])
    fragments = rasterize_mesh(behind, faces, two_cameras())
    assert (fragments.face == -1).all() and (fragments.depth == 0).all()
    assert (fragments.bary == 0).all()


def test_a_triangle_through_the_camera_plane_is_dropped() -> None:
    cameras = two_cameras().select([0])
    cam = torch.tensor([[-0.5, -0.5, 1.0], [0.5, -0.5, 1.0], [0.0, 0.5, -0.5]])
    pose = cameras.cam_from_world[0]
    world = (cam - pose[:3, 3]) @ pose[:3, :3]
    assert (rasterize_mesh(world, torch.tensor([[0, 1, 2]]), cameras).face == -1).all()


def test_refuses_indices_out_of_range() -> None:
    with pytest.raises(NpgaError, match="vertices"):
        rasterize_mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 3]]), two_cameras())


def test_no_camera_and_no_face_are_fine() -> None:
    fragments = rasterize_mesh(
        torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long), two_cameras()
    )
    assert (fragments.face == -1).all()


def test_twenty_thousand_triangles_are_quick() -> None:
    vertices, faces = sphere(101, 100, 0.3)
    cameras = two_cameras().select([0])
    cameras = Cameras(
        cameras.K * torch.tensor([[7.0], [9.0], [1.0]]), cameras.cam_from_world, 440, 640, ("a",)
    )
    rasterize_mesh(vertices, faces, cameras)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        rasterize_mesh(vertices, faces, cameras)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.15, f"{min(seconds) * 1e3:.0f} ms (measured 6-10 ms on two idle cores)"


def test_torch_keeps_its_number_of_threads() -> None:
    """In a process of its own: numba sets the number when it starts its threads, once."""
    program = (
        "import numpy, torch; torch.set_num_threads(1);"
        "from npga.core.mesh_raster import rasterize_screen;"
        "corners = numpy.array([[0.0, 0, 1, 1], [9, 0, 1, 1], [0, 9, 1, 1]]);"
        "rasterize_screen(corners, numpy.array([[0, 1, 2]], numpy.int32), 8, 8);"
        "print(torch.get_num_threads())"
    )
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "1", done.stderr
