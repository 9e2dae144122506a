"""What a comparison of large data takes, and what a limit on the rows costs in accuracy.

    python benchmarks/large.py [--rows 5000 20000 0] [--kinds images texts]

Made from scikit-learn's digits: 70,000 images of 28 x 28 pixels, shifted and with noise; and of drawn words: 120,000
texts of 600 classes. Each comparison runs in a process of its own: cross-entropy and focal loss, 3 folds, once, 4
settings. Writes benchmarks/results/large-cpu.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from sklearn.datasets import load_digits

RUN = """
import json, resource, sys
from pathlib import Path
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.verdict.summary import summarise
source, target, text, rows, out = sys.argv[1:]
plan = Plan(
    source, target or None, text or None, losses="focal", folds=3, repeats=1, trials=4, max_rows=int(rows)
)
summary = summarise(engine.run(plan, Path(out)))
own = next(e for e in summary["losses"] if e["loss"] == "cross_entropy")
print(json.dumps({
    "accuracy": own["test"]["accuracy"]["mean"],
    "seconds_per_training": own["seconds_per_training"],
    "trainings": summary["trainings"],
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
}))
"""


def images(folder: Path) -> list[str]:
    """70,000 images in an .npz file."""
    rng, count = np.random.default_rng(0), 70_000
    digits = load_digits()
    chosen = rng.integers(0, len(digits.images), count)
    large = np.kron(digits.images, np.ones((1, 3, 3))) * 15
    found = np.zeros((count, 28, 28), dtype=np.uint8)
    for i, (down, right) in enumerate(rng.integers(0, 5, (count, 2))):
        image = rng.normal(0, 40, (28, 28))
        image[down : down + 24, right : right + 24] += large[chosen[i]]
        found[i] = image.clip(0, 255)
    np.savez(folder / "images.npz", X=found, y=digits.target[chosen])
    return [str(folder / "images.npz"), "", ""]


def texts(folder: Path) -> list[str]:
    """120,000 texts in a .csv file: of each, some words of its class among words of all."""
    rng, count, classes = np.random.default_rng(0), 120_000, 600
    share = np.arange(1, classes + 1) ** -0.7
    labels = rng.choice(classes, count, p=share / share.sum())
    own = rng.integers(0, 8000, (classes, 25))[labels[:, None], rng.integers(0, 25, (count, 8))]
    said = rng.random((count, 8)) < 0.35
    common = rng.zipf(1.3, (count, 5)) % 8000
    lines = [
        " ".join(f"w{word}" for word in [*words[kept], *others])
        for words, kept, others in zip(own, said, common, strict=True)
    ]
    pl.DataFrame({"text": lines, "intent": [f"class {c}" for c in labels]}).write_csv(folder / "texts.csv")
    return [str(folder / "texts.csv"), "intent", "text"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 20_000, 0])
    parser.add_argument("--kinds", nargs="+", choices=("images", "texts"), default=["images", "texts"])
    asked = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in asked.kinds:
            source = {"images": images, "texts": texts}[kind](folder)
            for rows in asked.rows:
                start = time.perf_counter()
                arguments = [*source, str(rows), str(folder / f"{kind}-{rows}")]
                ran = subprocess.run(
                    [sys.executable, "-c", RUN, *arguments], check=True, stdout=subprocess.PIPE, text=True
                )
                found = {"data": kind, "max_rows": rows, **json.loads(ran.stdout)}
                runs.append({**found, "seconds": time.perf_counter() - start})
                print(runs[-1], flush=True)
    load = os.getloadavg()[0]
    out = Path(__file__).parent / "results" / "large-cpu.json"
    record = {"torch": torch.__version__, "cores": os.cpu_count(), "load_at_the_end": load, "runs": runs}
    out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
