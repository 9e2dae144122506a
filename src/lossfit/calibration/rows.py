"""The boundary of the tools for after training: scores and labels are checked, and made rows of float64."""

from __future__ import annotations

import torch
from torch import Tensor

from lossfit.core.checks import check_tensor


def read(
    name: str, scores: Tensor, labels: Tensor, ignore_index: int = -100, *, masked: bool = False
) -> tuple[Tensor, Tensor]:
    """Scores (N, C) or (N, C, d1, ...) as rows (R, C), and their labels (R,), without the ignored ones.

    Args:
        name: what the caller calls the scores.
        masked: whether scores of other classes than the label may be -inf, for classes that are no choice in a row.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.
    """
    check_tensor(name, scores)
    check_tensor("labels", labels)
    if not scores.is_floating_point():
        raise TypeError(f"Expected `{name}` to be floating point, but got {scores.dtype}.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"Expected `labels` to hold integer class indices, but got {labels.dtype}.")
    shape = tuple(scores.shape)
    if len(shape) < 2 or shape[1] < 2:
        raise ValueError(f"Expected `{name}` of shape (N, C) or (N, C, d1, ...) with C of at least 2, but got {shape}.")
    if tuple(labels.shape) != (shape[0], *shape[2:]):
        raise ValueError(
            f"Expected `labels` of shape {(shape[0], *shape[2:])} for `{name}` of shape {shape}, "
            f"but got {tuple(labels.shape)}."
        )
    z = scores.detach().double().movedim(1, -1).reshape(-1, shape[1])
    y = labels.reshape(-1).long()
    valid = y != ignore_index
    wrong = valid & ((y < 0) | (y >= shape[1]))
    if wrong.any():
        raise IndexError(
            f"Expected `labels` to hold class indices in [0, {shape[1]}) or ignore_index={ignore_index}, "
            f"but got {int(y[wrong][0])}."
        )
    z, y = z[valid], y[valid]
    out = z == -torch.inf if masked else torch.zeros_like(z, dtype=torch.bool)
    wrong = ~(z.isfinite() | out)
    if wrong.any():
        expected = "finite, or -inf for classes that are masked out" if masked else "finite"
        raise ValueError(f"Expected `{name}` to be {expected}, but got {_first(z, wrong)}.")
    if (own := out.gather(1, y.unsqueeze(1))).any():
        label = int(y[own.squeeze(1)][0])
        raise ValueError(f"Expected `{name}` above -inf for the label of each row, but got -inf for label {label}.")
    return z, y


def _first(z: Tensor, wrong: Tensor) -> str:
    row, column = wrong.nonzero()[0].tolist()
    return f"{z[row, column].item()} at row {row}, class {column}"
