"""What a detector sees of lids: rows ``seen_*_lids_*`` of bench_tracking.

Landmarks of lids, detected in the pictures of the eight most frontal cameras and triangulated,
against the true ones of the rendered head; both in the true head's own axes. Heights about each
landmark's mean: correlation, and how many mm are seen for one that is moved.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks._results import row
from benchmarks.tracking_truth import (
    CAPTURE,
    LOWER_LIDS,
    SAME,
    TRUTH,
    true_frame,
    true_vertices,
)
from npga.capture import open_capture
from nphm_tracking.config import TrackConfig
from nphm_tracking.detectors import open_detector
from nphm_tracking.landmarks import detect_landmarks, frontal_cameras, triangulate

PERSON, SEQUENCES = "031", ("FREE", "EXP-2-eyes")
CAMERAS, WIDTH, HEIGHT = 8, 550, 802
LIDS = {
    "upper": SAME["upper_lids"],
    "lower": {number: SAME["lids"][number] for number in LOWER_LIDS},
}


def lid_rows(landmarker: str | None = None) -> list[dict]:
    """Face Mesh where no .task file is given."""
    seen, true = zip(*(seen_and_true(name, landmarker) for name in SEQUENCES), strict=True)
    seen, true = torch.cat(seen), torch.cat(true)
    note = f"{PERSON}, {len(true)} frames x {CAMERAS} cameras; "
    note += "Face Landmarker" if landmarker else "Face Mesh"
    suffix = ".landmarker" if landmarker else ""
    count, rows = len(LIDS["upper"]), []
    for number, which in enumerate(LIDS):
        part = slice(number * count, (number + 1) * count)
        a, b = ((x - x.mean(0))[:, part, 1].flatten() for x in (true, seen))
        corr, slope = float(a @ b / (a.norm() * b.norm())), float(a @ b / (a @ a))
        rows += [
            row(f"seen_{which}_lids_corr{suffix}", corr, "", note=note),
            row(f"seen_{which}_lids_slope{suffix}", slope, ""),
        ]
    return rows


def seen_and_true(
    sequence: str, landmarker: str | None
) -> tuple[Float[Tensor, "t l 3"], Float[Tensor, "t l 3"]]:
    """Landmarks of LIDS in the true head's axes, metres."""
    capture, config = open_capture(str(CAPTURE), PERSON), TrackConfig(capture=".", out=".")
    serials = frontal_cameras(capture.cameras(), CAMERAS)
    frames = list(range(capture.sequence(sequence).frame_count))
    views = capture.views(sequence, frames, serials, WIDTH, HEIGHT, None)
    pixels, confidence = detect_landmarks(views.images, open_detector(landmarker))
    error_max_px = config.landmark_error_px * WIDTH
    world = triangulate(pixels, confidence, views.cameras, error_max_px=error_max_px).points
    with np.load(TRUTH / PERSON / "neutral.npz") as held:
        marks = torch.from_numpy(held["landmarks68"]).long()
    theirs = [number for pairs in LIDS.values() for number in pairs]
    ours = [number for pairs in LIDS.values() for number in pairs.values()]
    seen, true = [], []
    for number in frames:
        pose = true_frame(PERSON, sequence, number).world_from_model
        away = world[number, ours].double() - pose[:3, 3]
        seen.append(away @ torch.linalg.inv(pose[:3, :3]).T)
        true.append(true_vertices(PERSON, sequence, number, "model")[marks[theirs]].double() / 100)
    return torch.stack(seen), torch.stack(true)
