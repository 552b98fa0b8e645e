"""Which files `npga render` makes, in which containers, and what is written about them.

For out=<name>.mp4: <name>.mp4 is color, <name>_alpha.mp4 and <name>_normals.mp4 the passes of those
names, <name>_depth.mp4 a depth to look at and <name>_depth/ the depth to compute with; <name>.json
describes them. out=<name>.mov and out=<name> (a folder of PNGs) likewise; the depth to look at is
an mp4 always.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from npga.core.errors import ConfigError, OutputError
from npga.core.images import ImageArray, labelled, side_by_side
from npga.core.png_sequence import PngSequence
from npga.core.video import VideoWriter
from npga.core.video_alpha import NAMES, AlphaVideoWriter, alpha_codec
from npga.render.config import Panel, Pass, RenderConfig
from npga.render.layers import COVERED, Layers
from npga.render.pictures import Look, background_level, depth_mm, pass_picture


class Container(str, Enum):
    """What holds the frames of one output."""

    mp4 = "mp4"
    mov = "mov"
    png = "png"


Writer = VideoWriter | AlphaVideoWriter | PngSequence
Draw = Callable[[Layers, ImageArray | None], np.ndarray]
"""A frame to write, of its layers and the driver's picture."""


@dataclass(frozen=True)
class Output:
    """One video or folder."""

    name: str
    """Of the file or folder, beside the others."""
    container: Container
    holds: str
    """What it shows, for people."""
    draw: Draw

    def open(self, folder: Path, fps: float) -> Writer:
        """Its writer, in this folder."""
        if self.container is Container.mp4:
            return VideoWriter(folder / self.name, fps)
        if self.container is Container.mov:
            return AlphaVideoWriter(folder / self.name, fps)
        return PngSequence(folder / self.name)

    def format(self) -> str:
        """Codec and pixels, for people."""
        if self.container is Container.mp4:
            return "H.264, yuv420p"
        if self.container is Container.mov:
            return f"{NAMES[alpha_codec()]} in QuickTime, straight alpha"
        return "PNG pictures"


def container_of(out: str) -> Container:
    """What the name asks for; raises OutputError for a suffix that is not known."""
    suffix = Path(out).suffix.lower()
    if out.endswith("/") or suffix == "":
        return Container.png
    if suffix not in (".mp4", ".mov"):
        raise OutputError(
            f"out={out} ends in {suffix}, which is no kind of output; a name that ends in .mp4 or "
            ".mov, or a folder, was expected.",
            f"Give out={Path(out).with_suffix('.mp4')}, or out={out}/ for a folder of PNGs.",
        )
    return Container(suffix[1:])


def result_base(out: str) -> Path:
    """The path that all results begin with: `out` without its suffix."""
    path = Path(out)
    return path if container_of(out) is Container.png else path.with_suffix("")


def checked_background(config: RenderConfig) -> float | None:
    """The background; raises ConfigError where `out` cannot hold a transparent one."""
    level = background_level(config.background)
    if level is not None:
        return level
    if container_of(config.out) is Container.mp4:
        base = result_base(config.out)
        raise ConfigError(
            f"background=transparent was asked for, but {config.out} is an mp4, which has no "
            "alpha.",
            f"Give out={base}.mov (ProRes 4444), or out={base}/ for a folder of PNGs.",
        )
    if config.beside:
        raise ConfigError(
            "background=transparent was asked for together with beside, whose panels are opaque.",
            "Give passes=[...] instead of beside, or another background.",
        )
    return None


def planned_outputs(config: RenderConfig, look: Look) -> list[Output]:
    """Everything to write but the json."""
    container, base = container_of(config.out), result_base(config.out)
    suffix = "" if container is Container.png else f".{container.value}"
    if config.beside:
        text = "side by side: " + ", ".join(panel.value for panel in config.beside)
        return [Output(base.name + suffix, container, text, _row(config.beside, look))]
    outputs: list[Output] = []
    for kind in config.passes:
        name = f"{base.name}_{kind.value}"
        if kind is Pass.color:
            outputs.append(
                Output(base.name + suffix, container, _color_text(look), _one(kind, look))
            )
        elif kind is Pass.depth:
            outputs.append(Output(name, Container.png, _DEPTH_TEXT, _millimetres))
            near, far = look.depth_range_m
            text = f"depth to look at: {near:.3f} m is white, {far:.3f} m dark, nothing black"
            outputs.append(Output(name + ".mp4", Container.mp4, text, _one(kind, look)))
        else:
            outputs.append(Output(name + suffix, container, _TEXTS[kind], _one(kind, look)))
    return outputs


_DEPTH_TEXT = (
    "camera z in whole millimetres as 16-bit grey, the mean over what a pixel shows; 0 where less "
    f"than {COVERED:g} of it is covered"
)
_TEXTS = {
    Pass.alpha: "how much of a pixel is covered, 0..255",
    Pass.normals: "unit normals n of the smoothed depth as (n + 1) / 2 in RGB, camera frame: "
    "+x right, +y up, +z towards the camera; middle grey where nothing is",
}


def _color_text(look: Look) -> str:
    if look.background is None:
        return "sRGB with straight alpha (not multiplied by it)"
    return f"sRGB on a grey of level {look.background:g}"


def _millimetres(layers: Layers, driver: ImageArray | None) -> np.ndarray:
    return depth_mm(layers)


def _one(kind: Pass, look: Look) -> Draw:
    return lambda layers, driver: pass_picture(kind, layers, look)


def _row(panels: list[Panel], look: Look) -> Draw:
    """The panels of a side-by-side video, each under its name."""

    def draw(layers: Layers, driver: ImageArray | None) -> np.ndarray:
        pictures = [
            driver if panel is Panel.driver else pass_picture(Pass(panel.value), layers, look)
            for panel in panels
        ]
        return side_by_side([
            labelled(picture, panel.value)
            for picture, panel in zip(pictures, panels, strict=True)
            if picture is not None
        ])  # fmt: skip

    return draw


def fitting(picture: np.ndarray, container: Container) -> np.ndarray:
    """The picture with the channels that its container takes: .mov always has alpha."""
    if container is Container.mov and picture.shape[-1] == 3:
        return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    return picture
