"""The exact heads of the rendered captures, and how far a track is from them.

Surface: true vertices of the face region (ICT-FaceKit's ``face_narrow``) against the tracked
surface; of those, the ones that two cameras see decide, since nostrils and the inside of lips are
in no picture and in no cloud. Pose: after one constant alignment per sequence, since a head model's
own axes are a convention. Metres in world space; results in millimetres and degrees.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from npga.capture import open_capture
from npga.core.cameras import Cameras
from npga.core.mesh_raster import rasterize_mesh
from npga.core.similarity import Similarity
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.result import SequenceTrack, Track
from nphm_tracking.surface import surface_distance, surface_foot

SHARED = Path(__file__).resolve().parents[2] / "shared"
ICT = SHARED / "data" / "ict_facekit.npz"
TRUTH = SHARED / "captures" / "ground_truth"
CAPTURE = SHARED / "captures" / "nersemble_like"
SAME = {
    "mouth": {
        48: 61, 49: 39, 50: 37, 51: 0, 52: 267, 53: 269, 54: 291, 55: 321, 56: 314, 57: 17,
        58: 84, 59: 91, 60: 78, 61: 81, 62: 13, 63: 311, 64: 308, 65: 402, 66: 14, 67: 178,
    },
    "brows": {
        17: 70, 18: 63, 19: 105, 20: 66, 21: 107, 22: 336, 23: 296, 24: 334, 25: 293, 26: 300,
    },
    "lids": {
        36: 33, 37: 160, 38: 158, 39: 133, 40: 153, 41: 144,
        42: 362, 43: 385, 44: 387, 45: 263, 46: 373, 47: 380,
    },
}  # fmt: skip
"""iBUG's 68 landmarks and the same places among MediaPipe's 478."""
LOWER_LIDS = (40, 41, 46, 47)
SAME["upper_lids"] = {n: SAME["lids"][n] for n in (37, 38, 43, 44)}
TRUE_EYE_CORNERS = ((36, 39), (42, 45))
POINTS_PER_FRAME = 1200
SEEN_WIDTH = 412
"""Pictures in which it is decided what is seen."""
SEEN_BY = 2
"""Cameras that must see a vertex: of what one camera sees, no cloud knows the depth."""


def truth_available() -> bool:
    """Whether captures, ground truth and head shapes lie beside the project."""
    return ICT.is_file() and (TRUTH / "rebuild.py").is_file() and CAPTURE.is_dir()


@cache
def _rebuild() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rebuild", TRUTH / "rebuild.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(TRUTH / "rebuild.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def true_vertices(participant: str, sequence: str, frame: int, space: str = "world") -> Tensor:
    """All vertices of a frame: world metres, or ``space="model"``: ICT's frame, centimetres."""
    place = str(TRUTH / participant)
    vertices, _ = _rebuild().rebuild(str(ICT), place, sequence, frame, space)
    return torch.from_numpy(vertices)


@cache
def face_vertices() -> Tensor:
    """Numbers of the face region's vertices."""
    with np.load(ICT) as held:
        groups = {
            str(n): r for n, r in zip(held["group_names"], held["group_face_range"], strict=True)
        }
        quads = held["faces_quad"][slice(*groups["face_narrow"])]
    return torch.from_numpy(np.unique(quads[quads >= 0]).astype(np.int64))


@dataclass(frozen=True)
class TrueFrame:
    """One frame of a rendered capture."""

    face: Float[Tensor, "n 3"]
    """Vertices of the face region, world metres."""
    seen: Bool[Tensor, "n"]
    """Whether two cameras see them (in this sequence, see ``seen_face``)."""
    world_from_model: Float[Tensor, "4 4"]
    """Rigid part: ICT's frame in metres."""


@lru_cache(maxsize=64)
def true_frame(participant: str, sequence: str, frame: int) -> TrueFrame:
    """The exact face and head pose of a frame."""
    vertices, _ = _rebuild().rebuild(str(ICT), str(TRUTH / participant), sequence, frame)
    with np.load(TRUTH / participant / f"{sequence}.npz") as held:
        matrix = torch.from_numpy(held["world_from_model"][frame]).double()
    matrix[:3, :3] = matrix[:3, :3] * 100  # ICT counts in centimetres
    face = torch.from_numpy(vertices)[face_vertices()]
    return TrueFrame(face, seen_face(participant, sequence), matrix)


