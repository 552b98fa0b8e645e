"""Settings of `npga track`: what to track, and the ordered list of stages.

Weights act on energies in mm^2 (surface, landmarks) and in units of the prior's standard deviation
(codes).
"""

from dataclasses import dataclass
from enum import Enum

from npga.core.config import knob
from npga.core.errors import ConfigError


class LandmarkSource(str, Enum):
    """Where landmarks come from."""

    auto = "auto"
    """The capture's precomputed ones, else MediaPipe where it is installed, else none."""
    capture = "capture"
    mediapipe = "mediapipe"
    none = "none"


class CloudSource(str, Enum):
    """Where surface points come from."""

    auto = "auto"
    """The capture's own clouds, else pycolmap."""
    capture = "capture"
    colmap = "colmap"


class StageKind(str, Enum):
    """What a stage does."""

    keyframe = "keyframe"
    """Identity, scale, codes and poses of a few frames spread over all sequences."""
    sequential = "sequential"
    """Codes and poses of every frame; identity fixed; sequences are independent."""
    joint = "joint"
    """Identity once more on more frames, then every frame at its final weights."""
    pictures = "pictures"
    """Every frame once more, with the brightness of the face in several cameras' pictures."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of the tracker; the yaml holds the ordered list."""

    kind: StageKind = knob(StageKind.sequential, "keyframe, sequential, joint or pictures")
    frames: int = knob(0, "frames that decide the identity (keyframe, joint)")
    points: int = knob(700, "surface points per frame and step")
    rounds: int = knob(1, "alternations of identity (pictures: looks) and frame iterations")
    iterations: int = knob(8, "Gauss-Newton iterations on codes and poses per round")
    identity_steps: int = knob(0, "Gauss-Newton steps on identity, scale, codes, poses per round")
    surface: float = knob(1.0, "weight of the surface distance, per mm^2")
    surface_scale_mm: float = knob(10.0, "robust scale of the surface distance")
    landmark: float = knob(0.2, "weight of the landmarks, per mm^2")
    landmark_monocular: float = knob(1.0, "the same for one camera, which sees nothing else")
    landmark_scale_mm: float = knob(15.0, "robust scale of the landmarks")
    code: float = knob(0.002, "weight of |(z_exp - mean) / std|^2")
    score: float = knob(0.0, "weight of the squared difference to a detector's scores of the codes")
    sparsity: float = knob(0.02, "weight of the sum of z_exp where its lower bound is 0")
    smooth_code: float = knob(0.0, "weight of code steps between neighbouring frames")
    smooth_pose: float = knob(0.0, "weight of pose steps between neighbouring frames, per mm^2")
    geometry: float = knob(0.2, "weight of |(z_geo - mean) / std|^2, mean over its dimensions")
    geometry_monocular: float = knob(40.0, "the same for one camera, whose landmarks say little")
    brightness: float = knob(0.0, "weight of the squared difference in brightness (pictures)")
    brightness_scale: float = knob(0.06, "robust scale of that difference, white being 1")
    size: float = knob(1.5, "weight of the squared logarithm of the head's size against 0.25 m")


def default_stages() -> list[StageConfig]:
    """Keyframe, sequential, joint, pictures: what configs/track.yaml holds too."""
    return [
        StageConfig(
            kind=StageKind.keyframe,
            frames=12,
            points=1000,
            rounds=4,
            iterations=4,
            identity_steps=5,
        ),
        StageConfig(kind=StageKind.sequential, points=1000, iterations=10),
        StageConfig(
            kind=StageKind.joint,
            frames=16,
            points=1000,
            rounds=1,
            iterations=4,
            identity_steps=6,
            smooth_code=0.01,
            smooth_pose=0.01,
        ),
        StageConfig(
            kind=StageKind.pictures,
            points=1000,
            rounds=2,
            iterations=5,
            smooth_code=0.01,
            smooth_pose=0.01,
            brightness=15000.0,
        ),
    ]


@dataclass(frozen=True)
class TrackConfig:
    """Settings of `npga track`."""

    capture: str = knob("???", "root folder of the capture")
    out: str = knob("???", "folder for track.safetensors and the report")
    participant: str | None = knob(None, "which person (needed where the capture has several)")
    sequences: list[str] = knob([], "names or prefixes; empty = all")
    every: int = knob(1, "track every n-th frame")
    frames_max: int | None = knob(None, "at most so many frames of each sequence")
    cameras: list[str] = knob([], "serials to use; empty = all, one = monocular (landmarks only)")
    cameras_for_landmarks: int = knob(8, "the so many most frontal cameras see the landmarks")
    cameras_for_pictures: int = knob(8, "the so many most frontal cameras are compared; 0 = none")
    held_out_cameras: list[str] = knob(
        ["222200037", "222200046", "222200039"], "serials whose pictures are not compared"
    )
    pictures_width: int = knob(275, "width of the pictures to compare")
    head_model: str | None = knob(None, "head model file; null = the open prior that ships")
    prior: str | None = knob(
        None, "forward prior F of that head model, to carry its landmarks and its surface"
    )
    landmarks: LandmarkSource = knob(LandmarkSource.auto, "auto, capture, mediapipe or none")
    landmarker: str | None = knob(None, "MediaPipe .task file; null = what is installed")
    clouds: CloudSource = knob(CloudSource.auto, "auto, capture or colmap")
    detail_weight: float = knob(2.0, "weight of lip, lid, brow and iris landmarks against 1")
    landmark_error_px: float = knob(0.012, "largest reprojection error, fraction of picture width")
    points_min: int = knob(150, "a frame with fewer face points fails")
    residual_max_mm: float = knob(4.0, "a frame whose median surface distance is larger fails")
    stages: list[StageConfig] = knob(default_stages(), "the ordered list of stages")
    cache: str | None = knob(None, "decode cache folder; null = beside the capture")
    report: bool = knob(True, "write report.html and the overlays")
    seed: int = knob(0, "of point sampling")
    overwrite: bool = knob(False, "replace an existing result")

    def __post_init__(self) -> None:
        """Refuse values that cannot work, in words."""
        for name, least in (
            ("every", 1),
            ("cameras_for_landmarks", 2),
            ("cameras_for_pictures", 0),
            ("pictures_width", 16),
            ("points_min", 10),
        ):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"npga track: {name}={getattr(self, name)} is below {least}.",
                    f"Give {name}={least} or more.",
                )
        if not self.stages or self.stages[0].kind is not StageKind.keyframe:
            raise ConfigError(
                "npga track: the first stage must be a keyframe stage, which finds the identity.",
                "See configs/track.yaml for the list.",
            )
