"""Files: the one way in which other people's are read, and the one way in which any are written.

What is read is a regular file of limited size, never a link, a pipe or a device, and JSON is measured before it is
parsed. What is written is there as a whole or not at all, and on the disk when the call returns.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lossfit.compare.errors import InputError, NoFileError, NotWrittenError, first_line

MIB = 1 << 20
LARGEST_JSON = 64 * MIB
"""Bytes of a .json file: a model that reads texts has its vocabulary there."""
DEEPEST_JSON = 64
"""Objects and arrays inside of each other; what lossfit writes has fewer than ten."""
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_PARTIAL = re.compile(r"\.(.+)\.(\d+)\.partial")


def child(folder: Path, name: str) -> Path:
    """The folder ``name`` inside of one that the user named.

    Raises:
        InputError: it is a link, so that what lies in it may be anywhere.
    """
    path = folder / name
    if path.is_symlink():
        raise InputError(f"{str(path)!r} is a link. Links inside of a folder are not followed; put the folder there.")
    return path


def read(path: Path, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        most: how many bytes it may have.

    Raises:
        NoFileError: there is none.
        InputError: it is a link, a pipe, a device or a folder, is larger, or cannot be read.
    """
    try:
        # A pipe without a writer would be waited for.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise NoFileError(f"There is no file {str(path)!r}.") from error
    except OSError as error:
        if path.is_symlink():
            raise InputError(f"{str(path)!r} is a link. Links inside of a folder are not followed.") from error
        raise InputError(f"The file {str(path)!r} cannot be read: {error.strerror or error}.") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise InputError(f"Expected {str(path)!r} to be a file, but it is a folder, a pipe or a device.")
    with open(handle, "rb") as file:
        if found.st_size > most:
            raise InputError(
                f"Expected the file {str(path)!r} to have at most {most / MIB:,.0f} MiB, but it has "
                f"{found.st_size / MIB:,.0f}."
            )
        try:
            return file.read(found.st_size)
        except OSError as error:
            raise InputError(f"The file {str(path)!r} cannot be read: {error.strerror or error}.") from error


def read_json(path: Path, most: int = LARGEST_JSON) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        NoFileError: there is none.
        InputError: as :func:`read`; or it is no JSON, is too deep, holds numbers that JSON does not have, or no object.
    """
    contents = read(path, most)
    depth = _depth(contents)
    if depth > DEEPEST_JSON:
        raise InputError(f"The file {str(path)!r} is nested {depth} deep; at most {DEEPEST_JSON} are read.")
    try:
        found = json.loads(contents.decode("utf-8"), parse_constant=_refuse_constant)
    except ValueError as error:
        raise InputError(f"The file {str(path)!r} cannot be read as JSON: {first_line(error)}.") from error
    if not isinstance(found, dict):
        raise InputError(f"Expected an object in the file {str(path)!r}, but got {type(found).__name__}.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _depth(contents: bytes) -> int:
    """How many objects and arrays are open at once, at most. Brackets in strings do not count."""
    brackets = contents.count(b"{") + contents.count(b"[")
    if brackets <= DEEPEST_JSON:
        return brackets
    marks = np.frombuffer(_STRINGS.sub(b"", contents), np.uint8)
    opened = (marks == ord("{")) | (marks == ord("["))
    closed = (marks == ord("}")) | (marks == ord("]"))
    steps = opened.astype(np.int8) - closed.astype(np.int8)
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0))


def write(contents: Mapping[Path, str | bytes]) -> None:
    """Write files, all of which are complete on the disk under other names before the first takes its own.

    The order is kept: where the last one is there, so are the others. A file is replaced as a whole, a link by a file.

    Raises:
        NotWrittenError: the disk is full, or a folder cannot be written to; then all files are as they were.
    """
    partials = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in contents}
    try:
        for path, partial in partials.items():
            _write_one(path, partial, contents[path])
        for path, partial in partials.items():
            _told(path, os.replace, partial, path)
    finally:
        for partial in partials.values():
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _flush_folder(folder)


def _write_one(path: Path, partial: Path, contents: str | bytes) -> None:
    data = contents.encode("utf-8") if isinstance(contents, str) else contents

    def written() -> None:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)

    _told(path, written)


def _told(path: Path, action: Any, *arguments: Any) -> None:
    try:
        action(*arguments)
    except OSError as error:
        raise NotWrittenError(f"The file {str(path)!r} cannot be written: {error.strerror or error}.") from error


def _flush_folder(folder: Path) -> None:
    """So that a file's new name outlives a loss of power, where a folder can be flushed at all."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        NotWrittenError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotWrittenError(f"The folder {str(folder)!r} cannot be made: {error.strerror or error}.") from error


def names_in(folder: Path) -> set[str]:
    """What a folder holds, but for what :func:`write` left there when its process was killed, which is removed."""
    found = set()
    for path in folder.iterdir():
        partial = _PARTIAL.fullmatch(path.name)
        if partial is None:
            found.add(path.name)
        elif path.is_file() and not path.is_symlink() and not _is_alive(int(partial[2])):
            path.unlink(missing_ok=True)
    return found


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return process != os.getpid()
