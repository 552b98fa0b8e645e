"""What pictures are measured with besides arithmetic, as far as this machine has it.

What is absent is told once, with its reason, and its metrics stay null: no number is ever made
without the model that defines it.
"""

from dataclasses import dataclass, field

import torch

from npga.core.errors import CheckpointError, NpgaError
from npga.core.lpips import NETS, Lpips, load_lpips
from npga.fit.config import EvaluateConfig
from npga.fit.faces import IdentityNetwork
from npga.fit.regions import FaceRegions, face_regions
from nphm_tracking import Track, load_head_model
from nphm_tracking.detectors import LandmarkDetector, open_detector


@dataclass(frozen=True)
class Instruments:
    """Judges of pictures; None where one is absent."""

    regions: FaceRegions | None = None
    lpips: dict[str, Lpips] = field(default_factory=dict)
    """By net."""
    vgg_pictures: int = 0
    """LPIPS-VGG looks at so many pictures of a question at most."""
    detector: LandmarkDetector | None = None
    identity: IdentityNetwork | None = None
    absent: dict[str, str] = field(default_factory=dict)
    """{what: why} of regions, lpips_alex, lpips_vgg, akd and csim."""

    def why(self, metric: str) -> str:
        """Why a metric has no value."""
        for what, reason in self.absent.items():
            if metric.startswith(what):
                return reason
        if metric.startswith("lpips_vgg") and self.vgg_pictures == 0:
            return "switched off (vgg_pictures=0)"
        if metric.endswith(("face", "face_db", "mouth", "mouth_db", "eyes", "eyes_db")):
            return self.absent.get("regions", "seen in no picture")
        return "no face was found in both pictures" if metric.startswith(("akd", "csim")) else ""


def open_instruments(config: EvaluateConfig, track: Track, device: torch.device) -> Instruments:
    """All that the settings ask for and that is there.

    What was asked for by path and cannot be used raises CheckpointError or TrackError.
    """
    absent: dict[str, str] = {}
    lpips: dict[str, Lpips] = {}
    for net in NETS:
        try:
            lpips[net] = load_lpips(net, config.lpips_weights).to(device)
        except CheckpointError as error:
            if config.lpips_weights is not None and "No weights" not in error.what:
                raise
            absent[f"lpips_{net}"] = error.what
    detector = None
    if config.landmarks:
        try:
            detector = open_detector(config.landmarker)
        except NpgaError as error:
            if config.landmarker is not None:
                raise
            absent["akd"] = error.what
    else:
        absent["akd"] = "switched off (landmarks=false)"
    identity = None
    if config.identity_model is None:
        absent["csim"] = "no identity_model was given"
    elif detector is None:
        absent["csim"] = f"faces cannot be aligned: {absent['akd']}"
    else:
        identity = IdentityNetwork(config.identity_model, config.identity_range)
    regions = _regions(config, track, absent)
    return Instruments(regions, lpips, config.vgg_pictures, detector, identity, absent)


def _regions(config: EvaluateConfig, track: Track, absent: dict[str, str]) -> FaceRegions | None:
    """The face of this track; None where its head model is not the given or the shipped one."""
    model = load_head_model(config.head_model)
    if config.head_model is not None:
        track.require_model(model.checksum())
    elif model.checksum() != track.head_model_checksum:
        absent["regions"] = "the track was made with another head model: give head_model="
        return None
    return face_regions(model, track.z_geo.float())
