"""Two judges that look at faces: how far landmarks are off (AKD), whose face it is (CSIM).

AKD: mean distance of a detector's landmarks on lips, lids, brows and irises between a drawn and the
true picture, over the distance of the eyes in the true one. CSIM: cosine of an identity network's
embeddings of both, each face turned to ArcFace's template by the detector's eyes, nose tip and
mouth corners. Both skip a picture in which no face is found. Which points and what normalises AKD
is ours; ours to ship is neither model.

Letters: `l` landmarks, `h w` pixels, `d` size of an embedding.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.errors import CheckpointError
from npga.core.images import ImageArray
from nphm_tracking.landmarks import DETAIL_IDS, LID_IDS

Points = Float[np.ndarray, "l 2"]
"""Pixels in MediaPipe's order of 478."""

SIDE = 112
TEMPLATE = ((38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20))
"""Where ArcFace's code puts right eye, left eye, nose tip, right and left mouth corner."""
FIVE = (468, 473, 1, 61, 291)
"""The same among MediaPipe's landmarks."""
RANGES = {"-1..1": (127.5, 127.5), "0..255": (0.0, 1.0)}
"""What an identity network wants its pixels as: (subtracted, divided by) from 0..255."""


def landmark_distance(drawn: Points, true: Points) -> float:
    """AKD of one picture in % of the distance of the eyes in the true one."""
    used = sorted(DETAIL_IDS)
    lids = np.array(sorted(LID_IDS))
    right = lids[true[lids, 0] < np.median(true[lids, 0])]
    left = np.setdiff1d(lids, right)
    eyes = np.linalg.norm(true[left].mean(0) - true[right].mean(0))
    off = np.linalg.norm(drawn[used] - true[used], axis=1).mean()
    return float(100 * off / max(eyes, 1e-6))


class IdentityNetwork:
    """A face recognition network as an ONNX file: [1 3 112 112] RGB to [1 d]."""

    def __init__(self, path: str | Path, pixel_range: str) -> None:
        """`pixel_range` is a key of RANGES; raises CheckpointError for what cannot be used."""
        if pixel_range not in RANGES:
            raise CheckpointError(
                f"identity_range={pixel_range!r} is unknown.", f"Say {' or '.join(RANGES)}."
            )
        if not Path(path).is_file():
            raise CheckpointError(
                f"identity_model={path} is not there; an ONNX file was expected.",
                "Give the path of an ArcFace-like network, or identity_model=null.",
            )
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise CheckpointError(
                "An identity network needs onnxruntime, which is not installed.",
                "pip install onnxruntime, or identity_model=null.",
            ) from None
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise CheckpointError(
                f"identity_model={path} cannot be opened ({type(error).__name__}).",
                "Give an ONNX file that takes one [1 3 112 112] picture.",
            ) from None
        self._input = self._session.get_inputs()[0].name
        self._shift, self._spread = RANGES[pixel_range]

    def embedding(self, image: ImageArray, points: Points) -> Float[Tensor, " d"]:
        """The unit embedding of the face at these landmarks."""
        face = aligned(image, points).permute(2, 0, 1)[None].numpy()
        found = self._session.run(None, {self._input: (face - self._shift) / self._spread})[0]
        values = torch.from_numpy(np.asarray(found, np.float32)).flatten()
        return torch.nn.functional.normalize(values, dim=0)


def aligned(image: ImageArray, points: Points) -> Float[Tensor, "112 112 3"]:
    """The face turned, scaled and moved onto the template (0..255, bilinear, edge repeated)."""
    five, wanted = (
        np.asarray(p, np.float64) @ (1, 1j) for p in (points[list(FIVE)], TEMPLATE)
    )  # complex numbers: a similarity of the plane is one product and one sum
    from_wanted = wanted - wanted.mean()
    turn = (from_wanted.conj() * (five - five.mean())).sum() / (abs(from_wanted) ** 2).sum()
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    place = turn * (columns + 1j * rows - wanted.mean()) + five.mean()
    size = np.array([image.shape[1], image.shape[0]])
    grid = 2 * np.stack([place.real, place.imag], -1) / size - 1
    pixels = torch.from_numpy(np.ascontiguousarray(image)).float().permute(2, 0, 1)[None]
    return torch.nn.functional.grid_sample(
        pixels, torch.from_numpy(grid).float()[None], padding_mode="border", align_corners=False
    )[0].permute(1, 2, 0)
