"""Errors that are shown to the user as they are, without a traceback."""

from collections.abc import Iterable


class InputError(ValueError):
    """Something in the data or the arguments that the user can mend."""


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
