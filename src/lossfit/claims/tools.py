"""What several claims use."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def binary(loss: Callable[[Tensor, Tensor], Tensor], p: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A loss of rows with two classes, at the target's probabilities p, and its sensitivity -dl/dp, in float64."""
    at = torch.tensor(p, dtype=torch.float64)
    d = torch.logit(at).requires_grad_()
    rows = loss(torch.stack([d, torch.zeros_like(d)], 1), torch.zeros(len(at), dtype=torch.int64))
    (slope,) = torch.autograd.grad(rows.sum(), d)
    return rows.detach().numpy(), (-slope / (at * (1 - at))).numpy()


def same(found: float, printed: str) -> bool:
    """Whether a number is the printed one, to half a unit of its last digit."""
    digits, _, power = printed.partition("e")
    unit = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    return bool(abs(found - float(printed)) <= 0.5 * unit * (1 + 1e-9))


def row(values: Tensor, digits: int) -> str:
    """A vector as text."""
    return "(" + ", ".join(f"{v:.{digits}f}" for v in values.tolist()) + ")"


def points(difference: dict[str, Any]) -> str:
    """A difference of a comparison in percentage points, with its interval."""
    low, high = difference["ci95"]
    return f"{100 * difference['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def least(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Where a smooth loss is least, from a start, by L-BFGS."""
    at = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [at], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(at)
        value.backward()
        return value

    optimizer.step(closure)
    return at.detach()


def lines(curves: dict[str, tuple[Any, Any]], x: str, y: str, **scale: Any) -> Any:
    """A chart with a line for each name, from its x and y; ``scale`` is that of the y axis."""
    import altair as alt

    from lossfit import plot

    records = [
        {"name": name, "x": float(a), "y": float(b)}
        for name, (at, to) in curves.items()
        for a, b in zip(at, to, strict=True)
    ]
    return (
        alt.Chart(alt.Data(values=records))
        .mark_line(clip=True, strokeWidth=2)
        .encode(
            x=alt.X("x:Q", title=x),
            y=alt.Y("y:Q", title=y, scale=alt.Scale(**scale), axis=alt.Axis(tickCount=5)),
            color=alt.Color("name:N", sort=list(curves), legend=alt.Legend(**plot.LEGEND)),
        )
    )


def compare(source: str, losses: str, **plan: Any) -> dict[str, Any]:
    """The summary of a comparison on a bundled set, by loss, with the plan's other settings."""
    from lossfit.compare.plan import Plan
    from lossfit.compare.running import engine
    from lossfit.compare.verdict.summary import summarise

    with tempfile.TemporaryDirectory() as folder:
        outcome = engine.run(Plan(source, losses=losses, **plan), Path(folder) / "out")
        return {entry["loss"]: entry for entry in summarise(outcome)["losses"]}
