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
from nphm_tracking.prior.data import BOX, PriorData, Rig, make_rig
from nphm_tracking.prior.expressions import sample_expressions
from nphm_tracking.prior.train import Trainee

LANDMARK_FORMAT = "nphm_tracking.template_landmarks"
RIDGE = 1e-2
"""Keeps the regression of landmarks on codes stable for few people."""


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
    codes = trainee.z_geo.detach().cpu()
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
    places = template_landmarks(rig, data.neutral)
    shared = codes[:, : model.sizes.geo_global]
    held["landmark_mean"], held["landmark_basis"] = linear_fit(shared, places)
    held["landmark_motion"] = landmark_motion()
    inside = (data.shape_mean > torch.tensor(BOX[0])) & (data.shape_mean < torch.tensor(BOX[1]))
    kept = inside.all(1)
    held["reference_points"] = data.neutral.mean(0)[kept]
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


def linear_fit(
    codes: Float[Tensor, "p g"], places: Float[Tensor, "p l 3"]
) -> tuple[Float[Tensor, "l 3"], Float[Tensor, "l 3 g"]]:
    """Least-squares places = mean + basis @ code (ridge on the basis)."""
    people, size = codes.shape
    known = torch.cat([torch.ones(people, 1), codes], dim=1).double()
    gram = known.T @ known
    gram[1:, 1:] += RIDGE * people * torch.eye(size, dtype=gram.dtype)
    solved = torch.linalg.solve(gram, known.T @ places.flatten(1).double()).float()
    mean = solved[0].reshape(-1, 3)
    return mean, solved[1:].T.reshape(*mean.shape, size)
