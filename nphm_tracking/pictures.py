"""What pictures say beyond landmarks and clouds: brightness that moves with skin, and mattes.

A face keeps its looks from frame to frame, so that the brightness under a surface point is the same
in all frames of a window up to a gain and an offset per frame (photometric term, direct alignment
as in Lucas & Kanade 1981); and the head lies inside the matte (matte term: what sticks out costs
the square of its distance; hair may reach beyond the head, so that inside costs nothing). Both are
fields over the picture sampled where surface points project, with the fields' gradients for
Gauss-Newton. Landmarks hold what brightness leaves open.

c cameras, t frames, n surface points, h w pixels, d = e + 6 unknowns of a frame as in ``solve``.
Ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

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
EDGE_PX = 1.5
"""A point nearer to the edge has no slope on both sides and is not seen."""
SURFACE_POINTS = 1500
MESH_RESOLUTION = 72
BELOW_CHIN = 0.05
"""The surface ends this far below the lowest landmark, head units: the neck does not go along."""
SKIN_REACH = 0.07
"""A point is skin where a landmark is this near, head units, and it faces forward."""
SKIN_FACING = 0.1
REST_EVERY = 3
"""One in so many of the other points is kept, for the matte."""
FACE_RESOLUTION, FACE_SAMPLES = 110, 40_000
FACE_POINTS, DETAIL_POINTS = 600, 2500
DETAIL_REACH = 0.04
"""Of `face_surface`: so many points near landmarks (1 cm) beside those of the whole face."""


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
    """Of `t` frames, by one camera."""

    brightness: Float[Tensor, "t h w"]
    """0..1, blurred; of any float type."""
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


def face_surface(model: TrackableHead, person: Person) -> Surface:
    """Points on a person's canonical face, many of them at lids, lips and brows; all are skin."""
    codes = Codes(person.z_geo, torch.zeros(model.app_size), person.prior.mean)
    mesh = model.mesh(codes, FACE_RESOLUTION, canonical=True)
    drawn = mesh.sample(FACE_SAMPLES, seed=0)
    away = torch.cdist(drawn.points, person.landmarks).amin(1)
    forward = drawn.normals[:, 2] > SKIN_FACING
    parts = ((SKIN_REACH, FACE_POINTS), (DETAIL_REACH, DETAIL_POINTS))
    rows = [torch.nonzero(forward & (away < reach)).flatten()[:count] for reach, count in parts]
    chosen = torch.cat(rows).unique()
    skin = torch.ones(len(chosen)).to(drawn.points)
    return Surface(drawn.points[chosen], drawn.normals[chosen], skin)


class PictureTerms:
    """A `solve.MoreTerms` of pictures that one camera or several took of the same frames."""

    def __init__(
        self,
        pictures: Sequence[Pictures],
        surface: Surface,
        motion: LandmarkMotion,
        weights: PictureWeights | None = None,
    ) -> None:
        self.pictures, self.surface, self.motion = tuple(pictures), surface, motion
        self.weights = weights or PictureWeights()
        self.looks: Float[Tensor, "c n"] | None = None

    def learn_looks(self, person: Person, state: FrameState) -> None:
        """The brightness of every point in every camera: its median over these frames."""
        self.looks = median_looks([self.evened(person, state)])

    def evened(self, person: Person, state: FrameState) -> Float[Tensor, "c t n"]:
        """The brightness of every point, each picture's gain and offset removed; NaN = unseen."""
        place = self.motion(self.surface.points, person.z_geo, state.z_exp).marks
        return torch.stack([self._evened(one, person, state, place) for one in self.pictures])

    def _evened(self, one: Pictures, person: Person, state: FrameState, place: Tensor) -> Tensor:
        seen = _see(one.camera, self.surface, person, state, place)
        value = sampled(one.brightness.to(place), seen.pixels)[0]
        weight = seen.facing * self.surface.skin
        total = weight.sum(1, keepdim=True).clamp_min(1e-6)
        middle = (weight * value).sum(1, keepdim=True) / total
        spread = (weight * (value - middle).square()).sum(1, keepdim=True) / total
        return torch.where(
            weight > 0.5, (value - middle) / spread.sqrt().clamp_min(1e-3), torch.nan
        )

    def __call__(
        self, person: Person, rows: Int[Tensor, " r"], state: FrameState
    ) -> tuple[Float[Tensor, "r d d"], Float[Tensor, "r d"], Float[Tensor, " r"]]:
        """Hessian, gradient and energy of the frames `rows`; see the module.

        Every residual moves with the place of one point alone, so that cameras are summed up there
        (3 x 3 numbers per point), and the unknowns come in once, however many cameras there are.
        """
        posed = self.motion(self.surface.points, person.z_geo, state.z_exp)
        pulls = (
            self._pull(number, person, rows, state, posed.marks)
            for number in range(len(self.pictures))
        )
        pull = reduce(_Pull.__add__, pulls)
        eye = -torch.eye(3).to(posed.marks).expand(*posed.marks.shape[:2], 3, 3)
        moved = torch.cat([posed.slope, cross_matrix(posed.marks), eye], -1)
        hessian = moved.flatten(1, 2).mT @ (pull.square @ moved).flatten(1, 2)
        gradient = (moved.flatten(1, 2).mT @ pull.along.flatten(1, 2)[..., None])[..., 0]
        return hessian, gradient, pull.energy

    def _pull(
        self, number: int, person: Person, rows: Tensor, state: FrameState, place: Tensor
    ) -> "_Pull":
        """What one camera's pictures make of the points' places."""
        pictures = self.pictures[number]
        seen = _see(pictures.camera, self.surface, person, state, place)
        found = self._brightness(number, seen, rows)
        if pictures.outside is None:
            return found
        return found + self._matte(pictures.outside[rows], pictures.camera, seen)

    def _brightness(self, number: int, seen: "_Seen", rows: Tensor) -> "_Pull":
        assert self.looks is not None, "learn_looks comes first"
        shown = self.pictures[number].brightness[rows].to(seen.pixels)
        value, slope = sampled(shown, seen.pixels)
        known = ~self.looks[number].isnan()
        weight = seen.facing * self.surface.skin * known
        looks = self.looks[number].nan_to_num(0.0).expand_as(value)
        gain, offset = fitted_line(looks, value, weight)
        share = self.weights.brightness / len(self.pictures)
        share = share / weight.sum(1, keepdim=True).clamp_min(1)
        return _Pull.of(
            value - (gain * looks + offset),
            (slope[..., None, :] @ seen.toward)[..., 0, :],
            share * weight,
            self.weights.brightness_scale,
        )

    def _matte(self, outside: Tensor, camera: Cameras, seen: "_Seen") -> "_Pull":
        value, slope = sampled(outside, seen.pixels)
        to_mm = 1000 / camera.K[0, 0, 0].to(value)
        share = self.weights.matte / len(self.pictures)
        weight = torch.full_like(value, share / value.shape[1])
        beside = (slope[..., None, :] @ seen.toward)[..., 0, :] * seen.depth[..., None]
        toward = to_mm * (beside + value[..., None] * seen.deeper[:, None])
        return _Pull.of(to_mm * value * seen.depth, toward, weight, self.weights.matte_scale_mm)


