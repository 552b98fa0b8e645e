"""How good a fitted variant is, by region, and the pictures that go on the grid.

PSNR is the mean over pictures of 10 log10(1 / weighted mean squared sRGB error), weighted by a
region's soft mask; a picture in which a region is not seen does not count for it.

Letters: `c` cameras, `h w` pixels, `l` landmarks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar import Avatar
from npga.core.lpips import Lpips
from npga.core.metrics import psnr
from npga.fit.batch import FitBatch, FitData
from npga.fit.regions import LEAST_PIXELS, FaceRegions, RegionMasks
from npga.fit.renderer import Renderer

Regions = Callable[[FitBatch], RegionMasks]
REGIONS = ("face", "mouth", "eyes", "matte")
LEAST_PSNR, MOST_PSNR = 0.0, 60.0
LIPS, LIDS = ((13, 14),), ((159, 145), (386, 374))
"""Inner lips and lids, upper and lower, among MediaPipe's landmarks."""


def regions_of(faces: FaceRegions, prior_owner: Avatar) -> Regions:
    """The masks of a batch; where F must move landmarks, it is this avatar's."""
    return lambda batch: faces.masks(batch, prior_owner)


@dataclass
class Sums:
    """Means of metrics by name, taken over the pictures that have them."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """One picture's value."""
        self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """{name: mean}."""
        return {name: sum(values) / len(values) for name, values in self.values.items()}


@torch.no_grad()
def judge(
    renderer: Renderer, data: FitData, regions: Regions, lpips: Lpips | None, still: bool
) -> dict[str, float]:
    """Means over all pictures of `data`; with `still`, of the avatar's mean expression."""
    sums = Sums()
    avatar = renderer.avatar
    device = avatar.means.device
    for index in range(len(data)):
        batch = data.batch(index, device=device)
        masks = regions(batch)
        drawn = draw(renderer, batch, still)
        for camera in range(len(batch.cameras)):
            picture, truth = drawn[camera], batch.image[camera]
            for region in REGIONS:
                mask = mask_of(masks, batch, region)[camera].to(device)
                if float(mask.sum()) < LEAST_PIXELS:
                    continue
                value = psnr(picture, truth, mask)
                sums.add(f"{region}_psnr_db", min(max(value, LEAST_PSNR), MOST_PSNR))
            face = masks.face[camera].to(device)
            if lpips is not None and float(face.sum()) >= LEAST_PIXELS:
                features = lpips.features(torch.stack([picture, truth]))
                one, other = ([f[row : row + 1] for f in features] for row in (0, 1))
                sums.add("face_lpips", float(lpips.compare(one, other, face[None])))
    return sums.means()


def mask_of(masks: RegionMasks, batch: FitBatch, region: str) -> Float[Tensor, "c h w"]:
    """One region's weights."""
    return batch.matte if region == "matte" else getattr(masks, region)


@torch.no_grad()
def draw(renderer: Renderer, batch: FitBatch, still: bool = False) -> Float[Tensor, "c h w 3"]:
    """The refined pictures of a batch with its tracked pose, in 0..1."""
    avatar = renderer.avatar
    code = avatar.expression_mean if still else batch.z_exp
    posed = avatar.decode(code, batch.world_from_head, batch.torso)
    return renderer(posed, batch.cameras).refined.clamp(0, 1)


@dataclass(frozen=True)
class Shown:
    """A held-out picture that goes on the grid."""

    title: str
    index: int
    camera: int


def chosen_frames(
    data: FitData, faces: FaceRegions, prior_owner: Avatar, front: str
) -> list[Shown]:
    """Widest mouth, closed eyes, nearest to rest, and farthest from rest, in the front camera."""
    codes = data.expressions
    points = torch.stack(
        [faces.posed(code, prior_owner.prior, prior_owner.identity) for code in codes]
    )
    mouth, eyes = _opening(points, LIPS), _opening(points, LIDS)
    away = (codes - codes.mean(0)).norm(dim=1)
    shown: list[Shown] = []
    for title, wanted in (
        ("mouth open", mouth),
        ("eyes closed", -eyes),
        ("rest", -away),
        ("far from rest", away),
    ):
        taken = {one.index for one in shown}
        index = next(i for i in wanted.argsort(descending=True).tolist() if i not in taken)
        ids = data.sequences[data.places[index][0]].cameras.ids
        shown.append(Shown(title, index, ids.index(front) if front in ids else 0))
        if len(shown) == len(data):
            break
    return shown


def _opening(points: Float[Tensor, "t l 3"], pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """Mean distance of pairs of landmarks, per frame."""
    gaps = [(points[:, upper] - points[:, lower]).norm(dim=1) for upper, lower in pairs]
    return torch.stack(gaps).mean(0)


def face_box(masks: RegionMasks, camera: int, grow: float = 0.35) -> tuple[slice, slice]:
    """Rows and columns around the face, or the whole picture where it is not seen."""
    face = masks.face[camera]
    rows, columns = (torch.nonzero(face.amax(side) > 0.5).flatten() for side in (1, 0))
    if len(rows) == 0:
        return slice(None), slice(None)
    parts = []
    for found, limit in ((rows, face.shape[0]), (columns, face.shape[1])):
        low, high = int(found[0]), int(found[-1]) + 1
        more = int(grow * (high - low))
        parts.append(slice(max(0, low - more), min(limit, high + more)))
    return parts[0], parts[1]
