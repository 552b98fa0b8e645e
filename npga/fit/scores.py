"""The metrics of one picture against the truth.

Letters: `h w` pixels.
"""

from dataclasses import dataclass, fields

from jaxtyping import Float
from torch import Tensor

from npga.core.images import to_uint8
from npga.core.metrics import decibel, error_map, masked_mean, similarity_map
from npga.fit.faces import landmark_distance
from npga.fit.instruments import Instruments
from npga.fit.regions import LEAST_PIXELS, RegionMasks


@dataclass(frozen=True)
class Score:
    """Metrics of one picture drawn one way; None where one has no value."""

    psnr_matte_db: float
    psnr_whole_db: float
    ssim_matte: float
    ssim_whole: float
    psnr_face_db: float | None = None
    psnr_mouth_db: float | None = None
    psnr_eyes_db: float | None = None
    ssim_face: float | None = None
    ssim_mouth: float | None = None
    ssim_eyes: float | None = None
    lpips_alex_whole: float | None = None
    lpips_alex_matte: float | None = None
    lpips_alex_face: float | None = None
    lpips_vgg_whole: float | None = None
    lpips_vgg_matte: float | None = None
    lpips_vgg_face: float | None = None
    akd_percent: float | None = None
    """Landmark distance in % of the distance of the eyes."""
    csim: float | None = None


METRICS = tuple(f.name for f in fields(Score))
PIXELWISE = tuple(name for name in METRICS if name.startswith(("psnr", "ssim")))
"""The metrics that need no model; the only ones of the picture without the refiner."""


def unit_of(metric: str) -> str:
    """dB, % or 1."""
    return "dB" if metric.endswith("db") else "%" if metric.endswith("percent") else "1"


def seen_masks(masks: RegionMasks | None, camera: int) -> dict[str, Float[Tensor, "h w"]]:
    """The regions that this camera sees, by name."""
    if masks is None:
        return {}
    named = {name: getattr(masks, name)[camera] for name in ("face", "mouth", "eyes")}
    return {name: mask for name, mask in named.items() if float(mask.sum()) >= LEAST_PIXELS}


class Truth:
    """A true picture, and what the instruments say of it once for all that is compared to it."""

    def __init__(
        self,
        image: Float[Tensor, "h w 3"],
        matte: Float[Tensor, "h w"],
        seen: dict[str, Float[Tensor, "h w"]],
        instruments: Instruments,
        *,
        vgg: bool,
    ) -> None:
        """`vgg`: whether LPIPS-VGG looks at this picture."""
        self.image = image
        self.regions = {"matte": matte, "whole": None} | {k: m.to(image) for k, m in seen.items()}
        self.instruments = instruments
        self.networks = {n: m for n, m in instruments.lpips.items() if vgg or n != "vgg"}
        self.features = {n: m.features(image[None]) for n, m in self.networks.items()}
        self.points = self.embedding = None
        if instruments.detector is not None:
            self.points = instruments.detector.detect(to_uint8(image))
        if instruments.identity is not None and self.points is not None:
            self.embedding = instruments.identity.embedding(to_uint8(image), self.points)

    def score(self, picture: Float[Tensor, "h w 3"], *, pixelwise: bool = False) -> Score:
        """All metrics of a drawn picture in 0..1, or those of PIXELWISE only."""
        error, similar = error_map(picture, self.image), similarity_map(picture, self.image)
        values: dict[str, float] = {}
        for region, mask in self.regions.items():
            values[f"psnr_{region}_db"] = decibel(masked_mean(error, mask))
            values[f"ssim_{region}"] = float(masked_mean(similar, mask))
        if not pixelwise:
            values |= self._unlikeness(picture) | self._faces(picture)
        return Score(**values)

    def _unlikeness(self, picture: Float[Tensor, "h w 3"]) -> dict[str, float]:
        values = {}
        for net, model in self.networks.items():
            drawn, true = model.features(picture[None]), self.features[net]
            for region in ("whole", "matte", "face"):
                if region in self.regions:
                    mask = self.regions[region]
                    weight = None if mask is None else mask[None]
                    values[f"lpips_{net}_{region}"] = float(model.compare(drawn, true, weight))
        return values

    def _faces(self, picture: Float[Tensor, "h w 3"]) -> dict[str, float]:
        if self.points is None or self.instruments.detector is None:
            return {}
        drawn = to_uint8(picture)
        points = self.instruments.detector.detect(drawn)
        if points is None:
            return {}
        values = {"akd_percent": landmark_distance(points, self.points)}
        if self.embedding is not None and self.instruments.identity is not None:
            found = self.instruments.identity.embedding(drawn, points)
            values["csim"] = float(found @ self.embedding)
        return values
