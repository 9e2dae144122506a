"""The same comparison at several levels of label noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lossfit.compare import files
from lossfit.compare.errors import InputError
from lossfit.compare.plan import Plan

PREFIX = "noise-"


def levels(text: str) -> list[float]:
    """The levels named in "0.4" or "0,0.1,0.4", in ascending order.

    Raises:
        InputError: one is no number in [0, 1), or is there twice.
    """
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            raise InputError(
                f"Expected --label-noise to be a number, or several separated by commas such as 0,0.2,0.4, "
                f"but got {text!r}."
            ) from None
        if not 0 <= found[-1] < 1:
            raise InputError(f"Expected --label-noise in [0, 1), but got {found[-1]}.")
    if len(set(found)) < len(found):
        raise InputError(f"Expected different levels of --label-noise, but got {text!r}.")
    return sorted(found)


def folder(out: Path, level: float) -> Path:
    """Where the comparison at a level is kept."""
    return files.child(out, f"{PREFIX}{level:g}")


def plans(plan: Plan, out: Path, wanted: list[float], *, resume: bool) -> list[tuple[Plan, Path]]:
    """The comparison at each level, and its folder.

    Raises:
        InputError: ``out`` exists and ``resume`` is not asked for, or it holds something else.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file; name a folder by --out.")
    names = files.names_in(out) if out.exists() else set()
    if names:
        begun = any(out.glob(f"{PREFIX}*/plan.json")) or all(name.startswith(PREFIX) for name in names)
        if "plan.json" in names or not begun:
            raise InputError(f"The folder {str(out)!r} exists and holds something else; name another by --out.")
        if not resume:
            raise InputError(
                f"The folder {str(out)!r} exists. Pass --resume to go on with it, or name another folder by --out."
            )
    return [(replace(plan, label_noise=level), folder(out, level)) for level in wanted]
