"""A process beside a run on Ray, which clears up when the run's own is gone, however that came about.

    python watch.py FOLDER

Its standard input is a pipe that the run holds open. When the pipe ends, all processes that belong to Ray's session in
FOLDER are ended, and FOLDER is removed. It is run by its path, since importing lossfit would take seconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_SECONDS = 20.0
_PAUSE = 0.2


def main() -> None:
    folder = sys.argv[1]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and (left := _belonging(folder)):
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE)
    shutil.rmtree(folder, ignore_errors=True)


def _belonging(folder: str) -> set[int]:
    """The processes that name the folder in their command or surroundings, and their children's children."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            told = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:  # it ended, or is someone else's
            continue
        if state == "Z":
            continue
        parents[int(path.name)] = int(parent)
        if os.fsencode(folder) in told:
            found.add(int(path.name))
    found.discard(os.getpid())
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found


if __name__ == "__main__":
    main()
