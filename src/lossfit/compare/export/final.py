"""The model to use: the loss that a comparison recommends, trained once more on all its rows."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossfit.compare import device
from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.sampling import RANGES
from lossfit.compare.data import folds
from lossfit.compare.data.dataset import BUNDLED, Dataset
from lossfit.compare.data.sources import are_there
from lossfit.compare.data.sources.tables import STDIN
from lossfit.compare.errors import InputError, listed
from lossfit.compare.export.model import Model
from lossfit.compare.export.reading import Reading
from lossfit.compare.features import make
from lossfit.compare.features.preparation import Preparation
from lossfit.compare.outcome import versions
from lossfit.compare.plan import Plan
from lossfit.compare.running.finished import read_plan, read_summary
from lossfit.compare.training import models, train
from lossfit.compare.training.task import Limits, Recipe
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
    """Train the loss that the comparison in ``folder`` advises, or another of it, with its setting there.

    All rows are used, but for given rows to test on, for as many steps as the comparison found; the step after training
    has the numbers that it fitted. Labels are those of the data, without the noise that the comparison may have added;
    of votes, one is drawn for each row.

    Args:
        folder: of a finished comparison.
        loss: the candidate to train, if not the advised one.
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
    _check_entry(plan, entry, len(data.classes), folder)
    return fit(plan, data, entry, network, progress)


def _check_entry(plan: Plan, entry: dict[str, Any], classes: int, folder: Path) -> None:
    """Raise InputError unless this lossfit can do what an entry says."""
    try:
        candidate = candidates.candidate(entry["loss"], plan.kind.family)
    except KeyError:
        candidate = None
    if candidate is None or candidate.search.keys() != entry["params"].keys() or candidate.tuned != entry["tuned"]:
        raise InputError(
            f"The summary in {str(folder)!r} has a loss that this lossfit does not know: {entry['loss']!r} with "
            f"{listed(entry['params']) or 'no settings'}."
        )
    numbers = {"": 0, "temperature": 1}.get(candidate.tuned, classes)
    if len(entry["step"]) != numbers or entry["training"]["steps"] > entry["training"]["of"]:
        raise InputError(f"The summary in {str(folder)!r} has other numbers for {entry['loss']!r} than it needs.")


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
    entry: dict[str, Any],
    network: str,
    progress: Callable[[float], None] = lambda share: None,
    limits: Limits = Limits(),  # noqa: B008
) -> Model:
    """Train a network of some kind on all rows by a candidate, as the summary has its ``entry``."""
    candidate, training = candidates.candidate(entry["loss"]), entry["training"]
    setting = {**{name: training[name] for name in RANGES}, **entry["params"]}
    used, labels = folds.whole(data, plan.seed)
    read, _ = make.reader(data, plan.text_features, plan.embedding)
    rows = make.rows_of(data, read)
    # The medians too, so that the model can fill in what is missing in other rows.
    preparation, matrix = Preparation.fit(rows.take(used), missing=rows.numeric is not None)
    architecture = models.choose(network, preparation.width, len(data.classes), data.image)
    where = device.choose(plan.device)
    recipe = Recipe(candidate, [setting], len(data.classes), architecture, (), limits, where)
    planned = limits.steps_for(len(used))
    steps = max(1, round(planned * training["steps"] / training["of"]))
    weight = None if data.weight is None else data.weight[used]
    state = train.train_whole(recipe, matrix, labels[used], weight, plan.seed * 1_000_003, (steps, planned), progress)
    if not all(value.isfinite().all() for value in state.values() if value.is_floating_point()):
        raise InputError(f"The training of {candidate.name} did not end in finite numbers; no model was written.")
    module = architecture.module()
    module.load_state_dict(state)
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
        offset=entry["step"] if candidate.tuned in ("prior", "thresholds") else None,
        temperature=entry["step"][0] if candidate.tuned == "temperature" else None,
        trained={
            "training": {name: setting[name] for name in RANGES},
            "rows": len(used),
            "steps": steps,
            "of": planned,
            "seed": plan.seed,
            "source": plan.source,
            "data": data.fingerprint,
            "versions": versions(),
        },
    )


def _entry(summary: dict[str, Any], loss: str | None) -> dict[str, Any]:
    entries = {entry["loss"]: entry for entry in summary["losses"]}
    check_choice("--loss", loss or summary["advised"]["loss"], entries)
    chosen: dict[str, Any] = entries[loss or summary["advised"]["loss"]]
    return chosen


def is_offered(source: str | tuple[str, ...]) -> bool:
    """Whether a file may name this source: bundled data, or what is below the current folder."""
    each = [Path(name) for name in ((source,) if isinstance(source, str) else source) if name not in BUNDLED]
    return not any(path.is_absolute() or ".." in path.parts for path in each)


def _data(plan: Plan, fingerprint: str, source: str | None, test: str | None) -> Dataset:
    """The rows of the comparison, read again: from where the user says, or below the current folder."""
    for option, there, named in (("--source", plan.source, source), ("--test", plan.test, test)):
        if there is not None and named is None and not is_offered(there):
            raise InputError(
                f"The comparison was made with {_told(there)}, outside of the current folder. A file does not choose "
                f"what is read: name it by {option} {shlex.join([there] if isinstance(there, str) else there)}."
            )
    now = replace(plan, source=source or plan.source, test=test or plan.test)
    for option, there in (("--source", now.source), ("--test", now.test)):
        if there == STDIN:
            raise InputError(
                f"The data of the comparison is read again, but came from the standard input; {option} names a file "
                "of it."
            )
        if there is not None and there not in BUNDLED and not are_there(there):
            raise InputError(
                f"The data of the comparison is read again, but {_told(there)} is not there; {option} names where it "
                "is."
            )
    data = now.load()
    if data.fingerprint != fingerprint:
        told = " and ".join(_told(name) for name in (now.source, now.test) if name is not None)
        raise InputError(
            f"The data in {told} is not what the comparison was made with: it has changed since, or is other data. "
            "Run the comparison again, or name the file that it was made with by --source."
        )
    return data


def _told(source: str | tuple[str, ...]) -> str:
    return repr(source) if isinstance(source, str) else listed(source)
