"""A monitor for any training loop: how far cross-entropy is from expected accuracy, and which rows pull."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lossfit.core.batch import Targets, read_batch
from lossfit.core.checks import check_index
from lossfit.core.keywords import Keywords
from lossfit.core.numerics import accumulation_dtype
from lossfit.gaps import gap
from lossfit.losses.nested import without_reduction
from lossfit.losses.single_label.base import SingleLabelLoss

if TYPE_CHECKING:
    import altair as alt

_NUMBERS = ("rows", "hits", "missing", "missing_squared", "log_loss", "bound")


class Monitor(Keywords):
    r"""What p, the probability of the right class, does during training.

    With x = p, :math:`-\log x = (1 - x) + \frac{(1 - x)^2}{2} + \dots`: where p is near 1, cross-entropy is expected
    accuracy's loss 1 - p. What it has above it is at most :math:`\frac{(1 - x)^2}{2 x}`, for every x in (0, 1]. The
    monitor measures both and the terms between, and in bins of p how hard the rows pull: the share that each bin has of
    the gradient with respect to the logits. The pull of a row is :math:`S(p) p (1 - p)`, for cross-entropy 1 - p;
    for other losses half the sum of the absolute gradients of its logits, which is the same where S is defined.

    All that is kept are sums, in the tensor ``sums``: monitors of parts of the rows are merged by adding them, and
    ``torch.distributed.all_reduce(monitor.sums)`` merges those of all ranks. An update takes one pass over the logits
    by :func:`lossfit.gap`, and one forward and backward pass of ``loss`` if it is given; a GPU is not waited for.

    Args:
        loss: the single-label loss whose pull is shown; cross-entropy if not given. It is not changed.
        bins: the number of bins of p, of equal width.
        ignore_index: rows with this target are left out.

    Raises:
        TypeError: ``loss`` is not a single-label loss.
        ValueError: ``bins`` is not a positive integer.

    Example:
        >>> monitor = lossfit.Monitor(bins=2)
        >>> monitor.update(torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 0]))
        >>> found = monitor.summary()
        >>> round(found["expected_error"], 3), round(found["cross_entropy"], 3)
        (0.349, 0.558)
        >>> [round(share, 2) for share in found["gradient_share"]]  # of the rows with p below and above 1/2
        [0.7, 0.3]
        >>> monitor.is_expected_accuracy()
        False
    """

    def __init__(self, loss: SingleLabelLoss | None = None, *, bins: int = 10, ignore_index: int = -100) -> None:
        if loss is not None and not isinstance(loss, SingleLabelLoss):
            raise TypeError(f"Expected `loss` to be a single-label loss, but got {type(loss).__name__}.")
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise ValueError(f"Expected `bins` to be an integer of at least 1, but got {bins!r}.")
        self.loss = loss
        self.bins = bins
        self.ignore_index = check_index("ignore_index", ignore_index)
        self.sums: Tensor
        self.reset()

    def __repr__(self) -> str:
        loss = [] if self.loss is None else [f"loss={self.loss}"]
        return f"Monitor({', '.join(loss + self._changed())})"

    def reset(self) -> None:
        """Forget all rows."""
        self.sums = torch.zeros(len(_NUMBERS) + 2 * self.bins, dtype=torch.float64)

    @torch.no_grad()
    def update(self, input: Tensor, target: Tensor) -> None:
        """Take in a batch.

        Args:
            input: logits (N, C), (N, C, d1, ...) or (C,).
            target: class indices (N,), (N, d1, ...) or ().

        Raises:
            TypeError, ValueError, IndexError: naming the argument, what was expected and what came.
        """
        scores, targets, _ = read_batch(input, target, self.ignore_index, probabilities=False)
        rows = gap.gap_rows(scores, targets, "soft", hit=True)
        assert rows.hit is not None
        d = rows.log_odds.double().flatten()
        missing, p = torch.sigmoid(-d), torch.sigmoid(d)
        pull = missing if self.loss is None else _pull(self.loss, scores, targets).double().flatten()
        at = (p * self.bins).long().clamp(0, self.bins - 1)
        columns = [
            torch.ones_like(d),
            rows.hit.flatten().double(),
            missing,
            missing.square(),
            softplus(-d, threshold=700.0),
            missing.square() * (1 + torch.exp(-d)) / 2,
        ]
        if targets.valid is not None:
            valid = targets.valid.flatten()
            columns = [c.masked_fill(~valid, 0.0) for c in columns]
            pull = pull.masked_fill(~valid, 0.0)
        empty = d.new_zeros(self.bins)
        shares = [empty.index_add(0, at, columns[0]), empty.index_add(0, at, pull)]
        self.sums = self.sums.to(d.device) + torch.cat([torch.stack([c.sum() for c in columns]), *shares])

    def merge(self, other: Monitor) -> None:
        """Take in the rows of another monitor of the same bins.

        Raises:
            ValueError: its bins are others.
        """
        if other.bins != self.bins:
            raise ValueError(f"Expected a monitor of {self.bins} bins, but got one of {other.bins}.")
        self.sums = self.sums + other.sums.to(self.sums.device)

    def summary(self) -> dict[str, Any]:
        """The numbers so far, NaN without rows. It waits for a GPU.

        ==================  ============================================================================
        rows                those that count
        accuracy            share of rows whose target has the highest logit
        expected_error      E[1 - p], the loss of expected accuracy
        variance            Var p
        cross_entropy       E[-log p]
        second_order        E[(1 - p)^2] / 2 = (Var p + E[1 - p]^2) / 2, the next term of cross-entropy
        excess              cross_entropy - expected_error
        bound               E[(1 - p)^2 / (2 p)], which the excess does not exceed
        bins                the edges of the bins of p
        row_share           share of the rows in each bin
        gradient_share      share of the pull in each bin; 0 where no row pulls
        ==================  ============================================================================
        """
        values = self.sums.tolist()
        sums = dict(zip(_NUMBERS, values, strict=False))
        n = sums["rows"]
        error, square, log_loss = (_ratio(sums[k], n) for k in ("missing", "missing_squared", "log_loss"))
        rows, pulls = values[len(_NUMBERS) : len(_NUMBERS) + self.bins], values[len(_NUMBERS) + self.bins :]
        pulled = sum(pulls)
        return {
            "rows": int(n),
            "accuracy": _ratio(sums["hits"], n),
            "expected_error": error,
            "variance": max(square - error**2, 0.0) if n else math.nan,
            "cross_entropy": log_loss,
            "second_order": square / 2,
            "excess": max(log_loss - error, 0.0) if n else math.nan,
            "bound": _ratio(sums["bound"], n),
            "bins": [i / self.bins for i in range(self.bins + 1)],
            "row_share": [_ratio(r, n) for r in rows],
            "gradient_share": [g / pulled if pulled else 0.0 for g in pulls],
        }

    def is_expected_accuracy(self, tolerance: float = 0.1) -> bool:
        """Whether cross-entropy has become expected accuracy: of E[-log p], at most this share is beyond E[1 - p].

        It is a statement on the mean. A few rows with p near 0 keep it from being true, however good the others are:
        each has a large -log p, and 1 - p of at most 1. Without rows it is False.

        Args:
            tolerance: the share, in (0, 1).

        Raises:
            ValueError: the tolerance is out of range.
        """
        if not 0 < tolerance < 1:
            raise ValueError(f"Expected `tolerance` in (0, 1), but got {tolerance}.")
        numbers = self.summary()
        return bool(numbers["excess"] <= tolerance * numbers["cross_entropy"])

    def table(self) -> str:
        """The numbers as lines of text."""
        summary = self.summary()
        lines = [f"{k.replace('_', ' '):<16}{summary[k]:>10.4g}" for k in list(summary)[:8]]
        lines += ["", "p                rows  gradient"]
        edges, shares = summary["bins"], (summary["row_share"], summary["gradient_share"])
        for low, high, rows, pull in zip(edges, edges[1:], *shares, strict=False):
            lines.append(f"{low:.2f} to {high:.2f} {rows:>8.1%} {pull:>9.1%}")
        return "\n".join(lines)

    def chart(self, *, width: int | str = 360, height: int = 220) -> alt.Chart:
        """The shares of rows and of gradient by p, as an Altair chart. It needs ``pip install 'lossfit[compare]'``."""
        import altair as alt

        summary = self.summary()
        names = {"row_share": "rows", "gradient_share": "gradient"}
        records = [
            {"p": f"{low:g} to {high:g}", "share": share, "of": names[key]}
            for key in names
            for low, high, share in zip(summary["bins"], summary["bins"][1:], summary[key], strict=False)
            if math.isfinite(share)
        ]
        chart: alt.Chart = (
            alt.Chart(alt.Data(values=records), width=width, height=height)  # type: ignore[arg-type]
            .mark_bar()
            .encode(
                x=alt.X("p:N", sort=None, title="probability of the target p"),
                xOffset=alt.XOffset("of:N", sort=list(names.values())),
                y=alt.Y("share:Q", title="share", axis=alt.Axis(format="%")),
                color=alt.Color("of:N", sort=list(names.values()), title="share of the"),
                tooltip=["p:N", "of:N", alt.Tooltip("share:Q", format=".1%")],
            )
        )
        return chart


def _pull(loss: SingleLabelLoss, scores: Tensor, targets: Targets) -> Tensor:
    """How hard each row pulls at its logits, (N, d1, ...)."""
    target = targets.target
    if targets.valid is not None:
        target = target.masked_fill(~targets.valid, loss.ignore_index)
    with torch.enable_grad():
        z = scores.to(accumulation_dtype(scores)).detach().clone().requires_grad_()
        (grad,) = torch.autograd.grad(without_reduction(loss)(z, target).sum(), z)
    return grad.abs().sum(1) / 2


def _ratio(total: float, n: float) -> float:
    return total / n if n else math.nan
