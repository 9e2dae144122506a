"""How good the advice of `lossfit compare` is: the regret of the loss it picks, on rows that it has not seen.

    python benchmarks/advice.py --packages /tmp/peers     # written to benchmarks/results/advice.json; about 20 minutes
    python benchmarks/advice.py --judge                   # the same trainings, judged by the rule as it is now

What it needs besides `lossfit[compare]`: the packages in advice_data.py. Every data set (at most 2,000 rows of it) is
cut in two halves. Each half is compared by itself, and gives advice; the advice is judged by what every loss reaches
on the other half, trained, chosen and tested there. Nothing of the half that judges is known to the advice, and the
judge's test rows neither train nor choose. So each set gives two pieces of advice for each metric.

Regret is the judge's mean of the best candidate in hindsight minus that of the advised one, in points (log loss: in
hundredths). The best in hindsight is the best of about 20 noisy means, so that even perfect advice has regret.

The trainings of a set are kept in --work, and a killed run goes on with the next set.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import advice_data
import numpy as np
import polars as pl
import torch

from lossfit.compare import data, features, search, splits, train
from lossfit.compare.kinds import SINGLE_LABEL
from lossfit.compare.models import HIDDEN
from lossfit.compare.summary import chosen

LEFT_OUT = ("exact",)  # an integral over each row: it takes as long as all others together
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
MOST_ROWS, FEWEST_OF_CLASS = 2000, 10
SPLITS, TRIALS = 8, 4
RESULTS = Path(__file__).parent / "results" / "advice.json"

Values = dict[str, list[float]]
"""By loss, the metric on the test rows of every split."""


def halves(frame: pl.DataFrame, name: str) -> list[data.Dataset]:
    """Two halves of the rows, each class spread evenly; classes of less than 10 rows are left out."""
    rng = np.random.default_rng(0)
    frame = frame.filter(pl.col("target").is_not_null())
    frame = frame[np.sort(rng.permutation(frame.height)[:MOST_ROWS])]
    frame = frame.filter(pl.len().over("target") >= FEWEST_OF_CLASS)
    order = rng.permutation(frame.height)
    order = order[np.argsort(frame["target"].cast(pl.String).to_numpy()[order], kind="stable")]
    parts = (frame[np.sort(order[i::2])] for i in range(2))
    frames = [part.with_columns(pl.col("target").cast(pl.String)) for part in parts]
    return [data.table(part, name, "target", impute=True, fingerprint=str(i)) for i, part in enumerate(frames)]


def candidates(metric: str) -> list[search.Candidate]:
    return [candidate for candidate in search.choose("all", metric) if candidate.name not in LEFT_OUT]


def measure(half: data.Dataset) -> dict[str, Values]:
    """The test metrics of the candidates, by the metric that settings and checkpoints are chosen by."""
    drawn = splits.draw(half, SPLITS, 0)
    matrices = features.make(half, drawn)
    free = list({candidate.name: candidate for candidate in search.FREE.values()}.values())
    wanted = {c.name: c for metric in METRICS for c in candidates(metric) if not c.tuned}
    records: dict[str, list[dict[str, Any]]] = {metric: [] for metric in METRICS}
    for candidate in wanted.values():
        settings = search.settings(candidate, TRIALS, 0)
        added = free if candidate.name == SINGLE_LABEL.reference else []
        seeds = list(range(SPLITS))
        task = train.Task(
            candidate, settings, drawn, matrices, half.labels, len(half.classes), HIDDEN, METRICS[0], seeds, added
        )
        for metric, found in train.train_for(task, list(METRICS)).items():
            keys = ("loss", "split", "trial", "failed", "validation", f"test_{metric}")
            records[metric] += [{k: record[k] for k in keys} for record in found]
    found = {}
    for metric in METRICS:
        best = chosen(pl.DataFrame(records[metric]), metric)
        names = [candidate.name for candidate in candidates(metric)]
        by_loss = {n: best.filter(pl.col("loss") == n)[f"test_{metric}"].to_list() for n in names}
        found[metric] = {n: values for n, values in by_loss.items() if len(values) == SPLITS}
    return found


def run(packages: Path, work: Path, wanted: list[str]) -> None:
    """Train what is not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        path = work / f"{name.replace('/', '_')}.json"
        if path.exists():
            continue
        start = time.perf_counter()
        parts = halves(advice_data.load(name, packages), name)
        result = {
            "name": name,
            "rows": [part.rows for part in parts],
            "features": int(features.make(parts[0], splits.draw(parts[0], 1, 0))[0][0].shape[1]),
            "classes": len(parts[0].classes),
            "smallest_class": int(min(part.counts.min() for part in parts)),
            "halves": [measure(part) for part in parts],
        }
        result["seconds"] = round(time.perf_counter() - start, 1)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(result), encoding="utf-8")
        partial.replace(path)
        print(f"{name}: {sum(result['rows'])} rows, {result['classes']} classes, {result['seconds']} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=Path("/tmp/peers"), help="where the packages of data are")
    parser.add_argument("--work", type=Path, default=Path("/tmp/lossfit-advice"), help="for the trainings")
    parser.add_argument("--sets", nargs="*", default=advice_data.names(), help="data sets, as package/set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(options.packages, options.work, options.sets)


if __name__ == "__main__":
    main()
