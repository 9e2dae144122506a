"""Lines ``{{ name arguments }}`` of the pages, filled in when the site is built.

``{{ figure NAME CAPTION }}`` draws, ``{{ catalogue FAMILY }}``, ``{{ regret }}``, ``{{ claim NAME }}``,
``{{ ratios }}``, ``{{ attacks }}``, ``{{ commands }}`` and ``{{ files }}`` are tables, and ``{{ include FILE }}`` is a
page from the root of the repository.
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
_UP = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for every page."""
    markdown = without_outside(markdown, Path(page.file.src_uri))
    return _LINE.sub(lambda found: fill(found[1], found[2].strip()), markdown)


def without_outside(markdown: str, page: Path) -> str:
    """Links to files of the repository that are no part of the site become their paths."""

    def told(found: re.Match[str]) -> str:
        place = (tables.ROOT / "docs" / page.parent / found[2]).resolve()
        if place.is_relative_to(tables.ROOT / "docs") or not place.is_file():
            return found[0]
        path = place.relative_to(tables.ROOT).as_posix()
        return f"`{path}`" if found[1] == place.name else f"{found[1]} (`{path}`)"

    return _UP.sub(told, markdown)


def fill(name: str, arguments: str) -> str:
    """What stands in the place of a line."""
    if name == "figure":
        which, _, caption = arguments.partition(" ")
        return drawing.figure(figures.FIGURES[which](), caption)
    if name == "include":
        page = (tables.ROOT / arguments).read_text(encoding="utf-8")
        return page.replace("](docs/", "](")  # links from the root
    made = {
        "catalogue": tables.catalogue,
        "regret": tables.regret,
        "claim": tables.claim,
        "ratios": tables.ratios,
        "attacks": tables.attacks,
        "commands": tables.commands,
        "files": tables.files,
    }
    return made[name](*([arguments] if arguments else []))
