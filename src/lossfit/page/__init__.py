"""Pages that open offline: one HTML file with its charts and the code that draws them."""

from __future__ import annotations

import json
from typing import Any

_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def render(template: str, charts: dict[str, Any], **context: Any) -> str:
    """A page from a template of this folder, which escapes everything.

    Args:
        template: its name.
        charts: Altair charts, by the id of the element that each is drawn in.
        context: what the template shows.
    """
    import jinja2
    import vl_convert

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lossfit", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    specs = {name: chart.to_dict() for name, chart in charts.items()}
    return environment.get_template(template).render(
        **context,
        # "<" could end the script element; escaped, it reads the same as JSON.
        specs=json.dumps(specs).replace("<", "\\u003c"),
        library=vl_convert.javascript_bundle(_SNIPPET).replace("</script", "<\\/script"),
    )
