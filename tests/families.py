"""A batch for every loss outside of the single-label family, for the laws that hold for all losses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _ranking() -> tuple[Tensor, ...]:
    return torch.randn(7, dtype=torch.float64), torch.tensor([1, 0, 0, 1, 0, 1, 0])


def _tokens() -> tuple[Tensor, ...]:
    return torch.randn(3, 4, 5, dtype=torch.float64), torch.randint(5, (3, 4)), torch.tensor([4, 1, 2])


def _sampled() -> tuple[Tensor, ...]:
    return -3 * torch.rand(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)


def _tagged() -> tuple[Tensor, ...]:
    weights = (torch.randn(3, 3).double(), torch.randn(3).double(), torch.randn(3).double())
    return torch.randn(4, 5, 3, dtype=torch.float64), torch.randint(3, (4, 5)), *weights, torch.tensor([5, 1, 2, 4])


def _views() -> tuple[Tensor, ...]:
    return torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


def _student_and_teacher() -> tuple[Tensor, ...]:
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64)
    return student, teacher, torch.tensor([0, 2, -100, 1, 1])


def _noise_scores() -> tuple[Tensor, ...]:
    own, noise = torch.randn(5, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    return own, noise, -1 - torch.rand(5, dtype=torch.float64), -1 - torch.rand(3, dtype=torch.float64)


def _sampled_scores() -> tuple[Tensor, ...]:
    own, rivals = torch.randn(5, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    return own, rivals, -torch.rand(3, dtype=torch.float64), torch.tensor([[False, True, False]] * 5)


def _labelled_features() -> tuple[Tensor, ...]:
    return torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1])


def _rows() -> tuple[Tensor, ...]:
    return torch.randn(9, 6, dtype=torch.float64), torch.tensor([0, 0, 1, 2, 0, 3, 1, 4, 5])


def _labels() -> tuple[Tensor, ...]:
    return torch.randn(4, 5, dtype=torch.float64), torch.rand(4, 5, dtype=torch.float64).round()


def _questions() -> tuple[Tensor, ...]:
    return torch.randn(4, 5, 3, dtype=torch.float64), torch.randn(4, 5, 3, dtype=torch.float64).softmax(2)


EXAMPLES: dict[str, Callable[[], tuple[Tensor, ...]]] = {
    "auc": _ranking,
    "partial_auc": _ranking,
    "average_precision": _ranking,
    "token": _tokens,
    "reinforce": _sampled,
    "minimum_risk": _sampled,
    "crf": _tagged,
    "info_nce": _views,
    "nt_xent": _views,
    "sup_con": _labelled_features,
    "nce": _noise_scores,
    "sampled_softmax": _sampled_scores,
    "distillation": _student_and_teacher,
    "balanced_accuracy": _rows,
    "f_beta": _rows,
    "matthews": _rows,
    "cohen_kappa": _rows,
    "top_k_accuracy": _rows,
    "recall_at_precision": _rows,
    "brier": _rows,
    "zlpr": _labels,
    "bce": _labels,
    "focal_bce": _labels,
    "asymmetric": _labels,
    "multi_way": _questions,
}
"""By the loss's name: what it is called with, in float64; the first tensor is what it is differentiated by."""

REQUIRED: dict[str, dict[str, Any]] = {}
"""What a loss cannot be made without."""
