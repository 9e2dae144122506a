"""From the name of a metric to its loss."""

from __future__ import annotations

import re
from typing import Any

from lossfit import registry
from lossfit.core.checks import check_choice
from lossfit.losses.base import Loss

_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "accuracy": ("cross_entropy", {}),
    "balanced_accuracy": ("balanced_accuracy", {}),
    "macro_f1": ("f_beta", {}),
    "micro_f1": ("f_beta", {"average": "micro"}),
    "macro_f_beta": ("f_beta", {}),
    "micro_f_beta": ("f_beta", {"average": "micro"}),
    "matthews": ("matthews", {}),
    "cohen_kappa": ("cohen_kappa", {}),
    "quadratic_weighted_kappa": ("cohen_kappa", {"weights": "quadratic"}),
    "top_k_accuracy": ("top_k_accuracy", {}),
    "recall_at_precision": ("recall_at_precision", {}),
    "auc": ("auc", {}),
    "average_precision": ("average_precision", {}),
    "log_loss": ("cross_entropy", {}),
    "brier": ("brier", {}),
}
_ALIASES = {
    "acc": "accuracy",
    "roc_auc": "auc",
    "auroc": "auc",
    "pr_auc": "average_precision",
    "auprc": "average_precision",
    "ap": "average_precision",
    "map": "average_precision",
    "f1": "macro_f1",
    "f1_macro": "macro_f1",
    "f1_micro": "micro_f1",
    "mcc": "matthews",
    "matthews_corrcoef": "matthews",
    "kappa": "cohen_kappa",
    "qwk": "quadratic_weighted_kappa",
    "top_k": "top_k_accuracy",
    "nll": "log_loss",
    "neg_log_loss": "log_loss",
    "cross_entropy": "log_loss",
    "brier_score": "brier",
}
_F = re.compile(r"(macro|micro)_f(\d+(?:\.\d+)?)")


def for_metric(metric: str, **settings: Any) -> Loss:
    """The loss that trains a metric: its smooth form, raised where rows are wrong and equal in first order elsewhere.

    Args:
        metric: accuracy, balanced_accuracy, macro_f1, micro_f1, matthews, cohen_kappa, quadratic_weighted_kappa,
            top_k_accuracy, recall_at_precision, auc, average_precision, log_loss or brier. macro_f2, micro_f0.5 and
            so on are F-beta with that beta; so is macro_f_beta with ``beta=2.0``. The usual other names are known too:
            roc_auc, pr_auc, map, f1 (macro), mcc, kappa, qwk and those of scikit-learn.
        settings: what the class of the loss takes, such as ``k`` of top_k_accuracy, ``precision`` of
            recall_at_precision, ``ignore_index``, or ``steep=False`` for 1 minus the smooth metric itself.

    For accuracy the recipe leads to cross-entropy, and with ``steep=False`` to the expected accuracy. "auc" and
    "average_precision" return losses of the ranking family, called with one score per row.

    Raises:
        ValueError: there is no such metric; the nearest one is suggested.

    Example:
        >>> lossfit.for_metric("macro_f1")
        FBetaLoss(beta=1.0)
        >>> lossfit.for_metric("top_k_accuracy", k=3)
        TopKAccuracyLoss(k=3)
    """
    metric = _ALIASES.get(metric, metric) if isinstance(metric, str) else metric
    if isinstance(metric, str) and (match := _F.fullmatch(metric)) and "beta" not in settings:
        metric, settings = f"{match[1]}_f_beta", {"beta": float(match[2]), **settings}
    known = registry.available_losses()
    check_choice("metric", metric, [name for name, (loss, _) in _LOSSES.items() if loss in known])
    loss, given = _LOSSES[metric]
    if metric == "accuracy" and not settings.pop("steep", True):
        loss = "expected_accuracy"
    return registry.make(loss, **{**given, **settings})
