"""Where rows come from: one module for each kind of source, all of which give a :class:`~.raw_table.Raw`."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from lossfit.compare.data.sources import arrays, bundled, folders, hugging_face, tables
from lossfit.compare.data.sources.dialect import FileOptions
from lossfit.compare.data.sources.raw_table import Raw, together
from lossfit.compare.errors import InputError

KINDS = (
    "a .csv, .tsv, .txt, .json, .jsonl, .xlsx, .arrow, .feather, .parquet or .npz file (.csv.gz and .zst too), - for "
    "the standard input, a folder of images with a folder for each class, or a saved Hugging Face dataset"
)


def read(
    source: str | Path | Sequence[str],
    size: tuple[int, int] | None = None,
    options: FileOptions = FileOptions(),  # noqa: B008
) -> Raw:
    """What a file or folder holds.

    Args:
        source: the file or folder; what it is is told by its suffix, or by the files in it. Several tables, or a
            pattern such as "2024-*.csv", are read as one.
        size: height and width that images are brought to; found from the images if not given.
        options: how files are written.

    Raises:
        InputError: it is not there, is of no such kind, or cannot be read.
    """
    paths = _paths(source)
    if len(paths) == 1:
        return _read_one(paths[0], size, options)
    for path in paths:
        if not tables.is_table(path):
            raise InputError(f"Expected several sources to be tables, but got {str(path)!r}.")
    return together([(str(path), _read_one(path, None, options)) for path in paths])


def name_of(source: str | Sequence[str]) -> str:
    """What to call it."""
    first = Path(source if isinstance(source, str) else source[0])
    if str(first) == tables.STDIN:
        return "stdin"
    return first.name.removesuffix("".join(first.suffixes[-2:])) if first.suffix in tables.PACKED else first.stem


def are_there(source: str | Sequence[str]) -> bool:
    """Whether all files and folders of a source are there."""
    try:
        return all(path.exists() for path in _paths(source))
    except InputError:
        return False


def _paths(source: str | Path | Sequence[str]) -> list[Path]:
    found = []
    for name in [source] if isinstance(source, str | Path) else source:
        path = Path(name)
        if any(mark in str(name) for mark in "*?[") and not path.exists():
            inside = sorted(glob.glob(str(name), recursive=True))
            if not inside:
                raise InputError(f"There is no file {str(name)!r}.")
            found += [Path(one) for one in inside]
        else:
            found.append(path)
    return found


def _read_one(path: Path, size: tuple[int, int] | None, options: FileOptions) -> Raw:
    if path.is_dir():
        if hugging_face.is_saved(path):
            return hugging_face.read(path, size)
        return folders.read(path, size, skip_unreadable=options.skip_unreadable)
    if not tables.is_table(path) and path.suffix.lower() != ".npz":
        names = ", ".join(bundled.BUNDLED)
        raise InputError(f"Expected SOURCE to be one of {names} or {KINDS}, but got {str(path)!r}.")
    if str(path) != tables.STDIN and not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    return arrays.read(path) if path.suffix.lower() == ".npz" else tables.read(path, options)
