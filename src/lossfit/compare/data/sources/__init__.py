"""Where rows come from: one module for each kind of source, all of which give a :class:`~.raw.Raw`."""

from __future__ import annotations

from pathlib import Path

from lossfit.compare.data.sources import arrays, bundled, folders, hugging_face, tables
from lossfit.compare.data.sources.raw_table import Raw
from lossfit.compare.errors import InputError

KINDS = (
    "a .csv, .tsv, .parquet or .npz file, a folder of images with a folder for each class, "
    "or a saved Hugging Face dataset"
)


def read(path: Path, size: tuple[int, int] | None = None) -> Raw:
    """What a file or folder holds.

    Args:
        path: the file or folder; what it is is told by its suffix, or by the files in it.
        size: height and width that images are brought to; found from the images if not given.

    Raises:
        InputError: it is not there, is of no such kind, or cannot be read.
    """
    if path.is_dir():
        return hugging_face.read(path, size) if hugging_face.is_saved(path) else folders.read(path, size)
    if path.suffix.lower() not in (".csv", ".tsv", ".parquet", ".npz"):
        names = ", ".join(bundled.BUNDLED)
        raise InputError(f"Expected SOURCE to be one of {names} or {KINDS}, but got {str(path)!r}.")
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    return arrays.read(path) if path.suffix.lower() == ".npz" else tables.read(path)
