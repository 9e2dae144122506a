"""The report: one HTML file with everything in it."""

from __future__ import annotations

from typing import Any

import polars as pl

from lossfit import page
from lossfit.compare.outcome import Outcome
from lossfit.compare.report import charts, classes, learning, wording
from lossfit.compare.scoring.tasks import KINDS
from lossfit.compare.verdict.summary import verdict

_AGAINST = {"single_label": ("calibration_error", "accuracy"), "multi_label": ("ranking_loss", "micro_f1")}


def render(outcome: Outcome, summary: dict[str, Any]) -> str:
    """The page of a comparison."""
    best = outcome.results.filter(pl.col("chosen"))
    metrics = KINDS[summary["labels"]].measured(summary["metric"])
    about = charts.options(metrics)
    by_class = classes.view(outcome, summary)
    return page.render(
        "report.html.j2",
        {**charts.build(outcome.passes, summary), **learning.build(best, summary), **by_class.charts},
        losses=[wording.title(e["loss"]) for e in summary["losses"]],
        suggested=[wording.title(name) for name in charts.suggested(summary)],
        options={"metric": about, "against": about, "measure": classes.MEASURES},
        summary=summary,
        metrics=metrics,
        metric=metrics[summary["metric"]],
        metric_choices=[(name, card.title) for name, card in metrics.items()],
        against=next(name for name in _AGAINST[summary["labels"]] if name != summary["metric"]),
        by_class=by_class,
        given_rows=outcome.data.test is not None,
        trained=[wording.title(e["loss"]) for e in summary["losses"] if not e["tuned"]],
        verdict=verdict,
        words=wording,
        answer=wording.answer(summary),
        others=wording.other_metrics(summary),
    )
