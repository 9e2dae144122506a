"""The model to use: the loss that a comparison recommends, trained once more on all its rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import lossfit
from lossfit.compare import device
from lossfit.compare.candidates import candidates
from lossfit.compare.data import splits
from lossfit.compare.data.dataset import BUNDLED, Dataset
from lossfit.compare.errors import InputError, first_line
from lossfit.compare.export.model import Model
from lossfit.compare.export.reading import Reading
from lossfit.compare.features import make
from lossfit.compare.features.preparation import Preparation
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.scoring import posthoc
from lossfit.compare.training import models, train
from lossfit.compare.training.task import Recipe, SplitRows, Task
from lossfit.core.checks import check_choice


def export(
    folder: Path,
    *,
    loss: str | None = None,
    source: str | None = None,
    test: str | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Model:
    """Train the loss that the comparison in ``folder`` recommends, or another of it, with its setting there.

    All rows are used, but for given rows to test on: four of five are trained on, and one of five, drawn by the
    comparison's first split, chooses the checkpoint, and the temperature or prior where that is what is recommended.
    (The comparison itself trained on three of five.) Labels are those of the data, without the noise that the
    comparison may have added; of votes, one is drawn for each row.

    Args:
        folder: of a finished comparison.
        loss: the candidate to train, if not the recommended one.
        source: where the data is now, if not where it was.
        test: where the given rows to test on are now, if not where they were.
        progress: called now and then with the share of the work done.

    Raises:
        InputError: the folder holds no finished comparison, the loss did not take part, the data is not there or has
            changed, or training did not end in finite numbers.
    """
    plan, fingerprint = read_plan(folder)
    summary = _summary(folder)
    entry, network = _entry(summary, loss), summary["architecture"]["kind"]
    data = _data(plan, fingerprint, source, test)
    setting = {**entry["training"], **entry["params"]}
    return fit(plan, data, candidates.candidate(entry["loss"]), setting, network, progress)


def fit(
    plan: Plan,
    data: Dataset,
    candidate: candidates.Candidate,
    setting: candidates.Setting,
    network: str,
    progress: Callable[[float], None] = lambda share: None,
) -> Model:
    """Train a network of some kind by one candidate with one setting on all rows, as :func:`export` says."""
    split = splits.draw(data, 1, plan.seed)[0]
    if data.test is None:
        split = replace(split, train=np.concatenate([split.train, split.test]))
    split = replace(split, test=split.test[:0])
    read, _ = make.reader(data, plan.text_features, plan.embedding)
    rows = make.rows_of(data, read)
    # The medians too, so that the model can fill in what is missing in other rows.
    preparation, matrix = Preparation.fit(rows.take(split.train), missing=rows.numeric is not None)
    architecture = models.choose(network, preparation.width, len(data.classes), data.image)
    recipe = Recipe(
        candidate, [setting], len(data.classes), architecture, plan.metric, device=device.choose(plan.device)
    )
    matrices = (matrix, preparation(rows.take(split.validation)), matrix[:0])
    task = Task(recipe, SplitRows([split], [matrices], [plan.seed * 1_000_003], data.labels, data.weight))
    found = train.train_one(task, progress)
    if not found.step:
        raise InputError(f"The training of {candidate.name} did not end in finite numbers; no model was written.")
    module = architecture.module()
    module.load_state_dict(found.state)
    return Model(
        candidate.name,
        candidate.describe(setting),
        plan.kind.family,
        plan.metric,
        data.classes,
        list(data.target),
        [] if data.votes is None else data.classes,
        plan.weight,
        Reading.of(data, read, plan.impute),
        preparation,
        architecture,
        module,
        **_tuned(task, found),
        trained={
            "training": {name: setting[name] for name in ("learning_rate", "weight_decay")},
            "rows": len(split.train),
            "rows_to_choose_on": len(split.validation),
            "steps": found.step,
            "seed": plan.seed,
            "source": plan.source,
            "data": data.fingerprint,
            "versions": engine.versions(),
        },
    )


def _tuned(task: Task, found: train.Trained) -> dict[str, Any]:
    """What is free, found on the rows that the checkpoint was chosen on."""
    weight = task.rows.weights("validation")
    if task.recipe.candidate.tuned == "prior":
        return {"offset": posthoc.prior_offsets(found.log_p, found.labels, task.recipe.metric, weight)[0].tolist()}
    if task.recipe.candidate.tuned == "temperature":
        return {"temperature": posthoc.temperatures(found.log_p, found.labels, weight).item()}
    if task.recipe.candidate.tuned == "thresholds":
        return {"offset": posthoc.threshold_offsets(found.log_p, found.labels, task.recipe.metric, weight)[0].tolist()}
    return {}


def read_plan(folder: Path) -> tuple[Plan, str]:
    """The plan of a comparison, and the fingerprint of its data."""
    if not (folder / "plan.json").is_file():
        raise InputError(f"The folder {str(folder)!r} holds no comparison; `lossfit compare` writes one.")
    found = _json(folder / "plan.json")
    names = {field.name for field in dataclasses.fields(Plan)}
    unknown = [name for name in found if name not in names | {"data", "lossfit"}]
    if unknown or "source" not in found or "data" not in found:
        raise InputError(
            f"The comparison in {str(folder)!r} was written by lossfit {found.get('lossfit')}, whose plan this lossfit "
            f"{lossfit.__version__} does not know."
        )
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if k in names}
    return Plan(**given), found["data"]


def _summary(folder: Path) -> dict[str, Any]:
    if not (folder / "summary.json").is_file():
        raise InputError(f"The comparison in {str(folder)!r} is not finished; --resume goes on with it.")
    return _json(folder / "summary.json")


def _entry(summary: dict[str, Any], loss: str | None) -> dict[str, Any]:
    entries = {entry["loss"]: entry for entry in summary["losses"]}
    check_choice("--loss", loss or summary["recommended"]["loss"], entries)
    chosen: dict[str, Any] = entries[loss or summary["recommended"]["loss"]]
    return chosen


def _data(plan: Plan, fingerprint: str, source: str | None, test: str | None) -> Dataset:
    """The rows of the comparison, read again."""
    now = replace(plan, source=source or plan.source, test=test or plan.test)
    for option, there in (("--source", now.source), ("--test", now.test)):
        if there is not None and there not in BUNDLED and not Path(there).exists():
            raise InputError(
                f"The data of the comparison is read again, but {there!r} is not there; {option} names where it is."
            )
    data = now.load()
    if data.fingerprint != fingerprint:
        told = " and ".join(repr(name) for name in (now.source, now.test) if name is not None)
        raise InputError(
            f"The data in {told} is not what the comparison was made with: it has changed since, or is other data. "
            "Run the comparison again, or name the file that it was made with by --source."
        )
    return data


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The file {str(path)!r} cannot be read as JSON: {first_line(error)}") from error
    return found
