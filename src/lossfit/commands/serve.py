"""lossfit serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lossfit.commands import terminal
from lossfit.compare.report import server as server


def serve(
    folder: Annotated[Path, typer.Argument(help="A folder with comparisons in it, or below it.", metavar="DIR")],
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8000,
) -> None:
    """List the comparisons in a folder in the browser, with their reports and what differs between two.

    \b
    lossfit serve .
    lossfit serve demo --port 0

    Only this machine can see it. Ctrl-C ends it.
    """
    console = terminal.console()
    running = server.make(folder, port)
    try:
        console.say(f"Serving {folder} on http://{server.HOST}:{running.server_port}/ - Ctrl-C ends it.")
        for run in server.find(folder)[1]:
            console.say(f"Not listed: {run.name}: {run.why}.")
        running.serve_forever()
    except KeyboardInterrupt:
        console.say("\nStopped.")
    finally:
        running.server_close()
