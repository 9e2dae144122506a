"""``lossfit`` and ``python -m lossfit``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which extra it needs."""
    try:
        from lossfit.commands.app import app
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("lossfit", "torch"):
            raise
        sys.exit(f"lossfit: the command line needs {error.name}, which comes with: pip install 'lossfit[compare]'")
    app()


if __name__ == "__main__":
    main()
