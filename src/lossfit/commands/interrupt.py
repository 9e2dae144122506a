"""Ctrl-C: the first one stops a command cleanly, the second one at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping() -> Iterator[None]:
    """In here the first interruption is a KeyboardInterrupt, and the second ends the process, without a word.

    Whatever is written is written under another name first, so that nothing is lost by it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, warnings = signal.getsignal(signal.SIGINT), os.environ.get("PYTHONWARNINGS")
    # Python's process that looks after semaphores would complain when this one ends at once.
    os.environ["PYTHONWARNINGS"] = ",".join([*([warnings] if warnings else []), "ignore:resource_tracker"])
    signal.signal(signal.SIGINT, _first)
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True  # the second one may still come while the interpreter ends
        raise
    finally:
        if not interrupted:
            signal.signal(signal.SIGINT, before)
        del os.environ["PYTHONWARNINGS"]
        if warnings:
            os.environ["PYTHONWARNINGS"] = warnings


def _first(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _second)
    raise KeyboardInterrupt


def _second(number: int, frame: FrameType | None) -> None:
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the cursor, which a progress bar hides
    os._exit(130)
