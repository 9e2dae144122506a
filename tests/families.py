"""A batch for every loss outside of the single-label family, for the laws that hold for all losses."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

EXAMPLES: dict[str, Callable[[], tuple[Tensor, ...]]] = {}
"""By the loss's name: what it is called with, in float64; the first tensor is what it is differentiated by."""

REQUIRED: dict[str, dict[str, Any]] = {}
"""What a loss cannot be made without."""
