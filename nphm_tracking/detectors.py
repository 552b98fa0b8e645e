"""Face landmark detectors: one small protocol, MediaPipe behind it in its two forms.

Both find the same 478 points in the same order. Neither fetches anything: Face Mesh has its models
inside the wheel (mediapipe 0.10.14 to 0.10.29), Face Landmarker reads a ``.task`` file, given by
path or found in an installed package. l landmarks.
"""

import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from npga.core.errors import TrackError

MEDIAPIPE_COUNT = 478
CONFIDENCE_MIN = 0.3
_SIDED = (
    "browDown browOuterUp cheekSquint eyeBlink eyeLookDown eyeLookIn eyeLookOut eyeLookUp "
    "eyeSquint eyeWide mouthDimple mouthFrown mouthLowerDown mouthPress mouthSmile mouthStretch "
    "mouthUpperUp noseSneer"
).split()
SCORE_NAMES = (
    *(name + side for name in _SIDED for side in ("Left", "Right")),
    *(
        "browInnerUp cheekPuff jawForward jawLeft jawOpen jawRight mouthClose mouthFunnel "
        "mouthLeft mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower "
        "mouthShrugUpper"
    ).split(),
)
"""The 51 controls that Face Landmarker scores (ARKit's without the tongue)."""


@runtime_checkable
class LandmarkDetector(Protocol):
    """Finds the landmarks of one face in one picture."""

    count: int

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "l 2"] | None:
        """Pixels (column, row), continuous with centres at +0.5, or None where no face is found."""
        ...


@dataclass(frozen=True)
class FoundFace:
    """One face of a picture."""

    points: Float[np.ndarray, "l 2"]
    """Landmarks in pixels."""
    scores: Float[np.ndarray, " s"] | None = None
    """How far every control of ``SCORE_NAMES`` is on, 0..1; None where the detector knows none."""


def open_detector(
    landmarker: str | Path | None = None, faces_max: int = 1, scores: bool = False
) -> "MediaPipeDetector":
    """MediaPipe with the given ``.task`` file; without one, what the installation has.

    That is Face Mesh, else Face Landmarker with a file inside an installed package; where scores
    are wanted the other way round, since only Face Landmarker has them. Raises TrackError where
    neither is there.
    """
    if landmarker is not None:
        return FaceLandmarker(landmarker, faces_max=faces_max, scores=scores)
    found = next(installed_landmarkers(), None)
    if scores and found is not None:
        return FaceLandmarker(found, faces_max=faces_max, scores=True)
    try:
        return FaceMesh(faces_max=faces_max)
    except TrackError:
        if found is None:
            raise
        return FaceLandmarker(found, faces_max=faces_max)


def installed_landmarkers() -> Iterator[Path]:
    """Files face_landmarker*.task inside installed packages; nothing is imported."""
    for distribution in distributions():
        for file in distribution.files or ():
            if file.name.startswith("face_landmarker") and file.suffix == ".task":
                path = Path(str(distribution.locate_file(file)))
                if path.is_file():
                    yield path


class MediaPipeDetector:
    """What both forms of MediaPipe share."""

    count = MEDIAPIPE_COUNT

    _graph: Any

    def faces(self, image: UInt8[np.ndarray, "h w 3"]) -> list[FoundFace]:
        """The 478 MediaPipe points of every face, at most ``faces_max``, and its scores."""
        size = np.array([image.shape[1], image.shape[0]], dtype=np.float32)
        return [
            FoundFace(np.array([(p.x, p.y) for p in points], dtype=np.float32) * size, scores)
            for points, scores in self._found(np.ascontiguousarray(image))
        ]

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "l 2"] | None:
        """The 478 MediaPipe points in pixels, or None where no face is found."""
        found = self.faces(image)
        return found[0].points if found else None

    def close(self) -> None:
        """Frees the graph; the detector cannot be used afterwards."""
        self._graph.close()

    def _found(self, image: UInt8[np.ndarray, "h w 3"]) -> list[tuple[Any, Any]]:
        """Points (0..1) and scores of every face."""
        raise NotImplementedError


