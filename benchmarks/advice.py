"""How good the advice of `lossfit compare` is: the regret of the loss it picks, on rows that it has not seen.

    python benchmarks/advice.py --packages /tmp/peers     # written to benchmarks/results/advice.json; about 20 minutes
    python benchmarks/advice.py --judge                   # the same trainings, judged by the rule as it is now

What it needs besides `lossfit[compare]`: the packages in advice_data.py. Every data set (at most 2,000 rows of it) is
cut in two halves. Each half is compared by itself, and gives advice; the advice is judged by what every loss reaches
on the other half, trained, chosen and tested there. Nothing of the half that judges is known to the advice, and the
judge's test rows neither train nor choose. So each set gives two pieces of advice for each metric.

Regret is the judge's mean of the best candidate in hindsight minus that of the advised one, in points (log loss: in
hundredths). The best in hindsight is the best of about 20 noisy means, so that even perfect advice has regret.
"recommended" is what the rule recommends; "advised" is that where it is measurably better, and else the best guess. The
guess's one number, 2 standard errors, was chosen by these regrets when 20 sets were done; 1.5 to 3 differ little.

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

from lossfit.compare.candidates import candidates
from lossfit.compare.data import dataset, splits
from lossfit.compare.features import make
from lossfit.compare.scoring.tasks import SINGLE_LABEL
from lossfit.compare.training import models, train
from lossfit.compare.training.task import Recipe, SplitRows, Task
from lossfit.compare.verdict import rule
from lossfit.compare.verdict.summary import chosen

LEFT_OUT = ("exact",)  # an integral over each row: it takes as long as all others together
FREE = candidates.FREE[SINGLE_LABEL.family]
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
MOST_ROWS, FEWEST_OF_CLASS = 2000, 10
SPLITS, TRIALS = 8, 4
RESULTS = Path(__file__).parent / "results" / "advice.json"

Values = dict[str, list[float]]
"""By loss, the metric on the test rows of every split."""


def halves(frame: pl.DataFrame, name: str) -> list[dataset.Dataset]:
    """Two halves of the rows, each class spread evenly; classes of less than 10 rows are left out."""
    rng = np.random.default_rng(0)
    frame = frame.filter(pl.col("target").is_not_null())
    frame = frame[np.sort(rng.permutation(frame.height)[:MOST_ROWS])]
    frame = frame.filter(pl.len().over("target") >= FEWEST_OF_CLASS)
    order = rng.permutation(frame.height)
    order = order[np.argsort(frame["target"].cast(pl.String).to_numpy()[order], kind="stable")]
    parts = (frame[np.sort(order[i::2])] for i in range(2))
    frames = [part.with_columns(pl.col("target").cast(pl.String)) for part in parts]
    return [dataset.table(part, name, "target", impute=True, fingerprint=str(i)) for i, part in enumerate(frames)]


def taking_part(metric: str) -> list[candidates.Candidate]:
    return [candidate for candidate in candidates.choose("all", metric) if candidate.name not in LEFT_OUT]


def measure(half: dataset.Dataset) -> dict[str, Values]:
    """The test metrics of the candidates, by the metric that settings and checkpoints are chosen by."""
    drawn = splits.draw(half, SPLITS, 0)
    matrices = make.make(half, drawn)
    free = list({candidate.name: candidate for candidate in FREE.values()}.values())
    wanted = {c.name: c for metric in METRICS for c in taking_part(metric) if not c.tuned}
    model = models.choose("mlp", matrices[0][0].shape[1], len(half.classes))
    records: dict[str, list[dict[str, Any]]] = {metric: [] for metric in METRICS}
    for candidate in wanted.values():
        settings = candidates.settings(candidate, TRIALS, 0)
        added = free if candidate.name == SINGLE_LABEL.reference else []
        seeds = list(range(SPLITS))
        recipe = Recipe(candidate, settings, len(half.classes), model, METRICS[0], free=added)
        task = Task(recipe, SplitRows(drawn, matrices, seeds, half.labels))
        for metric, found in train.train_for(task, list(METRICS)).items():
            keys = ("loss", "split", "trial", "failed", "pruned", "validation", f"test_{metric}")
            records[metric] += [{k: record[k] for k in keys} for record in found]
    found = {}
    for metric in METRICS:
        best = chosen(pl.DataFrame(records[metric]), metric)
        names = [candidate.name for candidate in taking_part(metric)]
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
            "features": int(make.make(parts[0], splits.draw(parts[0], 1, 0))[0][0].shape[1]),
            "classes": len(parts[0].classes),
            "smallest_class": int(min(part.counts.min() for part in parts)),
            "halves": [measure(part) for part in parts],
        }
        result["seconds"] = round(time.perf_counter() - start, 1)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(result), encoding="utf-8")
        partial.replace(path)
        print(f"{name}: {sum(result['rows'])} rows, {result['classes']} classes, {result['seconds']} s", flush=True)


def judge(work: Path) -> dict[str, Any]:
    """The regrets of the advice, and of fixed choices, on all sets that are trained."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("*.json"))]
    sets = []
    for result in found:
        first, second = result["halves"]
        cases = {m: [case(first[m], second[m], m), case(second[m], first[m], m)] for m in METRICS}
        sets.append({k: v for k, v in result.items() if k != "halves"} | {"metrics": cases})
    ways = ["recommended", "advised", *(f"always {c.name}" for m in METRICS for c in taking_part(m))]
    table = {way: {m: regrets(sets, m, way) for m in METRICS} for way in dict.fromkeys(ways)}
    whole = {way: found for way, found in table.items() if all(r is not None for r in found.values())}
    whole["always what is free"] = {m: regrets(sets, m, "free") for m in METRICS}
    means = {way: {m: round(float(np.mean(r)), 3) for m, r in of.items()} for way, of in whole.items()}
    for of in means.values():
        of["mean"] = round(float(np.mean(list(of.values()))), 3)
    counts = {m: {w: count(sets, m, w) for w in ("recommended", "advised")} for m in METRICS}
    return {
        "settings": {"splits": SPLITS, "trials": TRIALS, "most_rows": MOST_ROWS, "left_out": LEFT_OUT},
        "data_sets": len(sets),
        "mean_regret": dict(sorted(means.items(), key=lambda item: item[1]["mean"])),
        "advised_less": {way: less(whole["advised"], of) for way, of in whole.items() if way != "advised"},
        "other_than_cross_entropy": {"of": 2 * len(sets), **counts},
        "shared_ratio": {m: shared_ratio(found, m) for m in METRICS},
        "sets": sets,
    }


