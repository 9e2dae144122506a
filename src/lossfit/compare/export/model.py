"""A trained model in a folder: weights and what it reads in two files without code, and predictions from it."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor, nn

from lossfit import registry
from lossfit.compare import files
from lossfit.compare.candidates import candidates
from lossfit.compare.data import columns, targets
from lossfit.compare.data.cells import matched
from lossfit.compare.data.formats import STRINGS, BooleanFormat
from lossfit.compare.data.names import near, resolved
from lossfit.compare.data.sources.dialect import FileOptions
from lossfit.compare.errors import InputError, NoFileError, first_line, listed
from lossfit.compare.export.reading import Found, Reading
from lossfit.compare.features import make
from lossfit.compare.features.preparation import Preparation
from lossfit.compare.scoring.tasks import KINDS, Kind
from lossfit.compare.training.models import Architecture
from lossfit.losses.single_label.base import SingleLabelLoss

FORMAT = "lossfit-model"
VERSION = 1
JSON, WEIGHTS = "model.json", "model.safetensors"
FOLDER = "model"
"""Of a model in the folder of its comparison."""
LARGEST = 64 << 30
"""Bytes of the weights."""
_ROWS = 10_000
_NETWORK = "network."


class Predictions(NamedTuple):
    """What a model says of rows.

    Attributes:
        table: one row each, in their order: what was kept of the input; then, where one class is right, ``class``,
            ``confidence`` and ``p_NAME`` for each class; where any number is, 0 or 1 in a column of each class's name,
            and ``p_NAME``.
        metrics: by name, where the target is among the columns.
        labelled: how many rows the metrics are of.
        notes: what should be known.
    """

    table: pl.DataFrame
    metrics: dict[str, float]
    labelled: int
    notes: list[str]


@dataclass(frozen=True)
class Model:
    """A trained model, and all that it needs to read new rows.

    Attributes:
        loss: the candidate that it was trained with.
        params: its hyper-parameters.
        family: "single_label" or "multi_label".
        metric: what it was chosen for.
        classes: their names.
        target: the columns of the labels, for the metrics.
        votes: the columns of votes, instead.
        weight: the column of what rows count.
        reading: what it reads of a row.
        preparation: rows to features.
        architecture: what the network is made from.
        network: features to logits.
        offset: added to the log-probabilities or logits (C,), where a prior or thresholds were tuned.
        temperature: that log-probabilities are divided by, where it was tuned.
        trained: how it came about, to be read by people.
    """

    loss: str
    params: dict[str, float]
    family: str
    metric: str
    classes: list[str]
    target: list[str]
    votes: list[str]
    weight: str | None
    reading: Reading
    preparation: Preparation
    architecture: Architecture
    network: nn.Module
    offset: list[float] | None = None
    temperature: float | None = None
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        return KINDS[self.family]

    def predict(
        self,
        source: Any,
        *,
        keep: tuple[str, ...] = (),
        impute: bool | None = None,
        options: FileOptions = FileOptions(),  # noqa: B008
    ) -> pl.DataFrame:
        """The classes of new rows, as a table of Polars with a row for each, in their order.

        Where one class is right, the columns are ``class``, ``confidence`` and ``p_NAME`` for each class, the
        probabilities. Where any number is, each class has a column of its name, 0 or 1, and ``p_NAME``, the sigmoid of
        its score: above one half it is predicted. A class that has the name of such a column gets ``p_p_NAME`` there.

        Args:
            source: a file of a table, an .npz file, an image or a folder of images; or a table (of Polars, of pandas,
                or a dict of lists), or an array (N, features).
            keep: columns to pass on, before the others.
            impute: whether missing values are filled in; if not given, as in the comparison.
            options: how a text file is written.

        Raises:
            InputError: the source cannot be read, lacks columns that the model reads, or holds other things in them.
            TypeError: it is none of these.
        """
        return self.predictions(source, keep=keep, impute=impute, options=options).table

    def predictions(
        self,
        source: Any,
        *,
        keep: tuple[str, ...] = (),
        impute: bool | None = None,
        options: FileOptions = FileOptions(),  # noqa: B008
    ) -> Predictions:
        """As :meth:`predict`, with the metrics where the target is among the columns, and notes."""
        found = self.reading.read(source, self.preparation, impute, options)
        there = found.frame.columns
        keep = tuple(resolved(name, there) for name in keep)
        for name in keep:
            if name not in there:
                raise InputError(f"--keep: there is no column {name!r}. {near(name, there)}")
        scores = self.scores(found)
        table = self._table(scores)
        taken = [name for name in keep if name in table.columns]
        if taken:
            raise InputError(f"--keep: the predictions have a column {taken[0]!r} of their own.")
        table = pl.concat([found.frame.select(list(dict.fromkeys(keep))), table], how="horizontal") if keep else table
        metrics, labelled, notes = self._metrics(found, scores)
        return Predictions(table, metrics, labelled, [*found.notes, *notes])

    @torch.no_grad()
    def scores(self, found: Found) -> Tensor:
        """Log-probabilities (N, C); where any number of classes may be right, logits."""
        self.network.eval()
        rows = found.frame.height
        return torch.cat([self._scores(found, start) for start in range(0, rows, _ROWS)])

    def _scores(self, found: Found, start: int) -> Tensor:
        matrix = self.preparation(found.rows.take(slice(start, start + _ROWS)))
        return self.adjusted(self.network(torch.from_numpy(matrix)))

    def adjusted(self, logits: Tensor) -> Tensor:
        """Logits to log-probabilities, by the rule of the loss and what was tuned after training."""
        if self.family == "multi_label":
            return logits if self.offset is None else logits + logits.new_tensor(self.offset)
        log_p = _log_probabilities(self.loss, self.params, logits)
        if self.offset is not None:
            log_p = (log_p + log_p.new_tensor(self.offset)).log_softmax(1)
        if self.temperature is not None:
            log_p = (log_p / self.temperature).log_softmax(1)
        return log_p

    def _table(self, scores: Tensor) -> pl.DataFrame:
        if self.family == "multi_label":
            chosen = {name: (scores[:, c] > 0).to(torch.int8).numpy() for c, name in enumerate(self.classes)}
            p = scores.sigmoid()
        else:
            p = scores.exp()
            confidence, at = p.max(1)
            chosen = {"class": np.array(self.classes, dtype=object)[at.numpy()], "confidence": confidence.numpy()}
        each: dict[str, np.ndarray] = {}
        for c, name in enumerate(self.classes):
            each[_apart(f"p_{name}", {*chosen, *each})] = p[:, c].numpy()
        return pl.DataFrame({**chosen, **each}, schema_overrides={"class": pl.String} if "class" in chosen else None)

    def _metrics(self, rows: Found, scores: Tensor) -> tuple[dict[str, float], int, list[str]]:
        labels, known, notes = self._labels(rows)
        if labels is None or not known.any():
            return {}, 0, notes
        at = torch.from_numpy(np.flatnonzero(known))
        weight = None
        if self.weight is not None and self.weight in rows.frame.columns:
            numbers = columns.numbers_of(rows.frame[self.weight], rows.missing)
            weight = torch.from_numpy(numbers.cast(pl.Float64).fill_null(0.0).to_numpy()[known].copy()).unsqueeze(0)
        target = torch.from_numpy(labels)[at].unsqueeze(0)
        found = {
            name: metric.weighted(weight).function(scores[at].unsqueeze(0), target).item()
            for name, metric in self.kind.measured(self.metric).items()
        }
        return found, int(known.sum()), notes

    def _labels(self, rows: Found) -> tuple[np.ndarray | None, np.ndarray, list[str]]:
        """Labels, which rows have them, and what is wrong with the others; None if the target is not there."""
        frame, missing = rows.frame, rows.missing
        nothing = np.zeros(frame.height, dtype=bool)
        names = {name: resolved(name, frame.columns) for name in self.votes or self.target}
        if not names or any(there not in frame.columns for there in names.values()):
            return None, nothing, []
        if self.votes:
            votes = targets.votes(pl.DataFrame([columns.numbers_of(frame[there], missing) for there in names.values()]))
            return votes.argmax(1), targets.untied(votes), []
        if self.reading.mark:
            column = frame[names[self.target[0]]]
            return targets.tags(column, missing, self.classes, self.reading.mark)[0], ~nothing, []
        if self.family == "multi_label":
            each = [BooleanFormat().read(frame[there]).to_series() for there in names.values()]
            numbers = pl.DataFrame(each).to_numpy()
            known = np.asarray(np.isin(numbers, (0.0, 1.0)).all(1))
            return numbers == 1.0, known, self._unknown(known)
        column = frame[names[self.target[0]]]
        if column.dtype.is_nested():
            return None, nothing, []
        strings = column.dtype in STRINGS
        values = missing.values(column, self.classes) if strings else missing.numbers(column).cast(pl.String)
        values = matched(values, self.classes)
        number = {name: c for c, name in enumerate(self.classes)}
        labels = np.array([number.get(value, -1) for value in values], dtype=np.int64)
        strange = values.filter(~values.is_in(self.classes).fill_null(True)).unique(maintain_order=True).to_list()
        return labels, labels >= 0, self._unknown(labels >= 0, strange)

    def _unknown(self, known: np.ndarray, strange: Sequence[str] = ()) -> list[str]:
        if known.all() or not (known.any() or strange):
            return []
        told = f", which the model knows no class of: {listed(strange, 3)}" if strange else ""
        return [f"{(~known).sum():,} rows without a known class in {listed(self.target)} are not in the metrics{told}."]

    def save(self, out: Path) -> None:
        """Write model.safetensors and then model.json, so that an interruption leaves no half of a model.

        Raises:
            InputError: the folder holds something else.
        """
        if out.exists() and not (out.is_dir() and _is_free(out)):
            raise InputError(f"The output {str(out)!r} exists and holds something else; name another folder by --out.")
        settings, arrays = self.preparation.stored()
        for name, tensor in self.network.state_dict().items():
            arrays[f"{_NETWORK}{name}"] = np.ascontiguousarray(tensor.detach().numpy())
        weights = save_arrays(arrays)
        contents = {
            "format": FORMAT,
            "version": VERSION,
            "loss": self.loss,
            "params": self.params,
            "family": self.family,
            "metric": self.metric,
            "classes": self.classes,
            "target": self.target,
            "votes": self.votes,
            "weight": self.weight,
            "offset": self.offset,
            "temperature": self.temperature,
            "architecture": self.architecture.to_json(),
            "reading": self.reading.to_json(),
            "preparation": settings,
            "trained": self.trained,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        text = json.dumps(contents, indent=1, allow_nan=False, ensure_ascii=False)
        files.make_folder(out)
        files.write({out / WEIGHTS: weights, out / JSON: text})


def _is_free(out: Path) -> bool:
    """Whether a folder is empty, or holds a model and what else may have been put beside it."""
    names = files.names_in(out)
    return not names or WEIGHTS in names


def load(folder: str | Path, *, architecture: str | None = None, embedding: str | None = None) -> Model:
    """See :func:`lossfit.compare.load_model`."""
    path = Path(folder)
    if not (path / JSON).is_file() and (path / FOLDER / JSON).is_file():
        path = files.child(path, FOLDER)
    if not path.is_dir():
        raise InputError(f"There is no folder {str(path)!r}.")
    if not (path / JSON).is_file():
        if (path / "plan.json").is_file():
            raise InputError(
                f"The folder {str(path)!r} holds a comparison, and no model yet; write it by: lossfit export "
                f"{shlex.quote(str(path))}"
            )
        raise InputError(f"The folder {str(path)!r} holds no {JSON}; `lossfit export` writes one.")
    try:
        contents = files.read_json(path / JSON)
    except InputError as error:
        raise InputError(f"{error} Export the model again.") from error
    if contents.get("format") != FORMAT:
        raise InputError(f"The file {str(path / JSON)!r} does not describe a model of lossfit.")
    if contents.get("version") != VERSION:
        raise InputError(
            f"The model in {str(path)!r} is of version {contents.get('version')!r}; this lossfit reads version "
            f"{VERSION}. Export it again."
        )
    try:
        weights = files.read(path / WEIGHTS, LARGEST)
    except NoFileError as error:
        raise InputError(f"The folder {str(path)!r} lacks {WEIGHTS}; export the model again.") from error
    if hashlib.sha256(weights).hexdigest() != contents.get("weights_sha256"):
        raise InputError(
            f"The file {str(path / WEIGHTS)!r} is not the one that {JSON} was written with: it is cut off, edited or "
            "of another model. Export it again."
        )
    described = _named(contents, path, architecture, embedding)
    with _explained(path):
        arrays = load_arrays(weights)
        found = _checked(described, arrays)
    network = _empty(found["architecture"])
    with _explained(path):
        _fill(network, arrays)
        model = Model(**found, network=network)
        if not model.adjusted(torch.zeros(1, len(model.classes))).isfinite().all():
            raise ValueError("its scores are not finite.")
    return model


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever a changed file leads to, as a sentence that names the folder."""
    try:
        yield
    except Exception as error:
        told = f"{error} is missing." if isinstance(error, KeyError) else first_line(error)
        raise InputError(f"The model in {str(path)!r} cannot be rebuilt: {told} Export it again.") from error


