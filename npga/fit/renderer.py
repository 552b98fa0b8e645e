"""From posed Gaussians to pictures: rasteriser, background, and the refiner where it is wanted.

Letters: `c` cameras, `h w` pixels.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from npga.avatar import Avatar, Posed
from npga.core.cameras import Cameras
from npga.fit.batch import Window
from npga.raster import Backend, RenderedImages, rasterize


@dataclass(frozen=True)
class Rendered:
    """The pictures of one step."""

    raster: RenderedImages
    """Its `means2d` keep their gradient for the density control."""
    raw: Float[Tensor, "c h w 3"]
    """Before the refiner."""
    refined: Float[Tensor, "c y x 3"]
    """After it, inside `window`; the raw picture itself where there is no refiner."""
    window: Window

    @property
    def alpha(self) -> Float[Tensor, "c h w"]:
        """Coverage."""
        return self.raster.alpha


class Renderer:
    """Draws an avatar's posed Gaussians on a grey background."""

    def __init__(self, avatar: Avatar, backend: Backend, background: float, refine: bool) -> None:
        self.avatar = avatar
        self.backend = backend
        self.background = background
        self.refine = refine

    def __call__(self, posed: Posed, cameras: Cameras, window: Window | None = None) -> Rendered:
        """All cameras at once; the refiner works inside `window` only (default: everywhere)."""
        whole = Window(0, 0, cameras.width, cameras.height)
        window = whole if window is None else window
        background = self.avatar.background(self.background)
        raster = rasterize(posed.gaussians, cameras, background=background, backend=self.backend)
        raw = raster.image[..., :3]
        if not self.refine:
            return Rendered(raster, raw, raw, whole)
        refined = self.avatar.refine(window.of(raster.image), window.of(raster.alpha))
        return Rendered(raster, raw, refined, window)
