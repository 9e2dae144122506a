"""Whether all ranks bring the same to what they compute together, asked once a step, before any of it.

A difference would be a wrong number or a wait without end. So every rank says what it has, in one collective of a few
hundred bytes: whether its own checks failed, and of each argument a digest of its type and shape, and one of its
numbers. Where something is wrong, all ranks raise the same error.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from lossfit.core.autograd import readable

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

VARIABLE = "LOSSFIT_CHECK_RANKS"
"""Of the environment: "always", "first" (in the first steps of a process) or "never" compare the numbers themselves; if
not set, always on a CPU and else in the first steps. Types, shapes and failed checks are compared at any rate."""
STEPS = 8
"""How many calls are the first ones."""
_ARGUMENTS, _NOTES, _TEXT = 24, 4, 512
_ROUNDING = 16.0
"""Of features, that ranks may compute each for itself: how many roundings of their length they may be apart."""
_ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (TypeError, ValueError, IndexError)}

_calls = 0


class RollCall:
    """A context in which a rank checks what it brings, and after which all ranks go on or all raise.

    No collective may be in it. After it :attr:`noted` has what each rank noted.

    Args:
        group: of the ranks; None for the default one.
        device: where their collectives work.
        shared: what the ranks have in common, for the sentences of errors.

    Raises:
        TypeError, ValueError, IndexError: on all ranks, what one rank raised inside, or that they differ.
    """

    noted: list[list[int]]

    def __init__(self, group: ProcessGroup | None, device: torch.device, shared: str) -> None:
        self.group, self.device, self.shared = group, device, shared
        self._names: list[str] = []
        self._shown: list[str] = []
        self._signatures: list[int] = []
        self._contents: list[int | Tensor] = []
        self._notes: list[int] = []
        self._projections: list[tuple[str, float, float]] = []
        self._looks = _looks(device)

    def same(self, **values: Any) -> None:
        """Arguments that must be the same on all ranks: tensors, numbers, or what has a representation of its own."""
        for name, value in values.items():
            shown = _described(value)
            contents: int | Tensor = 0
            if isinstance(value, Tensor) and self._looks and value.numel():
                contents = _digest(value.detach())
            self._names.append(name)
            self._shown.append(shown)
            self._signatures.append(_number(f"{name} {shown}"))
            self._contents.append(contents)

    def alike(self, **values: Tensor) -> None:
        """Features, that ranks may have computed each for itself: the same but for rounding."""
        for name, value in values.items():
            self.same(**{name: _described(value)})
            if self._looks and value.numel() and readable(value.detach()):
                self._projections.append((name, *_projection(value.detach())))

    def note(self, *numbers: int) -> None:
        """Numbers that all ranks are to know of this one."""
        self._notes += numbers

    def __enter__(self) -> RollCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            return
        numbers = [int(error is not None), *_padded(self._signatures, _ARGUMENTS), *_padded(self._notes, _NOTES)]
        numbers += _padded([_bits(v) for _, *pair in self._projections for v in pair], _NOTES)
        own = torch.tensor(numbers + [0] * _ARGUMENTS, dtype=torch.int64, device=self.device)
        for i, contents in enumerate(self._contents[:_ARGUMENTS]):
            own[len(numbers) + i] = contents
        each = [ranks.tolist() for ranks in self._gathered(own)]
        if any(rank[0] for rank in each):
            self._raise_failed([bool(rank[0]) for rank in each], error)
        starts = 1, len(numbers)
        for i in range(_ARGUMENTS):
            signatures, contents_of = ({rank[start + i] for rank in each} for start in starts)
            if len(signatures) > 1 or len(contents_of - {0}) > 1:
                self._raise_different(i, len(signatures) > 1)
        after = 1 + _ARGUMENTS + _NOTES
        for i, (name, _, _) in enumerate(self._projections):
            at = after + 2 * i
            if not _near([(_number_of(rank[at]), _number_of(rank[at + 1])) for rank in each]):
                self._raise_different(self._names.index(name), False)
        self.noted = [rank[1 + _ARGUMENTS : after][: len(self._notes)] for rank in each]

    def _gathered(self, own: Tensor) -> list[Tensor]:
        every = [torch.empty_like(own) for _ in range(distributed.get_world_size(self.group))]
        distributed.all_gather(every, own, group=self.group)
        return every

    def _texts(self, text: str) -> list[str]:
        """What all ranks say."""
        encoded = text.encode("utf-8", "replace")[:_TEXT].ljust(_TEXT)
        own = torch.frombuffer(bytearray(encoded), dtype=torch.uint8).to(self.device)
        return [bytes(said.tolist()).decode("utf-8", "ignore").strip() for said in self._gathered(own)]

    def _raise_failed(self, failed: list[bool], error: BaseException | None) -> None:
        name = type(error).__name__ if type(error).__name__ in _ERRORS else "ValueError"
        said = self._texts("" if error is None else f"{name} {error}")
        rank = failed.index(True)
        name, _, text = said[rank].partition(" ")
        raise _ERRORS.get(name, ValueError)(f"On rank {rank} of {len(failed)}: {text}") from error

    def _raise_different(self, at: int, in_shape: bool) -> None:
        """All ranks come here, as they saw the same numbers."""
        name, shown = (of[at] if at < len(of) else "" for of in (self._names, self._shown))
        ranks = [said.partition("\t")[::2] for said in self._texts(f"{name or 'nothing'}\t{shown}")]
        names = list(dict.fromkeys(name for name, _ in ranks))
        if len(names) > 1:
            what = ", ".join(f"`{name}` on rank {rank}" for rank, (name, _) in enumerate(ranks))
            raise ValueError(f"Expected the same call on all ranks that share {self.shared}, but it has {what}.")
        shapes = ", ".join(f"rank {rank} has {shown}" for rank, (_, shown) in enumerate(ranks))
        raise ValueError(
            f"Expected the same `{names[0]}` on all ranks that share {self.shared}, but "
            f"{shapes if in_shape else 'its numbers differ'}."
        )


def _padded(numbers: list[int], length: int) -> list[int]:
    if len(numbers) > length:
        raise AssertionError(f"a roll call is of {length} numbers at most")
    return numbers + [0] * (length - len(numbers))


def _looks(device: torch.device) -> bool:
    """Whether the numbers of tensors are compared in this call."""
    global _calls
    if device.type == "meta":
        return False
    _calls += 1
    how = os.environ.get(VARIABLE) or ("always" if device.type == "cpu" else "first")
    if how not in ("always", "first", "never"):
        raise ValueError(f"Expected {VARIABLE} to be always, first or never, but got {how!r}.")
    return how == "always" or (how == "first" and _calls <= STEPS)


def _described(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return repr(value)


def _number(text: str) -> int:
    """Of a text, and never 0."""
    return zlib.crc32(text.encode()) + 1


def _digest(value: Tensor) -> int | Tensor:
    """A number of all bits of a tensor, which every change of one element changes, and most others."""
    if not readable(value) and value.device.type == "cpu":
        return 0
    whole = value.contiguous().reshape(-1).view(torch.uint8)
    rest = -len(whole) % 8
    words = torch.cat([whole, whole.new_zeros(rest)]).view(torch.int64) if rest else whole.view(torch.int64)
    odd = torch.arange(1, 2 * len(words), 2, dtype=torch.int64, device=words.device)
    found = (words * odd).sum()
    found = torch.where(found == 0, 1, found)  # 0 stands for what was not looked at
    return int(found) if value.device.type == "cpu" else found


def _projection(value: Tensor) -> tuple[float, float]:
    """A sum with factors in [-1, 1) that are drawn once for all, and how far two of them may be apart."""
    flat = value.reshape(-1).double()
    place = torch.arange(1, len(flat) + 1, dtype=torch.int64)
    factors = ((place * 0x9E3779B97F4A7C1) & 0xFFFFFFFF).double() / 2**31 - 1
    length = torch.linalg.vector_norm(flat).item()
    return torch.dot(flat, factors).item(), _ROUNDING * torch.finfo(value.dtype).eps * length


def _near(projections: list[tuple[float, float]]) -> bool:
    """Whether all ranks have the same, each with how far it may be off; NaN is what is NaN on all of them."""
    values = [value for value, _ in projections]
    if any(map(math.isfinite, values)):
        return max(values) - min(values) <= max(reach for _, reach in projections)
    return True


def _bits(value: float) -> int:
    found: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return found


def _number_of(bits: int) -> float:
    found: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return found
