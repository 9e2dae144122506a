"""The command line, run in this process."""

from typer.testing import CliRunner, Result

from lossfit.commands.app import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def flat(text: str) -> str:
    return " ".join(text.split())


def refused(*arguments: object) -> str:
    """What a command that cannot be run says: one line, without a traceback."""
    found = run(*arguments)
    assert found.exit_code == 2, found.output
    assert found.stdout == ""
    assert "Traceback" not in found.stderr
    assert found.exception is None or isinstance(found.exception, SystemExit)
    return flat(found.stderr)
