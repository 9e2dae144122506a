"""Pictures of margins: the target's score, decision boundaries, and the angles that training reached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lossfit.heads.cosine_head import CosineHead
from lossfit.heads.linear_head import LinearHead
from lossfit.heads.margins import Margin
from lossfit.plot import LEGEND

if TYPE_CHECKING:
    import altair as alt

Columns = dict[str, list[float]]
Head = CosineHead | LinearHead

_POINTS = 181
_DEGREES = 180 / math.pi


def curve(margin: Margin | None) -> Columns:
    r"""The target's score against its angle, as columns ``angle`` (degrees) and ``score``; None for no margin.

    Example:
        >>> from lossfit.plot_margins import curve
        >>> found = curve(lossfit.AngularMargin(m=2))
        >>> found["angle"][90], round(found["score"][90], 4)
        (90.0, -1.0)
    """
    angle = torch.linspace(0, math.pi, _POINTS, dtype=torch.float64)
    return {"angle": (angle * _DEGREES).tolist(), "score": _score(margin, angle).tolist()}


def boundary(margin: Margin | None) -> Columns:
    r"""Where a class and its only rival tie, as columns ``target`` and ``rival``: their angles in degrees.

    At an angle of ``target`` to its own weight, a feature counts as right in training from an angle of ``rival`` to the
    other weight on. Angles at which no rival is far enough are left out. Without a margin it is the diagonal.

    Example:
        >>> from lossfit.plot_margins import boundary
        >>> found = boundary(lossfit.AngularMargin(m=3))
        >>> round(found["target"][20]), round(found["rival"][20])
        (20, 60)
    """
    angle = torch.linspace(0, math.pi, _POINTS, dtype=torch.float64)
    score = _score(margin, angle)
    kept = score.abs() <= 1
    return {
        "target": (angle[kept] * _DEGREES).tolist(),
        "rival": (torch.acos(score[kept]) * _DEGREES).tolist(),
    }


def _score(margin: Margin | None, angle: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cos(angle) if margin is None else margin(torch.cos(angle))


def regions(head: Head, reach: float = 1.0, points: int = 81) -> Columns:
    """The classes of the plane under a head of two features, as columns ``x``, ``y``, ``class`` and ``held``.

    ``class`` is the class with the largest score; ``held`` is 1 where it keeps the largest with the margin taken off
    its own score, and 0 in the gap that the margin leaves between the classes.

    Args:
        head: with in_features=2.
        reach: the plane goes from -reach to reach.
        points: on each axis.

    Raises:
        ValueError: the head has other than two features.

    Example:
        >>> from lossfit.plot_margins import regions
        >>> _ = torch.manual_seed(0)
        >>> found = regions(lossfit.CosineHead(2, 3, margin=lossfit.ArcMargin(0.3)), points=20)
        >>> len(found["class"]), sorted(set(found["held"]))
        (400, [0.0, 1.0])
    """
    if head.in_features != 2:
        raise ValueError(f"Expected `head` with 2 features, but got {head.in_features}.")
    axis = torch.linspace(-reach, reach, points, dtype=head.weight.dtype, device=head.weight.device)
    x = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        best = head(x).argmax(1)
        held = head.scores(x, best).argmax(1) == best
    return {"x": x[:, 0].tolist(), "y": x[:, 1].tolist(), "class": best.tolist(), "held": held.double().tolist()}


def angles(head: CosineHead, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The angles in degrees of features (N, D) to their class's weight and to the nearest other one, each (N,).

    With sub-centres a class's weight is its nearest one.

    Example:
        >>> from lossfit.plot_margins import angles
        >>> head = lossfit.CosineHead(8, 3)
        >>> own, other = angles(head, head.weight.detach(), torch.arange(3))
        >>> bool((own < 0.1).all()), bool((other > own).all())
        (True, True)
    """
    with torch.no_grad():
        cosine = head.cosines(x).double()
        at = target.unsqueeze(1)
        own, other = cosine.gather(1, at).squeeze(1), cosine.scatter(1, at, -math.inf).amax(1)
        return torch.acos(own.clamp(-1, 1)) * _DEGREES, torch.acos(other.clamp(-1, 1)) * _DEGREES


def histogram(values: Tensor, bins: int = 36) -> Columns:
    """Shares of angles in equal bins of [0, 180] degrees, as columns ``start``, ``end`` and ``share``.

    Example:
        >>> from lossfit.plot_margins import histogram
        >>> histogram(torch.tensor([10.0, 100.0, 170.0, 180.0]), bins=2)["share"]
        [0.25, 0.75]
    """
    width = 180 / bins
    counts = torch.bincount((values.double() / width).long().clamp(0, bins - 1), minlength=bins)
    return {
        "start": [width * i for i in range(bins)],
        "end": [width * (i + 1) for i in range(bins)],
        "share": (counts.double() / max(len(values), 1)).tolist(),
    }


