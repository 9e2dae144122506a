"""Pages that open offline: one HTML file with its charts and the code that draws them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
# The colours of charts that are written as pictures, and what they are on a page, light or dark (page.css).
_THEMED = {
    "#16191d": "var(--ink)",
    "#4a5058": "var(--soft)",
    "#30353b": "var(--label)",
    "#e8eaed": "var(--grid)",
    "#c3c8ce": "var(--axis)",
    "#0b7a75": "var(--better)",
    "#b5432c": "var(--worse)",
    "#8a8f98": "var(--undecided)",
    "#9aa0a6": "var(--undecided)",
    "#5f6b7a": "var(--dots)",
}
LINES = ("var(--ink)", *(f"var(--line-{i})" for i in range(1, 8)))
"""The colours of as many losses as can be told apart, the reference's first."""


def render(
    template: str,
    charts: Mapping[str, Any],
    *,
    losses: Sequence[str] = (),
    suggested: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    **context: Any,
) -> str:
    """A page from a template of this folder, which escapes everything.

    Args:
        template: its name.
        charts: Altair charts, by the id of the element that each is drawn in.
        losses: what can be picked, by the names that are shown.
        suggested: the picked ones that are coloured when there are more than colours, at most 8.
        options: for each control, for each of its values, what charts show in the place of ``@control.key``.
        context: what the template shows.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lossfit", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["pairs"] = lambda names: [(name, name) for name in names]
    data = {
        "specs": {name: chart.to_dict() for name, chart in charts.items()},
        "losses": list(losses),
        "suggested": list(suggested)[: len(LINES)],
        "options": options or {},
        "themed": _THEMED,
        "lines": LINES,
    }
    return environment.get_template(template).render(
        **context,
        losses=losses,
        charts=charts,
        # "<" could end the script element; escaped, it reads the same as JSON.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        library=_library() if charts else "",
    )


def finished(
    chart: Any,
    description: str,
    columns: Mapping[str, str],
    *,
    filters: Mapping[str, str] | None = None,
    rows: str | None = None,
    step: int = 24,
    colours: bool = False,
) -> Any:
    """An Altair chart with what the page's script needs to know of it.

    Args:
        chart: with fields, titles and formats that may be ``@control`` or ``@control.key``.
        description: what a screen reader says of it.
        columns: of the table behind it, as field and heading.
        filters: which control's values a field of the data must be among, as field and control.
        rows: the field that has a row of the chart for each of its values, ``step`` pixels high.
        step: of these.
        colours: whether ``loss`` is told by colour.
    """
    from lossfit import plot

    meta = {"columns": columns, "filter": filters or {}, "rows": rows, "step": step, "colours": colours}
    return chart.properties(description=description, usermeta=meta).configure(**plot.STYLE)


def data(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Records for a chart, with five digits of each number, which no chart shows more of."""
    return {"values": [{k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in r.items()} for r in records]}


@cache
def _library() -> str:
    """The code that draws charts, as it may stand in a script element; it takes seconds to gather."""
    import vl_convert

    return str(vl_convert.javascript_bundle(_SNIPPET)).replace("</script", "<\\/script")
