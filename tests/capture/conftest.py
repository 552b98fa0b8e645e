"""Fixtures: copies of the tiny capture that tests may break."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_ball import write_tiny


@dataclass(frozen=True)
class Originals:
    full: Path
    plain: Path


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    folder = tmp_path_factory.mktemp("tiny")
    full = write_tiny(folder / "full")
    plain = write_tiny(folder / "plain", mattes=False, color=False)
    return Originals(full, plain)


@pytest.fixture
def tiny(originals: Originals, tmp_path: Path) -> Path:
    """A v2 capture with mattes, clouds, colour matrices; free to be broken."""
    return Path(shutil.copytree(originals.full, tmp_path / "capture"))


@pytest.fixture
def plain(originals: Originals, tmp_path: Path) -> Path:
    """A v2 capture as it is downloaded: no mattes, no clouds; identity colours."""
    return Path(shutil.copytree(originals.plain, tmp_path / "capture"))
