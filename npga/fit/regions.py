"""Where face, mouth and eyes are in a picture, as the tracked head tells.

The head model's landmarks of this person are carried to a frame's expression and pose and projected
into its cameras. A region is the convex hull of its landmarks in a picture, grown by a margin, with
a border one pixel soft, cut by the matte. A region that a camera sees from behind or too flat is
empty there. What hides a face (hair, hands) is not known to it. Ours.

Letters: `l` landmarks, `k` those of a region, `e` expression size, `i` identity size, `c` cameras,
`h w` pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from npga.avatar import Avatar, ForwardPrior
from npga.core.cameras import Cameras
from npga.distill.people import pull_to_surface
from npga.fit.batch import FitBatch
from nphm_tracking import HeadModel, load_head_model
from nphm_tracking.landmarks import LID_IDS, LIP_IDS

MOUTH_MARGIN, EYE_MARGIN = 0.024, 0.02
"""Head units (6 and 5 mm) by which the hulls of lips and lids are grown."""
FORWARD, LEFT_EYE = (0.0, 0.0, 1.0), (0.3, 0.0, 0.954)
"""Where a face and its mouth look in head space, and where a left eye's lids do."""
SEEN = 0.25
"""Least cosine between that direction and the way to the camera (75 degrees)."""
LEAST_PIXELS = 12.0
"""A region that covers less of a picture is left out of the means."""


@dataclass(frozen=True)
class RegionMasks:
    """Soft masks of one frame's pictures; all zero where a camera does not see the region."""

    face: Float[Tensor, "c h w"]
    mouth: Float[Tensor, "c h w"]
    eyes: Float[Tensor, "c h w"]


@dataclass(frozen=True)
class FaceRegions:
    """A person's face landmarks, and how they move; on the CPU."""

    points: Float[Tensor, "l 3"]
    """Canonical, head units, in MediaPipe's order of 478."""
    slopes: Float[Tensor, "l 3 e"] | None
    """Motion per unit code where the head model knows it; F moves the points otherwise."""

    def posed(
        self, z_exp: Float[Tensor, " e"], prior: ForwardPrior, identity: Float[Tensor, " i"]
    ) -> Float[Tensor, "l 3"]:
        """In head space under an expression, where `points` lie."""
        if self.slopes is not None:
            return self.points + self.slopes @ z_exp.to(self.points)
        x = self.points.to(identity)[None]
        omega = x.new_zeros(1, x.shape[1], prior.hyper_size)
        posed = prior.posed(x, omega, z_exp.to(identity)[None], identity[None])
        return posed[0].to(self.points)

    @torch.no_grad()
    def masks(self, batch: FitBatch, avatar: Avatar) -> RegionMasks:
        """The regions in all pictures of a batch, on the CPU."""
        posed = self.posed(batch.z_exp, avatar.prior, avatar.identity)
        pose, cameras = batch.world_from_head.to("cpu"), batch.cameras.to("cpu")
        matte = batch.matte.cpu()

        def mask(part: Tensor, margin: float, outward: tuple[float, float, float]) -> Tensor:
            normal = pose.rotation @ torch.tensor(outward)
            hull = _Hull(pose.apply(posed[part]), normal, margin * float(pose.scale))
            return hull.drawn(cameras)

        left, right = _eyes(self.points)
        return RegionMasks(
            face=matte * mask(torch.arange(len(posed)), 0.0, FORWARD),
            mouth=matte * mask(torch.tensor(sorted(LIP_IDS)), MOUTH_MARGIN, FORWARD),
            eyes=matte
            * torch.maximum(
                mask(left, EYE_MARGIN, LEFT_EYE),
                mask(right, EYE_MARGIN, (-LEFT_EYE[0], *LEFT_EYE[1:])),
            ),
        )


def face_regions(model: HeadModel, z_geo: Float[Tensor, " g"]) -> FaceRegions:
    """The landmarks of a tracked person.

    A published head model knows none: it gets the open prior's, of its average face, pulled onto
    this person's surface.
    """
    with torch.no_grad():
        if model.landmark_count:
            return FaceRegions(model.landmarks(z_geo), model.landmark_slopes)
        known = load_head_model()
        average = known.landmarks(known.neutral_codes().z_geo).to(z_geo)
    return FaceRegions(pull_to_surface(model, average, z_geo), None)


