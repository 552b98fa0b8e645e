"""How fast the rasterisers draw and differentiate a head-shaped cloud.

    python benchmarks/bench_raster.py [--seconds 5] [--threads 2]

The cloud: n Gaussians on a jittered ellipsoid of a head's size (front and back shell), their size
0.6 of their spacing, opacity sigmoid(0.5 + 1.5 normal), seen so that the head fills 85 % of the
picture's height; white background, float32. "forward" is under no_grad; "both" is forward, mean
square error against noise, and backward to all five fields. Times are the least of many repeats.
The baseline is the pure-torch reference in the same process.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's threads must not spin while we draw

import torch
from _results import row, write_results

from npga.core.cameras import Cameras, look_at
from npga.core.device import peak_memory_gb
from npga.core.gaussians import Gaussians
from npga.raster import Backend, rasterize

PROTOTYPE_MS = {"30k_256_forward": 17.6, "30k_256_both": 33.5, "30k_512_both": 72.7}


def head_cloud(count: int, channels: int = 3, seed: int = 0) -> Gaussians:
    """The cloud described above; a Fibonacci spiral spaces the Gaussians evenly."""
    gen = torch.Generator().manual_seed(seed)
    place = torch.arange(count) + 0.5
    height, angle = 1 - 2 * place / count, place * math.pi * (3 - math.sqrt(5))
    ring = (1 - height**2).sqrt()
    directions = torch.stack([ring * angle.cos(), height, ring * angle.sin()], 1)
    spacing = math.sqrt(4 * math.pi * 0.1**2 / count)
    jitter = 0.3 * spacing * torch.randn(count, 3, generator=gen)
    cloud = (
        directions * torch.tensor([0.09, 0.12, 0.10]) + jitter,
        torch.randn(count, 4, generator=gen),
        math.log(0.6 * spacing) + 0.3 * torch.randn(count, 3, generator=gen),
        0.5 + 1.5 * torch.randn(count, generator=gen),
        torch.rand(count, channels, generator=gen),
    )
    return Gaussians(*(t.requires_grad_() for t in cloud))


def head_camera(size: int) -> Cameras:
    """One metre in front; 0.24 m of head fill 85 % of the height."""
    focal = 0.85 * size / 0.24
    K = torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]])
    up = torch.tensor([0.0, 1.0, 0.0])
    pose = look_at(torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3), up)
    return Cameras(K, pose[None], size, size, ("front",))


def forward(gaussians: Gaussians, camera: Cameras, backend: Backend) -> None:
    with torch.no_grad():
        white = torch.ones(gaussians.colors.shape[1])
        rasterize(gaussians, camera, background=white, backend=backend)


def both(gaussians: Gaussians, camera: Cameras, backend: Backend, target: torch.Tensor) -> None:
    for field in fields(gaussians):
        getattr(gaussians, field.name).grad = None
    white = torch.ones(gaussians.colors.shape[1])
    image = rasterize(gaussians, camera, background=white, backend=backend).image
    (image - target).square().mean().backward()


@dataclass(frozen=True)
class Least:
    """The least of many repeats, in milliseconds."""

    wall: float
    processor: float
    """Summed over threads; other work on the machine disturbs it less."""

    @property
    def note(self) -> str:
        return f"{self.processor:.4g} ms of processor time"


def least(call: Callable[[], None], seconds: float, least_repeats: int = 2) -> Least:
    """Of as many calls as fit into ``seconds``, after one that does not count."""
    call()
    wall = processor = math.inf
    repeats, end = 0, time.perf_counter() + seconds
    while repeats < least_repeats or time.perf_counter() < end:
        start, used = time.perf_counter(), time.process_time()
        call()
        wall = min(wall, time.perf_counter() - start)
        processor = min(processor, time.process_time() - used)
        repeats += 1
    return Least(wall * 1e3, processor * 1e3)


def measure(
    count: int, size: int, channels: int, backend: Backend, seconds: float
) -> dict[str, Least]:
    """Of "forward" and "both"."""
    cloud, camera = head_cloud(count, channels), head_camera(size)
    target = torch.rand(1, size, size, channels, generator=torch.Generator().manual_seed(1))
    return {
        "forward": least(lambda: forward(cloud, camera, backend), seconds),
        "both": least(lambda: both(cloud, camera, backend, target), seconds),
    }


def first_picture_seconds() -> float:
    """From nothing compiled to the first gradient (numba compiles the kernels)."""
    cloud, camera = head_cloud(100), head_camera(32)
    start = time.perf_counter()
    both(cloud, camera, Backend.cpu, torch.zeros(1, 32, 32, 3))
    return time.perf_counter() - start


def cold_start_seconds() -> float:
    """The same in a fresh process whose cache of compiled kernels is empty."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, __file__, "--cold"],
            env=os.environ | {"NUMBA_CACHE_DIR": empty},
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout)


def main() -> None:
    """Measure, print the table, write benchmarks/results/raster-<machine>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each number")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cold", action="store_true", help="only time the first picture")
    args = parser.parse_args()
    if args.cold:
        print(first_picture_seconds())
        return
    torch.set_num_threads(args.threads)
    rows, cpu = [], {}
    for count, size in ((10_000, 256), (30_000, 256), (30_000, 512), (100_000, 512)):
        for part, value in measure(count, size, 3, Backend.cpu, args.seconds).items():
            name = f"{count // 1000}k_{size}_{part}"
            cpu[name] = value
            bar = f"<= {PROTOTYPE_MS[name]}" if name in PROTOTYPE_MS else ""
            rows.append(row(f"cpu_{name}", value.wall, "ms", bar, value.note))
    for channels in (1, 8, 16, 32, 64):
        value = measure(30_000, 256, channels, Backend.cpu, args.seconds)["both"]
        name = f"cpu_30k_256_both_{channels}_channels"
        rows.append(row(name, value.wall, "ms", "", value.note))
    for size, bar in ((256, ">= 25"), (512, "")):
        for part, value in measure(30_000, size, 3, Backend.reference, args.seconds).items():
            name = f"30k_{size}_{part}"
            rows.append(row(f"reference_{name}", value.wall, "ms", "", value.note))
            ratio, used = value.wall / cpu[name].wall, value.processor / cpu[name].processor
            promised = bar if part == "both" else ""
            note = f"{used:.3g} times by processor time"
            rows.append(row(f"cpu_faster_{name}", ratio, "times", promised, note))
        if size == 256:
            note = "process, both back-ends"
            rows.append(row("peak_memory_30k_256", peak_memory_gb(), "GB", "<= 3", note))
    rows.append(row("cpu_cold_start", cold_start_seconds(), "s", "", "compiling, float32"))
    protocol = {
        "data": "n Gaussians on a jittered ellipsoid (head_cloud), seed 0",
        "split": "none",
        "resolution": [256, 256],
        "seed": 0,
        "threads": args.threads,
        "statistic": f"least of the repeats in {args.seconds:g} s",
        "load_average": round(os.getloadavg()[0], 1),
        "bars": "the times of a throw-away prototype on the same kind of machine",
    }
    write_results("raster", protocol, rows)


if __name__ == "__main__":
    main()
