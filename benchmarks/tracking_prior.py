"""How well the open prior takes on heads it has never seen: rows ``prior_*`` of bench_tracking.

Every head is fitted from 5,000 points that cameras in front of it would see (no landmarks, no
correspondences), identity, expression, pose and scale at once; then true points of the face,
others than those fitted to, are measured against the fitted surface. Two populations: people from
the generator that the prior was trained on, by another seed, and scan-based ICT-FaceKit heads.
"""

import multiprocessing as mp
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from benchmarks._results import row
from npga.capture.synthetic.people import EXPRESSIONS, NOSE_TIP, REGIONS, People
from npga.core.cameras import Cameras, look_at
from npga.core.device import flush_denormals
from npga.core.mesh_raster import rasterize_mesh
from npga.core.progress import bar
from npga.core.similarity import Similarity
from nphm_tracking.align import METRES_PER_UNIT
from nphm_tracking.fit_points import fit_points
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.model.load import load_head_model
from nphm_tracking.prior.data import make_rig
from nphm_tracking.prior.expressions import sample_expressions
from nphm_tracking.surface import surface_distance

SHARED = Path(__file__).resolve().parents[2] / "shared"
FIT_POINTS, TEST_POINTS = 5000, 3000
TEST_SEED, ACTIVE = 10_001, 1.0
"""The first expression of everybody is neutral, the others have weights that add up to ACTIVE."""
FIT_AZIMUTHS, FACE_AZIMUTHS = (-75, -50, -25, 0, 25, 50, 75), (-30, 0, 30)
PICTURE = 320
FACE_REGIONS = ("face", "lips", "lids", "brows", "eyes")
ICT_NOSE = 30
"""Of the 68 landmarks."""


@dataclass(frozen=True)
class TestHead:
    """A posed head whose surface is known, world metres, nose tip at the model's average place."""

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    in_face: Bool[Tensor, "f"]


def prior_rows(people: int = 20, expressions: int = 10, workers: int = 2) -> list[dict]:
    """The rows; ICT's are absent where ../shared is."""
    note = f"{people} people x {expressions} expressions, {FIT_POINTS} points each"
    anny = fit_all("anny", people, expressions, workers)
    rows = [
        row("prior_anny_mean_mm", float(anny.mean()), "mm", "<= 0.6", note),
        row("prior_anny_median_mm", float(np.median(anny)), "mm"),
        row("prior_anny_p95_mm", float(np.quantile(anny, 0.95)), "mm"),
    ]
    if (SHARED / "data" / "ict_facekit.npz").is_file():
        ict = fit_all("ict", people, expressions, workers)
        rows.append(row("prior_ict_mean_mm", float(ict.mean()), "mm"))
        rows.append(row("prior_ict_median_mm", float(np.median(ict)), "mm", "<= 1.0", note))
        rows.append(row("prior_ict_p95_mm", float(np.quantile(ict, 0.95)), "mm", "<= 4", note))
    return rows


def fit_all(population: str, people: int, expressions: int, workers: int) -> np.ndarray:
    """Distances of all test points, millimetres."""
    jobs = [(population, number, expressions) for number in range(people)]
    found = []
    with mp.get_context("spawn").Pool(workers, _one_thread) as pool:
        with bar(f"prior on unseen {population} heads", people) as shown:
            for distances in pool.imap(fit_person, jobs):
                found.append(distances)
                shown.update()
    return np.concatenate(found)


def _one_thread() -> None:
    flush_denormals()
    torch.set_num_threads(1)


def fit_person(job: tuple[str, int, int]) -> np.ndarray:
    """Distances in mm for all expressions of one person."""
    population, number, expressions = job
    model = load_head_model()
    make = {"anny": anny_heads, "ict": ict_heads}[population]
    return np.concatenate([measure(model, head, number) for head in make(number, expressions)])


def measure(model: HeadModel, head: TestHead, seed: int) -> Float[np.ndarray, "n"]:
    """Fit one head and measure its face, mm."""
    everywhere = torch.ones_like(head.in_face)
    cloud = _drawn(seen_points(head, FIT_AZIMUTHS, everywhere), FIT_POINTS, seed)
    face = _drawn(seen_points(head, FACE_AZIMUTHS, head.in_face), TEST_POINTS, seed + 1)
    start = Similarity(torch.tensor(METRES_PER_UNIT), torch.eye(3), torch.zeros(3))
    fit = fit_points(model, cloud, start, seed=seed)
    local = fit.world_from_head.inverse().apply(face)
    distance = surface_distance(model, local, fit.z_geo, fit.z_exp)
    return (distance * fit.world_from_head.scale * 1000).numpy()


def _drawn(points: Tensor, count: int, seed: int) -> Float[Tensor, "n 3"]:
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    return points[order[:count]]


