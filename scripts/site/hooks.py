"""Lines ``{{ name arguments }}`` of the pages, filled in when the site is built.

``{{ figure NAME CAPTION }}`` draws, ``{{ catalogue FAMILY }}``, ``{{ regret }}``, ``{{ claim NAME }}`` and
``{{ ratios }}`` are tables, and ``{{ include FILE }}`` is a page from the root of the repository.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import drawing
import figures
import tables

_LINE = re.compile(r"^\{\{ (\w+)((?: [^}]*)?) \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return _LINE.sub(lambda found: fill(found[1], found[2].strip()), markdown)


def fill(name: str, arguments: str) -> str:
    """What stands in the place of a line."""
    if name == "figure":
        which, _, caption = arguments.partition(" ")
        return drawing.figure(figures.FIGURES[which](), caption)
    if name == "include":
        page = (tables.ROOT / arguments).read_text(encoding="utf-8")
        return page.replace("](docs/", "](")  # links from the root
    made = {"catalogue": tables.catalogue, "regret": tables.regret, "claim": tables.claim, "ratios": tables.ratios}
    return made[name](*([arguments] if arguments else []))
