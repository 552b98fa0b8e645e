"""Threads for the compiled kernels: plain Python threads around functions that release the GIL.

As many threads as torch may use (``torch.set_num_threads``, ``OMP_NUM_THREADS``), the caller's own
among them. Not numba's ``parallel=True``: its OpenMP layer spins against torch's on few cores, its
own layer aborts when two threads draw at once, and it compiles twice as long.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

_CHUNKS_PER_THREAD = 6
_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)


def spans(cumulative_work: list[int] | range, threads: int) -> list[tuple[int, int]]:
    """Cut items 0..m-1 into runs of about equal work; ``cumulative_work`` [m + 1] starts at 0.

    The runs do not influence any result, only who computes it.
    """
    items, total = len(cumulative_work) - 1, cumulative_work[-1]
    if threads == 1 or items < 2:
        return [(0, items)] if items else []
    pieces = min(items, threads * _CHUNKS_PER_THREAD)
    runs, first = [], 0
    for piece in range(1, pieces + 1):
        last = first + 1
        while last < items and cumulative_work[last] * pieces < total * piece:
            last += 1
        last = items if piece == pieces else last
        runs.append((first, last))
        first = last
        if first >= items:
            break
    return runs


def run_spans(kernel: Callable[..., None], runs: list[tuple[int, int]], *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` for every run, on all threads; raises what it raises."""
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
