"""Writes captures in the NeRSemble v2 layout, with mattes and clouds where the benchmark has them.

<root>/metadata_sequences.csv
<root>/<PPP>/calibration/{camera_params,color_calibration}.json
<root>/<PPP>/sequences/<SEQ>/{images,alpha_maps}/cam_<SERIAL>.mp4, pointclouds/frame_%05d.pcd
<root>/<PPP>/sequences/BACKGROUND/image_<SERIAL>.jpg
"""

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from npga.capture.nersemble import REFERENCE_HEIGHT, REFERENCE_WIDTH
from npga.capture.pcd import cloud_path, write_pcd
from npga.capture.types import PointCloud
from npga.core.cameras import Cameras
from npga.core.errors import CaptureError
from npga.core.images import write_image
from npga.core.store import write_json
from npga.core.video import VideoWriter

METADATA = "metadata_sequences.csv"
SHARED_FOCAL_TOLERANCE_PX = 0.01


class SequenceWriter:
    """One sequence while its videos are open; made by ``CaptureWriter.sequence``."""

    def __init__(
        self, folder: Path, pictures: list[VideoWriter], mattes: list[VideoWriter] | None
    ) -> None:
        self._folder, self._pictures, self._mattes = folder, pictures, mattes
        self.frame_count = 0

    def add(
        self,
        images: NDArray[np.uint8],
        mattes: NDArray[np.uint8] | None = None,
        cloud: PointCloud | None = None,
    ) -> None:
        """Append one moment: images [c h w 3], mattes [c h w] (255 = head), a cloud in metres.

        Cameras in the rig's order. Raises CaptureError if sizes do not fit the rig.
        """
        if len(images) != len(self._pictures) or (mattes is None) != (self._mattes is None):
            raise CaptureError(
                f"{len(images)} pictures {'without' if mattes is None else 'with'} mattes were "
                f"added to a sequence of {len(self._pictures)} cameras "
                f"{'without' if self._mattes is None else 'with'} mattes.",
                "Add one picture per camera, and mattes in every frame or in none.",
            )
        for writer, image in zip(self._pictures, images, strict=True):
            writer.write(image)
        for writer, matte in zip(self._mattes or [], [] if mattes is None else mattes, strict=True):
            writer.write(np.repeat(matte[..., None], 3, axis=2))
        if cloud is not None:
            write_pcd(cloud_path(self._folder / "pointclouds", self.frame_count), cloud)
        self.frame_count += 1


class CaptureWriter:
    """Writes one participant; creates the root if needed and refuses one that exists."""

    def __init__(
        self,
        root: Path | str,
        participant: str | int,
        cameras: Cameras,
        *,
        fps: float = 73 / 3,
        crf: int = 18,
        matte_crf: int = 18,
    ) -> None:
        """``cameras`` give the picture size (even numbers) and must share one K, as v2 has it."""
        if cameras.width % 2 or cameras.height % 2:
            raise CaptureError(
                f"{cameras.width} x {cameras.height} was given; H.264 4:2:0 needs even sizes.",
                "Use an even width and height, for instance 276 x 402.",
            )
        self.root, self.participant = Path(root), str(participant).zfill(3)
        self.folder = self.root / self.participant
        self._cameras, self._fps, self._crf, self._matte_crf = cameras, fps, crf, matte_crf
        if self.folder.exists():
            raise CaptureError(
                f"{self.folder} exists already.", "Write to a new root, or delete that participant."
            )
        write_json(self.folder / "calibration" / "camera_params.json", self._calibration())
        self.write_color_calibration({})

    def write_color_calibration(self, matrices: Mapping[str, NDArray[np.float64]]) -> None:
        """Store 3xT colour matrices by serial; cameras left out get the identity."""
        known = {i: np.asarray(matrices.get(i, np.eye(3))).tolist() for i in self._cameras.ids}
        write_json(self.folder / "calibration" / "color_calibration.json", known)

    @contextmanager
    def sequence(self, name: str, *, mattes: bool = True) -> Iterator[SequenceWriter]:
        """Opens one video per camera (and one for its matte); whole only when the block ends."""
        folder = self.folder / "sequences" / name
        with ExitStack() as stack:
            pictures = [
                stack.enter_context(
                    VideoWriter(folder / "images" / f"cam_{serial}.mp4", self._fps, self._crf)
                )
                for serial in self._cameras.ids
            ]
            alphas = [
                stack.enter_context(
                    VideoWriter(
                        folder / "alpha_maps" / f"cam_{serial}.mp4", self._fps, self._matte_crf
                    )
                )
                for serial in (self._cameras.ids if mattes else ())
            ]
            yield SequenceWriter(folder, pictures, alphas if mattes else None)
        self._note(name)

    def write_background(self, images: NDArray[np.uint8]) -> None:
        """Stills [c h w 3] of the empty stage, in the rig's order."""
        folder = self.folder / "sequences" / "BACKGROUND"
        for serial, image in zip(self._cameras.ids, images, strict=True):
            write_image(folder / f"image_{serial}.jpg", image)
        self._note("BACKGROUND")

    def _calibration(self) -> dict[str, object]:
        full = self._cameras.to(torch.float64).resized(REFERENCE_WIDTH, REFERENCE_HEIGHT)
        if float((full.K - full.K[:1]).abs().max()) > SHARED_FOCAL_TOLERANCE_PX:
            raise CaptureError(
                "The cameras have different intrinsics; NeRSemble v2 stores one K for the rig.",
                "Give all cameras the same K, or write a plain folder with cameras.json.",
            )
        poses = zip(full.ids, full.cam_from_world.tolist(), strict=True)
        return {"world_2_cam": dict(poses), "intrinsics": full.K[0].tolist()}

    def _note(self, sequence: str) -> None:
        """Mark a sequence as present in the table of all participants."""
        path = self.root / METADATA
        rows: dict[str, dict[str, str]] = {}
        columns = ["ID", "wears_glasses"]
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = {row["ID"]: row for row in reader}
                columns = list(reader.fieldnames or columns)
        if sequence not in columns:
            columns.append(sequence)
        own = rows.setdefault(str(int(self.participant)), {"ID": str(int(self.participant))})
        own[sequence] = "x"
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("w", newline="") as file:
            table = csv.DictWriter(file, columns, restval="")
            table.writeheader()
            table.writerows(rows[key] for key in sorted(rows, key=int))
        os.replace(partial, path)
