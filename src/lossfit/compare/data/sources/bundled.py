"""The bundled sets."""

from __future__ import annotations

import html
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl

from lossfit.compare.data.sources.raw_table import Raw, digest

BUNDLED = {
    "tweets": "4,200 tweet-like texts as sentence vectors (all-MiniLM-L6-v2); models are trained and chosen on the "
    "label of one rater drawn for each text, and tested on the majority. C.J. Hutto and E. Gilbert, VADER, 2014 (MIT).",
    "yeast": "UCI Yeast: 1,453 proteins, 8 measurements, 10 places in the cell with 438 down to 5 rows. K. Nakai "
    "(CC BY 4.0).",
}
TWEET_CLASSES = ("negative", "neutral", "positive")


def tweets() -> Raw:
    """A column of votes for each class, and the vectors of the texts."""
    frame = pl.read_csv(_path("tweets.csv"))
    vectors = np.load(_path("tweets.npy"), allow_pickle=False).astype(np.float32)
    numbers = pl.DataFrame(vectors, schema=[f"v{i}" for i in range(vectors.shape[1])])
    return Raw(
        pl.concat([numbers, frame.select(TWEET_CLASSES)], how="horizontal"),
        _hash("tweets.csv"),
        arrays=True,
        notes=[BUNDLED["tweets"]],
    )


def yeast() -> Raw:
    return Raw(pl.read_csv(_path("yeast.csv")), _hash("yeast.csv"), target="localization", notes=[BUNDLED["yeast"]])


def tweet_texts() -> list[str]:
    """The texts of the bundled tweets."""
    return [html.unescape(t) for t in pl.read_csv(_path("tweets.csv"))["text"]]


def _path(name: str) -> Path:
    return Path(str(files("lossfit.compare.data") / "bundled" / name))


def _hash(name: str) -> str:
    return digest(_path(name).read_bytes())