def case(advising: Values, judging: Values, metric: str) -> dict[str, Any]:
    """What one half advises, and what it costs on the other, in hundredths of the metric."""
    higher = SINGLE_LABEL.metrics[metric].higher
    names = [name for name in advising if name in judging]
    values = {name: np.array(advising[name]) for name in names}
    reference, free = SINGLE_LABEL.reference, [c.name for c in taking_part(metric) if c.tuned]
    advice = rule.advise(values, reference, free, higher=higher)
    guess = rule.best_guess(values, reference, free, higher=higher)
    means = {name: (100 if higher else -100) * float(np.mean(judging[name])) for name in names}
    best = max(means, key=means.__getitem__)
    return {
        "recommended": advice.recommended,
        "advised": advice.recommended if advice.better else guess,
        "best_in_hindsight": best,
        "regret": {name: round(means[best] - mean, 3) for name, mean in means.items()},
    }


def regrets(sets: list[dict[str, Any]], metric: str, way: str) -> list[float] | None:
    """Of a way to choose, by data set (its two halves averaged); None if it is a candidate in some of them only."""
    found = []
    for one in sets:
        cases = one["metrics"][metric]
        free = FREE[metric].name if metric in FREE else SINGLE_LABEL.reference
        names = [free if way == "free" else c.get(way, way.removeprefix("always ")) for c in cases]
        if any(n not in c["regret"] for n, c in zip(names, cases, strict=True)):
            return None
        found.append(float(np.mean([c["regret"][n] for n, c in zip(names, cases, strict=True)])))
    return found


def less(advised: dict[str, list[float]], other: dict[str, list[float]]) -> dict[str, float]:
    """How much less regret the advice has than another way, over metrics, with the standard error over data sets."""
    per_set = np.mean([np.subtract(other[m], advised[m]) for m in METRICS], axis=0)
    error = per_set.std(ddof=1) / np.sqrt(len(per_set)) if len(per_set) > 1 else np.nan
    return {"mean": round(float(per_set.mean()), 3), "standard_error": round(float(error), 3)}


def count(sets: list[dict[str, Any]], metric: str, way: str) -> int:
    return sum(c[way] != SINGLE_LABEL.reference for one in sets for c in one["metrics"][metric])


def shared_ratio(found: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """The ratio that the corrected test should have had: how much the two halves' mean differences vary.

    Half the squared distance of the means of two halves, over the variance of single splits, less 1 / J; averaged over
    losses, by data set.
    """
    ratios = []
    for result in found:
        first, second = (half[metric] for half in result["halves"])
        of_set = []
        for name in set(first) & set(second) - {SINGLE_LABEL.reference}:
            d = [np.subtract(half[name], half[SINGLE_LABEL.reference]) for half in (first, second)]
            variance = (d[0].var(ddof=1) + d[1].var(ddof=1)) / 2
            if variance > 0:
                of_set.append((d[0].mean() - d[1].mean()) ** 2 / 2 / variance - 1 / SPLITS)
        ratios.append(float(np.mean(of_set)))
    quartiles = np.quantile(ratios, [0.25, 0.5, 0.75])
    names = ("lower_quartile", "median", "upper_quartile", "highest")
    return {k: round(float(v), 3) for k, v in zip(names, [*quartiles, max(ratios)], strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=Path("/tmp/peers"), help="where the packages of data are")
    parser.add_argument("--work", type=Path, default=Path("/tmp/lossfit-advice"), help="for the trainings")
    parser.add_argument("--sets", nargs="*", default=advice_data.names(), help="data sets, as package/set")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in [None] if options.judge else options.sets:
        if name is not None:
            run(options.packages, options.work, [name])
        if any(options.work.glob("*.json")):
            result = judge(options.work)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "sets"}, indent=1))


if __name__ == "__main__":
    main()
