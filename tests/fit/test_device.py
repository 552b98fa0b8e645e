"""A step of the loop neither waits for its device nor makes a tensor on another one."""

import traceback

import torch
from tiny_person import Knobs, tiny_session
from torch.overrides import TorchFunctionMode

from npga.fit.config import PriorMode
from npga.fit.loop import fit
from npga.fit.runlog import RunLog

FACTORIES = {
    torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.tensor, torch.eye,
    torch.rand, torch.randn, torch.linspace, torch.randperm, torch.randint,
}  # fmt: skip
READERS = {
    "item", "tolist", "cpu", "numpy", "nonzero", "unique", "__bool__", "__int__", "__float__",
    "__index__", "masked_select",
}  # fmt: skip
ON_PURPOSE = ("fit/batch.py", "raster/")
"""Batches are drawn on the CPU; a rasteriser answers for itself."""


class Watch(TorchFunctionMode):
    """Notes where the package reads tensors, or makes them without saying on which device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        reads = getattr(function, "__name__", "") in READERS
        makes = function in FACTORIES and "device" not in kwargs
        if reads or makes:
            ours = [f for f in traceback.extract_stack() if "/npga/" in f.filename]
            place = f"{ours[-1].filename}:{ours[-1].line}" if ours else ""
            if ours and not any(part in place for part in ON_PURPOSE):
                self.found.add(place.split("/npga/")[-1])
        return function(*args, **kwargs)


def watched(data, folder, mode: PriorMode, steps: int) -> set[str]:
    session = tiny_session(data, Knobs(steps=100, every=50, prior_mode=mode))
    log = RunLog(folder, 100)
    batches = data.stream(0, session.sampling, session.device)
    with Watch() as watch:
        fit(session.avatar, session.corrections, batches, session.renderer, session.terms,
            session.densifier, session.optimizer, session.schedule, log, steps=steps)  # fmt: skip
    return watch.found


def test_no_step_waits_for_the_device(data, tmp_path):
    assert watched(data, tmp_path, PriorMode.frozen, 6) == set()


def test_only_a_line_of_the_log_reads_the_losses(data, tmp_path):
    found = watched(data, tmp_path, PriorMode.finetune, 26)
    assert found and all(place.startswith("fit/runlog.py") for place in found)
