"""Several processes that train together: shares, words, gradients. Started by torchrun itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from npga.core.errors import ConfigError
from npga.core.processes import ALONE, Processes, processes

WORKER = """
import json, sys, torch
from npga.core.processes import processes

with processes("cpu") as team:
    module = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.ones(1, 2))
    shared = team.shared(module)
    rows = torch.arange(8.0).reshape(4, 2)
    mine = rows[2 * team.rank :][: team.share_of(4, "rows")]
    (shared(mine) ** 2).mean().backward()
    found = {
        "told": team.told("from the leader" if team.leads else "unheard"),
        "count": team.count,
        "seed": team.seed(3, 17),
        "gradient": module.weight.grad.tolist(),
    }
    open(f"{sys.argv[1]}/{team.rank}.json", "w").write(json.dumps(found))
"""


def test_alone_nothing_changes() -> None:
    module = torch.nn.Linear(2, 2)
    assert ALONE.shared(module) is module
    assert ALONE.told("word") == "word" and ALONE.leads
    assert ALONE.seed(1, 2) == [1, 2] and ALONE.share_of(7, "heads") == 7
    with processes("cpu") as team:
        assert (team.rank, team.count, team.device.type) == (0, 1, "cpu")


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    two = Processes(1, 2, torch.device("cpu"))
    assert two.share_of(6, "heads") == 3 and two.seed(5) == [5, 1] and not two.leads
    with pytest.raises(ConfigError, match="heads=7 cannot be divided among 2"):
        two.share_of(7, "heads")


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "worker.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # torch's gloo threads sometimes abort a process that has finished its work, on busy machines.
    aborted = "terminate called without an active exception" in done.stderr
    assert done.returncode == 0 or aborted, done.stderr
    first, second = (json.loads((tmp_path / f"{r}.json").read_text()) for r in (0, 1))
    rows = torch.arange(8.0).reshape(4, 2)
    weight = torch.ones(1, 2, requires_grad=True)
    ((rows @ weight.T) ** 2).mean().backward()
    for found in (first, second):
        assert found["told"] == "from the leader" and found["count"] == 2
        torch.testing.assert_close(torch.tensor(found["gradient"]), weight.grad)
    assert first["seed"] == [3, 17, 0] and second["seed"] == [3, 17, 1]
