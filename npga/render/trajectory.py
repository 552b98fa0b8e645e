"""Camera paths: one camera per frame of a video.

t frames. A path is a `Cameras` whose first dimension is time. World space: metres, +y up. Pictures
are framed on a head: its centre is the origin of head space moved into the world.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.cameras import Cameras, look_at, nearest_point
from npga.core.errors import ConfigError
from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity

DISTANCE = 4.4
"""Of a framed camera from the head's centre, head units (1.1 m, as far as NeRSemble's)."""

FRAMED = 1.75
"""Head units that fill the shorter side of a framed picture (44 cm: head, hair and neck)."""

LIFT = -0.12
"""Height of the point looked at, head units: the middle of head and neck."""


def framed_intrinsics(width: int, height: int) -> Float[Tensor, "3 3"]:
    """K that shows `FRAMED` head units at `DISTANCE`, centred."""
    focal = DISTANCE / FRAMED * min(width, height)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def orbit(
    head: Similarity,
    frames: int,
    width: int,
    height: int,
    *,
    swing_deg: float = 40.0,
    lift_deg: float = 10.0,
    turns: float = 1.0,
) -> Cameras:
    """Sway in front of a head: +-swing sideways and +-lift up and down, `turns` times, closed.

    `head` is one world_from_head; frame 0 looks at the face from in front.
    """
    phase = 2 * math.pi * turns * torch.arange(frames) / max(1, frames)
    azimuth = math.radians(swing_deg) * phase.sin()
    lift = math.radians(lift_deg) * (2 * phase).sin()
    direction = torch.stack(
        [azimuth.sin() * lift.cos(), lift.sin(), azimuth.cos() * lift.cos()], -1
    )
    target = torch.tensor([0.0, LIFT, 0.0])
    eyes = head.apply((target + DISTANCE * direction).to(head.translation))
    target = head.apply(target[None].to(head.translation))[0]
    up = torch.tensor([0.0, 1.0, 0.0]).to(target)
    poses = torch.stack([look_at(eye, target, up) for eye in eyes])
    intrinsics = framed_intrinsics(width, height).to(target)
    ids = tuple(f"orbit {frame}" for frame in range(frames))
    return Cameras(intrinsics.expand(frames, 3, 3).clone(), poses, width, height, ids)


def front_camera(head: Similarity, width: int, height: int) -> Cameras:
    """One framed camera in front of the face."""
    return orbit(head, 1, width, height)


def hold(camera: Cameras, frames: int) -> Cameras:
    """The first camera of `camera` for all frames."""
    return camera.select([0] * frames)


def rig_path(rig: Cameras, frames: int) -> Cameras:
    """Through all cameras of a rig from one side to the other and back, smoothly.

    Positions move on straight lines between neighbours, rotations along the shortest arc, both
    eased; K is interpolated. The order is by azimuth around the point where the rig looks.
    Raises ConfigError for a rig of one camera.
    """
    if len(rig) < 2:
        raise ConfigError(
            f"camera=path was asked for, but the rig has {len(rig)} camera.",
            "Give a capture with two cameras or more, or camera=orbit.",
        )
    centres = rig.centres_world()
    away = centres - nearest_point(rig)
    order = torch.atan2(away[:, 0], away[:, 2]).argsort()
    stops = torch.cat([order, order.flip(0)[1:]])
    at = torch.linspace(0, len(stops) - 1, frames + 1)[:-1].to(centres)
    low = at.floor().long()
    share = at - low
    share = share * share * (3 - 2 * share)
    start, end = stops[low], stops[low + 1]
    turn = rig.cam_from_world[:, :3, :3]
    between = rotvec_from_matrix(turn[end] @ turn[start].transpose(1, 2))
    rotation = matrix_from_rotvec(share[:, None] * between) @ turn[start]
    centre = torch.lerp(centres[start], centres[end], share[:, None])
    poses = torch.eye(4).to(centres).repeat(frames, 1, 1)
    poses[:, :3, :3] = rotation
    poses[:, :3, 3] = -(rotation @ centre[..., None])[..., 0]
    intrinsics = torch.lerp(rig.K[start], rig.K[end], share[:, None, None])
    ids = tuple(f"path {frame}" for frame in range(frames))
    return Cameras(intrinsics, poses, rig.width, rig.height, ids)
