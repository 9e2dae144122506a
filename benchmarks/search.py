"""What halving and early stopping save, and what they cost in the test metric.

    python benchmarks/search.py [--splits 20] [--seed 0] [--data tweets yeast wine breast_cancer]

On bundled data and scikit-learn's, in one thread. Every way trains the same number of settings, 8 for each loss and
split, from the same starts and batches, so that differences are paired by split. Writes benchmarks/results/search.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from sklearn import datasets

from lossfit.compare.candidates import candidates
from lossfit.compare.data import dataset, splits
from lossfit.compare.features import make
from lossfit.compare.scoring.tasks import SINGLE_LABEL
from lossfit.compare.training import models, train
from lossfit.compare.training.task import Limits, Recipe, SplitRows, Task
from lossfit.compare.verdict.summary import chosen

DATA = {
    "yeast": "balanced_accuracy",
    "tweets": "accuracy",
    "digits": "accuracy",
    "wine": "log_loss",
    "breast_cancer": "log_loss",
}
LOSSES = ("cross_entropy", "focal", "gamma_cross_entropy")
TRIALS, AT_ONCE = 8, 10
WAYS: dict[str, dict[str, Any]] = {
    "to the end": {},
    "halving": {"rungs": (2, 4)},
    "stopping after 2": {"patience": 2},
    "stopping after 3": {"patience": 3},
    "halving, stopping after 2": {"rungs": (2, 4), "patience": 2},
    "halving, stopping after 3": {"rungs": (2, 4), "patience": 3},
}


def load(name: str) -> dataset.Dataset:
    if name in ("yeast", "tweets"):
        return dataset.load(name)
    found = getattr(datasets, f"load_{name}")()
    columns = {f"x{i}": found.data[:, i] for i in range(found.data.shape[1])}
    frame = pl.DataFrame({**columns, "target": [f"class {c}" for c in found.target]})
    return dataset.table(frame, name, "target", fingerprint=name)


def measure(name: str, metric: str, count: int, ways: dict[str, dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """By loss and way: seconds of the processor, and the test metric of the chosen trainings of every split."""
    rows = load(name)
    drawn = splits.draw(rows, count, seed)
    matrices = make.make(rows, drawn)
    found = []
    for loss in LOSSES:
        candidate = candidates.candidates()[loss]
        for way, how in ways.items():
            records, start = [], time.process_time()
            for first in range(0, count, AT_ONCE):
                part = slice(first, first + AT_ONCE)
                settings = candidates.settings(candidate, TRIALS, seed)
                model = models.choose("mlp", matrices[0][0].shape[1], len(rows.classes))
                limits = replace(Limits().to_the_end, **how)
                recipe = Recipe(candidate, settings, len(rows.classes), model, metric, limits=limits)
                task = Task(recipe, SplitRows(drawn[part], matrices[part], list(range(count))[part], rows.labels))
                records += [{**r, "split": first + r["split"]} for r in train.train(task)]
            seconds = time.process_time() - start
            best = chosen(pl.DataFrame(records).drop("params"), metric).sort("split")
            own = {"data": name, "metric": metric, "loss": loss, "way": way, "seconds": round(seconds, 2)}
            planned = limits.steps_for(len(drawn[0].train))
            trained = sum(r["steps"] for r in records) / planned / len(records)
            found.append({**own, "trained": round(trained, 3), "test": best[f"test_{metric}"].to_list()})
    return found


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Against training all to the end: time, and the test metric, better above 0, in points or hundredths."""
    out = []
    for name in dict.fromkeys(run["data"] for run in runs):
        for way in dict.fromkeys(run["way"] for run in runs):
            gains, seconds, trained = [], [0.0, 0.0], []
            for loss in LOSSES:
                own, base = (
                    next(r for r in runs if (r["data"], r["way"], r["loss"]) == (name, w, loss))
                    for w in (way, "to the end")
                )
                sign = 100 if SINGLE_LABEL.metrics[own["metric"]].higher else -100
                gains.append(sign * (np.array(own["test"]) - np.array(base["test"])))
                seconds = [seconds[0] + own["seconds"], seconds[1] + base["seconds"]]
                trained.append(own["trained"])
            by_split = np.mean(gains, 0)
            error = by_split.std(ddof=1) / np.sqrt(len(by_split))
            out.append(
                {
                    "data": name,
                    "way": way,
                    "time": round(seconds[0] / seconds[1], 2),
                    "trained": round(float(np.mean(trained)), 2),
                    "gain": round(float(by_split.mean()), 3),
                    "standard_error_over_splits": round(float(error), 3),
                    "gain_by_loss": [round(float(g.mean()), 3) for g in gains],
                }
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=[name for name in DATA if name != "digits"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for name in asked.data:
        runs += measure(name, DATA[name], asked.splits, WAYS, asked.seed)
        for line in summary([run for run in runs if run["data"] == name]):
            print(line, flush=True)
    record = {"splits": asked.splits, "trials": TRIALS, "torch": torch.__version__, "ways": summary(runs), "runs": runs}
    path = Path(__file__).parent / "results" / "search.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
