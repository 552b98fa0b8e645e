"""How fast, and how exactly, the rasterisers of a GPU draw and differentiate a head.

    python benchmarks/bench_raster_gpu.py [--seconds 0.6] [--without-gsplat]

The cloud and the loss are those of bench_raster.py; the picture has 550 x 802 pixels, one camera.
Times are the least of several means over a row of calls, between two CUDA events: what a training
loop feels, the host's work included. gsplat is measured where it can be imported and built; why it
could not stands in the protocol. Parity: 3,000 Gaussians against the reference in float64.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import fields

import torch
from _results import row, write_results
from bench_raster import head_cloud

from npga.core.cameras import Cameras, look_at
from npga.core.device import resolve_device
from npga.core.gaussians import Gaussians
from npga.raster import Backend, RenderedImages, rasterize

WIDTH, HEIGHT = 550, 802
COUNTS, CHANNELS = (30_000, 100_000, 250_000), (3, 6)
NAMES = tuple(field.name for field in fields(Gaussians))


def on_gpu(gaussians: Gaussians, dtype: torch.dtype = torch.float32) -> Gaussians:
    """The cloud as leaves on the GPU."""
    parts = (getattr(gaussians, name).detach().to("cuda", dtype) for name in NAMES)
    return Gaussians(*(part.requires_grad_() for part in parts))


def portrait_camera() -> Cameras:
    """One metre in front; 0.24 m of head fill 85 % of the height."""
    focal = 0.85 * HEIGHT / 0.24
    K = torch.tensor([[[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]]])
    pose = look_at(torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    return Cameras(K, pose[None], WIDTH, HEIGHT, ("front",)).to("cuda")


class Scene:
    """A cloud, its camera and what it is to look like."""

    def __init__(self, count: int, channels: int, dtype: torch.dtype = torch.float32) -> None:
        self.gaussians = on_gpu(head_cloud(count, channels), dtype)
        self.camera = portrait_camera()
        self.white = torch.ones(channels, device="cuda", dtype=dtype)
        gen = torch.Generator().manual_seed(1)
        self.target = torch.rand(1, HEIGHT, WIDTH, channels, generator=gen).to("cuda", dtype)

    def draw(self, backend: Backend) -> RenderedImages:
        """With a white background."""
        return rasterize(self.gaussians, self.camera, background=self.white, backend=backend)

    def forward(self, backend: Backend) -> None:
        """Without gradients."""
        with torch.no_grad():
            self.draw(backend)

    def both(self, backend: Backend) -> RenderedImages:
        """Forward, mean square error, and backward to all five fields."""
        for name in NAMES:
            getattr(self.gaussians, name).grad = None
        images = self.draw(backend)
        (images.image - self.target).square().mean().backward()
        return images


def milliseconds(call: Callable[[], object], seconds: float, warm: int = 3) -> float:
    """Per call: the least of five means, or one call's time where five take longer than that."""
    for _ in range(warm):
        call()
    first = _mean(call, 1)
    calls = int(seconds * 1e3 / 5 / first)
    return first if calls < 1 else min(_mean(call, calls) for _ in range(5))


def _mean(call: Callable[[], object], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / calls


def why_not(backend: Backend) -> str:
    """Empty if the back-end draws and differentiates here, else the reason."""
    try:
        Scene(100, 3).both(backend)
        torch.cuda.synchronize()
    except Exception as error:  # an import, a compiler or a driver may fail in any way
        return f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return ""


def speed(backends: list[Backend], seconds: float) -> list[dict]:
    """Milliseconds of every back-end, and how many times as long gsplat takes."""
    rows = []
    for count in COUNTS:
        for channels in CHANNELS:
            scene, found = Scene(count, channels), {}
            for part in ("forward", "both"):
                name = f"{count // 1000}k_{channels}_channels_{part}"
                for backend in backends:
                    call = getattr(scene, part)
                    found[backend] = milliseconds(lambda b=backend, c=call: c(b), seconds)
                    rows.append(row(f"{backend.value}_{name}", found[backend], "ms"))
                if Backend.gsplat in found:
                    ratio = found[Backend.gsplat] / found[Backend.triton]
                    rows.append(row(f"triton_faster_{name}", ratio, "times"))
    scene = Scene(COUNTS[0], CHANNELS[0])
    for part in ("forward", "both"):
        call = getattr(scene, part)
        took = milliseconds(lambda c=call: c(Backend.reference), seconds, warm=1)
        name = f"reference_{COUNTS[0] // 1000}k_{CHANNELS[0]}_channels_{part}"
        rows.append(row(name, took, "ms"))
    return rows


def peak_memory(backend: Backend) -> dict:
    """Of forward and backward, without the cloud itself."""
    scene = Scene(COUNTS[-1], 3)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    scene.both(backend)
    peak = (torch.cuda.max_memory_allocated() - before) / 1e9
    return row(f"{backend.value}_{COUNTS[-1] // 1000}k_3_channels_peak_memory", peak, "GB")


def parity(backends: list[Backend]) -> list[dict]:
    """The largest differences of pictures and gradients from the reference in float64."""
    exact, rows = Scene(3000, 3, torch.float64), []
    wanted = exact.both(Backend.reference)
    for backend in backends:
        scene = Scene(3000, 3)
        images = scene.both(backend)
        for name in ("image", "alpha", "depth"):
            error = (getattr(images, name) - getattr(wanted, name)).abs()
            note = f"mean {error.mean().item():.2g}"
            rows.append(row(f"{backend.value}_{name}_error", error.max().item(), "", "", note))
        for name in NAMES:
            a, b = getattr(scene.gaussians, name).grad, getattr(exact.gaussians, name).grad
            worst, whole = (a - b).abs().max() / b.abs().max(), (a - b).norm() / b.norm()
            note = f"of the largest; {whole.item():.2g} in norm"
            rows.append(row(f"{backend.value}_v_{name}_error", worst.item(), "", "", note))
    return rows


def main() -> None:
    """Measure, print the table, write benchmarks/results/raster_gpu-<machine>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.6, help="for each number")
    parser.add_argument("--without-gsplat", action="store_true")
    args = parser.parse_args()
    resolve_device("cuda")
    start = time.perf_counter()
    Scene(100, 3).both(Backend.triton)
    torch.cuda.synchronize()
    rows = [row("triton_first_picture", time.perf_counter() - start, "s", "", "with compilation")]
    reason = "not asked for" if args.without_gsplat else why_not(Backend.gsplat)
    backends = [Backend.triton] if reason else [Backend.triton, Backend.gsplat]
    rows += parity(backends) + speed(backends, args.seconds)
    rows += [peak_memory(backend) for backend in backends]
    protocol = {
        "data": "n Gaussians on a jittered ellipsoid (head_cloud), seed 0",
        "split": "none",
        "resolution": [WIDTH, HEIGHT],
        "seed": 0,
        "statistic": f"least of five means over {args.seconds:g} s in all, CUDA events",
        "torch": torch.__version__,
        "gsplat": reason or "measured",
    }
    print(f"gsplat: {protocol['gsplat']}; {time.perf_counter() - start:.0f} s\n")
    write_results("raster_gpu", protocol, rows)


if __name__ == "__main__":
    main()
