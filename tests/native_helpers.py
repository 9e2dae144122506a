"""What the tests of the native backend share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lossfit.native import library

LIBRARY = library.load()
LEVELS = range(1, LIBRARY.level + 1) if isinstance(LIBRARY, library.Library) else range(1, 2)
needs_library = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no native kernels: {LIBRARY}")


def use_level(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernels use an instruction set."""
    assert isinstance(LIBRARY, library.Library)
    chosen = LIBRARY._replace(level=level)
    monkeypatch.setattr(library, "load", lambda: chosen)


def rounding(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """How far a number of the type may be from an exact one that it was rounded from, and a little more."""
    if dtype == torch.float32:
        return torch.full_like(exact, 1e-37)  # smaller numbers are flushed to 0
    info = torch.finfo(dtype)
    return 0.55 * info.eps * exact.abs() + info.tiny * info.eps