class FaceMesh(MediaPipeDetector):
    """MediaPipe Face Mesh, refined lids, irises and lips; its models are inside the wheel."""

    def __init__(self, confidence_min: float = CONFIDENCE_MIN, faces_max: int = 1) -> None:
        """Raises TrackError without a mediapipe that has it."""
        try:
            face_mesh = _mediapipe("mediapipe").solutions.face_mesh
        except AttributeError as error:
            raise _absent(error) from error
        self._graph = face_mesh.FaceMesh(
            static_image_mode=True,
            refine_landmarks=True,
            max_num_faces=faces_max,
            min_detection_confidence=confidence_min,
        )

    def _found(self, image: UInt8[np.ndarray, "h w 3"]) -> list[tuple[Any, Any]]:
        found = self._graph.process(image).multi_face_landmarks or ()
        return [(face.landmark, None) for face in found]


class FaceLandmarker(MediaPipeDetector):
    """MediaPipe Face Landmarker with a ``.task`` file (Google's face_landmarker.task)."""

    def __init__(
        self,
        task: str | Path,
        confidence_min: float = CONFIDENCE_MIN,
        faces_max: int = 1,
        scores: bool = False,
    ) -> None:
        """Raises TrackError for a file that is absent or no landmarker, or without mediapipe."""
        task = Path(task)
        if not task.is_file():
            raise TrackError(
                f"landmarker={task} is not there; MediaPipe's face_landmarker.task was expected.",
                "Give the path of a downloaded .task file, or landmarker=null.",
            )
        vision: Any = _mediapipe("mediapipe.tasks.python.vision")
        base: Any = _mediapipe("mediapipe.tasks.python").BaseOptions
        try:
            self._graph = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=base(model_asset_buffer=task.read_bytes()),
                    num_faces=faces_max,
                    output_face_blendshapes=scores,
                    min_face_detection_confidence=confidence_min,
                    min_face_presence_confidence=confidence_min,
                )
            )
        except (RuntimeError, ValueError) as error:
            raise TrackError(
                f"landmarker={task} is no face landmarker ({str(error).splitlines()[0]}).",
                "Download MediaPipe's face_landmarker.task again.",
            ) from None

    def _found(self, image: UInt8[np.ndarray, "h w 3"]) -> list[tuple[Any, Any]]:
        mediapipe = _mediapipe("mediapipe")
        held = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
        result = self._graph.detect(held)
        scores = [_scores(face) for face in result.face_blendshapes or ()]
        scores = scores or [None] * len(result.face_landmarks)
        return list(zip(result.face_landmarks, scores, strict=True))


def _scores(categories: Sequence[Any]) -> Float[np.ndarray, " s"]:
    """In the order of SCORE_NAMES, whatever order the model has."""
    known = {one.category_name: one.score for one in categories}
    return np.array([known.get(name, 0.0) for name in SCORE_NAMES], dtype=np.float32)


class PersonMatte:
    """MediaPipe's selfie segmentation: how much of a pixel is person; its model is in the wheel."""

    def __init__(self) -> None:
        """Raises TrackError without a mediapipe that has it (0.10.14 to 0.10.29)."""
        try:
            found = _mediapipe("mediapipe").solutions.selfie_segmentation
        except AttributeError as error:
            raise _absent(error) from error
        self._graph = found.SelfieSegmentation(model_selection=0)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
        """The matte, 0..1."""
        return self._graph.process(np.ascontiguousarray(image)).segmentation_mask

    def close(self) -> None:
        """Frees the graph."""
        self._graph.close()


def _mediapipe(module: str) -> Any:  # noqa: ANN401 - an optional package without types
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _absent(error) from error


def _absent(error: Exception) -> TrackError:
    return TrackError(
        f"Detecting landmarks needs mediapipe 0.10.14 or newer: {error}.",
        "pip install 'npga[tracking]' (from 0.10.30 on with landmarker=face_landmarker.task), or "
        "use landmarks=capture or landmarks=none.",
    )
