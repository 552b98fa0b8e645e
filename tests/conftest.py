"""Shared test set-up: shapes are checked at run time, threads are few, ../shared is optional."""

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

hook = install_import_hook(["npga", "nphm_tracking"], "beartype.beartype")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there: no rendered captures or MonoNPHM fixtures")
    return SHARED
