"""What the tests on a GPU share."""

import pytest
import torch

from tests.sweep.conftest import cluster

__all__ = ["cluster"]


@pytest.fixture(autouse=True)
def device() -> None:
    assert torch.cuda.is_available(), "these tests were asked for on a machine without a GPU"
