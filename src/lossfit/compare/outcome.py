"""What a finished comparison consists of."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field

import polars as pl
import torch

import lossfit
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.folds import Folds
from lossfit.compare.plan import Plan
from lossfit.compare.training.models.architecture import Architecture
from lossfit.compare.training.task import Limits


@dataclass(frozen=True)
class Outcome:
    """What a finished comparison consists of.

    Attributes:
        plan, data, folds: what was compared, on which rows.
        results: a row for each candidate, repeat, fold and setting.
        passes: a row for each candidate and pass over the tested rows.
        seconds: what it took.
        trainings: how many models were trained.
        model: the network of the first repeat; its features may be others in the next.
        device, limits: where and how long models trained.
    """

    plan: Plan
    data: Dataset
    folds: Folds
    results: pl.DataFrame
    passes: pl.DataFrame
    seconds: float
    trainings: int
    model: Architecture
    device: str
    limits: Limits = field(default_factory=Limits)


def versions() -> dict[str, str]:
    """What the results may depend on."""
    return {
        "lossfit": lossfit.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "polars": pl.__version__,
        "platform": platform.platform(terse=True),
        "threads": str(torch.get_num_threads()),
    }
