"""gsplat against the slow twin; needs a CUDA GPU and the package gsplat."""

import pytest
import torch
from raster_scenes import FIELDS, cameras, cloud, differentiate

from npga.core.gaussians import Gaussians
from npga.raster import Backend

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("channels", [3, 19])
def test_gsplat_equals_reference(channels: int, antialias: bool) -> None:
    pytest.importorskip("gsplat")
    slow_cloud, rig = cloud(channels=channels), cameras()
    fields = (getattr(slow_cloud, name).detach().float().cuda() for name in FIELDS)
    background = torch.full((channels,), 0.4)
    fast = differentiate(
        Gaussians(*fields),
        rig,
        Backend.gsplat,
        background=background.to("cuda"),
        antialias=antialias,
    )
    slow = differentiate(
        slow_cloud, rig, Backend.reference, background=background.double(), antialias=antialias
    )
    for name in ("image", "alpha", "depth"):
        error = (getattr(fast.images, name).cpu() - getattr(slow.images, name)).abs()
        assert error.quantile(0.995) < 1e-3 and error.max() < 2e-2, name
    for name, wanted in slow.gradients.items():
        error = (fast.gradients[name].cpu() - wanted).norm() / wanted.norm()
        assert error < 2e-2, (name, error)
