"""Docstrings to Markdown: their roles for formulas and names are those of Sphinx."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_BLOCK = re.compile(r"^([ ]*)\.\. math::[ ]*(.*(?:\n\1[ ]+\S.*)*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^([ ]*)Example:$", re.MULTILINE)  # griffe knows a section of examples by its plural
_FORMULA = re.compile(r":math:`([^`]+)`")
_NAME = re.compile(r":(?:class|func|meth|attr|mod):`~?([^`]+)`")


def to_markdown(text: str) -> str:
    """Formulas between dollars, names as code."""
    text = _EXAMPLE.sub(r"\1Examples:", _BLOCK.sub(_display, text))
    text = _FORMULA.sub(lambda found: f"${' '.join(found[1].split())}$", text)
    return _NAME.sub(lambda found: f"`{found[1]}`", text)


def _display(found: re.Match[str]) -> str:
    formula = " ".join(textwrap.dedent(found[2]).split())
    return f"{found[1]}$${formula}$$"


class Roles(griffe.Extension):
    """Rewrites every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
