"""Points by pycolmap, with known cameras, from pictures of a textured ball."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from analytic_capture import ring

from npga.core.cameras import Cameras
from npga.core.errors import TrackError
from nphm_tracking.clouds import reconstruct_cloud

RADIUS = 0.12


def ball_pictures(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays against a ball whose colour is smooth noise in space; pictures and mattes."""
    generator = np.random.default_rng(0)
    volume = generator.random((48, 48, 48, 3)).astype(np.float32)
    pictures, mattes = [], []
    rows, columns = np.mgrid[0 : cameras.height, 0 : cameras.width] + 0.5
    for K, pose in zip(cameras.K.numpy(), cameras.cam_from_world.numpy(), strict=True):
        ray = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(K).T @ pose[:3, :3]
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        eye = -pose[:3, :3].T @ pose[:3, 3]
        along = -(ray @ eye)
        under = along**2 - (eye @ eye - RADIUS**2)
        hit = under > 0
        place = eye + ray * (along - np.sqrt(np.maximum(under, 0)))[..., None]
        index = (place / RADIUS * 0.45 + 0.5) * 47
        cell = np.clip(index.round().astype(int), 0, 47)
        colour = volume[cell[..., 0], cell[..., 1], cell[..., 2]] * hit[..., None]
        pictures.append(torch.from_numpy((255 * colour).astype(np.uint8)))
        mattes.append(torch.from_numpy((255 * hit).astype(np.uint8)))
    return torch.stack(pictures), torch.stack(mattes)


def narrow_ring() -> Cameras:
    wide = ring(9, 400, 400)
    return wide.select([2, 3, 4, 5, 6]).resized(400, 400)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pycolmap") is None, reason="pycolmap is not installed")
def test_points_lie_on_the_ball() -> None:
    cameras = narrow_ring()
    pictures, mattes = ball_pictures(cameras)
    cloud = reconstruct_cloud(pictures, cameras, mattes)
    assert len(cloud) > 200
    error = (cloud.points.norm(dim=1) - RADIUS).abs()
    assert error.median() < 0.001
    assert bool((cloud.normals == 0).all())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pycolmap") is None, reason="pycolmap is not installed")
def test_with_cuda_dense_points_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA stages stand in: they find COLMAP's workspace, and their points are taken."""
    import pycolmap

    cameras = narrow_ring()
    pictures, mattes = ball_pictures(cameras)
    seen = []

    def stereo(workspace) -> None:
        seen.extend(sorted(p.name for p in (workspace / "images").iterdir()))
        assert pycolmap.Reconstruction(workspace / "sparse").num_points3D() > 0

    def fusion(output, workspace) -> "pycolmap.Reconstruction":
        fused = pycolmap.Reconstruction()
        for place in ([0.0, 0.0, RADIUS], [0.01, 0.0, RADIUS], [9.0, 9.0, 9.0]):
            fused.add_point3D(np.array(place), pycolmap.Track(), np.array([255, 0, 0], np.uint8))
        return fused

    monkeypatch.setattr(pycolmap, "has_cuda", True)
    monkeypatch.setattr(pycolmap, "patch_match_stereo", stereo)
    monkeypatch.setattr(pycolmap, "stereo_fusion", fusion)
    cloud = reconstruct_cloud(pictures, cameras, mattes)
    assert seen == [f"{n:03d}.png" for n in range(5)]
    assert len(cloud) in (2, 3) and torch.allclose(cloud.colors[0], torch.tensor([1.0, 0.0, 0.0]))


def test_missing_pycolmap_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    cameras = narrow_ring()
    with pytest.raises(TrackError, match=r"npga\[tracking\]"):
        reconstruct_cloud(torch.zeros(5, 8, 8, 3, dtype=torch.uint8), cameras)
