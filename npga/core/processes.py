"""Training by several processes (torchrun): who leads, and what the others must hear from it.

One process, the common case, needs no torch.distributed. Ours; the launcher is PyTorch's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from npga.core.device import resolve_device, take_gpu
from npga.core.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def told(self, word: str = "") -> str:
        """What the leader says; everybody waits for it."""
        if self.count == 1:
            return word
        held = [word]
        distributed.broadcast_object_list(held, src=0)
        return held[0]

    def shared(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over all processes."""
        if self.count == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)

    def seed(self, *numbers: int) -> list[int]:
        """Numbers of a random stream: alone as given, together with the rank behind them."""
        return [*numbers] if self.count == 1 else [*numbers, self.rank]

    def share_of(self, total: int, what: str) -> int:
        """This process's part of a batch; raises ConfigError where it cannot be divided."""
        if total % self.count:
            raise ConfigError(
                f"{what}={total} cannot be divided among {self.count} processes.",
                f"Give a multiple of {self.count}, or start another number of processes.",
            )
        return total // self.count


ALONE = Processes(0, 1, torch.device("cpu"))
"""For callers that know of no others."""


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, or this one; ``device`` is the setting of that name.

    On CUDA every process takes the GPU of its local rank.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = resolve_device(device)
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = take_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), chosen)
        distributed.barrier()  # who leaves while another still talks to it is aborted
    finally:
        distributed.destroy_process_group()
