"""Folders of images, with a folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from lossfit.compare import files
from lossfit.compare.data.sources import images
from lossfit.compare.data.sources.raw_table import VALIDATION, Raw, digest
from lossfit.compare.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
PARTS = {"train", "val", "valid", "validation", "test"}
TARGET = "class"


def read(path: Path, size: tuple[int, int] | None = None) -> Raw:
    """Images at FOLDER/CLASS/NAME.png, or at FOLDER/train/CLASS/NAME.png and FOLDER/test/CLASS/NAME.png.

    Raises:
        InputError: there are no folders of classes, one holds no image, or an image cannot be read.
    """
    folders = _folders(path)
    parts = {folder.name for folder in folders}
    if parted := "train" in parts and parts <= PARTS:
        found = [(file, name, part.name == "test") for part in folders for file, name in _files(part, _folders(part))]
    else:
        found = [(file, name, False) for file, name in _files(path, folders)]
    paths = [file for file, _, _ in found]
    pixels, note = images.read([str(p) for p in paths], paths.__getitem__, size)
    test = np.array([of_test for _, _, of_test in found])
    names = [name for _, name, _ in found]
    notes = [note]
    if parted and parts - {"train", "test"}:
        notes.append(VALIDATION)
    return Raw(
        pl.DataFrame({TARGET: names}),
        digest(pixels.tobytes(), "\n".join(names).encode(), test.tobytes()),
        pixels,
        TARGET,
        test if test.any() else None,
        notes=notes,
    )


def _folders(path: Path) -> list[Path]:
    folders = (p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    return sorted(files.child(path, p.name) for p in folders)


def _files(path: Path, folders: list[Path]) -> list[tuple[Path, str]]:
    """Images and their classes."""
    if not folders:
        raise InputError(
            f"Expected the folder {str(path)!r} to hold a folder of images for each class, or a saved Hugging Face "
            "dataset, but there is neither."
        )
    found = []
    for folder in folders:
        pictures = inside(folder)
        if not pictures:
            raise InputError(f"The folder {str(folder)!r} of a class holds no image ({', '.join(SUFFIXES)}).")
        found += [(file, folder.name) for file in pictures]
    return found


def inside(folder: Path) -> list[Path]:
    """The images in a folder and those below it.

    Raises:
        InputError: one is a link that leads out of the folder.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    for path in found:
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"The image {str(path)!r} is a link that leads out of the folder; put the file there.")
    return found
