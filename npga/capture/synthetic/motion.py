"""What the synthetic people do: expression weights, gaze, blinks, and head and torso motion.

A sequence is a list of key poses, each a few ARKit weights plus a gaze; time runs through them with
smooth holds. Blinks, timing and strength depend on the person's random numbers. Left and right are
the subject's. Gaze is (yaw towards +x, pitch upwards) in radians, relative to the head; the
eyeLook* weights (which move the lids) are derived from it, so they always agree.
"""

from dataclasses import dataclass

import numpy as np
import torch

from npga.capture.synthetic.noise import smoothstep
from npga.core.rotations import matrix_from_rotvec
from npga.core.similarity import Similarity

METRES_PER_UNIT = 0.25
LOOK_LIMIT_RAD = 0.55
"""Gaze angle at which an eyeLook* weight reaches 1."""
TORSO_SHARE = 0.12
"""How much of the head's motion the torso makes."""


@dataclass(frozen=True)
class KeyPose:
    """One expression to pass through; `weights` may say Both for Left and Right."""

    weights: dict[str, float]
    gaze_deg: tuple[float, float] = (0.0, 0.0)
    """Yaw to the subject's left, pitch upwards."""
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Head pitch (down +), yaw (to the subject's left +), roll, added to the idle motion."""


@dataclass(frozen=True)
class Motion:
    """What one person does in one sequence; t frames."""

    weights: np.ndarray
    """[t 52] in 0..1, in the order of the expression names given."""
    gaze: np.ndarray
    """[t 2 2]: left eye and right eye, (yaw, pitch) in radians."""
    world_from_head: Similarity
    world_from_torso: Similarity


REST = KeyPose({})
SMILE = {"mouthSmileBoth": 0.9, "cheekSquintBoth": 0.6, "mouthDimpleBoth": 0.25}
DISGUST = {
    "noseSneerBoth": 0.9,
    "browDownBoth": 0.7,
    "mouthUpperUpBoth": 0.55,
    "eyeSquintBoth": 0.5,
}
RAISE = {"browInnerUp": 0.9, "browOuterUpBoth": 0.85}
FEAR = {"browInnerUp": 1.0, "eyeWideBoth": 0.9, "mouthStretchBoth": 0.7, "jawOpen": 0.25}

SEQUENCES: dict[str, tuple[KeyPose, ...]] = {
    "EXP-1-head": (
        REST,
        KeyPose({}, (10, 0), (0, 26, 0)),
        KeyPose({}, (-10, 0), (0, -26, 0)),
        KeyPose({}, (0, 8), (-16, 0, 0)),
        KeyPose({}, (0, -8), (14, 0, 0)),
        KeyPose({}, (0, 0), (0, 0, 14)),
        REST,
    ),
    "EXP-2-eyes": (
        REST,
        KeyPose({}, (28, 4)),
        KeyPose({}, (-28, -2)),
        KeyPose({"eyeWideBoth": 0.7, "browOuterUpBoth": 0.5}, (0, 20)),
        KeyPose({"eyeBlinkBoth": 0.25}, (5, -24)),
        KeyPose({"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.6, "eyeSquintLeft": 0.4}),
        KeyPose({"eyeBlinkRight": 1.0, "cheekSquintRight": 0.6, "eyeSquintRight": 0.4}),
        KeyPose({"eyeBlinkBoth": 1.0, "eyeSquintBoth": 0.9, "browDownBoth": 0.8}),
        KeyPose({"browInnerUp": 0.9, "browOuterUpBoth": 0.9, "eyeWideBoth": 1.0}),
    ),
    "EXP-3-cheeks+nose": (
        REST,
        KeyPose({"cheekPuff": 1.0, "mouthPressBoth": 0.4}),
        KeyPose({"noseSneerBoth": 1.0, "browDownBoth": 0.4}),
        KeyPose({"cheekSquintBoth": 0.9, "eyeSquintBoth": 0.7}),
        KeyPose({"noseSneerLeft": 0.9, "cheekSquintLeft": 0.7}),
        REST,
    ),
    "EXP-4-lips": (
        REST,
        KeyPose({"mouthPucker": 1.0}),
        KeyPose({"mouthFunnel": 0.9, "jawOpen": 0.2}),
        KeyPose({"mouthSmileBoth": 0.9}),
        KeyPose({"mouthRollUpper": 0.8, "mouthRollLower": 0.8, "mouthPressBoth": 0.5}),
        KeyPose({"mouthLeft": 0.9}),
        KeyPose({"mouthRight": 0.9}),
        KeyPose({"mouthFrownBoth": 0.9, "mouthShrugLower": 0.8}),
        KeyPose({"mouthUpperUpBoth": 0.8, "mouthLowerDownBoth": 0.9, "mouthStretchBoth": 0.5}),
    ),
    "EXP-6-tongue-1": (
        REST,
        KeyPose({"jawOpen": 0.45}),
        KeyPose({"jawOpen": 0.5, "tongueOut": 1.0}),
        KeyPose({"jawOpen": 0.3, "tongueOut": 0.7, "mouthSmileBoth": 0.3}),
        REST,
    ),
    "EXP-8-jaw-1": (
        REST,
        KeyPose({"jawOpen": 0.45}),
        KeyPose({"jawOpen": 0.9}),
        KeyPose({"jawOpen": 0.35, "jawLeft": 0.9}),
        KeyPose({"jawOpen": 0.25, "jawRight": 0.9}),
        KeyPose({"jawForward": 0.9, "mouthShrugLower": 0.3}),
        KeyPose({"jawOpen": 0.6, "tongueOut": 0.8}),
        KeyPose({"jawOpen": 0.15, "mouthClose": 0.1}),
    ),
    "EMO-1-shout+laugh": (
        REST,
        KeyPose(
            {"jawOpen": 0.85, "mouthStretchBoth": 0.5, "browDownBoth": 0.6, "eyeSquintBoth": 0.4}
        ),
        KeyPose(
            {"jawOpen": 0.95, "mouthUpperUpBoth": 0.5, "browDownBoth": 0.8}, (0, 0), (-6, 0, 0)
        ),
        KeyPose({"jawOpen": 0.2, "mouthSmileBoth": 0.6, "cheekSquintBoth": 0.4}),
        KeyPose({**SMILE, "jawOpen": 0.5, "eyeSquintBoth": 0.6}, (0, 0), (-5, 4, 3)),
        KeyPose({**SMILE, "jawOpen": 0.25, "eyeSquintBoth": 0.7}, (-6, -4), (5, -3, -2)),
        KeyPose({**SMILE, "jawOpen": 0.55, "eyeSquintBoth": 0.5, "mouthUpperUpBoth": 0.3}),
    ),
    "EMO-2-surprise+fear": (
        REST,
        KeyPose({**RAISE, "jawOpen": 0.6, "eyeWideBoth": 0.8}),
        KeyPose({**RAISE, "jawOpen": 0.3, "eyeWideBoth": 1.0}),
        KeyPose(FEAR, (-12, 4)),
        KeyPose({**FEAR, "jawOpen": 0.1}, (14, 0)),
        REST,
    ),
    "EMO-3-angry+sad": (
        REST,
        KeyPose({"browDownBoth": 1.0, "noseSneerBoth": 0.4, "mouthPressBoth": 0.8}),
        KeyPose({"browDownBoth": 0.9, "jawOpen": 0.2, "mouthLowerDownBoth": 0.7}),
        KeyPose({"browInnerUp": 0.8, "mouthFrownBoth": 0.8, "mouthShrugLower": 0.7}, (0, -10)),
        REST,
    ),
    "EMO-4-disgust+happy": (
        REST,
        KeyPose(DISGUST, (0, 0), (-4, 0, 0)),
        KeyPose({**DISGUST, "jawOpen": 0.2, "mouthLowerDownBoth": 0.4}, (10, -4)),
        KeyPose({"mouthFrownBoth": 0.3, "noseSneerBoth": 0.3}),
        KeyPose(SMILE, (0, 0), (0, 3, 3)),
        KeyPose({**SMILE, "browOuterUpBoth": 0.5, "browInnerUp": 0.4}),
        KeyPose({**SMILE, "mouthUpperUpBoth": 0.4, "jawOpen": 0.1}),
    ),
    "SEN-09-frown_events_bad": (
        REST,
        KeyPose({"mouthRollLower": 0.5, "mouthUpperUpBoth": 0.3}),
        KeyPose({"jawOpen": 0.3, "mouthPucker": 0.3}),
        KeyPose({"jawOpen": 0.5, "mouthStretchBoth": 0.3}),
        KeyPose({"mouthPressBoth": 0.6, "mouthClose": 0.05}),
        KeyPose({"jawOpen": 0.35, "mouthSmileBoth": 0.2, "browInnerUp": 0.3}),
        KeyPose({"mouthFunnel": 0.5, "jawOpen": 0.15}),
        REST,
    ),
    "FREE": (
        REST,
        KeyPose({**RAISE, "mouthPucker": 0.8}, (-16, 6), (0, -8, 0)),
        KeyPose(
            {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.9, "cheekSquintLeft": 0.8}, (0, 0), (3, 6, 6)
        ),
        KeyPose({"jawOpen": 0.7, "tongueOut": 1.0, "browDownBoth": 0.7, "noseSneerBoth": 0.5}),
        KeyPose({"jawOpen": 0.45, **RAISE, "mouthLeft": 0.7}, (18, -6), (0, 10, -4)),
        KeyPose({"mouthRight": 0.8, "noseSneerRight": 0.7, "browOuterUpLeft": 0.8}, (-10, 0)),
        KeyPose({**SMILE, "jawOpen": 0.35, "browInnerUp": 0.7}, (8, -12), (7, 0, 0)),
        KeyPose({"mouthFunnel": 0.9, "jawOpen": 0.35, "browDownBoth": 0.8}, (0, 0), (-6, -6, 0)),
        KeyPose({"cheekPuff": 0.9, "browOuterUpRight": 0.8, "mouthLeft": 0.4}, (20, 2), (0, 6, 0)),
    ),
}
"""Key poses by NeRSemble name; FREE combines what no other sequence combines."""


def make_motion(
    name: str,
    frames: int,
    names: tuple[str, ...],
    rng: np.random.Generator,
    home_m: np.ndarray,
    strength: float = 1.0,
) -> Motion:
    """One person's take of a sequence, `frames` long; raises KeyError for an unknown sequence.

    `home_m` [3] is where the head's origin rests in the world; `strength` scales all weights.
    """
    poses = SEQUENCES[name]
    place = _passage(frames, len(poses), rng)
    blend = smoothstep(0.12, 0.88, place - np.floor(place))[:, None]
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(poses) - 1)
    rows = np.stack([_row(pose, names) for pose in poses])
    weights = strength * ((1 - blend) * rows[low] + blend * rows[high])
    angles = np.deg2rad([[*pose.gaze_deg, *pose.turn_deg] for pose in poses])
    angles = (1 - blend) * angles[low] + blend * angles[high]
    gaze = angles[:, :2] + np.deg2rad(rng.normal(0, 0.6, (frames, 2)))
    if name != "EXP-2-eyes":
        weights = _with_blinks(weights, names, rng)
    weights = _with_look(weights, gaze, names)
    head, torso = _rigid(angles[:, 2:], rng, home_m)
    both = np.stack([gaze, gaze], axis=1)
    both[:, 0, 0] -= 0.035
    both[:, 1, 0] += 0.035
    return Motion(weights.astype(np.float32), both.astype(np.float32), head, torso)


def _passage(frames: int, poses: int, rng: np.random.Generator) -> np.ndarray:
    """Where in the list of poses every frame is, 0..poses-1, at a slightly uneven pace."""
    steps = 1 + 0.15 * rng.uniform(-1, 1, max(frames - 1, 1))
    times = np.concatenate([[0.0], np.cumsum(steps)])[:frames]
    return times / times[-1] * (poses - 1) if frames > 1 else np.zeros(1)


def _row(pose: KeyPose, names: tuple[str, ...]) -> np.ndarray:
    """A key pose as a full row of weights."""
    row = np.zeros(len(names))
    for key, value in pose.weights.items():
        sides = [key[:-4] + "Left", key[:-4] + "Right"] if key.endswith("Both") else [key]
        for side in sides:
            row[names.index(side)] = value
    return row


def _with_blinks(
    weights: np.ndarray, names: tuple[str, ...], rng: np.random.Generator
) -> np.ndarray:
    """About one blink in twelve frames, three frames wide, on top of the weights."""
    out = weights.copy()
    frame = np.arange(len(weights))
    for start in range(int(rng.integers(4, 9)), len(weights), 12):
        lid = np.clip(1.3 - 0.6 * np.abs(frame - start), 0, 1)
        for side in ("eyeBlinkLeft", "eyeBlinkRight"):
            column = names.index(side)
            out[:, column] = np.maximum(out[:, column], lid)
    return out


def _with_look(weights: np.ndarray, gaze: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Set the eyeLook* weights that agree with the gaze."""
    out = weights.copy()
    yaw, pitch = gaze[:, 0] / LOOK_LIMIT_RAD, gaze[:, 1] / LOOK_LIMIT_RAD
    for key, value in (
        ("eyeLookOutLeft", yaw),
        ("eyeLookInRight", yaw),
        ("eyeLookInLeft", -yaw),
        ("eyeLookOutRight", -yaw),
        ("eyeLookUpLeft", pitch),
        ("eyeLookUpRight", pitch),
        ("eyeLookDownLeft", -pitch),
        ("eyeLookDownRight", -pitch),
    ):
        out[:, names.index(key)] = np.clip(value, 0, 1)
    return out


def _rigid(
    turn: np.ndarray, rng: np.random.Generator, home_m: np.ndarray
) -> tuple[Similarity, Similarity]:
    """Head and torso poses: slow swaying plus the sequence's own head turns ([t 3] radians)."""
    frames = len(turn)
    phase = rng.uniform(0, 2 * np.pi, (6, 2))
    time = np.linspace(0, 1, frames)[:, None]
    sway = np.sin(2 * np.pi * time * 0.7 + phase[:, 0]) + 0.4 * np.sin(
        2 * np.pi * time * 1.7 + phase[:, 1]
    )
    rotvec = turn + sway[:, :3] * np.deg2rad([2.5, 4.5, 2.0])
    shift = home_m + sway[:, 3:] * np.array([0.006, 0.003, 0.006])
    rest_shift = shift.mean(0)

    def pose(angles: np.ndarray, where: np.ndarray) -> Similarity:
        return Similarity(
            torch.full((frames,), METRES_PER_UNIT),
            matrix_from_rotvec(torch.tensor(angles, dtype=torch.float32)),
            torch.tensor(where, dtype=torch.float32),
        )

    torso_shift = rest_shift + TORSO_SHARE * (shift - rest_shift)
    return pose(rotvec, shift), pose(TORSO_SHARE * rotvec, torso_shift)
