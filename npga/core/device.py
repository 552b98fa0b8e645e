"""The one place that knows about devices and seeds."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import numpy as np
import torch

from npga.core.errors import DeviceError

Result = TypeVar("Result")
WARM_UP = 2
"""Runs before a recording, in which libraries take their memory."""


def cuda_available() -> bool:
    """Whether torch can use a CUDA device here."""
    return torch.cuda.is_available()


def resolve_device(name: str) -> torch.device:
    """The torch device for ``auto``, ``cpu`` or ``cuda``; ours.

    ``auto`` takes CUDA where it is there. Raises DeviceError for ``cuda`` without CUDA.
    """
    if name == "auto":
        return torch.device("cuda" if cuda_available() else "cpu")
    if name == "cuda" and not cuda_available():
        raise DeviceError(
            "device=cuda was asked for, but torch finds no CUDA device on this machine.",
            "Use device=cpu (or auto), or install a CUDA build of torch.",
        )
    if name not in ("cpu", "cuda"):
        raise DeviceError(f"device={name} is not one of auto, cpu, cuda.", "Use device=auto.")
    return torch.device(name)


def take_gpu(index: int) -> torch.device:
    """The GPU of that number, as this process's own."""
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def on_device(device: torch.device) -> AbstractContextManager:
    """Kernels launched inside run on this GPU; on the CPU nothing changes."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def recorded(work: Callable[[], Result], device: torch.device) -> tuple[Callable[[], None], Result]:
    """What work does on a CUDA GPU as one CUDA graph: its replay, and the result that it fills.

    The work must not wait for the GPU, and reads and writes the same memory in every replay.
    """
    graph = torch.cuda.CUDAGraph()
    with on_device(device):
        aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                work()
        here.wait_stream(aside)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = work()
    return graph.replay, result


def flush_denormals() -> None:
    """Let the CPU treat numbers below 1e-38 as 0, in this thread and those started later.

    Softplus(100) makes many of them, and a matrix product over denormals takes ten times as long.
    scipy's KDTree crashes on flushed coordinates; scikit-learn's does not.
    """
    torch.set_flush_denormal(True)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch computes with so many threads when this thread asks; then as before.

    One is fastest for many small steps.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def short_products(device: torch.device) -> AbstractContextManager:
    """Inside, layers multiply in bfloat16 where the CPU has instructions for that, twice as fast.

    Their inputs are rounded to three digits: for what is small against what it is added to. Other
    devices, CPUs without AVX-512 BF16, and what gradients flow through keep their precision.
    """
    knows = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    if device.type == "cpu" and not torch.is_grad_enabled() and knows():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries that draw from the global state
    torch.manual_seed(seed)


def peak_memory_gb() -> float:
    """The largest resident size of this process so far, in GB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def peak_gpu_memory_gb(device: torch.device) -> float | None:
    """The most memory that tensors of this process have taken on a GPU; None on the CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 1e9
