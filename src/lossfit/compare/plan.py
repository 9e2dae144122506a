"""What to compare, as the user asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from lossfit.compare import device
from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.candidates import Candidate
from lossfit.compare.data import dataset
from lossfit.compare.data.columns import Roles
from lossfit.compare.data.folds import FOLDS, LEAST_FOLDS, REPEATS
from lossfit.compare.data.sources.dialect import FileOptions
from lossfit.compare.errors import InputError
from lossfit.compare.scoring.tasks import MULTI_LABEL, SINGLE_LABEL, Kind
from lossfit.compare.training.models import architecture
from lossfit.core.checks import check_choice

RACING = 0.05
"""The least probability of being best with which a loss takes part in another repeat."""
TRIALS, QUICK_TRIALS = 8, 4
"""Settings of each loss, and with --quick."""
MAX_ROWS = 20_000
"""Rows that take part, if the user does not say.

By ``benchmarks/large.py`` on a busy machine, cross-entropy's accuracy at 5,000, 20,000 and 70,000 rows was 92.6, 96.6
and 98.6% on images of 28 x 28 pixels; at 5,000, 20,000 and 120,000 it was 23.5, 33.7 and 38.1% on texts of 600 classes,
in up to 2.0 GiB. At 20,000 a training took 3 to 5 s.
"""


@dataclass(frozen=True)
class Plan:
    """A comparison, as the user asks for it. What it leaves open has the command's defaults."""

    source: str | tuple[str, ...]
    target: str | tuple[str, ...] | None = None
    text: str | tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    impute: bool = False
    embedding: str | None = None
    metric: str = "accuracy"
    losses: str = "all"
    folds: int = FOLDS
    repeats: int = REPEATS
    trials: int = TRIALS
    label_noise: float = 0.0
    model: str = "auto"
    seed: int = 0
    votes: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    group: str | None = None
    weight: str | None = None
    test: str | None = None
    test_column: str | None = None
    max_rows: int = MAX_ROWS
    device: str = "auto"
    text_features: str = "auto"
    separator: str | None = None
    encoding: str | None = None
    comment: str | None = None
    skip_rows: int = 0
    skip_unreadable: bool = False
    na_values: tuple[str, ...] = ()
    keep_na: tuple[str, ...] = ()
    date_order: str | None = None
    multi_label: bool = False

    @property
    def kind(self) -> Kind:
        """Several targets are classes of which any number may be right, and so are those of one that holds several."""
        several = isinstance(self.target, tuple) and len(self.target) > 1
        return MULTI_LABEL if several or self.multi_label else SINGLE_LABEL

    @property
    def files(self) -> FileOptions:
        """How files are written."""
        return FileOptions(self.separator, self.encoding, self.comment, self.skip_rows, self.skip_unreadable)

    @property
    def candidates(self) -> list[Candidate]:
        """What takes part, the reference first."""
        pairs = ((c, candidates.tuned(c, self.metric, self.kind.family)) for c in self.trained)
        return [candidate for pair in pairs for candidate in pair if candidate is not None]

    @property
    def trained(self) -> list[Candidate]:
        """Those that need trainings of their own."""
        return candidates.choose(self.losses, self.metric, self.kind.family)

    @property
    def free(self) -> Candidate | None:
        """What costs no more than the reference: its models, after the step that helps the metric, if there is one."""
        return candidates.tuned(self.trained[0], self.metric, self.kind.family)

    def load(self) -> dataset.Dataset:
        """The rows."""
        return dataset.read(self.source, self.roles, self.test, self.files)

    @property
    def roles(self) -> Roles:
        """Of the columns."""
        return Roles(
            target=_tuple(self.target),
            votes=self.votes,
            text=_tuple(self.text),
            drop=self.drop,
            numeric=self.numeric,
            categorical=self.categorical,
            group=self.group,
            weight=self.weight,
            test_column=self.test_column,
            impute=self.impute,
            na_values=self.na_values,
            keep_na=self.keep_na,
            date_order=self.date_order,
            multi_label=self.multi_label,
        )

    def check(self) -> None:
        """Raise InputError on what cannot be run."""
        check_choice("--metric", self.metric, self.kind.choices())
        if self.date_order is not None:
            check_choice("--date-order", self.date_order, ("dmy", "mdy"))
        self.files.check()
        architecture.check_name(self.model)
        device.choose(self.device)
        candidates.choose(self.losses, self.metric, self.kind.family)
        for name, low in (("folds", LEAST_FOLDS), ("repeats", 1), ("trials", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise InputError(f"Expected --{name} of at least {low}, but got {getattr(self, name)}.")
        if self.seed >= 1 << 32:
            raise InputError(f"Expected --seed below 2^32, but got {self.seed}.")
        if self.max_rows < 0:
            raise InputError(f"Expected --max-rows of at least 0, where 0 is no limit, but got {self.max_rows}.")
        if not 0 <= self.label_noise < 1:
            raise InputError(f"Expected --label-noise in [0, 1), but got {self.label_noise}.")


def _tuple(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names or ()
