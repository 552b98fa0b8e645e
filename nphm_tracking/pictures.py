"""What pictures of one camera say beyond landmarks: brightness that moves with skin, and mattes.

A face keeps its looks from frame to frame, so that the brightness under a surface point is the same
in all frames of a window up to a gain and an offset per frame (photometric term, direct alignment
as in Lucas & Kanade 1981); and the head lies inside the matte (matte term: what sticks out costs
the square of its distance; hair may reach beyond the head, so that inside costs nothing). Both are
fields over the picture sampled where surface points project, with the fields' gradients for
Gauss-Newton. Landmarks hold what brightness leaves open.

t frames, n surface points, h w pixels, d = e + 6 unknowns of a frame as in ``solve``. Ours.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample

from npga.core.cameras import Cameras
from nphm_tracking.energies import robust_loss, robust_weight
from nphm_tracking.frames import FrameState, LandmarkMotion, Person
from nphm_tracking.head import TrackableHead
from nphm_tracking.model.head_model import Codes
from nphm_tracking.solve import cross_matrix

BLUR_PX = 1.5
"""Standard deviation of the filter over brightness: reach and smoothness of its gradient."""
FACING = (0.25, 0.5)
"""Cosine to the camera from which a point counts, and at which it counts in full."""
SURFACE_POINTS = 1500
MESH_RESOLUTION = 72
BELOW_CHIN = 0.05
"""The surface ends this far below the lowest landmark, head units: the neck does not go along."""
SKIN_REACH = 0.07
"""A point is skin where a landmark is this near, head units, and it faces forward."""
SKIN_FACING = 0.1
REST_EVERY = 3
"""One in so many of the other points is kept, for the matte."""


@dataclass(frozen=True)
class PictureWeights:
    """How much pictures count against the landmarks' mean squared distance in mm."""

    brightness: float = 150.0
    brightness_scale: float = 0.06
    """Robust scale, brightness being 0..1."""
    matte: float = 0.5
    """Per mm^2 outside."""
    matte_scale_mm: float = 15.0


@dataclass(frozen=True)
class Pictures:
    """Of `t` frames."""

    brightness: Float[Tensor, "t h w"]
    """0..1, blurred."""
    outside: Float[Tensor, "t h w"] | None
    """Pixels to the matte, 0 inside; None without mattes."""
    camera: Cameras
    """One camera at the pictures' size."""

    @staticmethod
    def of(
        images: Float[Tensor, "t h w 3"], mattes: Float[Tensor, "t h w"] | None, camera: Cameras
    ) -> "Pictures":
        """From pictures 0..1 and mattes (1 = person)."""
        grey = images @ images.new_tensor([0.299, 0.587, 0.114])
        outside = None if mattes is None else torch.stack([distance_outside(m) for m in mattes])
        return Pictures(blurred(grey, BLUR_PX), outside, camera)


@dataclass(frozen=True)
class Surface:
    """Canonical surface points of a person, head units."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    skin: Float[Tensor, " n"]
    """1 where brightness is compared (the face), 0 where only mattes are."""


def head_surface(model: TrackableHead, person: Person, count: int = SURFACE_POINTS) -> Surface:
    """Points on a person's canonical head, from the chin up; skin is what lies among landmarks."""
    codes = Codes(person.z_geo, torch.zeros(model.app_size), person.prior.mean)
    drawn = model.mesh(codes, MESH_RESOLUTION, canonical=True).sample(2 * count, seed=0)
    kept = drawn.points[:, 1] > person.landmarks[:, 1].amin() - BELOW_CHIN
    points, normals = drawn.points[kept], drawn.normals[kept]
    near = torch.cdist(points, person.landmarks).amin(1) < SKIN_REACH
    skin = near & (normals[:, 2] > SKIN_FACING)
    rest = torch.cumsum(~skin, 0) % REST_EVERY == 0
    chosen = skin | (rest & ~skin)
    return Surface(points[chosen], normals[chosen], skin[chosen].to(points))


