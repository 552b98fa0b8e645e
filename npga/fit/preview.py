"""Pictures of a fit in progress and of its evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.images import contact_sheet, to_uint8, write_image
from npga.fit.batch import FitData
from npga.fit.corrections import Corrections
from npga.fit.renderer import Renderer

PREVIEWS = 3


class Preview:
    """Draws the same few training frames whenever it is called: [truth | raw | refined]."""

    def __init__(
        self, folder: Path, data: FitData, renderer: Renderer, corrections: Corrections
    ) -> None:
        self.folder = folder
        self.data = data
        self.renderer = renderer
        self.corrections = corrections
        avatar = renderer.avatar
        distance = (data.expressions - avatar.expression_neutral.cpu()).norm(dim=1)
        order = distance.argsort()
        places = torch.linspace(0, len(order) - 1, min(PREVIEWS, len(order))).long()
        self.frames = order[places].tolist()

    @torch.no_grad()
    def __call__(self, done: int) -> None:
        """Write `previews/step_<done>.png`."""
        tiles, labels = [], []
        avatar = self.renderer.avatar
        field = avatar.field()
        for number, index in enumerate(self.frames):
            cameras = len(self.data.sequences[self.data.places[index][0]].cameras)
            batch = self.data.batch(index, [(number * 5 + 2) % cameras], avatar.means.device)
            frame = self.corrections.of(batch)
            posed = avatar.decode(frame.z_exp, frame.world_from_head, batch.torso, field=field)
            rendered = self.renderer(posed, batch.cameras)
            shown = (batch.image, rendered.raw, rendered.refined)
            tiles += [to_uint8(picture[0]) for picture in shown]
            labels += [f"{batch.sequence} {batch.frame}", f"raw, step {done}", "refined"]
        write_image(
            self.folder / "previews" / f"step_{done:06d}.png", contact_sheet(tiles, 3, labels)
        )


@dataclass(frozen=True)
class Compared:
    """One picture three times."""

    label: str
    truth: Float[Tensor, "h w 3"]
    avatar: Float[Tensor, "h w 3"]
    frozen: Float[Tensor, "h w 3"]
    """The avatar with its mean training expression."""


def comparison_sheet(
    path: Path,
    rows: Sequence[Compared],
    per_row: int = 2,
) -> None:
    """A sheet with `per_row` triples [truth | avatar | frozen] in a row."""
    tiles, labels = [], []
    for row in rows:
        tiles += [to_uint8(row.truth), to_uint8(row.avatar), to_uint8(row.frozen)]
        labels += [row.label, "avatar", "frozen"]
    write_image(path, contact_sheet(tiles, 3 * per_row, labels))
