"""Folders of images, with a folder for each class."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from lossfit.compare import files
from lossfit.compare.data.sources import images
from lossfit.compare.data.sources.raw_table import VALIDATION, Raw, digest
from lossfit.compare.errors import InputError, listed

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TARGET = "class"
_PARTS = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing", "tst", "holdout"),
}


def part_of(name: str) -> str | None:
    """Which split a folder of this name holds, "train", "validation" or "test"; None for other names."""
    word = re.sub(r"[ _-]*(set|data|images?|imgs?|split|folder)$", "", name.lower())
    return next((part for part, names in _PARTS.items() if word in names), None)


class Inside(NamedTuple):
    """The files in a folder and below.

    Attributes:
        images: those that are read.
        hidden: how many are hidden, or in hidden folders.
        others: how many are no images, by their suffix.
    """

    images: list[Path]
    hidden: int
    others: Counter[str]


def inside(path: Path) -> Inside:
    """What a folder holds; hidden files, and checkpoints of notebooks, are not read.

    Raises:
        InputError: an image is a link that leads out of the folder.
    """
    shown, hidden, others = [], 0, Counter[str]()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        if any(_is_hidden(part) for part in file.relative_to(path).parts):
            hidden += 1
        elif file.suffix.lower() in SUFFIXES:
            if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
                raise InputError(f"The image {str(file)!r} is a link that leads out of the folder; put the file there.")
            shown.append(file)
        else:
            others[file.suffix.lower() or file.name] += 1
    return Inside(shown, hidden, others)


def notes_of(found: Iterable[Inside]) -> list[str]:
    """What is not read of folders."""
    found = list(found)
    hidden, others = sum(one.hidden for one in found), sum((one.others for one in found), Counter[str]())
    notes = [f"Left out: {hidden} hidden files."] if hidden else []
    if others:
        told = ", ".join(f"{suffix} ({count})" for suffix, count in others.most_common(5))
        notes.append(f"Left out: {others.total()} files that are no images of a kind that is read: {told}.")
    return notes


def read(path: Path, size: tuple[int, int] | None = None, *, skip_unreadable: bool = False) -> Raw:
    """Images at FOLDER/CLASS/NAME.png, or at FOLDER/train/CLASS/NAME.png and FOLDER/test/CLASS/NAME.png.

    Folders are splits if their names say so, in any case and with endings such as _set.

    Raises:
        InputError: there are no folders of classes, one holds no image, folders of splits and of classes are side by
            side, or an image cannot be read.
    """
    folders = _folders(path)
    parts = {folder: part_of(folder.name) for folder in folders}
    if parted := bool(folders) and any(parts.values()):
        _check_parts(path, parts)
        each = [(*one, part == "test") for folder, part in parts.items() for one in _classes(folder, _folders(folder))]
    else:
        _check_nested(path, folders)
        each = [(*one, False) for one in _classes(path, folders)]
    found = [(file, name, of_test) for name, within, of_test in each for file in within.images]
    paths = [file for file, _, _ in found]
    read = images.read([str(p) for p in paths], paths.__getitem__, size, skip_unreadable=skip_unreadable)
    found = [found[i] for i in read.kept]
    test = np.array([of_test for _, _, of_test in found])
    names = [name for _, name, _ in found]
    notes = [*read.notes, *notes_of(within for _, within, _ in each)]
    beside = [p for p in path.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES and not _is_hidden(p.name)]
    if beside:
        notes.append(f"Left out: {len(beside)} images beside the folders of classes, such as {beside[0].name!r}.")
    if parted and "validation" in parts.values():
        notes.append(VALIDATION)
    return Raw(
        pl.DataFrame({TARGET: names}),
        digest(read.pixels.tobytes(), "\n".join(names).encode(), test.tobytes()),
        read.pixels,
        TARGET,
        test if test.any() else None,
        notes=notes,
    )


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def _folders(path: Path) -> list[Path]:
    return sorted(files.child(path, p.name) for p in path.iterdir() if p.is_dir() and not _is_hidden(p.name))


def _check_parts(path: Path, parts: dict[Path, str | None]) -> None:
    """Raise InputError if the folders are not all splits, or none is to train on."""
    splits = [folder.name for folder, part in parts.items() if part]
    others = [folder.name for folder, part in parts.items() if not part]
    if others:
        raise InputError(
            f"The folder {str(path)!r} holds {listed(splits)}, which look like splits, beside {listed(others)}. "
            "Expected splits alone, each with a folder for each class, or folders of classes alone."
        )
    if "train" not in parts.values():
        raise InputError(
            f"The folder {str(path)!r} holds the splits {listed(splits)} and none to train on. Name the folder of "
            f"one of them, such as {shlex.quote(str(next(iter(parts))))}."
        )
    twice = [name for name, count in Counter(parts.values()).items() if count > 1]
    if twice:
        raise InputError(f"The folder {str(path)!r} holds several folders of the split {twice[0]!r}: {listed(splits)}.")


def _check_nested(path: Path, folders: list[Path]) -> None:
    """Raise InputError if the folders do not hold images but the folders of classes."""
    below = {folder: _folders(folder) for folder in folders}
    bare = all(not any(p.suffix.lower() in SUFFIXES for p in folder.iterdir()) for folder in folders)
    if len(folders) == 1 and below[folders[0]] and bare:
        raise InputError(
            f"The folder {str(path)!r} holds the single folder {folders[0].name!r}, with folders in it. Name that one: "
            f"{shlex.quote(str(folders[0]))}"
        )
    names = [{folder.name for folder in inner} for inner in below.values()]
    common = set.intersection(*names) if names else set()
    if len(folders) > 1 and len(common) > 1 and bare:
        raise InputError(
            f"The folders {listed(folder.name for folder in folders)} in {str(path)!r} each hold the folders "
            f"{listed(sorted(common))}, which look like the classes. Bring the images of each class into one folder."
        )


def _classes(path: Path, folders: list[Path]) -> list[tuple[str, Inside]]:
    """The classes, and the files of each."""
    if not folders:
        tables = sorted(p.name for p in path.iterdir() if p.suffix.lower() in (".csv", ".tsv", ".parquet", ".jsonl"))
        pattern = shlex.quote(str(path / f"*{Path(tables[0]).suffix}")) if tables else ""
        advice = f" To read its tables together, pass {pattern}." if tables else ""
        raise InputError(
            f"Expected the folder {str(path)!r} to hold a folder of images for each class, or a saved Hugging Face "
            f"dataset, but there is neither.{advice}"
        )
    found = [(folder.name, inside(folder)) for folder in folders]
    for name, within in found:
        if not within.images:
            raise InputError(f"The folder {str(path / name)!r} of a class holds no image ({', '.join(SUFFIXES)}).")
    return found
