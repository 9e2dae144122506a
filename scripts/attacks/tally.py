"""What is counted of an attack."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SHOWN, _LONGEST = 20, 600


@dataclass
class Tally:
    """Counts of one attack.

    Attributes:
        tried: how many.
        wrong: of these.
        kinds: how many were tried of each kind, and what came of them.
        examples: the first wrong ones, with what makes them again.
        seconds: that it took.
    """

    tried: int = 0
    wrong: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, kind: str, wrong: str = "", count: int = 1) -> None:
        """Count one (or several) of a kind; ``wrong`` says what is wrong with it."""
        self.tried += count
        self.kinds[kind] += count
        if wrong:
            self.wrong += 1
            if len(self.examples) < _SHOWN:
                self.examples.append(f"{kind}: {wrong}"[:_LONGEST].replace("\n", " | "))

    def join(self, other: Tally) -> None:
        self.tried += other.tried
        self.wrong += other.wrong
        self.kinds += other.kinds
        self.examples = [*self.examples, *other.examples][:_SHOWN]

    def to_json(self) -> dict[str, Any]:
        return {"tried": self.tried, "wrong": self.wrong, "kinds": dict(self.kinds), "seconds": self.seconds}
