"""The checkable statements of the articles that this library grew from, each with a run and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from lossfit.core.checks import check_choice

Verdict = Literal["holds", "holds with a correction", "refuted"]

ARTICLES = {
    "accuracy": "Jianlin Su, How to Train Your Accuracy? (2022), with commentary",
    "gamma": "Jianlin Su, A Simple Remedy for the Over-Confidence of Cross-Entropy (2023)",
    "softmax": "Notes on softmax: definition, smoothness, scale, margins",
    "multiway": "Jianlin Su, An Unsuccessful Attempt: Multi-Label Cross-Entropy for n Questions of m Answers (2022)",
}
"""The articles by a short name."""

MODULES: tuple[str, ...] = (
    "toy_example",
    "temperature_repairs",
    "low_temperature",
    "probit_numbers",
    "gumbel_noise",
    "exact_estimators",
    "monte_carlo_variance",
    "exact_real_data",
    "log_of_mean",
    "direct_accuracy",
    "late_cross_entropy",
    "sensitivity_table",
    "adaptive_weight",
    "focal_form",
    "smoothing_form",
    "poly_form",
    "logistic_hessian",
    "convergence",
    "contrastive_name",
    "gamma_limits",
    "gamma_stop_gradient",
    "gamma_tempers",
    "two_classes",
    "likelihood",
    "ladder",
    "gradient_properties",
    "softmax_numbers",
    "scale_of_scores",
    "margin_formula",
    "multiplicative_margin",
    "multiway_attempts",
    "multiway_solution",
    "log_balances",
)
"""The claims, in the order of the articles."""


@dataclass(frozen=True)
class Finding:
    """What a run found.

    Attributes:
        verdict: on the statement as the article prints it.
        numbers: what was measured, what the article says (or what theory says), what came out.
        remark: the reason for the verdict, and the corrected statement where there is one.
        chart: an Altair chart, where a picture helps.
    """

    verdict: Verdict
    numbers: list[tuple[str, str, str]]
    remark: str
    chart: Any = None


@dataclass(frozen=True)
class Claim:
    """A statement.

    Attributes:
        name: of its module.
        article: its short name in ARTICLES.
        place: where it stands there.
        statement: in a sentence.
        ran: what is run to check it.
        run: the check.
    """

    name: str
    article: str
    place: str
    statement: str
    ran: str
    run: Callable[[], Finding] = field(repr=False)


def claim(article: str, place: str, statement: str) -> Callable[[Callable[[], Finding]], Claim]:
    """Make a claim of the function that checks it; the function's docstring says what is run."""

    def made(run: Callable[[], Finding]) -> Claim:
        assert article in ARTICLES
        assert run.__doc__
        return Claim(run.__module__.rpartition(".")[2], article, place, statement, " ".join(run.__doc__.split()), run)

    return made


def get(name: str) -> Claim:
    """A claim by its name.

    Raises:
        ValueError: no claim has this name; the nearest one is suggested.
    """
    check_choice("name", name, MODULES)
    module = import_module(f"lossfit.claims.{name}")
    found: Claim = module.check
    return found


def every() -> Iterator[Claim]:
    """All claims, in the order of the articles."""
    return map(get, MODULES)
