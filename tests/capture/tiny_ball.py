"""A tiny capture: a ball of 9 cm at the origin, four of the rig's cameras, five frames."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from npga.capture.nersemble import BENCHMARK_TASKS
from npga.capture.types import PointCloud
from npga.capture.writer import CaptureWriter
from npga.core.cameras import Cameras, look_at

SERIALS = ("222200046", "220700191", "222200037", "222200039")
WIDTH, HEIGHT, FRAMES, RADIUS = 44, 64, 5, 0.09
STAGE = 150
MATRIX = np.array(
    [[0.9, 0.05, 0.0, 0.02], [0.0, 0.85, 0.04, 0.01], [0.03, 0.0, 0.95, 0.0]], np.float64
)


def ball_cameras() -> Cameras:
    eyes = [(0.6, 0.3, 0.8), (0.2, 0.3, 0.95), (-0.2, 0.3, 0.95), (-0.6, -0.3, 0.8)]
    up = torch.tensor([0.0, 1, 0])
    targets = torch.tensor([[0.0, 0, 0], [0.02, 0, 0], [0, 0, 0], [0, 0.03, 0]])
    poses = torch.stack(
        [look_at(torch.tensor(e), t, up) for e, t in zip(eyes, targets, strict=True)]
    )
    K = torch.tensor([[170.0, 0, 23.5], [0, 171, 30.25], [0, 0, 1]])
    return Cameras(K.repeat(4, 1, 1), poses, WIDTH, HEIGHT, SERIALS)


def ball_cloud() -> PointCloud:
    normals = torch.nn.functional.normalize(
        torch.randn(400, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    return PointCloud(normals * RADIUS, normals, normals * 0.5 + 0.5)


def ball_pictures(cameras: Cameras, moment: int) -> tuple[np.ndarray, np.ndarray]:
    """A speckled disc, brighter from frame to frame and camera to camera; and its mattes."""
    pixels, depth = cameras.project(torch.zeros(1, 3))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    images = np.full((len(cameras), HEIGHT, WIDTH, 3), STAGE, np.uint8)
    mattes = np.zeros((len(cameras), HEIGHT, WIDTH), np.uint8)
    speckle = np.random.default_rng(0).integers(-40, 40, (HEIGHT, WIDTH, 1))
    for c in range(len(cameras)):
        x, y = pixels[c, 0].tolist()
        size = float(cameras.K[c, 0, 0]) * RADIUS / float(depth[c, 0])
        inside = (columns - x) ** 2 + (rows - y) ** 2 < (size + 0.7) ** 2
        mattes[c][inside] = 255
        colour = np.array([190, 110, 80]) + 4 * moment - 7 * c + speckle
        images[c][inside] = colour[inside].clip(0, 255)
    return images, mattes


def write_tiny(root: Path, *, mattes: bool = True, color: bool = True) -> Path:
    cameras = ball_cameras()
    writer = CaptureWriter(root, 31, cameras, crf=10, matte_crf=10)
    if color:
        writer.write_color_calibration({serial: MATRIX for serial in SERIALS})
    for name in ("FREE", "SEN-07-fond_note_friend"):
        with writer.sequence(name, mattes=mattes) as sequence:
            for moment in range(FRAMES):
                images, alphas = ball_pictures(cameras, moment)
                cloud = ball_cloud() if mattes and moment < 2 else None
                sequence.add(images, alphas if mattes else None, cloud)
    writer.write_background(np.full((4, HEIGHT, WIDTH, 3), STAGE, np.uint8))
    return root


def edit_json(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def params_of(root: Path) -> Path:
    return root / "031" / "calibration" / "camera_params.json"


def video_of(root: Path, serial: str, sequence: str = "FREE", kind: str = "images") -> Path:
    return root / "031" / "sequences" / sequence / kind / f"cam_{serial}.mp4"


def as_benchmark(tiny: Path, task: str) -> Path:
    """The same files as a benchmark root: one K per camera, at the size of the videos."""
    assert task in BENCHMARK_TASKS
    root = tiny.parent / "bench"
    (root / task).mkdir(parents=True)
    shutil.move(str(tiny / "031"), root / task / "031")
    folder = root / task / "031"
    shutil.rmtree(folder / "sequences" / "BACKGROUND")
    (folder / "calibration" / "color_calibration.json").unlink()
    cameras = ball_cameras()

    def change(values: dict) -> None:
        values["intrinsics"] = {
            serial: (cameras.K[i] + torch.diag(torch.tensor([i, 0.0, 0]))).tolist()
            for i, serial in enumerate(cameras.ids)
        }

    edit_json(folder / "calibration" / "camera_params.json", change)
    return root


def as_folder(tiny: Path) -> Path:
    """The same files as a plain folder."""
    root = tiny.parent / "ada"
    cameras = ball_cameras()
    shutil.move(str(tiny / "031" / "sequences" / "FREE" / "images"), root / "talk")
    mattes = tiny / "031" / "sequences" / "FREE" / "alpha_maps"
    shutil.move(str(mattes), root / "talk" / "mattes")
    shutil.move(str(tiny / "031" / "sequences" / "FREE" / "pointclouds"), root / "talk" / "clouds")
    entries = {
        serial: {
            "K": cameras.K[i].tolist(),
            "cam_from_world": cameras.cam_from_world[i].tolist(),
            "width": WIDTH,
            "height": HEIGHT,
        }
        for i, serial in enumerate(cameras.ids)
    }
    (root / "cameras.json").write_text(json.dumps({"cameras": entries}))
    return root


def cut_after_the_header(video) -> None:
    """Rewrite an mp4 with its header in front, then cut it: such a file opens and breaks off."""
    import av

    front = video.with_name("front.mp4")
    with av.open(str(video)) as source:
        with av.open(str(front), "w", options={"movflags": "faststart"}) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    data = front.read_bytes()
    front.unlink()
    video.write_bytes(data[: len(data) - 600])


def set_pose(root, change) -> None:
    def edit(values):
        pose = np.array(values["world_2_cam"][SERIALS[1]])
        change(pose)
        values["world_2_cam"][SERIALS[1]] = pose.tolist()

    edit_json(params_of(root), edit)
