"""The report: one HTML file with everything in it."""

from __future__ import annotations

from typing import Any

from lossfit import page
from lossfit.compare import rule
from lossfit.compare.engine import Outcome
from lossfit.compare.kinds import KINDS
from lossfit.compare.report import charts, words
from lossfit.compare.summary import verdict


def render(outcome: Outcome, summary: dict[str, Any]) -> str:
    """The page of a comparison."""
    return page.render(
        "report.html.j2",
        charts.build(outcome, summary),
        summary=summary,
        metrics=KINDS[summary["labels"]].metrics,
        metric=KINDS[summary["labels"]].metrics[summary["metric"]],
        verdict=verdict,
        rule=rule,
        words=words,
        answer=words.answer(summary),
        others=words.other_metrics(summary),
    )
