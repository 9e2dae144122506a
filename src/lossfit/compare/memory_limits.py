"""Whether what a file says of itself fits the memory, asked before it is unpacked."""

from __future__ import annotations

import os
from pathlib import Path

from lossfit.compare.errors import InputError

_CGROUP = Path("/sys/fs/cgroup")
_GIB = 1 << 30


def check_fits(name: str, size: int) -> None:
    """Raise InputError if ``size`` bytes are more than there are; ``name`` begins the sentence."""
    free = available()
    if size > free:
        raise InputError(
            f"{name} would take {size / _GIB:,.1f} GiB of memory once unpacked, but {free / _GIB:,.1f} GiB are free."
        )


def available() -> int:
    """Bytes of memory that this process may still take, as far as the system tells."""
    found = [_of_machine(), _of_container()]
    return min((size for size in found if size is not None), default=1 << 62)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return None


def _of_container() -> int | None:
    try:
        most, used = (int((_CGROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
    except (OSError, ValueError):  # there is no limit, or no container
        return None
    return max(most - used, 0)
