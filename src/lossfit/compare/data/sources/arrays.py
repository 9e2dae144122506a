"""NumPy's .npz files: X and y, and X_test and y_test if there is a given test set."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import polars as pl

from lossfit.compare import memory_limits
from lossfit.compare.data.sources.raw_table import Raw, digest, with_test
from lossfit.compare.errors import InputError, first_line, listed

NAMES = ("X", "y", "X_test", "y_test")


def read(path: Path, *, labelled: bool = True) -> Raw:
    """X (N, features), or images (N, height, width) or (N, height, width, channels); y (N,).

    Args:
        path: the file.
        labelled: whether y must be there; else it is null where it is not.

    Raises:
        InputError: it is no .npz file, holds other arrays, lacks one, holds Python objects, or the shapes do not fit.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(f"The file {str(path)!r} cannot be read as .npz: it is no archive, or not a whole one.")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            _check_names(path, names, labelled)
            _check_fits(path)
            arrays = {name: _array(path, file, name) for name in names}
    except InputError:
        raise
    except Exception as error:  # of zipfile, zlib, NumPy's reader of headers, and more
        raise InputError(f"The file {str(path)!r} cannot be read as .npz: {first_line(error)}") from error
    fingerprint = digest(path.read_bytes())
    found = _raw(path, arrays, ("X", "y"), fingerprint)
    if "X_test" not in arrays:
        return found
    test = _raw(path, arrays, ("X_test", "y_test"), fingerprint)
    return with_test(found, test, ("X", "X_test"))


def _check_fits(path: Path) -> None:
    """Raise InputError if the arrays are more than the memory has, by what the archive says of them."""
    sizes = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                if file.read(6) != np.lib.format.MAGIC_PREFIX:
                    continue  # told by name later
                file.seek(0)
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            sizes.append(dtype.itemsize * math.prod(shape))
    memory_limits.check_fits(f"The file {str(path)!r}", sum(sizes))


def unlabelled(x: np.ndarray) -> Raw:
    """Rows of an array, as :func:`read` reads those of a file."""
    return _raw(Path("the array"), {"X": x}, ("X", "y"), "")


def _check_names(path: Path, names: list[str], labelled: bool) -> None:
    other = [name for name in names if name not in NAMES]
    if other:
        raise InputError(
            f"Expected the arrays X and y in {str(path)!r}, with X_test and y_test if there is a test set, but it also "
            f"holds {listed(other)}."
        )
    pairs = [("X", "y"), ("X_test", "y_test")] if {"X_test", "y_test"} & set(names) else [("X", "y")]
    lacking = [name for pair in pairs for name in pair if name not in names and (labelled or name != "y")]
    if lacking:
        raise InputError(
            f"The file {str(path)!r} lacks {' and '.join(map(repr, lacking))}; it holds {listed(names) or 'nothing'}."
        )


def _array(path: Path, file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        found = file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"The array {name!r} in {str(path)!r} holds Python objects, which are never read; store numbers, or "
            "strings of NumPy's type str."
        ) from error
    if not isinstance(found, np.ndarray):
        raise InputError(f"{name!r} in {str(path)!r} is no array.")
    return found


def _raw(path: Path, arrays: dict[str, np.ndarray], names: tuple[str, str], fingerprint: str) -> Raw:
    x, y = arrays[names[0]], arrays.get(names[1])
    if x.ndim not in (2, 3, 4) or not (np.issubdtype(x.dtype, np.number) or x.dtype == bool) or np.iscomplexobj(x):
        raise InputError(
            f"Expected {names[0]} in {str(path)!r} to hold numbers of shape (rows, features), or images of shape "
            f"(rows, height, width) or (rows, height, width, channels), but got {x.dtype} of shape {x.shape}."
        )
    if y is not None and (y.ndim != 1 or y.dtype.kind not in "biufUS" or len(y) != len(x)):
        raise InputError(
            f"Expected {names[1]} in {str(path)!r} to hold a class for each of the {len(x)} rows of {names[0]}, but "
            f"got {y.dtype} of shape {y.shape}."
        )
    if x.size == 0:
        raise InputError(f"{names[0]} in {str(path)!r} has shape {x.shape}: there are no rows or no columns.")
    if y is None:
        classes = pl.repeat(None, len(x), dtype=pl.Int64, eager=True).alias("y")
    else:
        classes = pl.Series("y", y.astype(str) if y.dtype.kind in "US" else y)
    if x.ndim == 2:
        columns = pl.DataFrame(x if x.dtype == np.float64 else x.astype(np.float32), schema=_columns(x.shape[1]))
        return Raw(columns.with_columns(classes), fingerprint, target="y", arrays=True)
    images, first = _channels_last(x if x.ndim == 4 else x[..., None])
    if images.dtype != np.uint8:
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            raise InputError(f"The images in {names[0]} of {str(path)!r} hold values that are not finite.")
    notes = [f"Images of {told(images)}{', which came with the channels first' if first else ''}."]
    return Raw(pl.DataFrame({"y": classes}), fingerprint, images, "y", notes=notes)


def _channels_last(images: np.ndarray) -> tuple[np.ndarray, bool]:
    """Images with the channels last, and whether they came first: as few as colours are, or before a square."""
    _, first, height, last = images.shape
    few = (1, 3, 4)
    if (first in few and last not in few) or (last not in few and first < height == last):
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), True
    return images, False


def _columns(count: int) -> list[str]:
    return [f"x{i}" for i in range(count)]


def told(images: np.ndarray) -> str:
    """Their size in words."""
    _, height, width, channels = images.shape
    return f"{height} x {width} pixels" + (f" in {channels} channels" if channels > 1 else "")