def seen_points(
    head: TestHead, azimuths: tuple[int, ...], wanted: Bool[Tensor, "f"]
) -> Float[Tensor, "n 3"]:
    """The surface points behind the pixels of cameras around the head (only ``wanted`` faces)."""
    corners = head.vertices[head.faces]
    cameras = _around(torch.tensor(NOSE_TIP) * METRES_PER_UNIT, azimuths)
    seen = rasterize_mesh(head.vertices, head.faces, cameras)
    hit = seen.face >= 0
    face = seen.face[hit]
    points = (seen.bary[hit].float()[..., None] * corners[face]).sum(1)
    return points[wanted[face]]


def _around(centre: Float[Tensor, "3"], azimuths: tuple[int, ...]) -> Cameras:
    turns = torch.deg2rad(torch.tensor(azimuths, dtype=torch.float32))
    up = torch.tensor([0.0, 1.0, 0.0])
    poses = []
    for turn in turns:
        away = torch.stack([turn.sin(), torch.tensor(0.05), turn.cos()])
        poses.append(look_at(centre + away, centre, up))
    K = torch.tensor([[2.6 * PICTURE, 0, PICTURE / 2], [0, 2.6 * PICTURE, PICTURE / 2], [0, 0, 1]])
    ids = tuple(str(a) for a in azimuths)
    return Cameras(K.expand(len(poses), 3, 3), torch.stack(poses), PICTURE, PICTURE, ids)


def test_expressions(seed: int, count: int) -> Float[np.ndarray, "q 52"]:
    """The neutral face, then random ones in which something happens."""
    drawn = sample_expressions(np.random.default_rng([TEST_SEED, seed]), 40 * count)
    active = drawn[drawn.sum(1) > ACTIVE][: count - 1]
    return np.concatenate([np.zeros((1, drawn.shape[1])), active])


def anny_heads(number: int, expressions: int) -> list[TestHead]:
    """A person of the generator that training never drew."""
    people = People.load()
    rig = make_rig(people)
    head = people.head(people.sample_identity(np.random.default_rng([TEST_SEED, 7, number])))
    template = people.template
    regions = torch.tensor([REGIONS.index(name) for name in FACE_REGIONS])
    in_face = torch.isin(template.region, regions)[template.faces].all(1)
    posed = head.posed(torch.from_numpy(test_expressions(number, expressions)).float())
    shown = rig.level > 0
    faces, in_face = template.faces[shown], in_face[shown]
    return [TestHead(v * METRES_PER_UNIT, faces, in_face) for v in posed]


def ict_heads(number: int, expressions: int) -> list[TestHead]:
    """A random ICT-FaceKit identity under the same 52 weights (it has no tongue)."""
    with np.load(SHARED / "data" / "ict_facekit.npz") as held:
        data = {k: held[k] for k in held.files}
    rng = np.random.default_rng([TEST_SEED, 11, number])
    neutral = data["neutral"] + np.tensordot(
        rng.normal(size=len(data["identity"])), data["identity"].astype(np.float32), 1
    )
    weights = ict_weights(test_expressions(number, expressions), data["expression_names"])
    posed = neutral + np.tensordot(weights, data["expression"].astype(np.float32), 1)
    tip = neutral[data["landmarks68"][ICT_NOSE]]
    groups = {str(n): r for n, r in zip(data["group_names"], data["group_face_range"], strict=True)}
    parts = ["face", "head_neck", "mouth_socket", "gums_tongue", "teeth", "sclera_l", "sclera_r"]
    quads = np.concatenate([data["faces_quad"][slice(*groups[p])] for p in parts])
    narrow = np.concatenate([np.arange(*groups[p]) for p in parts])
    narrow = (narrow < groups["face_narrow"][1]) | np.isin(
        narrow, [i for p in ("sclera_l", "sclera_r") for i in range(*groups[p])]
    )
    second = quads[:, 3] >= 0
    faces = np.concatenate([quads[:, :3], quads[second][:, [0, 2, 3]]])
    in_face = torch.from_numpy(np.concatenate([narrow, narrow[second]]))
    place = np.array(NOSE_TIP) * METRES_PER_UNIT
    return [
        TestHead(
            torch.from_numpy(((v - tip) / 100 + place).astype(np.float32)),
            torch.from_numpy(faces.astype(np.int64)),
            in_face,
        )
        for v in posed
    ]


def ict_weights(weights: Float[np.ndarray, "q 52"], names: np.ndarray) -> Float[np.ndarray, "q k"]:
    """ARKit weights in ICT's order, whose brows and cheeks have a side more."""
    both = {"browInnerUp": "browInnerUp", "cheekPuff": "cheekPuff"}
    found = np.zeros((len(weights), len(names)))
    for column, name in enumerate(str(n) for n in names):
        plain = name.removesuffix("_L").removesuffix("_R")
        side = {"_L": "Left", "_R": "Right"}.get(name[-2:], "")
        ours = both.get(plain, plain + side)
        if ours in EXPRESSIONS:
            found[:, column] = weights[:, EXPRESSIONS.index(ours)]
    return found