def _eyes(points: Float[Tensor, "l 3"]) -> tuple[Tensor, Tensor]:
    """Landmarks of the left (+x) and of the right lids."""
    lids = torch.tensor(sorted(LID_IDS))
    left = points[lids, 0] > 0
    return lids[left], lids[~left]


@dataclass(frozen=True)
class _Hull:
    """Landmarks of one region in the world, as a camera sees them from the front."""

    points: Float[Tensor, "k 3"]
    normal: Float[Tensor, "3"]
    margin: float
    """Metres."""

    def drawn(self, cameras: Cameras) -> Float[Tensor, "c h w"]:
        """The grown hull in every camera that looks at it."""
        pixels, depth = cameras.project(self.points)
        way = torch.nn.functional.normalize(cameras.centres_world() - self.points.mean(0), dim=1)
        facing = (way @ self.normal > SEEN) & (depth.amin(1) > 0)
        mask = torch.zeros(len(cameras), cameras.height, cameras.width)
        for camera in torch.nonzero(facing).flatten().tolist():
            margin = self.margin * float(cameras.K[camera, 0, 0] / depth[camera].mean())
            _fill_hull(mask[camera], pixels[camera].numpy(), margin)
        return mask


def _fill_hull(mask: Float[Tensor, "h w"], pixels: Float[np.ndarray, "k 2"], margin: float) -> None:
    """Fill the convex hull, grown by `margin` pixels; its border is one pixel soft."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        sides = torch.from_numpy(ConvexHull(pixels.astype(np.float64)).equations).float()
    except QhullError:
        return
    height, width = mask.shape
    low = np.floor(pixels.min(0) - margin - 1).astype(int).clip(0, (width, height))
    high = np.ceil(pixels.max(0) + margin + 1).astype(int).clip(0, (width, height))
    x = torch.arange(low[0], high[0]) + 0.5
    y = torch.arange(low[1], high[1]) + 0.5
    outside = torch.full((len(y), len(x)), -torch.inf)
    for across, down, offset in sides.tolist():
        side = (across * x + offset)[None] + (down * y)[:, None]
        outside = torch.maximum(outside, side)
    mask[low[1] : high[1], low[0] : high[0]] = (0.5 + margin - outside).clamp(0, 1)


def tinted(
    image: Float[Tensor, "h w 3"], masks: RegionMasks, camera: int
) -> Float[Tensor, "h w 3"]:
    """A picture with its face greenish, its mouth red and its eyes blue, to look at."""
    shown = image.clone()
    for channel, mask, strength in (
        (1, masks.face, 0.4),
        (0, masks.mouth, 0.8),
        (2, masks.eyes, 0.8),
    ):
        share = strength * mask[camera].to(image)
        shown[..., channel] = shown[..., channel] * (1 - share) + share
    return shown


class PixelWeights:
    """Weights of a training picture's pixels: 1, and more on mouth and eyes.

    Masks are made when a picture is met first, with its tracked pose, and kept as bytes.
    """

    def __init__(self, regions: FaceRegions, mouth: float, eyes: float) -> None:
        self.regions = regions
        self.mouth = mouth
        self.eyes = eyes
        self.known: dict[tuple[int, str], UInt8[Tensor, "2 h w"]] = {}

    def __call__(self, batch: FitBatch, avatar: Avatar) -> Float[Tensor, "c h w"]:
        """1 + mouth * its mask + eyes * their mask."""
        keys = [(batch.index, serial) for serial in batch.cameras.ids]
        if any(key not in self.known for key in keys):
            masks = self.regions.masks(batch, avatar)
            both = torch.stack([masks.mouth, masks.eyes], 1)
            drawn = (255 * both).round().byte().to(batch.matte.device)
            self.known.update(zip(keys, drawn, strict=True))
        both = torch.stack([self.known[key] for key in keys]).float() / 255
        return 1 + self.mouth * both[:, 0] + self.eyes * both[:, 1]
