"""The report: one HTML file with everything in it."""

from __future__ import annotations

import json
from typing import Any

import jinja2

from lossfit.compare import metrics
from lossfit.compare.engine import Outcome
from lossfit.compare.report import charts, words
from lossfit.compare.summary import verdict

_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def render(outcome: Outcome, summary: dict[str, Any]) -> str:
    """The page: text and tables by a template that escapes everything, charts as Vega-Lite specifications inside."""
    import vl_convert

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lossfit.compare", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    specs = {name: chart.to_dict() for name, chart in charts.build(outcome, summary).items()}
    return environment.get_template("template.html.j2").render(
        summary=summary,
        metrics=metrics.METRICS,
        metric=metrics.METRICS[summary["metric"]],
        verdict=verdict,
        words=words,
        answer=words.answer(summary),
        others=words.other_metrics(summary),
        # "<" could end the script element; escaped, it reads the same as JSON.
        specs=json.dumps(specs).replace("<", "\\u003c"),
        library=vl_convert.javascript_bundle(_SNIPPET).replace("</script", "<\\/script"),
    )
