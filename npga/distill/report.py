"""A picture of where F is wrong: the posed surface, coloured by its cycle residual in mm."""

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.cameras import Cameras, look_at
from npga.core.images import ImageArray, contact_sheet, to_uint8
from npga.core.mesh import Mesh
from npga.core.mesh_raster import rasterize_mesh

SCALE_MM = 2.0
"""The residual at the hot end of the colours."""

RAMP = torch.tensor([[0.88, 0.90, 0.92], [0.98, 0.80, 0.25], [0.85, 0.15, 0.10], [0.3, 0.0, 0.3]])
"""Grey (0), yellow, red, purple (`SCALE_MM` and more)."""


def heat(values_mm: Float[Tensor, "v"]) -> Float[Tensor, "v 3"]:
    """sRGB colours of residuals, linear in `RAMP`."""
    at = (values_mm / SCALE_MM).clamp(0, 1) * (len(RAMP) - 1)
    low = at.floor().long().clamp(max=len(RAMP) - 2)
    share = (at - low)[:, None]
    ramp = RAMP.to(values_mm)
    return (1 - share) * ramp[low] + share * ramp[low + 1]


def head_cameras(size: int, azimuths_deg: tuple[float, ...]) -> Cameras:
    """Square pictures of a head in head space, from in front and the sides."""
    target = torch.tensor([0.0, 0.0, 0.0])
    poses = []
    for azimuth in azimuths_deg:
        turn = torch.deg2rad(torch.tensor(azimuth))
        eye = target + 4.0 * torch.stack([turn.sin(), torch.tensor(0.0), turn.cos()])
        poses.append(look_at(eye, target, torch.tensor([0.0, 1.0, 0.0])))
    focal = 2.9 * size
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    ids = tuple(f"{azimuth:+.0f} deg" for azimuth in azimuths_deg)
    return Cameras(intrinsics.expand(len(ids), 3, 3).clone(), torch.stack(poses), size, size, ids)


def draw(mesh: Mesh, colors: Float[Tensor, "v 3"], cameras: Cameras) -> list[ImageArray]:
    """The mesh in these colours, shaded by the angle to each camera, on white."""
    fragments = rasterize_mesh(mesh.vertices, mesh.faces, cameras)
    normals, pictures = mesh.normals(), []
    for index in range(len(cameras)):
        hit = fragments.face[index] >= 0
        corners = mesh.faces[fragments.face[index][hit]]
        bary = fragments.bary[index][hit].to(colors.dtype)
        color = torch.einsum("pk,pkd->pd", bary, colors[corners])
        normal = torch.einsum("pk,pkd->pd", bary, normals[corners])
        facing = (normal @ cameras.axes_world()[index]).abs().clamp(0, 1)
        picture = torch.ones(cameras.height, cameras.width, 3)
        picture[hit] = color * (0.35 + 0.65 * facing)[:, None]
        pictures.append(to_uint8(picture))
    return pictures


def residual_views(
    posed: Mesh, residual_mm: Float[Tensor, "v"], size: int = 256
) -> list[ImageArray]:
    """A posed surface coloured by its residual, from in front and from the side."""
    return draw(posed, heat(residual_mm), head_cameras(size, (0.0, 40.0)))


def residual_sheet(
    faces: Tensor,
    posed: list[Float[Tensor, "v 3"]],
    residuals_mm: list[Float[Tensor, "v"]],
    titles: list[str],
    size: int = 256,
) -> ImageArray:
    """One row per expression: from in front and from the side, labelled with its mean residual."""
    pictures, labels = [], []
    for vertices, residual, title in zip(posed, residuals_mm, titles, strict=True):
        pictures += residual_views(Mesh(vertices, faces), residual, size)
        labels += [f"{title}: mean {float(residual.mean()):.2f} mm", f"0 .. {SCALE_MM:.0f} mm"]
    return contact_sheet(pictures, 4, labels)
