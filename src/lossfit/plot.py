"""Pictures of the losses: value and sensitivity against the target's probability or against the gap."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lossfit.core.checks import check_choice
from lossfit.losses.single_label.base import SingleLabelLoss

if TYPE_CHECKING:
    import altair as alt

Axis = Literal["p", "gap"]
POINTS = 121
STYLE: dict[str, Any] = {
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titleColor": "#4a5058",
        "labelColor": "#30353b",
        "gridColor": "#e8eaed",
        "domainColor": "#c3c8ce",
        "tickColor": "#c3c8ce",
        "labelLimit": 170,
    },
    "legend": {"labelFontSize": 12, "labelColor": "#30353b", "symbolStrokeWidth": 3},
}
"""How charts look, here and in reports."""

LEGEND: dict[str, Any] = {
    "title": None,
    "orient": "bottom",
    "columns": 2,
    "labelLimit": 220,
}
"""Where the names of lines stand."""


def curve(loss: SingleLabelLoss, against: Axis = "p", reach: float = 6.0) -> dict[str, list[float]]:
    """A loss on two classes, as columns ``p``, ``gap``, ``loss`` and ``sensitivity``.

    With two classes the gap d is the difference of the logits, and p = sigmoid(d) the target's probability under
    softmax. The sensitivity is -dl/dp against p, and -dl/dd, the pull, against the gap.

    Args:
        loss: any single-label loss.
        against: "p" for points even in p, "gap" for points even in d.
        reach: the largest gap.

    Example:
        >>> from lossfit.plot import curve
        >>> found = curve(lossfit.CrossEntropyLoss(), against="gap", reach=2.0)
        >>> round(found["gap"][-1], 4), round(found["loss"][-1], 4), round(found["sensitivity"][-1], 4)
        (2.0, 0.1269, 0.1192)
    """
    check_choice("against", against, ("p", "gap"))
    if against == "gap":
        d = torch.linspace(-reach, reach, POINTS, dtype=torch.float64)
    else:
        d = torch.logit(torch.linspace(0.005, 0.995, POINTS, dtype=torch.float64))
    d.requires_grad_()
    plain = loss.reduction
    loss.reduction = "none"
    try:
        rows = loss(torch.stack([d, torch.zeros_like(d)], 1), torch.zeros(POINTS, dtype=torch.int64))
    finally:
        loss.reduction = plain
    (slope,) = torch.autograd.grad(rows.sum(), d)
    p = torch.sigmoid(d.detach())
    pull = -slope
    sensitivity = pull if against == "gap" else pull / (p * (1 - p))
    columns = {"p": p, "gap": d.detach(), "loss": rows.detach(), "sensitivity": sensitivity}
    return {name: column.tolist() for name, column in columns.items()}


def chart(
    losses: Mapping[str, SingleLabelLoss],
    show: Literal["loss", "sensitivity"],
    against: Axis = "p",
    *,
    colors: Sequence[str] | None = None,
    width: int | str = 360,
    height: int = 260,
) -> alt.Chart:
    """One line for each loss, named as in ``losses``."""
    import altair as alt

    ceiling = 5.0 if show == "loss" or against == "gap" else 100.0
    names = list(losses)
    x_title = "probability of the target p" if against == "p" else "gap d = target - rivals"
    y_title = {"loss": "loss", "sensitivity": "sensitivity -dl/dp" if against == "p" else "pull -dl/dd"}[show]
    logarithmic = show == "sensitivity" and against == "p"
    scale = alt.Scale(type="log", domain=[0.05, ceiling]) if logarithmic else alt.Scale(domainMax=ceiling)
    records = [
        {"loss": name, "x": x, "y": y}
        for name, loss in losses.items()
        for points in [curve(loss, against)]
        for x, y in zip(points[against], points[show], strict=True)
        if math.isfinite(y) and (y > 0 or not logarithmic)
    ]
    drawn: alt.Chart = (
        alt.Chart({"values": records}, width=width, height=height)  # type: ignore[arg-type]
        .mark_line(clip=True, strokeWidth=2)
        .encode(
            x=alt.X("x:Q", title=x_title),
            y=alt.Y("y:Q", title=y_title, scale=scale, axis=alt.Axis(tickCount=5)),
            color=alt.Color(
                "loss:N",
                sort=names,
                scale=alt.Scale(domain=names, range=list(colors)) if colors else alt.Scale(domain=names),
                legend=alt.Legend(**LEGEND),
            ),
            tooltip=["loss:N", alt.Tooltip("x:Q", format=".3f"), alt.Tooltip("y:Q", format=".4g")],
        )
    )
    return drawn


def pair(losses: Mapping[str, SingleLabelLoss], against: Axis = "p") -> alt.TopLevelMixin:
    """Value and sensitivity side by side."""
    import altair as alt

    return alt.hconcat(chart(losses, "loss", against), chart(losses, "sensitivity", against))


def save(losses: Mapping[str, SingleLabelLoss], path: Path, against: Axis = "p") -> None:
    """Value and sensitivity side by side, as .png or .svg."""
    write(pair(losses, against), path)


def write(chart: alt.TopLevelMixin, path: Path) -> None:
    """A chart as .png, .svg, or .html that opens offline, in the library's style on white."""
    path.write_bytes(contents(chart, path.suffix))


def contents(chart: alt.TopLevelMixin, suffix: str) -> bytes:
    """What :func:`write` writes for a suffix, ".png", ".svg" or ".html"."""
    kind = suffix.lower().removeprefix(".")
    how: dict[str, Any] = {"inline": True} if kind == "html" else {"scale_factor": 2.0} if kind == "png" else {}
    drawn = io.BytesIO() if kind == "png" else io.StringIO()
    chart.configure(**{**STYLE, "background": "white"}).save(drawn, format=kind, **how)
    value = drawn.getvalue()
    return value if isinstance(value, bytes) else value.encode("utf-8")
