"""What happens while a command is imported, which takes seconds: an interruption, or a package that is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """In here an interruption ends the process without a traceback, and a missing package is named with its extra."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("lossfit", "torch"):
            raise
        sys.exit(f"lossfit: the command line needs {error.name}, which comes with: pip install 'lossfit[compare]'")
