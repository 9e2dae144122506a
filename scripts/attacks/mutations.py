"""Files changed at random: by bytes, or by what stands in them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

STRANGE: list[Any] = [
    *(None, True, -1, 0, 1, 3.5, 1e308, -1e-320, 10**30, "", "x", "\x1b[2J", "é\ud83d\ude00", "=1+1", "a" * 10_000),
    *([], {}, [[]], [None], [1, "a"], {"a": 1}, ["a", "b", "c"], "os:abort", "../../etc/passwd", "inf", "NaN"),
]
CELLS = [
    "",
    "NA",
    '"',
    '""',
    "1e999",
    "-inf",
    "nan",
    "0x10",
    "9" * 400,
    "2020-01-01",
    "\x00",
    "a,b",
    "'",
    "\ufeff",
    "=1",
    "é",
]


def bytes_of(contents: bytes, rng: random.Random) -> bytes:
    """Some bits, a cut, a hole, a doubled or swapped piece, or noise in between."""
    data, size = bytearray(contents), len(contents)
    way = rng.randrange(8)
    at, length = rng.randrange(size + 1), rng.randrange(1, max(2, size // 4))
    if way < 3:
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            if size:
                bit = rng.randrange(8 * size)
                data[bit // 8] ^= 1 << bit % 8
    elif way == 3:
        del data[at:]
    elif way == 4:
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif way == 5:
        data[at:at] = data[at : at + length]
    elif way == 6:
        data[at:at] = rng.randbytes(rng.randrange(1, 64))
    else:
        del data[at : at + length]
    return bytes(data)


def json_of(contents: bytes, rng: random.Random) -> bytes:
    """A value somewhere in it is another one, is gone, or has company; or its bytes are changed."""
    if rng.random() < 0.2:
        return bytes_of(contents, rng)
    whole = json.loads(contents)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        holders = list(_holders(whole))
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        way = rng.randrange(6)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[str(rng.choice(STRANGE))] = holder[key]
        elif way == 2 and isinstance(holder, list):
            holder.append(rng.choice(STRANGE))
        else:
            holder[key] = rng.choice(STRANGE) if rng.random() < 0.7 else _like(holder[key], rng)
        if not list(_holders(whole)):
            break
    return json.dumps(whole).encode("utf-8", "surrogatepass")


def _holders(value: Any) -> Any:
    if isinstance(value, dict | list) and value:
        yield value
        for each in value.values() if isinstance(value, dict) else value:
            yield from _holders(each)


def _like(value: Any, rng: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 10, -(10**6), 10**6, 2**31, 2**63))
    if isinstance(value, float):
        return value * rng.choice((-1.0, 0.0, 1e6, 1e300))
    if isinstance(value, str):
        return value[: rng.randrange(len(value) + 1)] + rng.choice(("", "_", "x"))
    if isinstance(value, list):
        return rng.sample(value, rng.randrange(len(value) + 1))
    return value


def cells_of(contents: bytes, rng: random.Random, separator: bytes = b",") -> bytes:
    """Cells of a table are strange ones, rows have other lengths, or its bytes are changed."""
    if rng.random() < 0.3:
        return bytes_of(contents, rng)
    lines = contents.split(b"\n")
    for _ in range(rng.choice((1, 1, 3, 20))):
        i = rng.randrange(len(lines)) if rng.random() < 0.7 else 0
        cells = lines[i].split(separator)
        cells[rng.randrange(len(cells))] = rng.choice(CELLS).encode()
        if rng.random() < 0.1:
            cells.append(rng.choice(CELLS).encode())
        lines[i] = separator.join(cells)
    return b"\n".join(lines)


Mutation = Callable[[bytes, random.Random], bytes]
