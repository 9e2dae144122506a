"""Errors that are shown to the user as they are, without a traceback."""

import re
from collections.abc import Iterable

# Control characters but the tab and the end of a line, marks that turn the direction of writing, and halves of pairs.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 1500


def shown(text: str) -> str:
    r"""The text with escapes such as ``\x1b`` in the place of what a terminal would obey."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape", "backslashreplace").decode("ascii"), text)


class InputError(ValueError):
    """What the user can mend in the data or the arguments: a line for each problem, whatever names are in it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(map(_line, problems)))


def _line(sentence: str) -> str:
    line = shown(sentence).replace("\n", "\\n")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 500]} ... {line[-480:]}"


class NoFileError(InputError, FileNotFoundError):
    """A file is not there, for whoever has nothing better to say of it."""


class NotWrittenError(InputError):
    """A file cannot be written: the disk is full, or the folder is read-only."""


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names in quotes, the first of them if there are many."""
    names = list(names)
    told = ", ".join(repr(name) for name in names[:most])
    return f"{told} and {len(names) - most} more" if len(names) > most else told


def first_line(error: BaseException) -> str:
    """What a library's error says, without the advice that may follow."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


_EXHAUSTED = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "could not create a memory")


def is_exhausted(error: BaseException) -> bool:
    """Whether it says that memory could not be had: Python's, NumPy's, or PyTorch's on the CPU or a GPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _EXHAUSTED)
