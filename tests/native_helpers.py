"""What the tests of the native backend share."""

from __future__ import annotations

import pytest

from lossfit.native import library

LIBRARY = library.load()
LEVELS = range(1, LIBRARY.level + 1) if isinstance(LIBRARY, library.Library) else range(1, 2)
needs_library = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no native kernels: {LIBRARY}")
