"""Settings of all tests of training."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sums have one order, so that equal runs give equal bytes."""
    torch.set_num_threads(1)
