"""A batch for every loss outside of the single-label family, for the laws that hold for all losses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _ranking() -> tuple[Tensor, ...]:
    return torch.randn(7, dtype=torch.float64), torch.tensor([1, 0, 0, 1, 0, 1, 0])


EXAMPLES: dict[str, Callable[[], tuple[Tensor, ...]]] = {
    "auc": _ranking,
    "partial_auc": _ranking,
    "average_precision": _ranking,
}
"""By the loss's name: what it is called with, in float64; the first tensor is what it is differentiated by."""

REQUIRED: dict[str, dict[str, Any]] = {}
"""What a loss cannot be made without."""
