"""Small trainings of a comparison, and whether two records agree."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.candidates import Setting
from lossfit.compare.data import folds
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.running import engine
from lossfit.compare.training.models import Architecture
from lossfit.compare.training.task import FoldRows, Limits, Recipe, Task

ROWS, FEATURES, CLASSES = 165, 5, 3
SHORT = Limits(batch=32, steps=24, epochs=1, rungs=(), patience=0)
QUICK = Limits(steps=24, epochs=1)
"""For whole comparisons of which it does not matter how well they train."""
COUNTS = [80, 50, 35]  # 82 or 83 rows to train on with 4 folds: batches of 32 leave some over


@contextmanager
def short_trainings() -> Iterator[None]:
    """Comparisons in this block, also those of commands, train as short as :data:`QUICK` says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engine.run.__kwdefaults__, "limits", QUICK)
        yield


def setting(rate: float = 0.02, decay: float = 0.3, **own: float) -> Setting:
    return {"learning_rate": rate, "weight_decay": decay, **own}


def task(
    name: str = "cross_entropy",
    settings: list[Setting] | None = None,
    *,
    count: int = 4,
    hidden: int = 0,
    metric: str = "log_loss",
    features: int = FEATURES,
    noise: float = 0.2,
) -> Task:
    """Three overlapping classes in ``count`` folds; noise is on the labels to train and to choose on."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), COUNTS))
    x = rng.normal(size=(CLASSES, features))[labels] + rng.normal(size=(ROWS, features))
    x = x.astype(np.float64 if torch.get_default_dtype() == torch.float64 else np.float32)
    flips = rng.random(ROWS) < noise
    seen = np.where(flips, (labels + 1) % CLASSES, labels)
    candidate = candidates.candidates()[name]
    architecture = Architecture("mlp" if hidden else "linear", features, CLASSES, hidden)
    settings = settings or candidates.settings(candidate, 3, 0)
    recipe = Recipe(candidate, settings, CLASSES, architecture, (metric,), limits=SHORT)
    return Task(recipe, dealt(x, labels, count, seen))


def dealt(x: np.ndarray, labels: np.ndarray, count: int, seen: np.ndarray | None = None) -> FoldRows:
    """Rows dealt out to folds."""
    classes = [str(c) for c in range(labels.shape[1] if labels.ndim == 2 else labels.max() + 1)]
    drawn = folds.draw(Dataset("test", labels, classes, ""), count, 1)
    seen = labels if seen is None else seen
    train = [drawn.train(0, pair) for pair in drawn.pairs]
    held_out = [drawn.held_out(0, pair) for pair in drawn.pairs]
    matrices = [(x[own], x[np.concatenate(out)], x[:0]) for own, out in zip(train, held_out, strict=True)]
    seeds = [100 + m for m in range(len(drawn.pairs))]
    return FoldRows(0, count, drawn.pairs, train, held_out, matrices, seeds, labels, seen, seen, drawn.rows, drawn.test)


def changed(whole: Task, **fields: Any) -> Task:
    """A task with other fields of its recipe, of its limits or of its rows."""
    for name, value in fields.items():
        if name in FoldRows.__dataclass_fields__:
            whole = whole._replace(rows=replace(whole.rows, **{name: value}))
        elif name in Recipe.__dataclass_fields__:
            whole = whole._replace(recipe=replace(whole.recipe, **{name: value}))
        else:
            limits = replace(whole.recipe.limits, **{name: value})
            whole = whole._replace(recipe=replace(whole.recipe, limits=limits))
    return whole


def agree(found: dict[str, Any], expected: dict[str, Any], rel: float = 1e-5, leave: tuple[str, ...] = ()) -> None:
    """Whether two records are the same."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key in leave:
            continue
        if isinstance(value, float | list | np.ndarray):
            assert np.array(found[key]) == pytest.approx(np.array(value), rel=rel, abs=1e-6, nan_ok=True), key
        else:
            assert found[key] == value, key
