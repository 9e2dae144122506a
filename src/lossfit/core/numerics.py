"""Numbers that the arithmetic of every floating-point type needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# exp2 takes a third of the time of exp on a CPU (measured), and its argument comes from one fused multiply-add.
LOG2_E = math.log2(math.e)


# Stands for -inf where differences must stay defined: the score of no rival, and the place of the target among them.
# A power of two, so that its multiple by _LOG2_E is exact.
LOWEST = {torch.float32: -(2.0**127), torch.float64: -(2.0**1023)}


# Below this, a rounding error of the multiply-add grows to a factor of its own; such rivals are masked ones.
DEEP = {torch.float32: -1e7, torch.float64: -1e16}


def accumulation_dtype(scores: Tensor) -> torch.dtype:
    """float64 for float64 scores, else float32."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32
