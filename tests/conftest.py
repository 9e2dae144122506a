"""What all tests share. The folder is on the path, so that they can import ``helpers``."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1234)


@pytest.fixture(autouse=True)
def _grad_mode_stays() -> object:
    """No call may leave gradients switched on or off."""
    before = torch.is_grad_enabled()
    yield
    assert torch.is_grad_enabled() == before
