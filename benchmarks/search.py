"""What halving and early stopping save, and what they cost in the metric.

    python benchmarks/search.py [--repeats 4] [--seed 0] [--data tweets yeast wine breast_cancer]

On bundled data and scikit-learn's, in one thread. Every way trains the same number of settings, 8 for each loss, from
the same starts and batches, on the same folds in pairs, so that differences are paired by repeat. Writes
benchmarks/results/search.json.
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
from lossfit.compare.data import dataset
from lossfit.compare.data.folds import FOLDS, draw
from lossfit.compare.features import make
from lossfit.compare.running.engine import fold_rows
from lossfit.compare.scoring.tasks import SINGLE_LABEL
from lossfit.compare.training import models, train
from lossfit.compare.training.task import Limits, Recipe, Task

DATA = {
    "yeast": "balanced_accuracy",
    "tweets": "accuracy",
    "digits": "accuracy",
    "wine": "log_loss",
    "breast_cancer": "log_loss",
}
LOSSES = ("cross_entropy", "focal", "gamma_cross_entropy")
TRIALS = 8
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
    """By loss and way: seconds of the processor, and the estimate of the metric by each repeat."""
    rows = load(name)
    folds = draw(rows, FOLDS, count, seed)
    each = [fold_rows(rows, folds, repeat, seed, make.reader(rows)[0]) for repeat in range(count)]
    found = []
    for loss in LOSSES:
        candidate = candidates.candidates()[loss]
        settings = candidates.settings(candidate, TRIALS, seed)
        for way, how in ways.items():
            limits = replace(Limits().to_the_end, **how)
            start, trained, estimates = time.process_time(), [], []
            for own in each:
                model = models.choose("mlp", own.matrices[0][0].shape[1], len(rows.classes))
                recipe = Recipe(candidate, settings, len(rows.classes), model, (metric,), limits=limits)
                records = train.train(Task(recipe, own))[metric]
                planned = limits.steps_for(min(map(len, own.train)))
                trained += [r["steps"] / planned for r in records.settings if r["loss"] == loss]
                passes = [r[f"test_{metric}"] for r in records.passes if r["loss"] == loss]
                estimates.append(float(np.mean(passes)))
            seconds = round(time.process_time() - start, 2)
            one = {"data": name, "metric": metric, "loss": loss, "way": way, "seconds": seconds}
            found.append({**one, "trained": round(float(np.mean(trained)), 3), "test": estimates})
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
            by_repeat = np.mean(gains, 0)
            error = by_repeat.std(ddof=1) / np.sqrt(len(by_repeat))
            out.append(
                {
                    "data": name,
                    "way": way,
                    "time": round(seconds[0] / seconds[1], 2),
                    "trained": round(float(np.mean(trained)), 2),
                    "gain": round(float(by_repeat.mean()), 3),
                    "standard_error_over_repeats": round(float(error), 3),
                    "gain_by_loss": [round(float(g.mean()), 3) for g in gains],
                }
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=[name for name in DATA if name != "digits"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for name in asked.data:
        runs += measure(name, DATA[name], asked.repeats, WAYS, asked.seed)
        for line in summary([run for run in runs if run["data"] == name]):
            print(line, flush=True)
    record = {
        "repeats": asked.repeats,
        "trials": TRIALS,
        "torch": torch.__version__,
        "ways": summary(runs),
        "runs": runs,
    }
    path = Path(__file__).parent / "results" / "search.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
