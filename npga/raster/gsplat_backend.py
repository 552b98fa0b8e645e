"""The CUDA rasteriser of gsplat (1.5.3), behind our door.

gsplat.rasterization returns (renders [c h w k + 1], alphas [c h w 1], meta). Depth is its last
channel of render mode "RGB+D": accumulated camera z, not divided by alpha, as in the other
back-ends. gsplat normalises quaternions, gives means2d in pixels and culls like ``semantics.py``;
its releases after 1.5.3 clamp alpha at 0.99 instead of 0.999.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.gaussians import Gaussians
from npga.raster.semantics import NEAR
from npga.raster.types import RenderedImages


def rasterize_gsplat(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: Float[Tensor, "k"] | None,
    antialias: bool,
    near: float,
) -> RenderedImages:
    """Draw on the GPU that holds the Gaussians; float32 only, as gsplat's kernels are."""
    if gaussians.means.dtype != torch.float32:
        raise ValueError(
            f"The back-end gsplat draws float32 Gaussians, not {gaussians.means.dtype}."
        )
    if len(gaussians) == 0:
        return _nothing(gaussians, cameras, background)
    from gsplat import rasterization

    cameras = cameras.to(torch.float32)
    if background is not None:
        background = background.to(gaussians.colors).expand(len(cameras), -1)
    renders, alphas, meta = rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.log_scales.exp(),
        opacities=gaussians.logit_opacities.sigmoid(),
        colors=gaussians.colors,
        viewmats=cameras.cam_from_world,
        Ks=cameras.K,
        width=cameras.width,
        height=cameras.height,
        near_plane=near,
        backgrounds=background,
        render_mode="RGB+D",
        packed=False,
        rasterize_mode="antialiased" if antialias else "classic",
    )
    means2d = meta["means2d"]
    if means2d.requires_grad:
        means2d.retain_grad()
    radii = meta["radii"]
    radii = radii.amax(-1) if radii.dim() == 3 else radii
    return RenderedImages(
        renders[..., :-1], alphas[..., 0], renders[..., -1], means2d, radii.to(torch.int32)
    )


def _nothing(
    gaussians: Gaussians, cameras: Cameras, background: Float[Tensor, "k"] | None
) -> RenderedImages:
    """The pictures of no Gaussians: gsplat's kernels cannot be launched on none."""
    from npga.raster.reference import rasterize_reference

    return rasterize_reference(
        gaussians, cameras, background=background, antialias=False, near=NEAR
    )
