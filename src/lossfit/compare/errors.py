"""Errors that are shown to the user as they are, without a traceback."""

from collections.abc import Iterable


class InputError(ValueError):
    """Something in the data or the arguments that the user can mend."""


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names in quotes, the first of them if there are many."""
    names = list(names)
    told = ", ".join(repr(name) for name in names[:most])
    return f"{told} and {len(names) - most} more" if len(names) > most else told


def first_line(error: BaseException) -> str:
    """What a library's error says, without the advice that may follow."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
