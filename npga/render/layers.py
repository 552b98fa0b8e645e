"""What is drawn of one frame, before it is a picture on some background.

Depth is the mean camera z of what a pixel shows: sum_i w_i z_i / alpha, where alpha is at least a
half; at a silhouette that is a mean over front and back. Normals are those of the depth's surface,
smoothed over `SMOOTH_M`: a fit leaves most Gaussians nearly round, so that their shortest axes are
noise, while their places are not.

The refiner was trained on white. Its picture R over white is taken apart again: the colour of what
covers a pixel is C = (R - (1 - alpha)) / alpha, and over any other background b the pixel is
alpha C + (1 - alpha) b = R - (1 - alpha) (1 - b).

Letters: c cameras, h w pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, normalize

from npga.avatar.avatar import Avatar
from npga.core.cameras import Cameras
from npga.core.similarity import Similarity
from npga.raster import Backend, rasterize

SMOOTH_M = 0.004
"""Standard deviation of the filter over depth before normals are taken, metres on the surface."""
COVERED = 0.5
"""Alpha from which a pixel has a depth."""


@dataclass(frozen=True)
class Layers:
    """One frame from `c` cameras."""

    on_white: Float[Tensor, "c h w 3"]
    """sRGB over white, refined where asked for; not clamped."""
    alpha: Float[Tensor, "c h w"]
    accumulated_z: Float[Tensor, "c h w"]
    """sum_i w_i z_i, metres."""
    cameras: Cameras

    def over(self, background: float) -> Float[Tensor, "c h w 3"]:
        """The picture on a grey of this level, within 0..1."""
        uncovered = (1 - self.alpha)[..., None]
        return (self.on_white - (1 - background) * uncovered).clamp(0, 1)

    def straight(self) -> Float[Tensor, "c h w 3"]:
        """Colours not multiplied by alpha, within 0..1; white where nothing is."""
        covered = self.alpha[..., None]
        color = (self.on_white - (1 - covered)) / covered.clamp_min(1e-6)
        return torch.where(covered > 0, color, torch.ones_like(color)).clamp(0, 1)

    def depth(self) -> Float[Tensor, "c h w"]:
        """Camera z in metres, 0 where less than `COVERED` of a pixel is covered."""
        depth = self.accumulated_z / self.alpha.clamp_min(COVERED)
        return torch.where(self.alpha >= COVERED, depth, torch.zeros_like(depth))

    def normals(self) -> Float[Tensor, "c h w 3"]:
        """Unit normals, 0 where nothing is: +x right, +y up, +z towards the camera."""
        return torch.cat([
            _normals(z, alpha, K)
            for z, alpha, K in zip(self.accumulated_z, self.alpha, self.cameras.K, strict=True)
        ])  # fmt: skip


@torch.no_grad()
def draw_layers(
    avatar: Avatar,
    z_exp: Float[Tensor, "e"],
    world_from_head: Similarity,
    world_from_torso: Similarity | None,
    cameras: Cameras,
    *,
    refine: bool = True,
    backend: Backend = Backend.auto,
) -> Layers:
    """One frame of an avatar from every camera, on the avatar's device."""
    device = avatar.means.device
    posed = avatar.pose(
        z_exp.to(device),
        world_from_head.to(device),
        None if world_from_torso is None else world_from_torso.to(device),
        with_features=refine,
    )
    cameras = cameras.to(device)
    white = avatar.background(1.0)
    images = rasterize(
        posed, cameras, background=white if refine else white[:3], backend=backend
    )  # fmt: skip
    picture = avatar.refine(images.image, images.alpha) if refine else images.image
    return Layers(picture[..., :3], images.alpha, images.depth, cameras)


def _normals(
    accumulated_z: Float[Tensor, "h w"], alpha: Float[Tensor, "h w"], K: Float[Tensor, "3 3"]
) -> Float[Tensor, "1 h w 3"]:
    """Normals of the smoothed surface of one camera."""
    solid = alpha >= COVERED
    if not solid.any():
        return torch.zeros(1, *alpha.shape, 3).to(alpha)
    typical = (accumulated_z / alpha.clamp_min(COVERED))[solid].median()
    sigma = float(SMOOTH_M * K[0, 0] / typical)
    weight = _blur(alpha * solid, sigma)
    depth = _blur(accumulated_z * solid, sigma) / weight.clamp_min(1e-6)
    rows, columns = (torch.arange(n).to(alpha) + 0.5 for n in alpha.shape)
    x = (columns - K[0, 2]) / K[0, 0] * depth
    y = (rows - K[1, 2])[:, None] / K[1, 1] * depth
    points = torch.stack([x, y, depth], -1)
    across, down = (torch.gradient(points, dim=d)[0] for d in (1, 0))
    normal = normalize(torch.linalg.cross(down, across), dim=-1)  # towards the camera: z < 0
    normal = normal * torch.tensor([1.0, -1.0, -1.0]).to(normal)
    return torch.where(solid[..., None], normal, torch.zeros_like(normal))[None]


def _blur(image: Float[Tensor, "h w"], sigma: float) -> Float[Tensor, "h w"]:
    """A Gaussian filter, zero outside the picture."""
    reach = max(1, round(3 * sigma))
    taps = torch.arange(-reach, reach + 1).to(image)
    kernel = torch.exp(-0.5 * (taps / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    rows = conv2d(image[None, None], kernel[None, None, None], padding=(0, reach))
    return conv2d(rows, kernel[None, None, :, None], padding=(reach, 0))[0, 0]
