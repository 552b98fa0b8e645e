"""Threads for the compiled kernels: plain Python threads around functions that release the GIL.

As many threads as torch may use (``torch.set_num_threads``, ``OMP_NUM_THREADS``), the caller's own
among them. Not numba's ``parallel=True``: its OpenMP layer spins against torch's on few cores, its
own layer aborts when two threads draw at once, and it compiles twice as long.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch

_CHUNKS_PER_THREAD = 6
_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)


def spans(work: np.ndarray) -> list[tuple[int, int]]:
    """Cut items 0..m-1 into runs of about equal work; ``work`` [m + 1] is cumulative, from 0.

    The runs do not influence any result, only who computes it.
    """
    items, threads = len(work) - 1, torch.get_num_threads()
    pieces = threads * _CHUNKS_PER_THREAD if threads > 1 else 1
    shares = np.linspace(work[0], work[-1], pieces + 1)[1:-1]
    cuts = np.unique([0, *np.searchsorted(work, shares), items]).tolist()
    return list(pairwise(cuts))


def even_spans(items: int) -> list[tuple[int, int]]:
    """The same for items that all cost the same."""
    return spans(np.arange(items + 1))


def run_spans(kernel: Callable[..., None], runs: list[tuple[int, int]], *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` for every run, on all threads."""
    threads = min(torch.get_num_threads(), len(runs))
    if threads <= 1:
        for first, last in runs:
            kernel(first, last, *arguments)
        return
    todo = iter(runs)  # next() on it is atomic under the GIL
    helpers = threads - 1
    pool = _pools.get(helpers) or _pools.setdefault(
        helpers, ThreadPoolExecutor(helpers, thread_name_prefix="npga-raster")
    )
    futures = [pool.submit(_drain, kernel, todo, arguments) for _ in range(helpers)]
    try:
        _drain(kernel, todo, arguments)
    finally:
        for future in futures:
            future.result()


def _drain(
    kernel: Callable[..., None], todo: Iterator[tuple[int, int]], arguments: tuple[object, ...]
) -> None:
    for first, last in todo:
        kernel(first, last, *arguments)
