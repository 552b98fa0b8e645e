"""A folder of numbered PNG pictures, loss-free: 000000.png, 000001.png, ..."""

import os
import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from npga.core.errors import OutputError

PngArray = UInt8[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _ c"] | UInt16[np.ndarray, "_ _"]
"""Grey of 8 or 16 bits, RGB (c = 3) or RGB with straight alpha (c = 4)."""


def frame_name(number: int) -> str:
    """The file name of frame `number` of a sequence."""
    return f"{number:06d}.png"


class PngSequence:
    """Writes frames to a folder under a temporary name that is renamed when it is complete.

    The folder must not exist at that time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._partial = self.folder.with_name("." + self.folder.name + ".partial")
        self._count = 0

    def __enter__(self) -> "PngSequence":
        shutil.rmtree(self._partial, ignore_errors=True)
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"The folder {self.folder} cannot be written ({error.strerror}).",
                "Give an out=... in a folder that can be written.",
            ) from None
        return self

    def write(self, image: PngArray) -> None:
        """Append one frame."""
        picture = Image.fromarray(np.ascontiguousarray(image))
        picture.save(self._partial / frame_name(self._count), compress_level=3)
        self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            os.replace(self._partial, self.folder)
        else:
            shutil.rmtree(self._partial, ignore_errors=True)
