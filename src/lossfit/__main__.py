"""``lossfit`` and ``python -m lossfit``."""

from __future__ import annotations

from lossfit.commands.importing import importing


def main() -> None:
    """Run the command line."""
    with importing():
        from lossfit.commands.app import app
    app()


if __name__ == "__main__":
    main()
