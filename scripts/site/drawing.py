"""Lines to SVG inside of a page, in colours that follow its light or dark scheme."""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import vl_convert

Line = tuple[Sequence[float], Sequence[float]]

# Stand-ins in the drawing for the variables of docs/assets/site.css.
_INK, _GRID = "#010101", "#020202"
_LINES = [f"#0300{i:02}" for i in range(1, 9)]
_DASHES: list[list[int]] = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2], [12, 3], [1, 3], [6, 2, 1, 2, 1, 2]]
_numbers = itertools.count()


class Panel(NamedTuple):
    """One pair of axes. Panels of a figure share their lines' names."""

    x: str
    y: str
    lines: Mapping[str, Line]
    top: float | None = None
    bottom: float | None = None
    logarithmic: bool = False


def figure(panels: Sequence[Panel], caption: str) -> str:
    """Panels side by side, or below each other where there is no room, with one key."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    drawings = "".join(_svg(panel, names) for panel in panels)
    keys = "".join(f"<li>{_sample(i)}<span>{html.escape(name)}</span></li>" for i, name in enumerate(names))
    told = html.escape(re.sub(r"[`$\\]", "", caption), quote=True)
    return (
        f'<figure class="drawn" markdown="0"><div class="panels" role="img" aria-label="{told}">{drawings}</div>'
        f'<ul class="key">{keys}</ul><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def _svg(panel: Panel, names: Sequence[str]) -> str:
    records = [
        {"line": name, "x": x, "y": y}
        for name, (xs, ys) in panel.lines.items()
        for x, y in zip(xs, ys, strict=True)
        if math.isfinite(y) and (y > 0 or not panel.logarithmic)
    ]
    settings: dict[str, Any] = {"type": "log"} if panel.logarithmic else {}
    for end, value in (("domainMax", panel.top), ("domainMin", panel.bottom)):
        if value is not None:
            settings[end] = value
    how = [{"domain": list(names), "range": each[: len(names)]} for each in (_LINES, _DASHES)]
    chart = (
        alt.Chart(alt.Data(values=records), width=300, height=210)
        .mark_line(clip=True, strokeWidth=2.2)
        .encode(
            x=alt.X("x:Q", title=panel.x, axis=alt.Axis(tickCount=6)),
            y=alt.Y("y:Q", title=panel.y, scale=alt.Scale(**settings), axis=_axis(panel)),
            color=alt.Color("line:N", scale=alt.Scale(**how[0]), legend=None),
            strokeDash=alt.StrokeDash("line:N", scale=alt.Scale(**how[1]), legend=None),
        )
        .configure(
            font="system-ui, sans-serif",
            background="transparent",
            view={"stroke": None},
            axis={
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "titleColor": _INK,
                "labelColor": _INK,
                "gridColor": _GRID,
                "domainColor": _GRID,
                "tickColor": _GRID,
            },
        )
    )
    drawing = vl_convert.vegalite_to_svg(chart.to_json(), vl_version=alt.SCHEMA_VERSION.rsplit(".", 1)[0])
    drawing = re.sub(r"<\?xml[^>]*>|<!DOCTYPE[^>]*>|[\n\r]+", " ", drawing)
    # Width and height come from the page; ids must differ between the drawings of a page.
    drawing = re.sub(r'(<svg[^>]*?) width="[\d.]+" height="[\d.]+"', r"\1", drawing, count=1)
    drawing = re.sub(r'\bid="clip', f'id="clip{(n := next(_numbers))}-', drawing).replace("url(#clip", f"url(#clip{n}-")
    for stand_in, name in [(_INK, "figure-ink"), (_GRID, "figure-grid"), *((c, f"line-{i}") for i, c in _numbered())]:
        drawing = drawing.replace(stand_in, f"var(--{name})")
    return drawing.replace("<svg", '<svg aria-hidden="true"', 1).strip()


def _axis(panel: Panel) -> alt.Axis:
    if panel.logarithmic:
        return alt.Axis(values=[10.0**power for power in range(-2, 4)], format="~g")
    return alt.Axis(tickCount=5)


def _numbered() -> list[tuple[int, str]]:
    return list(enumerate(_LINES, 1))


def _sample(i: int) -> str:
    dash = " ".join(map(str, _DASHES[i])) if i else ""
    return (
        f'<svg width="34" height="8" aria-hidden="true"><line x1="1" x2="33" y1="4" y2="4" stroke-width="2.5" '
        f'stroke="var(--line-{i + 1})" stroke-dasharray="{dash}"/></svg>'
    )
