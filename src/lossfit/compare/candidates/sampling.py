"""Learning rates and weight decays that every loss is tried with."""

from __future__ import annotations

import math

from scipy.stats import qmc

RANGES = {"learning_rate": (2e-3, 5e-2), "weight_decay": (1e-2, 1e1)}
"""Of what every loss is tuned in; both are searched on a logarithmic scale."""


def spread(count: int, seed: int) -> list[dict[str, float]]:
    """Learning rates and weight decays that fill their ranges evenly: a scrambled Halton sequence.

    Source: A. B. Owen, "A Randomized Halton Algorithm in R", 2017, for the scrambling.
    """
    points = qmc.Halton(len(RANGES), seed=seed).random(count).tolist()
    logs = {name: (math.log(low), math.log(high)) for name, (low, high) in RANGES.items()}
    return [
        {
            name: math.exp(low + share * (high - low))
            for share, (name, (low, high)) in zip(point, logs.items(), strict=True)
        }
        for point in points
    ]
