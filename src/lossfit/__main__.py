"""``lossfit`` and ``python -m lossfit``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """In here an interruption ends the process without a traceback, and a package that is missing is named."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("lossfit", "torch"):
            raise
        sys.exit(f"lossfit: this command needs {error.name}, which comes with: pip install 'lossfit[compare]'")


def main() -> None:
    """Run the command line."""
    with importing():
        from lossfit.commands.app import app
    app()


if __name__ == "__main__":
    main()
