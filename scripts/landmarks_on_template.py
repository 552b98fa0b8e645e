"""Where MediaPipe's 478 landmarks lie on the template of the synthetic people.

Renders a few people from several sides, detects the landmarks, looks up which triangle each one
hits, and takes the median place on the average head. Writes the asset that `npga prior` reads:

    A=nphm_tracking/assets/landmarks_on_template.safetensors
    python scripts/landmarks_on_template.py out=$A

A picture of the result is written to the same name with .png.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from npga.capture.synthetic.people import REGIONS, Head, People, Template
from npga.core.cameras import Cameras, look_at
from npga.core.mesh import Mesh
from npga.core.mesh_raster import rasterize_mesh
from npga.core.store import save_tensors
from nphm_tracking.detectors import open_detector
from nphm_tracking.landmarks import DETAIL_IDS, LIP_IDS
from nphm_tracking.prior.data import Rig, make_rig

SIZE, FOCAL = 512, 900.0
YAWS, PITCHES = (-40, -25, -10, 0, 10, 25, 40), (-12, 8)
PEOPLE = 8
IRIS = range(468, 478)


def camera(yaw: float, pitch: float) -> Cameras:
    a, b = np.radians(yaw), np.radians(pitch)
    eye = 2.2 * np.array([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)])
    centre = torch.tensor([0.0, -0.05, 0.05])
    pose = look_at(torch.from_numpy(eye).float() + centre, centre, torch.tensor([0.0, 1.0, 0.0]))
    intrinsics = torch.tensor([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1.0]])
    return Cameras(intrinsics[None], pose[None], SIZE, SIZE, ("view",))


def shade(rig: Rig, head: Head, view: Cameras, albedo: Tensor) -> tuple[np.ndarray, Tensor, Tensor]:
    """An sRGB picture with painted irises, and the triangle and barycentrics of every pixel."""
    faces = rig.template.faces
    seen = rasterize_mesh(head.neutral, faces, view)
    face, bary = seen.face[0], seen.bary[0]

    def at_pixel(values: Tensor) -> Tensor:
        return (bary[..., None] * values[faces[face.clamp_min(0)]]).sum(2)

    normal = at_pixel(Mesh(head.neutral, faces).normals())
    light = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 1.0]), dim=0)
    color, point = at_pixel(albedo), at_pixel(head.neutral)
    on_eye = at_pixel((rig.template.region == REGIONS.index("eyes")).float()[:, None])[..., 0] > 0.9
    for centre in head.eye_centres:
        ray = torch.nn.functional.normalize(point - centre, dim=-1)
        near = on_eye & ((point - centre).norm(dim=-1) < 0.09)
        color[near & (ray[..., 2] > 0.88)] = torch.tensor([0.25, 0.16, 0.08])
        color[near & (ray[..., 2] > 0.975)] = torch.tensor([0.03, 0.03, 0.03])
    image = color * (0.35 + 0.65 * (normal @ light).clamp(0, 1))[..., None]
    image[face < 0] = 0.75
    return (image.clamp(0, 1) * 255).byte().numpy(), face, bary


def allowed(template: Template, landmark: int) -> Tensor:
    """Triangles that a landmark may lie on."""
    names = ("face", "lids", "brows", "scalp", "ears", "neck", "lips")
    if landmark in LIP_IDS:
        names = ("lips",)
    elif landmark in IRIS:
        names = ("eyes",)
    elif landmark in DETAIL_IDS:
        names = ("lids",)
    wanted = torch.tensor([n in names for n in REGIONS])
    return wanted[template.region[template.faces]].all(1)


def places_on_average_head(people: People) -> Tensor:
    """Median hit of every landmark over people and views, on the average head; [478 3]."""
    rig = make_rig(people)
    detector = open_detector()
    rng = np.random.default_rng(5)
    average = people.template.neutral
    hits: list[list[Tensor]] = [[] for _ in range(detector.count)]
    for number in range(PEOPLE):
        who = people.average_identity() if number == 0 else people.sample_identity(rng)
        head = people.head(who)
        albedo = rig.albedo(torch.from_numpy(rng.normal(size=(1, 6)) * 0.5).float())[0]
        for yaw in YAWS:
            for pitch in PITCHES:
                view = camera(yaw, pitch)
                image, face, bary = shade(rig, head, view, albedo)
                found = detector.detect(image)
                if found is None:
                    continue
                column, row = np.floor(found).astype(int).T.clip(0, SIZE - 1)
                hit = face[row, column]
                corners = people.template.faces[hit.clamp_min(0)]
                point = (bary[row, column][..., None] * average[corners]).sum(1)
                cross = torch.linalg.cross(
                    head.neutral[corners[:, 1]] - head.neutral[corners[:, 0]],
                    head.neutral[corners[:, 2]] - head.neutral[corners[:, 0]],
                )
                toward = view.centres_world()[0] - head.neutral[corners[:, 0]]
                slant = torch.cosine_similarity(cross, toward, dim=1)
                for landmark in ((hit >= 0) & (slant > 0.35)).nonzero().squeeze(1).tolist():
                    hits[landmark].append(point[landmark])
    counts = [len(h) for h in hits]
    print(f"hits per landmark: least {min(counts)}, median {int(np.median(counts))}")
    return torch.stack([torch.stack(h).median(0).values for h in hits])


def main() -> None:
    out = Path(next(a for a in sys.argv[1:] if a.startswith("out="))[4:])
    people = People.load()
    template = people.template
    place = places_on_average_head(people)
    face, bary = torch.zeros(len(place), dtype=torch.int64), torch.zeros(len(place), 3)
    for landmark, point in enumerate(place):
        choice = allowed(template, landmark).nonzero().squeeze(1)
        _, near, index = Mesh(template.neutral, template.faces[choice]).closest(point[None])
        face[landmark] = choice[index[0]]
        corner = template.neutral[template.faces[face[landmark]]].double()
        solved = torch.linalg.lstsq(
            torch.cat([corner.T, torch.ones(1, 3, dtype=torch.float64)]),
            torch.cat([near[0].double(), torch.ones(1, dtype=torch.float64)])[:, None],
        ).solution
        bary[landmark] = solved[:, 0].clamp(0, 1).float()
    bary = bary / bary.sum(1, keepdim=True)
    meta = {"made_by": "scripts/landmarks_on_template.py", "detector": "mediapipe face mesh 478"}
    save_tensors(out, {"face": face, "bary": bary}, format="nphm_tracking.template_landmarks",
                 version=1, meta=meta)  # fmt: skip
    picture(people, face, bary, out.with_suffix(".png"))


def picture(people: People, face: Tensor, bary: Tensor, path: Path) -> None:
    """The landmarks drawn on the average head from two sides."""
    rig, head = make_rig(people), people.head(people.average_identity())
    albedo = rig.albedo(torch.zeros(1, 6))[0]
    points = (bary[..., None] * head.neutral[people.template.faces[face]]).sum(1)
    images = []
    for yaw in (0, 30):
        view = camera(yaw, 0)
        image, _, _ = shade(rig, head, view, albedo)
        pixels, _ = view.project(points)
        for number, (x, y) in enumerate(pixels[0].round().int().tolist()):
            color = (255, 0, 0) if number in LIP_IDS else (0, 255, 0)
            color = (0, 128, 255) if number in DETAIL_IDS - LIP_IDS else color
            image[y - 1 : y + 1, x - 1 : x + 1] = (255, 255, 0) if number in IRIS else color
        images.append(image)
    Image.fromarray(np.concatenate(images, axis=1)).resize((2048, 1024)).save(path)


if __name__ == "__main__":
    main()
