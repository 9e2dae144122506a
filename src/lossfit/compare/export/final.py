"""The model to use: the loss that a comparison recommends, trained once more on all its rows."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lossfit.compare import device
from lossfit.compare.candidates import candidates
from lossfit.compare.data import splits
from lossfit.compare.data.dataset import BUNDLED, Dataset
from lossfit.compare.errors import InputError, listed
from lossfit.compare.export.model import Model
from lossfit.compare.export.reading import Reading
from lossfit.compare.features import make
from lossfit.compare.features.preparation import Preparation
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.scoring import posthoc
from lossfit.compare.training import models, train
from lossfit.compare.training.task import Recipe, SplitRows, Task
from lossfit.compare.verdict.finished import read_plan, read_summary
from lossfit.core.checks import check_choice


def export(
    folder: Path,
    *,
    loss: str | None = None,
    source: str | None = None,
    test: str | None = None,
    architecture: str | None = None,
    embedding: str | None = None,
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
        architecture: ``package.module:factory``, needed where the comparison trained a network of your own: its folder
            does not choose what code runs.
        embedding: the embedding model, needed where the comparison read texts by another than lossfit's own.
        progress: called now and then with the share of the work done.

    Raises:
        InputError: the folder holds no finished comparison, the loss did not take part, the data is not there or has
            changed, or training did not end in finite numbers.
    """
    plan, found = read_plan(folder)
    replace(plan, model="auto").check()
    summary = read_summary(folder)
    entry = _entry(summary, loss)
    network = _network(summary["architecture"]["kind"], architecture)
    plan = replace(plan, embedding=_embedding(plan, embedding))
    data = _data(plan, found["data"], source, test)
    candidate = candidates.candidates(plan.kind.family).get(entry["loss"])
    if candidate is None or candidate.search.keys() != entry["params"].keys():
        raise InputError(
            f"The summary in {str(folder)!r} has a loss that this lossfit does not know: {entry['loss']!r} with "
            f"{listed(entry['params']) or 'no settings'}."
        )
    setting = {**entry["training"], **entry["params"]}
    return fit(plan, data, candidate, setting, network, progress)


def _network(kind: str, named: str | None) -> str:
    """The network to train: one of the user's own only if the user names it."""
    if ":" not in kind:
        if named is not None:
            raise InputError(f"The comparison trained no network of your own but {kind!r}; leave out --model.")
        return kind
    if named is None:
        raise InputError(
            f"The comparison trained a network of someone's own, {kind!r}. A file does not choose what code runs: if "
            f"you trust it, name it by --model {shlex.quote(kind)}."
        )
    return named


def _embedding(plan: Plan, named: str | None) -> str | None:
    if plan.embedding in (None, make.PACKAGED) or named is not None:
        return named or plan.embedding
    raise InputError(
        f"The comparison read texts by the embedding model {plan.embedding!r}, which may bring code of its own. If you "
        f"trust it, name it by --embedding {shlex.quote(str(plan.embedding))}."
    )


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


def _entry(summary: dict[str, Any], loss: str | None) -> dict[str, Any]:
    entries = {entry["loss"]: entry for entry in summary["losses"]}
    check_choice("--loss", loss or summary["recommended"]["loss"], entries)
    chosen: dict[str, Any] = entries[loss or summary["recommended"]["loss"]]
    return chosen


def is_offered(source: str) -> bool:
    """Whether a file may name this source: bundled data, or what is below the current folder."""
    return source in BUNDLED or not (Path(source).is_absolute() or ".." in Path(source).parts)


def _data(plan: Plan, fingerprint: str, source: str | None, test: str | None) -> Dataset:
    """The rows of the comparison, read again: from where the user says, or below the current folder."""
    for option, there, named in (("--source", plan.source, source), ("--test", plan.test, test)):
        if there is not None and named is None and not is_offered(there):
            raise InputError(
                f"The comparison was made with {there!r}, outside of the current folder. A file does not choose what "
                f"is read: name it by {option} {shlex.quote(there)}."
            )
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
