"""What other test rows would change, where all splits are tested on the same ones.

Splits that share all test rows do not show it: what these rows do to a loss is the same in every split. It is estimated
from the rows themselves, by leaving out a tenth of them at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lossfit.compare.scoring.metrics import Metric

GROUPS = 10


def groups(labels: np.ndarray) -> Tensor:
    """Which tenth each row is in (N,): each class is spread over all, if one class is right."""
    order = np.arange(len(labels)) if labels.ndim == 2 else np.argsort(labels, kind="stable")
    found = torch.empty(len(labels), dtype=torch.int64)
    found[torch.from_numpy(order)] = torch.arange(len(labels)) % min(GROUPS, len(labels))
    return found


def left_out(
    metrics: Mapping[str, Metric], log_p: Tensor, target: Tensor, weight: Tensor | None, tenths: Tensor
) -> dict[str, list[list[float]]]:
    """Every metric of each model without one tenth of the rows at a time, (M, 10).

    Args:
        metrics: by name.
        log_p, target: of the test rows, (M, N, C) and (M, N) or (M, N, C).
        weight: what the rows count (M, N), if they do not count the same.
        tenths: which each row is in (N,).
    """
    found: dict[str, list[Tensor]] = {name: [] for name in metrics}
    for tenth in range(int(tenths.max()) + 1):
        rest = tenths != tenth
        each = None if weight is None else weight[:, rest]
        for name, metric in metrics.items():
            found[name].append(metric.weighted(each).function(log_p[:, rest], target[:, rest]))
    return {name: torch.stack(values, 1).tolist() for name, values in found.items()}
