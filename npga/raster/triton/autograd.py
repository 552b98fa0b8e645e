"""The Triton kernels as two torch functions: projection, then blending.

Letters: c cameras, h w pixels, n Gaussians, k channels. Between the two stands ``means2d``, whose
gradient (in pixels) is what density control looks at. The host waits for the GPU once per picture
(``tiles.tile_lists``). Colors are drawn up to _CHANNELS at a time, over one list of hits.
"""
# torch's stubs do not know what it adds to a context, nor pyright what triton makes of a function:
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from npga.core.cameras import Cameras
from npga.core.device import on_device
from npga.core.errors import DeviceError
from npga.core.gaussians import Gaussians
from npga.raster.checks import require_finite
from npga.raster.triton.blend import GEOMETRY, blend_backward, blend_forward, gather_slots
from npga.raster.triton.project import project_forward
from npga.raster.triton.project_backward import project_backward
from npga.raster.triton.tiles import TileLists, new_ledger, tile_lists
from npga.raster.types import RenderedImages

_BLOCK = 128
_CHANNELS = 63  # with depth, a power of two


@dataclass(frozen=True)
class _View:
    """What the kernels need besides the Gaussians."""

    K: Tensor
    """[c 3 3]"""
    poses: Tensor
    """[c 4 4] cam_from_world."""
    width: int
    height: int
    near: float
    antialias: bool


def interprets() -> bool:
    """Whether Triton runs kernels in python (TRITON_INTERPRET=1), on tensors of the CPU."""
    return not isinstance(project_forward, triton.JITFunction)


def rasterize_triton(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: Float[Tensor, "k"] | None,
    antialias: bool,
    near: float,
) -> RenderedImages:
    """Draw with our Triton kernels; float32 only. Raises ValueError for what is not finite."""
    if not hasattr(triton, "knobs"):  # came with 3.4, as did tuples of tuples in kernels
        raise DeviceError(
            f"The back-end triton needs triton 3.4 or newer; this is {triton.__version__}.",
            "Update torch to 2.8 or newer, or use backend=gsplat.",
        )
    if gaussians.means.dtype != torch.float32:
        raise ValueError(
            f"The back-end triton draws float32 Gaussians, not {gaussians.means.dtype}."
        )

    def refuse() -> None:
        require_finite(gaussians, cameras, background)

    if len(gaussians) == 0:  # nothing to launch
        from npga.raster.reference import rasterize_reference

        refuse()
        return rasterize_reference(
            gaussians, cameras, background=background, antialias=antialias, near=near
        )
    with on_device(gaussians.means.device):
        return _draw(gaussians, cameras.to(torch.float32), background, antialias, near, refuse)


def _draw(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor | None,
    antialias: bool,
    near: float,
    refuse: Callable[[], None],
) -> RenderedImages:
    colors = gaussians.colors
    behind = colors.new_zeros(colors.shape[1]) if background is None else background.to(colors)
    K, poses = (t.detach().contiguous() for t in (cameras.K, cameras.cam_from_world))
    view = _View(K, poses, cameras.width, cameras.height, near, antialias)
    ledger = new_ledger(len(cameras) * len(gaussians), colors.device)
    means2d, shapes, halves, radii = _Project.apply(
        gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.logit_opacities,
        colors.detach(), behind.detach(), view, ledger[-1:],
    )  # fmt: skip
    if means2d.requires_grad:
        means2d.retain_grad()
    size = (view.width, view.height)
    lists = tile_lists(means2d.detach(), shapes.detach(), halves, radii, ledger, size, refuse)
    parts = [
        _Blend.apply(means2d, shapes, some, back, lists, view)
        for some, back in zip(colors.split(_CHANNELS, 1), behind.split(_CHANNELS), strict=True)
    ]
    images, alphas, depths = zip(*parts, strict=True)
    image = images[0] if len(images) == 1 else torch.cat(images, -1)
    return RenderedImages(image, alphas[0], depths[0], means2d, radii)


