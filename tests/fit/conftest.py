"""One tiny person for all tests of fitting; one thread: the tensors are too small for two."""

from collections.abc import Iterator

import pytest
import torch
from tiny_person import tiny_data

from npga.fit.batch import FitData


@pytest.fixture(scope="session")
def data() -> FitData:
    return tiny_data()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