@cache
def seen_face(participant: str, sequence: str) -> Bool[Tensor, "n"]:
    """Face vertices that two cameras see in the first or the middle frame of a sequence."""
    with np.load(TRUTH / participant / f"{sequence}.npz") as held:
        frames = {0, len(held["world_from_model"]) // 2}
    seen = torch.zeros(len(face_vertices()), dtype=torch.bool)
    for frame in frames:
        vertices, quads = _rebuild().rebuild(str(ICT), str(TRUTH / participant), sequence, frame)
        points = torch.from_numpy(vertices)
        seen |= _seen(points, _triangles(quads), _cameras(participant))[face_vertices()]
    return seen


@cache
def _cameras(participant: str) -> Cameras:
    capture = open_capture(str(CAPTURE), participant)
    return capture.cameras(None, SEEN_WIDTH, round(SEEN_WIDTH * 802 / 550))


def _triangles(quads: np.ndarray) -> Tensor:
    second = quads[quads[:, 3] >= 0][:, [0, 2, 3]]
    return torch.from_numpy(np.concatenate([quads[:, :3], second]).astype(np.int64))


def _seen(points: Tensor, faces: Tensor, cameras: Cameras) -> Bool[Tensor, "v"]:
    """Vertices of triangles that are in front in SEEN_BY cameras' pictures or more."""
    count = torch.zeros(len(points), dtype=torch.int64)
    for face in rasterize_mesh(points, faces, cameras).face:
        seen = torch.zeros(len(points), dtype=torch.bool)
        seen[faces[face[face >= 0].unique()].reshape(-1)] = True
        count += seen
    return count >= SEEN_BY


@dataclass(frozen=True)
class Scaling:
    """The truth resized about a camera's centre: what one camera cannot tell apart."""

    centre: Float[Tensor, "3"]
    factor: float

    def of(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Where resized points are."""
        return self.centre + self.factor * (points - self.centre)


def eye_distance(
    places: Float[Tensor, "l c"], corners: Sequence[Sequence[int]] = TRUE_EYE_CORNERS
) -> Tensor:
    """Between the middles of both eyes' corners (of iBUG's landmarks, if none are given)."""
    right, left = places[torch.tensor(corners)].mean(1)
    return (right - left).norm()


AS_IT_IS = Scaling(torch.zeros(3), 1.0)


def frame_distances_mm(
    model: HeadModel,
    track: Track,
    sequence: str,
    row: int,
    scaling: Scaling = AS_IT_IS,
    count: int = POINTS_PER_FRAME,
) -> tuple[Float[Tensor, "n"], Bool[Tensor, "n"]]:
    """Distances of true face vertices to the tracked surface of one frame, in true millimetres.

    Also tells which of them two cameras see.
    """
    found = track.sequences[sequence]
    truth = true_frame(track.participant, sequence, int(found.frames[row]))
    order = torch.randperm(len(truth.face), generator=torch.Generator().manual_seed(row))
    chosen = order[:count]
    points = scaling.of(truth.face[chosen])
    pose = found.world_from_head[row]
    local = pose.inverse().apply(points)
    distance = surface_distance(model, local, track.z_geo, found.z_exp[row])
    return 1000 * pose.scale * distance / scaling.factor, truth.seen[chosen]


def monocular_scaling(
    model: HeadModel, track: Track, centre: Float[Tensor, "3"], frames: int = 8
) -> Scaling:
    """The one factor for a whole track of one camera that brings the truth nearest to it."""
    jobs = [
        (name, int(r))
        for name, sequence in track.sequences.items()
        for r in torch.nonzero(sequence.ok).flatten()
    ]
    jobs = jobs[:: max(1, len(jobs) // frames)]

    def miss(factor: float) -> float:
        scaling = Scaling(centre, factor)
        found = [frame_distances_mm(model, track, n, r, scaling, 150)[0] for n, r in jobs]
        return float(torch.cat(found).clamp(max=30).mean())

    best = min((0.8 + 0.02 * k for k in range(23)), key=miss)
    return Scaling(centre, min((best + 0.004 * k for k in range(-5, 6)), key=miss))


@dataclass(frozen=True)
class PoseErrors:
    """Per frame, after one constant alignment."""

    degrees: Float[Tensor, "t"]
    millimetres: Float[Tensor, "t"]


def pose_errors(participant: str, sequence: str, found: SequenceTrack) -> PoseErrors:
    """Head pose against truth, failed frames left out; position = the middle of the face."""
    rows = torch.nonzero(found.ok).flatten()
    frames = [true_frame(participant, sequence, int(found.frames[r])) for r in rows]
    true = torch.stack([f.world_from_model for f in frames])
    ours = Similarity(
        found.world_from_head.scale[rows].double(),
        found.world_from_head.rotation[rows].double(),
        found.world_from_head.translation[rows].double(),
    )
    apart = ours.rotation.mT @ true[:, :3, :3]
    between = _mean_rotation(apart)
    left = (ours.rotation @ between).mT @ true[:, :3, :3]
    cosine = (left.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    degrees = torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))
    inverse = torch.linalg.inv(true[0])
    middle = (frames[0].face.double().mean(0) - true[0][:3, 3]) @ inverse[:3, :3].T
    centre = true[:, :3, :3] @ middle + true[:, :3, 3]
    local = ours.inverse().apply(centre[:, None])[:, 0].mean(0)
    moved = ours.apply(local.expand(len(rows), 1, 3))[:, 0]
    return PoseErrors(degrees, 1000 * (moved - centre).norm(dim=1))


def _mean_rotation(rotations: Float[Tensor, "t 3 3"]) -> Float[Tensor, "3 3"]:
    left, _, right = torch.linalg.svd(rotations.mean(0))
    sign = torch.ones(3).to(rotations)
    sign[2] = torch.sign(torch.linalg.det(left @ right))
    return left @ torch.diag(sign) @ right


def between_tracks_mm(
    model: HeadModel, one: Track, other: Track, sequence: str, row: int
) -> Float[Tensor, "n"]:
    """How far one track's posed face is from another track's surface."""
    first, second = one.sequences[sequence], other.sequences[sequence]
    truth = true_frame(one.participant, sequence, int(first.frames[row])).face[::6]
    pose, again = first.world_from_head[row], second.world_from_head[row]
    foot = surface_foot(model, pose.inverse().apply(truth), one.z_geo, first.z_exp[row])
    local = again.inverse().apply(pose.apply(foot))
    return 1000 * again.scale * surface_distance(model, local, other.z_geo, second.z_exp[row])
