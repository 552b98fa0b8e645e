"""Shared test set-up: shapes are checked at run time, threads are few, ../shared is optional."""

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def checkable_modules() -> list[str]:
    """Every module but those that numba or triton compiles (not if a function is decorated)."""
    files = [f for package in ("npga", "nphm_tracking") for f in (ROOT / package).rglob("*.py")]
    return [
        ".".join(f.relative_to(ROOT).with_suffix("").parts)
        for f in files
        if f.name != "__init__.py" and not any(c in f.read_text() for c in ("njit", "triton.jit"))
    ]


hook = install_import_hook(checkable_modules(), "typecheck.checked")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there: no rendered captures or MonoNPHM fixtures")
    return SHARED
