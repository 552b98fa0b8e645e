"""A body to dress and light: the geometry behind a synthetic person.

`Figure` is all that the renderer asks for, so that tests can dress a sphere; `anny_figure` makes
one from the population. Template coordinates are the average person's neutral vertices: skin, eyes
and hair are painted there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from npga.capture.synthetic import shading
from npga.capture.synthetic.noise import smoothstep
from npga.capture.synthetic.people import EXPRESSIONS, Identity, People

TEETH_BACK = 0.008
"""How far teeth are drawn back (2 mm), so that they never stick through the lips."""
MATERIALS = {
    "skin": shading.SKIN,
    "mouth_cavity": shading.MOUTH,
    "eye_cavity": shading.SOCKET,
    "eye_left": shading.EYE_LEFT,
    "eye_right": shading.EYE_RIGHT,
    "tongue": shading.TONGUE,
    "teeth_upper": shading.TEETH,
    "teeth_lower": shading.TEETH,
}


@dataclass(frozen=True)
class Figure:
    """One person's geometry in head space; v vertices, f faces."""

    template: np.ndarray
    """[v 3]"""
    neutral: np.ndarray
    """[v 3]"""
    faces: np.ndarray
    """[f 3] int32"""
    material: np.ndarray
    """[f] uint8, numbers of `shading`."""
    torso_weight: np.ndarray
    """[v] 0 = moves with the head, 1 = with the torso."""
    hairy: np.ndarray
    """[f] bool: outer skin on which hair may grow."""
    eye_centres: np.ndarray
    """[2 3] in the template."""
    names: tuple[str, ...]
    """Of the expression weights."""
    posed: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """(weights [52], gaze [2 2] yaw and pitch) -> vertices [v 3]."""


def neck_weight(template: np.ndarray) -> np.ndarray:
    """How much of the torso's motion template points [v 3] take: from jaw to collar."""
    return smoothstep(-0.34, -0.74, template[:, 1] + 0.25 * np.minimum(template[:, 2] + 0.1, 0))


def anny_figure(people: People, identity: Identity) -> Figure:
    """The geometry of one member of the population."""
    head = people.head(identity)
    template = people.template.neutral.numpy().astype(np.float64)
    eyes = torch.stack(
        [
            people.template.neutral[people.template.left_eye].mean(0),
            people.template.neutral[people.template.right_eye].mean(0),
        ]
    )
    region = people.data.face_region
    teeth = people.template.vertices_in("teeth_upper", "teeth_lower").numpy()

    def posed(weights: np.ndarray, gaze: np.ndarray) -> np.ndarray:
        row = torch.tensor(weights, dtype=torch.float32)
        wanted = np.stack([-gaze[:, 1], gaze[:, 0], np.zeros(2)], axis=1)
        turned = torch.einsum("e,esk->sk", row, head.eye_turns).numpy()
        vertices = head.posed(row, torch.tensor(wanted - turned, dtype=torch.float32)).numpy()
        vertices[teeth, 2] -= TEETH_BACK
        return vertices

    faces = people.template.faces.numpy().astype(np.int32)
    y = template[faces][..., 1].mean(1)
    return Figure(
        template=template,
        neutral=head.neutral.numpy().astype(np.float64),
        faces=faces,
        material=np.array([MATERIALS[str(r)] for r in region], dtype=np.uint8),
        torso_weight=neck_weight(template),
        hairy=(region == "skin") & (y > -0.5),
        eye_centres=eyes.numpy().astype(np.float64),
        names=EXPRESSIONS,
        posed=posed,
    )
