"""Images to arrays of one size, by Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from lossfit.compare.errors import InputError, first_line

LARGEST = 32
"""Images are brought to this height and width, unless all are of one smaller size."""
Opened = Path | IO[bytes]
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_SIDEWAYS = (5, 6, 7, 8)
_ORIENTATION = 0x0112


class Images(NamedTuple):
    """Images that were read.

    Attributes:
        pixels: (N, height, width, channels), in uint8; in float32, as they are, where they have more than 8 bits.
        kept: the numbers of those that could be read.
        notes: what was done to them.
    """

    pixels: np.ndarray
    kept: list[int]
    notes: list[str]


def read(
    names: Sequence[str],
    opened: Callable[[int], Opened],
    size: tuple[int, int] | None,
    channels: int | None = None,
    *,
    deep: bool | None = None,
    skip_unreadable: bool = False,
) -> Images:
    """Images of one size, turned as their EXIF says.

    One channel if all images are grey, else red, green and blue. Images of one size of at most 32 x 32 are kept as they
    are; others are resized to 32 x 32, whatever their proportions. Grey images of 16 or 32 bits or of floating-point
    numbers keep their values, since features are scaled by what they are.

    Args:
        names: what to call each image in errors.
        opened: from the number of an image to its path or to a file.
        size: height and width, if they are given.
        channels: 1 or 3, if it is given.
        deep: whether images have more than 8 bits, if that is given.
        skip_unreadable: leave out images that cannot be read.

    Raises:
        InputError: Pillow is not installed, an image cannot be read, or some have more than 8 bits and others not.
    """
    pillow = _pillow()
    sizes: dict[int, tuple[int, int]] = {}
    modes: dict[int, str] = {}
    wrong: dict[int, str] = {}
    for i in range(len(names)):
        try:
            with _open(pillow, opened(i)) as image:
                if not image.width or not image.height:
                    raise ValueError("it has no pixels.")
                turned = image.getexif().get(_ORIENTATION) in _SIDEWAYS
                sizes[i] = (image.width, image.height) if turned else (image.height, image.width)
                modes[i] = image.mode
        except Exception as error:  # each of Pillow's formats has its own
            wrong[i] = first_line(error)
    grey = channels != 3 and (channels == 1 or all(mode in ("1", "L", *_DEEP) for mode in modes.values()))
    keep = _keeps_values(modes, names, deep)
    given = set(sizes.values())
    only = next(iter(given)) if len(given) == 1 else (LARGEST + 1, 0)
    height, width = size or (only if max(only) <= LARGEST else (LARGEST, LARGEST))
    found = np.empty((len(names), height, width, 1 if grey else 3), dtype=np.float32 if keep else np.uint8)
    for i in sizes:
        try:
            with _open(pillow, opened(i)) as image:
                found[i] = _pixels(pillow, image, (height, width), grey, keep)
        except Exception as error:  # each of Pillow's formats has its own
            wrong[i] = first_line(error)
    kept = [i for i in range(len(names)) if i not in wrong]
    notes = _left_out(names, wrong, skip_unreadable, len(kept))
    note = f"Images of {height} x {width} pixels, {'grey' if grey else 'in colour'}"
    found = found[kept] if wrong else found
    if keep:
        note += f", with values from {found.min():,.6g} to {found.max():,.6g}"
    if given != {(height, width)}:
        (low, high), (narrow, wide) = ((min(v), max(v)) for v in zip(*given, strict=True))
        note += f", resized from heights of {low} to {high} and widths of {narrow} to {wide}"
    return Images(found, kept, [f"{note}.", *notes])


def _left_out(names: Sequence[str], wrong: dict[int, str], skip: bool, kept: int) -> list[str]:
    if not wrong:
        return []
    first = min(wrong)
    told = f"The image {names[first]!r} cannot be read: {wrong[first]}"
    if len(wrong) > 1:
        told = f"{len(wrong)} of {len(names)} images cannot be read. {told}"
    if not kept:
        raise InputError(told)
    if not skip:
        raise InputError(f"{told.rstrip('.')}. Pass --skip-unreadable to leave such images out.")
    return [f"Left out: {len(wrong)} of {len(names)} images, which cannot be read, such as {names[first]!r}."]


def _keeps_values(modes: dict[int, str], names: Sequence[str], deep: bool | None) -> bool:
    """Whether all images have more than 8 bits, and keep their values."""
    many = [i for i, mode in modes.items() if mode in _DEEP]
    few = [i for i, mode in modes.items() if mode not in _DEEP]
    if deep and few:
        raise InputError(f"Expected images of more than 8 bits, but {names[few[0]]!r} has 8.")
    real = [i for i in many if modes[i] == "F"]
    if real and (few or deep is False):
        other = f", and {names[few[0]]!r} integers of 8 bits" if few else ""
        raise InputError(f"The image {names[real[0]]!r} holds floating-point numbers{other}: their scales differ.")
    return bool(many) and not few and deep is not False


def _pixels(pillow: Any, image: Any, size: tuple[int, int], grey: bool, keep: bool) -> np.ndarray:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if keep:
        image = image.convert("F") if image.mode != "F" else image
        values = np.asarray(image, dtype=np.float32)
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are not finite.")
    elif image.mode in _DEEP:
        image = pillow.fromarray(np.clip(np.asarray(image, dtype=np.float32) / 257, 0, 255).astype(np.uint8))
    if not keep:
        image = image.convert("L" if grey else "RGB")
    if (image.height, image.width) != size:
        image = image.resize(size[::-1], pillow.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32 if keep else np.uint8).reshape(*size, -1)


def _open(pillow: Any, file: Opened) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pillow.DecompressionBombWarning)
        return pillow.open(file)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("Images need Pillow, which comes with: pip install 'lossfit[compare]'.") from error
    return Image