def _named(contents: dict[str, Any], path: Path, architecture: str | None, embedding: str | None) -> dict[str, Any]:
    """The contents with the code that the caller names: a file chooses none."""
    found = dict(contents)
    network, reading = contents.get("architecture"), contents.get("reading")
    if isinstance(network, dict):
        kind = network.get("kind")
        if isinstance(kind, str) and ":" in kind and architecture is None:
            raise InputError(
                f"The model in {str(path)!r} is a network of someone's own, {kind!r}. A file does not choose what code "
                f"runs: if you trust it, name it by --model {shlex.quote(kind)}, in Python by architecture={kind!r}."
            )
        if architecture is not None and not (isinstance(kind, str) and ":" in kind):
            raise InputError(f"The model in {str(path)!r} is no network of your own but {kind!r}; leave out --model.")
        found["architecture"] = {**network, "kind": kind if architecture is None else architecture}
    if isinstance(reading, dict) and reading.get("reader") == "sentence":
        model = reading.get("embedding")
        if model != make.PACKAGED and embedding is None:
            raise InputError(
                f"The model in {str(path)!r} reads texts by the embedding model {model!r}, which may bring code of its "
                f"own. If you trust it, name it by --embedding, in Python by embedding={model!r}."
            )
        found["reading"] = {**reading, "embedding": model if embedding is None else embedding}
    return found