def curves_chart(margins: Mapping[str, Margin | None], *, width: int = 360, height: int = 260) -> alt.Chart:
    """The target's score against its angle, one line for each margin."""
    found = {name: curve(margin) for name, margin in margins.items()}
    return _lines(found, ("angle", "angle to the target in degrees"), ("score", "target's score"), (width, height))


def boundaries_chart(margins: Mapping[str, Margin | None], *, width: int = 320, height: int = 320) -> alt.Chart:
    """The boundary of each margin in the plane of two angles: right is above the line."""
    found = {name: boundary(margin) for name, margin in margins.items()}
    return _lines(
        found, ("target", "angle to the target in degrees"), ("rival", "angle to the rival in degrees"), (width, height)
    )


def _lines(found: Mapping[str, Columns], x: tuple[str, str], y: tuple[str, str], size: tuple[int, int]) -> alt.Chart:
    import altair as alt

    names = list(found)
    records = [
        {"margin": name, "x": at, "y": value}
        for name, columns in found.items()
        for at, value in zip(columns[x[0]], columns[y[0]], strict=True)
    ]
    chart: alt.Chart = (
        alt.Chart(alt.Data(values=records), width=size[0], height=size[1])
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("x:Q", title=x[1], scale=alt.Scale(domain=[0, 180]), axis=alt.Axis(values=[0, 45, 90, 135, 180])),
            y=alt.Y("y:Q", title=y[1], axis=alt.Axis(tickCount=5)),
            color=alt.Color("margin:N", sort=names, scale=alt.Scale(domain=names), legend=alt.Legend(**LEGEND)),
            tooltip=["margin:N", alt.Tooltip("x:Q", format=".0f"), alt.Tooltip("y:Q", format=".3f")],
        )
    )
    return chart


def regions_chart(head: Head, names: Sequence[str] | None = None, *, reach: float = 1.0, size: int = 320) -> alt.Chart:
    """The classes of the plane, pale where a class holds its place only without the margin.

    Args:
        head: with in_features=2.
        names: of the classes.
        reach: the plane goes from -reach to reach.
        size: of the picture, in pixels.
    """
    import altair as alt

    points = 81
    half = reach / (points - 1)
    found = regions(head, reach, points)
    labels = list(names or map(str, range(head.num_classes)))
    records = [
        {"x": x - half, "x2": x + half, "y": y - half, "y2": y + half, "class": labels[int(c)], "held": held}
        for x, y, c, held in zip(found["x"], found["y"], found["class"], found["held"], strict=True)
    ]
    chart: alt.Chart = (
        alt.Chart(alt.Data(values=records), width=size, height=size)
        .mark_rect(strokeWidth=0, clip=True)
        .encode(
            x=alt.X("x:Q", title="first feature", scale=alt.Scale(domain=[-reach, reach], nice=False)),
            x2="x2:Q",
            y=alt.Y("y:Q", title="second feature", scale=alt.Scale(domain=[-reach, reach], nice=False)),
            y2="y2:Q",
            color=alt.Color("class:N", sort=labels, scale=alt.Scale(domain=labels), legend=alt.Legend(**LEGEND)),
            opacity=alt.Opacity("held:Q", scale=alt.Scale(domain=[0, 1], range=[0.3, 1]), legend=None),
        )
    )
    return chart


def angles_chart(
    heads: Mapping[str, tuple[CosineHead, Tensor, Tensor]], *, bins: int = 36, width: int = 360, height: int = 120
) -> alt.Chart:
    """Histograms of the angles to the own class and to the nearest other one, a row for each head.

    Args:
        heads: by name, each with the features (N, D) and targets (N,) it is shown on.
        bins: of [0, 180] degrees.
        width, height: of a row, in pixels.
    """
    import altair as alt

    kinds = ("own class", "nearest other class")
    records = [
        {"head": name, "kind": kind, "start": start, "end": end, "share": share}
        for name, (head, x, target) in heads.items()
        for kind, values in zip(kinds, angles(head, x, target), strict=True)
        for start, end, share in zip(*histogram(values, bins).values(), strict=True)
        if share > 0
    ]
    chart: alt.Chart = (
        alt.Chart(alt.Data(values=records), width=width, height=height)
        .mark_bar(opacity=0.6)
        .encode(
            x=alt.X(
                "start:Q",
                bin="binned",
                title="angle in degrees",
                scale=alt.Scale(domain=[0, 180]),
                axis=alt.Axis(values=[0, 45, 90, 135, 180]),
            ),
            x2="end:Q",
            y=alt.Y("share:Q", title="share", stack=None, axis=alt.Axis(format="%", tickCount=3)),
            color=alt.Color("kind:N", scale=alt.Scale(domain=list(kinds)), legend=alt.Legend(**LEGEND)),
            row=alt.Row("head:N", sort=list(heads), title=None),
            tooltip=["head:N", "kind:N", "start:Q", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return chart
