"""The compiled kernels as two torch functions: projection, then blending.

Letters: c cameras, h w pixels, n Gaussians, k channels. Between the two stands ``means2d``, whose
gradient (in pixels) is what density control looks at.
"""
# torch's stubs do not know what it adds to a context, nor pyright how long a starred list is:
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from npga.core.cameras import Cameras
from npga.core.gaussians import Gaussians
from npga.raster.cpu import blend, project
from npga.raster.cpu.pool import even_spans, run_spans, spans
from npga.raster.cpu.tiles import TILE_W, TileLists, tile_lists
from npga.raster.types import RenderedImages


@dataclass(frozen=True)
class _View:
    """What the kernels need besides the Gaussians."""

    cameras: np.ndarray
    """[c, 16] per camera: rotation row by row, translation, fx, fy, cx, cy; float64."""
    width: int
    height: int
    near: float
    antialias: bool


@dataclass(frozen=True)
class _Drawn:
    """What one camera's blending leaves for its backward pass."""

    lists: TileLists
    last_hit: np.ndarray
    """[h, w] last hit of the tile that painted the pixel, -1 for none."""


def rasterize_cpu(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: Float[Tensor, "k"] | None,
    antialias: bool,
    near: float,
) -> RenderedImages:
    """Draw with the compiled kernels; float32, or float64 (compiled on demand, for tests)."""
    dtype = gaussians.means.dtype
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"The back-end cpu draws float32 or float64 Gaussians, not {dtype}.")
    colors = gaussians.colors
    if background is None:
        background = colors.new_zeros(colors.shape[1])
    view = _View(_pack_cameras(cameras), cameras.width, cameras.height, near, antialias)
    means2d, conics, opacities, depths, radii = _Project.apply(
        gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.logit_opacities, view
    )
    if means2d.requires_grad:
        means2d.retain_grad()
    image, alpha, depth = _Blend.apply(
        means2d, conics, opacities, depths, colors, background.to(colors), radii, view
    )
    return RenderedImages(image, alpha, depth, means2d, radii)


def _pack_cameras(cameras: Cameras) -> np.ndarray:
    pose = cameras.cam_from_world.detach().double().numpy()
    K = cameras.K.detach().double().numpy()
    intrinsics = np.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], axis=1)
    rotation = pose[:, :3, :3].reshape(-1, 9)
    return np.concatenate([rotation, pose[:, :3, 3], intrinsics], axis=1)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _tile_spans(lists: TileLists) -> list[tuple[int, int]]:
    # an empty tile costs about as much as 32 hits
    return spans(lists.tile_starts + 32 * np.arange(len(lists.tile_starts)), least=1000)