class PictureTerms:
    """A `solve.MoreTerms` of pictures."""

    def __init__(
        self,
        pictures: Pictures,
        surface: Surface,
        motion: LandmarkMotion,
        weights: PictureWeights | None = None,
    ) -> None:
        self.pictures, self.surface, self.motion = pictures, surface, motion
        self.weights = weights or PictureWeights()
        self.looks: Float[Tensor, " n"] | None = None

    def learn_looks(self, person: Person, state: FrameState) -> None:
        """The brightness of every point: its median over the frames, gains removed."""
        seen = self._seen(person, torch.arange(len(state.z_exp)), state)
        value = sampled(self.pictures.brightness, seen.pixels)[0]
        weight = seen.facing * self.surface.skin
        middle = (weight * value).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-6)
        spread = (weight * (value - middle).square()).sum(1, keepdim=True)
        spread = (spread / weight.sum(1, keepdim=True).clamp_min(1e-6)).sqrt().clamp_min(1e-3)
        even = torch.where(weight > 0.5, (value - middle) / spread, torch.nan)
        self.looks = even.nanmedian(0).values

    def __call__(
        self, person: Person, rows: Int[Tensor, " r"], state: FrameState
    ) -> tuple[Float[Tensor, "r d d"], Float[Tensor, "r d"], Float[Tensor, " r"]]:
        """Hessian, gradient and energy of the frames `rows`; see the module."""
        seen = self._seen(person, rows, state)
        hessian, gradient, energy = self._brightness(seen, rows)
        if self.pictures.outside is not None:
            more = self._matte(seen, rows)
            hessian, gradient, energy = hessian + more[0], gradient + more[1], energy + more[2]
        return hessian, gradient, energy

    def _seen(self, person: Person, rows: Tensor, state: FrameState) -> "_Seen":
        posed = self.motion(self.surface.points, person.z_geo, state.z_exp)
        turned = torch.cat([posed.slope, cross_matrix(posed.marks)], -1)
        eye = -torch.eye(3).to(turned).expand(*turned.shape[:2], 3, 3)
        local = torch.cat([turned, eye], -1)
        camera = self.pictures.camera
        cam = camera.cam_from_world[0].to(local)
        turn = cam[:3, :3] @ state.rotation
        place = (
            person.scale * posed.marks @ turn.mT
            + (state.translation @ cam[:3, :3].T + cam[:3, 3])[:, None]
        )
        moved = person.scale * (turn[:, None] @ local)
        focal = torch.stack([camera.K[0, 0, 0], camera.K[0, 1, 1]]).to(local)
        depth = place[..., 2:].clamp_min(1e-3)
        flat = place[..., :2] / depth
        pixels = flat * focal + camera.K[0, :2, 2].to(local)
        slope = (moved[..., :2, :] - flat[..., None] * moved[..., 2:, :]) / depth[..., None]
        normal = self.surface.normals @ turn.mT
        cosine = -(normal * torch.nn.functional.normalize(place, dim=-1)).sum(-1)
        low, high = FACING
        facing = ((cosine - low) / (high - low)).clamp(0, 1)
        inside = (pixels > 1).all(-1) & (
            pixels < pixels.new_tensor([camera.width - 1.0, camera.height - 1.0])
        ).all(-1)
        return _Seen(
            pixels, slope * focal[:, None], depth[..., 0], moved[..., 2, :], facing * inside
        )

    def _brightness(self, seen: "_Seen", rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.looks is not None, "learn_looks comes first"
        value, slope = sampled(self.pictures.brightness[rows], seen.pixels)
        known = ~self.looks.isnan()
        weight = seen.facing * self.surface.skin * known
        looks = self.looks.nan_to_num(0.0).expand_as(value)
        gain, offset = fitted_line(looks, value, weight)
        residual = value - (gain * looks + offset)
        share = self.weights.brightness / weight.sum(1, keepdim=True).clamp_min(1)
        scale = self.weights.brightness_scale
        return _summed(
            residual,
            (slope[..., None, :] @ seen.slope)[..., 0, :],
            share * weight,
            scale,
        )

    def _matte(self, seen: "_Seen", rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.pictures.outside is not None
        value, slope = sampled(self.pictures.outside[rows], seen.pixels)
        to_mm = 1000 / self.pictures.camera.K[0, 0, 0].to(value)
        weight = torch.full_like(value, self.weights.matte / value.shape[1])
        beside = (slope[..., None, :] @ seen.slope)[..., 0, :] * seen.depth[..., None]
        jacobian = to_mm * (beside + value[..., None] * seen.deeper)
        return _summed(to_mm * value * seen.depth, jacobian, weight, self.weights.matte_scale_mm)


@dataclass(frozen=True)
class _Seen:
    pixels: Float[Tensor, "t n 2"]
    slope: Float[Tensor, "t n 2 d"]
    """d pixels / d unknowns."""
    depth: Float[Tensor, "t n"]
    deeper: Float[Tensor, "t n d"]
    """d depth / d unknowns."""
    facing: Float[Tensor, "t n"]


def _summed(
    residual: Float[Tensor, "t n"],
    jacobian: Float[Tensor, "t n d"],
    weight: Float[Tensor, "t n"],
    scale: float,
) -> tuple[Float[Tensor, "t d d"], Float[Tensor, "t d"], Float[Tensor, " t"]]:
    """Gauss-Newton of sum_n weight rho(residual)."""
    weighted = (jacobian * (weight * robust_weight(residual, scale))[..., None]).mT
    energy = (weight * robust_loss(residual, scale)).sum(1)
    return weighted @ jacobian, (weighted @ residual[..., None])[..., 0], energy


def fitted_line(
    x: Float[Tensor, "t n"], y: Float[Tensor, "t n"], weight: Float[Tensor, "t n"]
) -> tuple[Float[Tensor, "t 1"], Float[Tensor, "t 1"]]:
    """Gain and offset of each row with the least weighted squares of y - (gain x + offset)."""
    total = weight.sum(1, keepdim=True).clamp_min(1e-6)
    middle_x = (weight * x).sum(1, keepdim=True) / total
    middle_y = (weight * y).sum(1, keepdim=True) / total
    away = x - middle_x
    gain = (weight * away * (y - middle_y)).sum(1, keepdim=True)
    gain = gain / (weight * away.square()).sum(1, keepdim=True).clamp_min(1e-6)
    return gain, middle_y - gain * middle_x


def sampled(
    field: Float[Tensor, "t h w"], pixels: Float[Tensor, "t n 2"]
) -> tuple[Float[Tensor, "t n"], Float[Tensor, "t n 2"]]:
    """A field and its gradient per pixel where points are (bilinear, of central differences)."""
    height, width = field.shape[1:]
    down, across = torch.gradient(field, dim=(1, 2))
    grid = 2 * pixels / pixels.new_tensor([width, height]) - 1
    layers = torch.stack([field, across, down], 1)
    found = grid_sample(layers, grid[:, :, None], padding_mode="border", align_corners=False)
    return found[:, 0, :, 0], found[:, 1:, :, 0].mT


def blurred(image: Float[Tensor, "t h w"], sigma: float) -> Float[Tensor, "t h w"]:
    """A Gaussian filter, edges repeated."""
    reach = max(1, round(3 * sigma))
    taps = torch.arange(-reach, reach + 1).to(image)
    kernel = torch.exp(-0.5 * (taps / sigma).square())
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(image[:, None], [reach] * 4, mode="replicate")
    return conv2d(conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])[:, 0]


def distance_outside(matte: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Pixels from every place to the nearest one that is at least half covered, 0 there.

    All 0 where nothing is covered: such a matte says nothing.
    """
    from scipy.ndimage import distance_transform_edt

    covered = matte.numpy() >= 0.5
    if not covered.any():
        return torch.zeros_like(matte)
    return torch.from_numpy(distance_transform_edt(~covered)).to(matte)
