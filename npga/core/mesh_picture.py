"""Triangle meshes as shaded pictures: smooth grey under a lamp above the camera's left shoulder.

A picture of a mesh has four channels; the fourth, 255 where the mesh is, lets it lie over another
picture or on a page of any colour.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from npga.core.cameras import Cameras, look_at
from npga.core.mesh import Mesh
from npga.core.mesh_raster import rasterize_mesh

LAMP_IN_CAMERA = (-0.35, -0.55, -0.75)
"""Where the light comes from: x right, y down, z away from the camera."""
AMBIENT = 0.22
TINT = (0.80, 0.86, 0.93)
SMOOTHING = 2
"""Pictures are drawn so many times larger, and shrunk: no stairs at the outline."""
DISTANCE = 4.0
"""Of cameras around something, in its radii."""


def mesh_picture(mesh: Mesh, cameras: Cameras) -> UInt8[np.ndarray, "h w 4"]:
    """The mesh as the first camera sees it, both sides of every face, clear where it is not."""
    width, height = cameras.width, cameras.height
    large = cameras.select([0]).resized(SMOOTHING * width, SMOOTHING * height)
    found = rasterize_mesh(mesh.vertices, mesh.faces, large)
    seen = found.face[0] >= 0
    corners = mesh.faces[found.face[0].clamp_min(0)]
    normal = (mesh.normals()[corners] * found.bary[0].to(mesh.vertices)[..., None]).sum(-2)
    normal = normal @ large.cam_from_world[0, :3, :3].to(normal).T
    normal = torch.nn.functional.normalize(normal, dim=-1)
    normal = torch.where(normal[..., 2:] > 0, -normal, normal)
    lamp = torch.nn.functional.normalize(normal.new_tensor(LAMP_IN_CAMERA), dim=0)
    light = AMBIENT + (1 - AMBIENT) * (normal @ lamp).clamp_min(0)
    cover = seen.to(light)[..., None]
    layer = torch.cat([(light * cover[..., 0])[..., None], cover], -1)
    layer = layer.reshape(height, SMOOTHING, width, SMOOTHING, 2).mean((1, 3)).cpu()
    grey = layer[..., 0] / layer[..., 1].clamp_min(1e-6)
    colour = torch.cat([grey[..., None] * torch.tensor(TINT).to(grey), layer[..., 1:]], -1)
    return (255 * colour.clamp(0, 1)).round().byte().numpy()


def lay_over(
    picture: UInt8[np.ndarray, "h w 3"], layer: UInt8[np.ndarray, "h w 4"], opacity: float
) -> UInt8[np.ndarray, "h w 3"]:
    """The layer, so opaque (0..1), over the picture."""
    share = opacity * layer[..., 3:].astype(np.float32) / 255
    mixed = (1 - share) * picture + share * layer[..., :3]
    return mixed.round().astype(np.uint8)


def cameras_around(
    centre: Float[Tensor, "3"], radius: float, yaws_deg: tuple[float, ...], width: int, height: int
) -> list[Cameras]:
    """Cameras that see a sphere whole, turned about +y from +z (the face) towards +x."""
    centre = centre.detach().double().cpu()
    focal = 0.5 * min(width, height) * (DISTANCE**2 - 1) ** 0.5
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]).double()
    up = centre.new_tensor([0.0, 1.0, 0.0])
    found = []
    for yaw in yaws_deg:
        turn = torch.deg2rad(centre.new_tensor(yaw))
        eye = centre + DISTANCE * radius * torch.stack([turn.sin(), 0 * turn, turn.cos()])
        pose = look_at(eye, centre, up)
        found.append(Cameras(K[None], pose[None], width, height, (f"{yaw:g}",)))
    return found