class _Project(torch.autograd.Function):
    """Gaussians -> means2d [c n 2], conics [c n 3], opacities, depths, radii [c n]."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        means: Float[Tensor, "n 3"],
        quats: Float[Tensor, "n 4"],
        log_scales: Float[Tensor, "n 3"],
        logits: Float[Tensor, "n"],
        view: _View,
    ) -> tuple[Tensor, ...]:
        c, n = len(view.cameras), len(means)
        means2d, conics = means.new_empty(c, n, 2), means.new_empty(c, n, 3)
        opacities, depths = means.new_empty(c, n), means.new_empty(c, n)
        radii = torch.empty(c, n, dtype=torch.int32)
        run_spans(
            project.project_forward, even_spans(n),
            view.cameras, (float(view.width), float(view.height)), float(view.near), view.antialias,
            *map(_array, (means, quats, log_scales, logits)),
            *(t.numpy() for t in (means2d, conics, opacities, depths, radii)),
        )  # fmt: skip
        ctx.save_for_backward(means, quats, log_scales, logits, radii)
        ctx.view = view
        ctx.mark_non_differentiable(radii)
        return means2d, conics, opacities, depths, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *v_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, radii = ctx.saved_tensors
        view = ctx.view
        gradients = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in inputs]
        run_spans(
            project.project_backward, even_spans(len(inputs[0])),
            view.cameras, (float(view.width), float(view.height)), view.antialias,
            *map(_array, inputs), radii.numpy(), *map(_array, v_outputs[:4]),
            *(t.numpy() for t in gradients),
        )  # fmt: skip
        return (*gradients, None)


class _Blend(torch.autograd.Function):
    """Footprints and colours -> image [c h w k], alpha [c h w], depth [c h w]."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        means2d: Float[Tensor, "c n 2"],
        conics: Float[Tensor, "c n 3"],
        opacities: Float[Tensor, "c n"],
        depths: Float[Tensor, "c n"],
        colors: Float[Tensor, "n k"],
        background: Float[Tensor, "k"],
        radii: Int[Tensor, "c n"],
        view: _View,
    ) -> tuple[Tensor, Tensor, Tensor]:
        c, h, w = len(view.cameras), view.height, view.width
        image = colors.new_empty(c, h, w, colors.shape[1])
        alpha, depth = colors.new_empty(c, h, w), colors.new_empty(c, h, w)
        tiles_x = -(-w // TILE_W)
        footprints = [_array(t) for t in (means2d, conics, opacities, depths, radii)]
        drawn = []
        for camera in range(c):
            lists = tile_lists(*(t[camera] for t in footprints), (w, h))
            last_hit = np.zeros((h, w), np.int32)
            run_spans(
                blend.blend_forward, _tile_spans(lists),
                tiles_x, lists.tile_starts, lists.hits, lists.packed,
                _array(colors), _array(background),
                image[camera].numpy(), alpha[camera].numpy(), depth[camera].numpy(), last_hit,
            )  # fmt: skip
            drawn.append(_Drawn(lists, last_hit))
        ctx.save_for_backward(colors, background, alpha, means2d)
        ctx.drawn, ctx.view = drawn, view
        return image, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, v_image: Tensor, v_alpha: Tensor, v_depth: Tensor
    ) -> tuple[Tensor | None, ...]:
        colors, background, alpha, means2d = ctx.saved_tensors
        c, n = means2d.shape[:2]
        v_means2d, v_conics = colors.new_empty(c, n, 2), colors.new_empty(c, n, 3)
        v_opacities, v_depths = colors.new_empty(c, n), colors.new_empty(c, n)
        v_colors = torch.zeros_like(colors, memory_format=torch.contiguous_format)
        clear_end = 1 - alpha
        for camera, drawn in enumerate(ctx.drawn):
            pixels = [_array(t[camera]) for t in (clear_end, v_image, v_alpha, v_depth)]
            slots = _blend_backward(drawn, ctx.view, _array(colors), _array(background), pixels)
            targets = (v_means2d, v_conics, v_opacities, v_depths)
            run_spans(
                blend.gather_slots, even_spans(n), drawn.lists.slot_starts, slots,
                *(t[camera].numpy() for t in targets), v_colors.numpy(),
            )  # fmt: skip
        v_background = None
        if ctx.needs_input_grad[5]:
            v_background = (v_image * clear_end[..., None]).sum((0, 1, 2))
        return v_means2d, v_conics, v_opacities, v_depths, v_colors, v_background, None, None


def _blend_backward(
    drawn: _Drawn,
    view: _View,
    colors: np.ndarray,
    background: np.ndarray,
    pixels: list[np.ndarray],
) -> np.ndarray:
    """The gradients of every hit of one camera, [hits, GEOMETRY + k + 1]."""
    lists = drawn.lists
    width = blend.GEOMETRY + colors.shape[1] + 1
    slots = torch.empty(len(lists.hits), width, dtype=torch.from_numpy(colors).dtype).numpy()
    tiles_x = -(-view.width // TILE_W)
    run_spans(
        blend.blend_backward, _tile_spans(lists),
        tiles_x, lists.tile_starts, lists.hits, lists.packed,
        colors, background, drawn.last_hit, *pixels, slots,
    )  # fmt: skip
    return slots