class _Project(torch.autograd.Function):
    """Gaussians -> means2d [c n 2], shapes [c n 5], halves [c n 2], radii [c n].

    The colors and the background are only looked at: ``broken`` [1] becomes 1 where any number is
    not finite.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        means: Float[Tensor, "n 3"],
        quats: Float[Tensor, "n 4"],
        log_scales: Float[Tensor, "n 3"],
        logits: Float[Tensor, "n"],
        colors: Float[Tensor, "n k"],
        background: Float[Tensor, "k"],
        view: _View,
        broken: Tensor,
    ) -> tuple[Tensor, ...]:
        c, (n, k) = len(view.K), colors.shape
        inputs = [t.contiguous() for t in (means, quats, log_scales, logits)]
        means2d, shapes = means.new_empty(c, n, 2), means.new_empty(c, n, 5)
        halves, radii = means.new_empty(c, n, 2), means.new_empty(c, n, dtype=torch.int32)
        project_forward[(triton.cdiv(n, _BLOCK), c)](
            view.K, view.poses, view.width, view.height, view.near,
            *inputs, colors.contiguous(), background.contiguous(), n, k,
            means2d, shapes, halves, radii, broken,
            ANTIALIAS=view.antialias, BLOCK=_BLOCK, num_warps=4,
        )  # fmt: skip
        ctx.save_for_backward(*inputs, radii)
        ctx.view = view
        ctx.mark_non_differentiable(halves, radii)
        return means2d, shapes, halves, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *v_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, radii = ctx.saved_tensors
        view, (c, n) = ctx.view, radii.shape
        v_means2d, v_shapes = (v.contiguous() for v in v_outputs[:2])
        gradients = [torch.empty_like(t) for t in inputs]
        project_backward[(triton.cdiv(n, _BLOCK),)](
            view.K, view.poses, c, view.width, view.height,
            *inputs, n, radii, v_means2d, v_shapes, *gradients,
            ANTIALIAS=view.antialias, BLOCK=_BLOCK, num_warps=4,
        )  # fmt: skip
        return (*gradients, None, None, None, None)


def _padded(channels: int) -> int:
    """Channels of the kernels: the colors and depth, up to a power of two."""
    return 1 << channels.bit_length()


class _Blend(torch.autograd.Function):
    """Footprints and colors -> image [c h w k], alpha [c h w], depth [c h w]."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        means2d: Float[Tensor, "c n 2"],
        shapes: Float[Tensor, "c n 5"],
        colors: Float[Tensor, "n k"],
        background: Float[Tensor, "k"],
        lists: TileLists,
        view: _View,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (c, n), (h, w), k = means2d.shape[:2], (view.height, view.width), colors.shape[1]
        colors, background = colors.contiguous(), background.contiguous()
        image, alpha = colors.new_empty(c, h, w, k), colors.new_empty(c, h, w)
        depth, clear_end = torch.empty_like(alpha), torch.empty_like(alpha)
        last_hit = torch.empty_like(alpha, dtype=torch.int32)
        channels = _padded(k)
        blend_forward[(len(lists.tile_starts) - 1,)](
            lists.tile_starts, lists.rows, means2d, shapes, colors, background,
            image, alpha, depth, clear_end, last_hit,
            n, k, w, h, *lists.grid, CHANNELS=channels, num_warps=_forward_warps(channels),
        )  # fmt: skip
        ctx.save_for_backward(means2d, shapes, colors, background, clear_end, last_hit)
        ctx.lists, ctx.view = lists, view
        return image, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, v_image: Tensor, v_alpha: Tensor, v_depth: Tensor
    ) -> tuple[Tensor | None, ...]:
        means2d, shapes, colors, background, clear_end, last_hit = ctx.saved_tensors
        lists, view, (c, n), k = ctx.lists, ctx.view, means2d.shape[:2], colors.shape[1]
        hit_gradients = colors.new_zeros(len(lists.rows), GEOMETRY.value + k)
        v_planes = torch.cat([v_image.permute(0, 3, 1, 2), v_depth[:, None]], 1).contiguous()
        channels = _padded(k)
        blend_backward[(len(lists.tile_starts) - 1,)](
            lists.tile_starts, lists.rows, lists.slots, means2d, shapes, colors, background,
            clear_end, last_hit, v_planes, v_alpha.contiguous(), hit_gradients,
            n, k, view.width, view.height, *lists.grid,
            CHANNELS=channels, num_warps=_backward_warps(channels),
        )  # fmt: skip
        v_means2d, v_shapes = torch.empty_like(means2d), torch.empty_like(shapes)
        v_colors = torch.empty_like(colors)
        gather_slots[(triton.cdiv(n, 4),)](
            lists.spans, hit_gradients, v_means2d, v_shapes, v_colors, c, n, k,
            COLUMNS=triton.next_power_of_2(GEOMETRY.value + k), GAUSSIANS=4, SLOTS=8, num_warps=4,
        )  # fmt: skip
        v_background = None
        if ctx.needs_input_grad[3]:
            v_background = (v_image * clear_end[..., None]).sum((0, 1, 2))
        return v_means2d, v_shapes, v_colors, v_background, None, None


def _forward_warps(channels: int) -> int:
    """Few, so that a thread draws many pixels with what it loads of a hit; ours."""
    return min(8, max(2, channels // 4))


def _backward_warps(channels: int) -> int:
    """One, where registers allow: then sums over pixels stay within a warp; ours."""
    return max(1, channels // 16)