def _checked(contents: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of a model but for its network, each of the type and in the range that it must have."""
    for name, (kind, told) in _KINDS.items():
        if not kind(contents[name]):
            raise ValueError(f"Expected {told} as {name!r}, but got {_short(contents[name])}.")
    classes, offset = contents["classes"], contents["offset"]
    if offset is not None and len(offset) != len(classes):
        raise ValueError(f"Expected an offset for each of {len(classes)} classes, but got {len(offset)}.")
    if contents["family"] not in KINDS or contents["metric"] not in KINDS[contents["family"]].choices():
        raise ValueError(f"There is no metric {contents['metric']!r} of {contents['family']!r}.")
    try:
        candidate = candidates.candidate(contents["loss"], contents["family"])
    except KeyError:
        raise ValueError(f"There is no loss {contents['loss']!r}.") from None
    if contents["params"].keys() != candidate.search.keys():
        raise ValueError(f"Expected the settings {listed(candidate.search)} of {candidate.name}.")
    candidates.make_loss(candidate, **{k: v for k, v in contents["params"].items() if not k.endswith("_power")})
    preparation = Preparation.restore(contents["preparation"], arrays)
    reading = Reading.from_json(contents["reading"])
    _check_widths(reading, preparation)
    architecture = Architecture.from_json(contents["architecture"])
    if architecture.features != preparation.width or architecture.classes != len(classes):
        raise ValueError(
            f"Expected a network of {preparation.width} features and {len(classes)} classes, but got one of "
            f"{architecture.features} and {architecture.classes}."
        )
    own = {name: contents[name] for name in _KINDS}
    return {**own, "preparation": preparation, "reading": reading, "architecture": architecture}


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "loss": (lambda v: isinstance(v, str), "a name"),
    "params": (lambda v: isinstance(v, dict) and all(map(_is_number, v.values())), "numbers by name"),
    "family": (lambda v: isinstance(v, str), "a name"),
    "metric": (lambda v: isinstance(v, str), "a name"),
    "classes": (lambda v: _are_names(v) and len(v) == len(set(v)) > 1, "two classes or more, all different,"),
    "target": (_are_names, "names of columns"),
    "votes": (_are_names, "names of columns"),
    "weight": (lambda v: v is None or isinstance(v, str), "the name of a column or null"),
    "offset": (lambda v: v is None or (isinstance(v, list) and all(map(_is_number, v))), "numbers or null"),
    "temperature": (lambda v: v is None or (_is_number(v) and v > 0), "a positive number or null"),
    "trained": (lambda v: isinstance(v, dict), "an object"),
}


def _short(value: object) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}..."


def _empty(architecture: Architecture) -> nn.Module:
    """The network, to be filled; one of the library's own takes no memory yet, however large the file says it is."""
    if ":" in architecture.kind:
        return architecture.module()
    with torch.device("meta"):
        return architecture.module()


def _fill(network: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Put the weights in place, which must be those of the network, of its types and finite."""
    own = {k.removeprefix(_NETWORK): torch.from_numpy(a) for k, a in arrays.items() if k.startswith(_NETWORK)}
    expected = network.state_dict()
    if own.keys() != expected.keys():
        raise ValueError(f"Expected the weights {listed(expected)}, but got {listed(own)}.")
    for name, value in own.items():
        there = expected[name]
        if (value.shape, value.dtype) != (there.shape, there.dtype):
            raise ValueError(
                f"Expected {there.dtype} of shape {tuple(there.shape)} as {name!r}, but got {value.dtype} of shape "
                f"{tuple(value.shape)}."
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"Expected finite numbers in {name!r}.")
    network.load_state_dict(own, assign=True)


def _check_widths(reading: Reading, preparation: Preparation) -> None:
    """Whether the columns that are read are as many as are prepared."""
    text = {"tfidf": "text", "hashing": "hashed", "sentence": "vectors"}[reading.reader] if reading.text else None
    wanted = {"images": reading.images, "numeric": reading.numeric, "categorical": reading.categorical}
    names = [name for name, columns in wanted.items() if columns] + ([text] if text else [])
    if names != list(preparation.parts):
        raise ValueError(f"Expected the parts {names}, but got {list(preparation.parts)}.")
    if reading.numeric and preparation.parts["numeric"].width != reading.numbers:
        raise ValueError(f"Expected {reading.numbers} means, but got {preparation.parts['numeric'].width}.")
    stored = preparation.stored()[0]
    if reading.categorical and len(stored["categorical"]["common"]) != len(reading.categorical):
        raise ValueError("Expected categories for each column of strings.")
    if text in ("text", "hashed") and len(stored[text]["columns"]) != len(reading.text):
        raise ValueError("Expected words for each column of texts.")
    if reading.images is not None and [*stored["images"]["size"]] != reading.images[:2]:
        raise ValueError("Expected images of one size.")


def _apart(name: str, taken: Collection[str]) -> str:
    """A column's name that no other has."""
    while name in taken:
        name = f"p_{name}"
    return name


def _log_probabilities(name: str, params: dict[str, float], logits: Tensor) -> Tensor:
    candidate = candidates.candidate(name)
    kind = registry.get(candidate.loss)
    if not issubclass(kind, SingleLabelLoss) or kind.probabilities is SingleLabelLoss.probabilities:
        return logits.log_softmax(1)
    loss = candidates.make_loss(candidate, **params)
    assert isinstance(loss, SingleLabelLoss)
    return loss.probabilities(logits).clamp(min=torch.finfo(logits.dtype).tiny).log()
