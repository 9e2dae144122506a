"""Rows with the same features, and how many of them leak from training into the test."""

from __future__ import annotations

import numpy as np
import polars as pl

from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.splits import Split


def note(data: Dataset, splits: list[Split]) -> str | None:
    """What should be known of them; None if no two rows are the same."""
    repeated, leaking = count(data, splits)
    if not repeated:
        return None
    told = f"{repeated:,} of {data.rows:,} rows have the same features as another row"
    if not leaking:
        return f"Duplicates: {told}, but none has its twin on the other side of a split."
    mean = np.mean([len(split.test) for split in splits])
    return (
        f"Duplicates: {told}. In the mean over the splits, {leaking:,.1f} of {mean:,.0f} test rows have a twin among "
        "the rows that are trained or chosen on, and look easier than new rows."
    )


def count(data: Dataset, splits: list[Split]) -> tuple[int, float]:
    """How many rows have a twin, and how many of the test rows of a split, in the mean, have one in its other parts."""
    number, counts = np.unique(_keys(data), return_inverse=True, return_counts=True)[1:]
    repeated = counts[number] > 1
    if not repeated.any():
        return 0, 0.0
    leaking = [np.isin(number[s.test], number[np.concatenate([s.train, s.validation])]).sum() for s in splits]
    return int(repeated.sum()), float(np.mean(leaking))


def _keys(data: Dataset) -> np.ndarray:
    """A number for each row, the same for the same features."""
    frames = [frame for frame in (data.numeric, data.categorical, data.text) if frame.width]
    if data.images is not None:
        frames.append(pl.DataFrame({"image": [image.tobytes() for image in data.images]}))
    keys = [frame.hash_rows() for frame in frames]
    found = keys[0] if len(keys) == 1 else pl.DataFrame([k.alias(str(i)) for i, k in enumerate(keys)]).hash_rows()
    return found.to_numpy()
