"""Rows with the same features, and how many of them leak from training into the test."""

from __future__ import annotations

import numpy as np
import polars as pl

from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.folds import Folds


def note(data: Dataset, folds: Folds) -> str | None:
    """What should be known of them; None if no two rows are the same."""
    repeated, leaking = count(data, folds)
    if not repeated:
        return None
    told = f"{repeated:,} of {data.rows:,} rows have the same features as another row"
    if not leaking:
        return f"Duplicates: {told}, but none has its twin in another fold."
    return (
        f"Duplicates: {told}. On average {leaking:,.1f} of {len(folds.tested):,} tested rows have a twin among those "
        "that their models are trained or chosen on, and look easier than new rows."
    )


def count(data: Dataset, folds: Folds) -> tuple[int, float]:
    """How many rows have a twin, and how many of the tested rows, on average over the repeats, have one elsewhere."""
    number, counts = np.unique(_keys(data), return_inverse=True, return_counts=True)[1:]
    repeated = counts[number] > 1
    if not repeated.any():
        return 0, 0.0
    own = number[folds.rows]
    if len(folds.test):
        return int(repeated.sum()), float(np.isin(number[folds.test], own).sum())
    leaking = [
        sum(np.isin(own[repeat.fold == k], own[repeat.fold != k]).sum() for k in range(folds.count))
        for repeat in folds.repeats
    ]
    return int(repeated.sum()), float(np.mean(leaking))


def _keys(data: Dataset) -> np.ndarray:
    """A number for each row, the same for the same features."""
    frames = [frame for frame in (data.numeric, data.categorical, data.text) if frame.width]
    if data.images is not None:
        frames.append(pl.DataFrame({"image": [image.tobytes() for image in data.images]}))
    keys = [frame.hash_rows() for frame in frames]
    found = keys[0] if len(keys) == 1 else pl.DataFrame([k.alias(str(i)) for i, k in enumerate(keys)]).hash_rows()
    return found.to_numpy()
