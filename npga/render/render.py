"""Avatar + what drives it + cameras -> pictures, one by one.

t frames, e expression size. Pictures are float [h w 3] sRGB in memory and uint8 in videos.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from npga.avatar.avatar import Avatar
from npga.core.cameras import Cameras
from npga.core.errors import OutputError
from npga.core.images import ImageArray, to_uint8
from npga.core.similarity import Similarity
from npga.raster import Backend
from npga.render.layers import draw_layers


@dataclass(frozen=True)
class Drive:
    """What moves an avatar."""

    z_exp: Float[Tensor, "t e"]
    """Expression codes, already fit for the avatar."""
    world_from_head: Similarity
    """[t]"""
    world_from_torso: Similarity
    """One pose for the whole take, unbatched."""
    fps: float

    def __len__(self) -> int:
        return len(self.z_exp)


def draw_avatar(
    avatar: Avatar,
    z_exp: Float[Tensor, "e"],
    world_from_head: Similarity,
    world_from_torso: Similarity | None,
    cameras: Cameras,
    *,
    refine: bool = True,
    background: float = 1.0,
    backend: Backend = Backend.auto,
) -> Float[Tensor, "c h w 3"]:
    """Pictures of one frame from every camera, on a grey of level `background`, within 0..1."""
    layers = draw_layers(
        avatar, z_exp, world_from_head, world_from_torso, cameras, refine=refine, backend=backend
    )  # fmt: skip
    return layers.over(background)


def render_frames(
    avatar: Avatar,
    drive: Drive,
    path: Cameras,
    *,
    refine: bool = True,
    backend: Backend = Backend.auto,
) -> Iterator[ImageArray]:
    """One picture per frame: frame n of `drive` from camera n of `path`, on white."""
    for n in range(len(drive)):
        picture = draw_avatar(
            avatar,
            drive.z_exp[n],
            drive.world_from_head[n],
            drive.world_from_torso,
            path.select([n]),
            refine=refine,
            backend=backend,
        )
        yield to_uint8(picture[0])


def require_new(out: str | Path, *, overwrite: bool) -> Path:
    """The path of a result file that may be written; raises OutputError where it exists."""
    out = Path(out)
    if out.suffix != ".mp4":
        raise OutputError(
            f"out={out} is no video name; a name that ends in .mp4 was expected.",
            f"Give out={out.with_suffix('.mp4')}.",
        )
    if out.exists() and not overwrite:
        raise OutputError(
            f"{out} exists already, and results are never silently replaced.",
            "Give another out=..., or overwrite=true to replace it.",
        )
    return out
