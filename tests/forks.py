"""Code in a process of its own, without the seconds that importing torch takes: forked from a process that has it.

For code that looks at what importing the library does. Nothing but torch is imported there before.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVER = """
import json, os, sys
import torch
for _line in sys.stdin:
    _code, _folder = json.loads(_line)
    _child = os.fork()
    if not _child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(_child, 0)[1]), flush=True)
else:
    sys.exit()
for _name, _to in (("out", 1), ("err", 2)):
    os.dup2(os.open(f"{_folder}/{_name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), _to)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
exec(_code)
"""


class Forks:
    """Where forks come from."""

    def __init__(self, server: "subprocess.Popen[str]", folder: Path) -> None:
        self.server, self.folder = server, folder

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """What ``python -c code`` would tell."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps([code, str(self.folder)]) + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(["python", "-c", code], status, out, err)


@contextmanager
def serving(folder: Path) -> Iterator[Forks]:
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Forks(server, folder)
