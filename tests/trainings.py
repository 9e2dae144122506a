"""Small trainings of a comparison, and whether two records agree."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.candidates import Setting
from lossfit.compare.data import splits
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.training.models import Architecture
from lossfit.compare.training.task import Limits, Recipe, SplitRows, Task

ROWS, FEATURES, CLASSES = 165, 5, 3
SHORT = Limits(batch=32, steps=24, epochs=1, rungs=(), patience=0)
COUNTS = [80, 50, 35]  # 99 rows to train on: batches of 32 leave some over


def setting(rate: float = 0.02, decay: float = 0.3, **own: float) -> Setting:
    return {"learning_rate": rate, "weight_decay": decay, **own}


def task(
    name: str = "cross_entropy",
    settings: list[Setting] | None = None,
    *,
    count: int = 1,
    hidden: int = 0,
    metric: str = "log_loss",
    features: int = FEATURES,
    noise: float = 0.2,
) -> Task:
    """Three overlapping classes; noise is on training and validation labels."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), COUNTS))
    x = rng.normal(size=(CLASSES, features))[labels] + rng.normal(size=(ROWS, features))
    data = Dataset("test", labels, list("abc"), "")
    drawn = []
    for split in splits.draw(data, count, 0):
        flips = rng.random(ROWS) < noise
        drawn.append(replace(split, seen=np.where(flips, (labels + 1) % CLASSES, labels)))
    x = x.astype(np.float64 if torch.get_default_dtype() == torch.float64 else np.float32)
    matrices = [(x[s.train], x[s.validation], x[s.test]) for s in drawn]
    candidate = candidates.candidates()[name]
    architecture = Architecture("mlp" if hidden else "linear", features, CLASSES, hidden)
    settings = settings or candidates.settings(candidate, 3, 0)
    return Task(
        Recipe(candidate, settings, CLASSES, architecture, metric, limits=SHORT),
        SplitRows(drawn, matrices, [100 + s for s in range(count)], labels),
    )


def changed(whole: Task, **fields: Any) -> Task:
    """A task with other fields of its recipe, of its limits or of its rows."""
    for name, value in fields.items():
        if hasattr(whole.rows, name):
            whole = whole._replace(rows=replace(whole.rows, **{name: value}))
        elif hasattr(whole.recipe, name):
            whole = whole._replace(recipe=replace(whole.recipe, **{name: value}))
        else:
            limits = replace(whole.recipe.limits, **{name: value})
            whole = whole._replace(recipe=replace(whole.recipe, limits=limits))
    return whole


COUNTED = ("class_", "confused_")


def agree(found: dict[str, Any], expected: dict[str, Any], rel: float = 1e-5, leave: tuple[str, ...] = ()) -> None:
    """Whether two records are the same, but for the counts by class, which only the chosen training of a split has."""
    found, expected = ({k: v for k, v in r.items() if not k.startswith(COUNTED)} for r in (found, expected))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key in leave:
            continue
        if isinstance(value, float | list):
            assert np.array(found[key]) == pytest.approx(np.array(value), rel=rel, abs=1e-6, nan_ok=True), key
        else:
            assert found[key] == value, key
