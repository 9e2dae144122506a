"""Images to arrays of one size, by Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lossfit.compare.errors import InputError, first_line

LARGEST = 32
"""Images are brought to this height and width, unless all are of one smaller size."""
Opened = Path | IO[bytes]


def read(
    names: Sequence[str], opened: Callable[[int], Opened], size: tuple[int, int] | None, channels: int | None = None
) -> tuple[np.ndarray, str]:
    """Images (N, height, width, channels) in uint8, and a note of what was done to them.

    One channel if all images are grey, else red, green and blue. Images of one size of at most 32 x 32 are kept as they
    are; others are resized to 32 x 32, whatever their proportions.

    Args:
        names: what to call each image in errors.
        opened: from the number of an image to its path or to a file.
        size: height and width, if they are given.
        channels: 1 or 3, if it is given.

    Raises:
        InputError: Pillow is not installed, or an image cannot be read.
    """
    pillow = _pillow()
    sizes, grey = set(), channels != 3
    for i, name in enumerate(names):
        with _open(pillow, opened(i), name) as image:
            if not image.width or not image.height:
                raise InputError(f"The image {name!r} has no pixels.")
            sizes.add((image.height, image.width))
            grey &= channels == 1 or image.mode in ("1", "L", "I;16", "I")
    only = next(iter(sizes)) if len(sizes) == 1 else (LARGEST + 1, 0)
    height, width = size or (only if max(only) <= LARGEST else (LARGEST, LARGEST))
    found = np.empty((len(names), height, width, 1 if grey else 3), dtype=np.uint8)
    for i, name in enumerate(names):
        with _open(pillow, opened(i), name) as image:
            found[i] = _pixels(pillow, image, name, (height, width), grey)
    note = f"Images of {height} x {width} pixels, {'grey' if grey else 'in colour'}"
    if sizes == {(height, width)}:
        return found, f"{note}."
    (low, high), (narrow, wide) = ((min(v), max(v)) for v in zip(*sizes, strict=True))
    return found, f"{note}, resized from heights of {low} to {high} and widths of {narrow} to {wide}."


def _pixels(pillow: Any, image: Any, name: str, size: tuple[int, int], grey: bool) -> np.ndarray:
    try:
        if image.mode in ("I;16", "I"):
            image = image.point(lambda v: v / 257).convert("L")
        image = image.convert("L" if grey else "RGB")
        if (image.height, image.width) != size:
            image = image.resize(size[::-1], pillow.Resampling.BILINEAR)
    except Exception as error:  # each of Pillow's formats has its own
        raise InputError(f"The image {name!r} cannot be read: {first_line(error)}") from error
    return np.asarray(image, dtype=np.uint8).reshape(*size, -1)


def _open(pillow: Any, file: Opened, name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            return pillow.open(file)
    except Exception as error:
        raise InputError(f"The image {name!r} cannot be read: {first_line(error)}") from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("Images need Pillow, which comes with: pip install 'lossfit[compare]'.") from error
    return Image
