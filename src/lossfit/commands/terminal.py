"""What commands print: text from data, files and names is shown, and never steers the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from os import PathLike

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from lossfit.compare.errors import shown


class Terminal(Console):
    """Rich's console, whose own control sequences are the only ones."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))

    def say(self, text: str = "") -> None:
        """A sentence, which is not broken into lines."""
        self.print(Text(text), soft_wrap=True)


def console(*, errors: bool = False) -> Terminal:
    """A console on standard output, or on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files may be no text at all
            stream.reconfigure(errors="backslashreplace")
    return Terminal(stderr=errors)


def command(*words: str | PathLike[str]) -> str:
    """A command to paste, its words quoted where a shell would read them as something else."""
    return shlex.join(shown(str(word)) for word in words)
