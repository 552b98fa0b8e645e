"""From trained weights to a usable prior: code statistics, landmarks, reference points.

Letters: p people, g global geometry code, l landmarks, m reference points.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from npga.capture.synthetic.people import EXPRESSIONS, REGIONS, People
from npga.core.store import load_tensors
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.model.sizes import HeadModelSizes
from nphm_tracking.prior.anchors import select_anchors
from nphm_tracking.prior.data import BOX, PriorData, Rig, make_rig
from nphm_tracking.prior.expressions import sample_expressions
from nphm_tracking.prior.patches import make_patches
from nphm_tracking.prior.train import Trainee

LANDMARK_FORMAT = "nphm_tracking.template_landmarks"


def landmarks_file() -> Path:
    """MediaPipe's landmarks on the template, made by scripts/landmarks_on_template.py."""
    return Path(str(files("nphm_tracking") / "assets" / "landmarks_on_template.safetensors"))


def template_landmarks(rig: Rig, vertices: Float[Tensor, "p v 3"]) -> Float[Tensor, "p l 3"]:
    """Where the landmarks lie on heads of the template's topology."""
    spots, _ = load_tensors(landmarks_file(), format=LANDMARK_FORMAT, version=1)
    corners = vertices[:, rig.template.faces[spots["face"]]]
    return (spots["bary"][None, ..., None] * corners).sum(2)


@torch.no_grad()
def finished_model(trainee: Trainee, data: PriorData, rig: Rig, seed: int) -> HeadModel:
    """The trained model with everything that tracking needs beside the weights."""
    model = trainee.model.cpu().eval().requires_grad_(False)
    codes = data.code
    expressions = sample_expressions(np.random.default_rng([seed, 3]), 4000)
    weights = torch.from_numpy(expressions).float()
    spread = codes.std(0).clamp_min(1e-3)
    held = {
        "exp_mean": weights.mean(0),
        "exp_std": weights.std(0),
        "exp_lower": torch.zeros(model.exp_size),
        "exp_upper": torch.ones(model.exp_size),
        "geo_mean": codes.mean(0),
        "geo_std": spread,
        "geo_lower": codes.mean(0) - 4 * spread,
        "geo_upper": codes.mean(0) + 4 * spread,
        "bounds": torch.tensor(BOX),
    }
    held["landmark_mean"], held["landmark_basis"] = landmark_shapes(data, rig, model.sizes)
    held["landmark_motion"] = landmark_motion()
    inside = (data.shape_mean > torch.tensor(BOX[0])) & (data.shape_mean < torch.tensor(BOX[1]))
    kept = inside.all(1)
    held["reference_points"] = data.shape_mean[kept]
    held["reference_region"] = rig.template.region[kept]
    for name, value in held.items():
        model.register_buffer(name, value.contiguous())
    model.region_names = REGIONS
    return model


def landmark_motion(people: int = 4, seed: int = 11) -> Float[Tensor, "l 3 e"]:
    """Mean motion of the landmarks under each control alone, over random people; ours.

    Lids, lips and brows move linearly with the controls; the irises turn, so theirs is the chord.
    """
    population = People.load()
    rig, rng = make_rig(population), np.random.default_rng(seed)
    single = torch.eye(len(EXPRESSIONS))
    total = torch.zeros(0)
    for _ in range(people):
        head = population.head(population.sample_identity(rng))
        posed = torch.stack([head.posed(weights) for weights in single])
        rest = template_landmarks(rig, head.posed(torch.zeros(len(EXPRESSIONS)))[None])
        moved = template_landmarks(rig, posed) - rest
        total = moved if not len(total) else total + moved
    return (total / people).permute(1, 2, 0).contiguous()


def landmark_shapes(
    data: PriorData, rig: Rig, sizes: HeadModelSizes
) -> tuple[Float[Tensor, "l 3"], Float[Tensor, "l 3 c"]]:
    """Landmarks of the mean head, and how geometry codes move them: exact, heads are linear."""
    anchors = select_anchors(rig.template, sizes.pair_count, sizes.midline_count)
    patches = make_patches(rig.template, data.shape_mean, anchors, sizes)
    local = patches.dense().reshape(-1, len(data.shape_mean), 3)
    spare = local.new_zeros(sizes.geo_local, *local.shape[1:])
    moved = template_landmarks(rig, torch.cat([data.shape_basis, local, spare]))
    mean = template_landmarks(rig, data.shape_mean[None])[0]
    return mean, moved.permute(1, 2, 0)