def median_looks(evened: Sequence[Float[Tensor, "c _ n"]]) -> Float[Tensor, "c n"]:
    """The looks that frames of several takes share; NaN where no frame sees a point."""
    return torch.cat(list(evened), 1).nanmedian(1).values


@dataclass(frozen=True)
class _Seen:
    """Surface points in one camera's pictures."""

    pixels: Float[Tensor, "t n 2"]
    toward: Float[Tensor, "t n 2 3"]
    """d pixels / d place in head space."""
    depth: Float[Tensor, "t n"]
    deeper: Float[Tensor, "t 3"]
    """d depth / d place."""
    facing: Float[Tensor, "t n"]


def _see(
    camera: Cameras,
    surface: Surface,
    person: Person,
    state: FrameState,
    place: Float[Tensor, "t n 3"],
) -> _Seen:
    cam = camera.cam_from_world[0].to(place)
    turn = cam[:3, :3] @ state.rotation
    shift = state.translation @ cam[:3, :3].T + cam[:3, 3]
    local = person.scale * place @ turn.mT + shift[:, None]
    moved = person.scale * turn
    focal = torch.stack([camera.K[0, 0, 0], camera.K[0, 1, 1]]).to(place)
    depth = local[..., 2:].clamp_min(1e-3)
    flat = local[..., :2] / depth
    pixels = flat * focal + camera.K[0, :2, 2].to(place)
    toward = moved[:, None, :2] - flat[..., None] * moved[:, None, 2:]
    normal = surface.normals @ turn.mT
    cosine = -(normal * torch.nn.functional.normalize(local, dim=-1)).sum(-1)
    low, high = FACING
    facing = ((cosine - low) / (high - low)).clamp(0, 1)
    size = pixels.new_tensor([camera.width, camera.height])
    inside = ((pixels > EDGE_PX) & (pixels < size - EDGE_PX)).all(-1)
    return _Seen(
        pixels,
        toward * (focal[:, None] / depth[..., None]),
        depth[..., 0],
        moved[:, 2],
        facing * inside,
    )


@dataclass(frozen=True)
class _Pull:
    """Gauss-Newton of sum_n weight rho(residual) by place; g = d residual / d place."""

    square: Float[Tensor, "t n 3 3"]
    """Of g g^T."""
    along: Float[Tensor, "t n 3"]
    """Of g residual."""
    energy: Float[Tensor, " t"]

    @staticmethod
    def of(
        residual: Float[Tensor, "t n"],
        toward: Float[Tensor, "t n 3"],
        weight: Float[Tensor, "t n"],
        scale: float,
    ) -> "_Pull":
        weighted = (weight * robust_weight(residual, scale))[..., None] * toward
        energy = (weight * robust_loss(residual, scale)).sum(1)
        square = weighted[..., :, None] * toward[..., None, :]
        return _Pull(square, weighted * residual[..., None], energy)

    def __add__(self, other: "_Pull") -> "_Pull":
        return _Pull(
            self.square + other.square, self.along + other.along, self.energy + other.energy
        )


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
    steps = pixels.new_tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    size = pixels.new_tensor([field.shape[2], field.shape[1]])
    grid = 2 * (pixels[:, None] + steps[:, None]) / size - 1
    found = grid_sample(field[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    slope = torch.stack([found[:, 1] - found[:, 2], found[:, 3] - found[:, 4]], -1) / 2
    return found[:, 0], slope


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
