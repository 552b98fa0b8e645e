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


def spans(work: np.ndarray, least: int) -> list[tuple[int, int]]:
    """Cut items 0..m-1 into runs of about equal work, none of them (nearly) below ``least``.

    ``work`` [m + 1] is cumulative, from 0. The runs decide who computes a result, never the result.
    """
    items = len(work) - 1
    pieces = _pieces(int(work[-1]), least)
    shares = np.arange(1, pieces) * (int(work[-1]) // pieces)
    cuts = sorted({0, *np.searchsorted(work, shares).tolist(), items})
    return list(pairwise(cuts))


def even_spans(items: int) -> list[tuple[int, int]]:
    """Runs of Gaussians, which all cost about the same."""
    pieces = _pieces(items, 256)
    return list(pairwise(sorted({items * i // pieces for i in range(pieces + 1)})))


def _pieces(work: int, least: int) -> int:
    threads = torch.get_num_threads()
    return max(1, min(threads * _CHUNKS_PER_THREAD, work // least)) if threads > 1 else 1


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
