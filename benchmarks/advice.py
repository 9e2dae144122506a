"""Whether the advice of `lossfit compare` is good, and the prior that it starts from: by small data sets, cut in two.

    python benchmarks/advice.py --packages /tmp/peers     # about 45 s for each set, in one thread
    python benchmarks/advice.py --judge                   # the same trainings, judged by the choice as it is now

Writes benchmarks/results/advice.json and src/lossfit/compare/verdict/prior.json. benchmarks/advice_data.py says which
sets these are, and from which packages.

On each half of a set every loss but EXACT is trained on four folds in pairs, once, with 4 settings of 240 steps
(`lossfit compare` has five folds, 8 settings and 400 steps: it would take four times as long), and measured plain and
tuned, by five metrics. What one half advises is judged by what the other half measures: regret is the best estimate of
all candidates there minus that of the advised one, in points (log loss: in hundredths). The best there is the best of
many noisy estimates, so that even perfect advice has regret. The prior of a set is made of all other sets.

The trainings of a set are kept in --work, and a killed run goes on with the next set.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
import warnings
from pathlib import Path
from typing import Any

import advice_data
import numpy as np
import polars as pl
import torch

from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.candidates import Candidate
from lossfit.compare.data import dataset
from lossfit.compare.data.folds import Folds, draw
from lossfit.compare.features import make
from lossfit.compare.running.engine import fold_rows
from lossfit.compare.scoring.tasks import SINGLE_LABEL
from lossfit.compare.training import models, train
from lossfit.compare.training.task import FoldRows, Limits, Recipe, Task
from lossfit.compare.verdict import prior
from lossfit.compare.verdict.choice import posterior
from lossfit.compare.verdict.evidence import layout
from lossfit.compare.verdict.judge import Verdict, judge
from lossfit.compare.verdict.prior import Known, Prior, estimate
from lossfit.compare.verdict.variance import Differences, Passes

LEFT_OUT = ("exact",)
"""An integral over each row: it takes as long as all others together."""
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
REFERENCE = SINGLE_LABEL.reference
MOST_ROWS, FEWEST_OF_CLASS = 2000, 10
FOLDS, TRIALS, LIMITS = 4, 4, Limits(steps=240)
RESULTS = Path(__file__).parent / "results" / "advice.json"
PRIOR = Path(prior.__file__).with_name(prior.FILE)

Measured = dict[str, dict[str, list[Any]]]
"""By metric, the names of the candidates and numbers of each."""


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


def taking_part(metric: str, names: str = "all") -> list[Candidate]:
    """Those that are trained."""
    return [candidate for candidate in candidates.choose(names, metric) if candidate.name not in LEFT_OUT]


def free(metric: str) -> str | None:
    """What costs no more than cross-entropy."""
    found = candidates.tuned(candidates.candidate(REFERENCE), metric)
    return None if found is None else found.name


def trained(rows: FoldRows, classes: int, metrics: tuple[str, ...], names: str = "all") -> dict[str, Passes]:
    """The passes of every loss, plain and tuned, by the metric that it is chosen by."""
    wanted = {c.name: c for metric in metrics for c in taking_part(metric, names)}
    network = models.choose("mlp", rows.matrices[0][0].shape[1], classes)
    found: dict[str, list[list[dict[str, Any]]]] = {metric: [] for metric in metrics}
    for candidate in wanted.values():
        asked = tuple(m for m in metrics if candidate in taking_part(m, names))
        recipe = Recipe(candidate, candidates.settings(candidate, TRIALS, 0), classes, network, asked, LIMITS)
        for metric, records in train.train(Task(recipe, rows)).items():
            by_name: dict[str, list[dict[str, Any]]] = {}
            for one in records.passes:
                by_name.setdefault(one["loss"], []).append(one)
            found[metric] += by_name.values()
    return {metric: _passes(of, metric) for metric, of in found.items()}


def _passes(of: list[list[dict[str, Any]]], metric: str) -> Passes:
    values = np.array([[[one[f"test_{metric}"] for one in each]] for each in of])
    validation = np.array([[each[0]["validation"]] for each in of])
    influence = np.array([[[one[f"influence_{metric}"] for one in each]] for each in of])
    return Passes([each[0]["loss"] for each in of], values, validation, influence)


def verdicts(passes: dict[str, Passes], folds: Folds, data: dataset.Dataset, known: Prior) -> dict[str, Verdict]:
    """What is said by each metric."""
    rows = layout(folds, data, 1)
    return {
        m: judge(of, rows, m, known, reference=REFERENCE, free=free(m), higher=SINGLE_LABEL.choices()[m].higher)
        for m, of in passes.items()
    }


def measure(half: dataset.Dataset) -> Measured:
    """The estimates of the candidates, and their differences to what is free, more being better."""
    folds = draw(half, FOLDS, 1, 0)
    rows = fold_rows(half, folds, 0, 0, make.reader(half)[0])
    found: Measured = {}
    for metric, verdict in verdicts(trained(rows, len(half.classes), METRICS), folds, half, Prior()).items():
        to_free = verdict.to_free
        found[metric] = {
            "names": [c.name for c in verdict.candidates],
            "estimate": [c.estimate.mean for c in verdict.candidates],
            "over_reference": [c.over_reference.side for c in verdict.candidates],
            "over_free": [c.over_free.side for c in verdict.candidates],
            **{k: getattr(to_free, k).tolist() for k in ("mean", "validation", "v_row", "v_b", "v_w")},
        }
    return found


def run(packages: Path, work: Path, name: str) -> None:
    """Train what is not there yet."""
    path = work / f"{name.replace('/', '_')}.json"
    if path.exists():
        return
    start = time.perf_counter()
    parts = halves(advice_data.load(name, packages), name)
    result = {
        "name": name,
        "rows": [part.rows for part in parts],
        "features": len(parts[0].columns),
        "classes": len(parts[0].classes),
        "smallest_class": int(min(part.counts.min() for part in parts)),
        "halves": [measure(part) for part in parts],
    }
    result["seconds"] = round(time.perf_counter() - start, 1)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(path)
    print(f"{name}: {sum(result['rows'])} rows, {result['classes']} classes, {result['seconds']} s", flush=True)


def gains(results: list[dict[str, Any]], metric: str) -> dict[str, np.ndarray]:
    """By candidate, half the sum of its differences to what is free, in points, on the halves of each set (S, 2)."""
    names = [c.name for c in _all(metric)]
    found = {name: np.full((len(results), 2), np.nan) for name in names}
    for s, result in enumerate(results):
        for h, half in enumerate(result["halves"]):
            of = half[metric]
            for name, test, validation in zip(of["names"], of["mean"], of["validation"], strict=True):
                found[name][s, h] = 50 * (test + validation)
    return found


def _all(metric: str) -> list[Candidate]:
    pairs = ((c, candidates.tuned(c, metric)) for c in taking_part(metric))
    return [c for pair in pairs for c in pair if c is not None]


def judged(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The regrets of the advice, and of fixed choices, on all sets that are trained."""
    each = {metric: gains(results, metric) for metric in METRICS}
    table: dict[str, dict[str, list[float]]] = {}
    sets, claims = [], dict.fromkeys(METRICS, 0)
    for s, result in enumerate(results):
        advised: dict[str, list[str]] = {}
        for metric in METRICS:
            known = estimate({name: np.delete(of, s, 0) for name, of in each[metric].items()})
            for own, other in (result["halves"], result["halves"][::-1]):
                regret = _regret(other[metric], metric)
                choices = _choices(own[metric], metric, known)
                ways = choices | {f"always {name}": name for name in regret} | _own_loss(metric)
                for way, name in ways.items():
                    table.setdefault(way, {}).setdefault(metric, []).append(regret.get(name, np.nan))
                advised.setdefault(metric, []).append(choices["advised"])
                at = own[metric]["names"].index(choices["advised"])
                claims[metric] += own[metric]["over_reference"][at] == "better"
        sets.append({k: v for k, v in result.items() if k != "halves"} | {"advised": advised})
    # Two halves of a set are averaged first; a way that failed somewhere does not count.
    by_set = {w: {m: np.reshape(r, (-1, 2)).mean(1) for m, r in of.items()} for w, of in table.items()}
    whole = {w: of for w, of in by_set.items() if all(np.isfinite(r).all() for r in of.values())}
    means = {w: {m: round(float(r.mean()), 3) for m, r in of.items()} for w, of in whole.items()}
    for of in means.values():
        if len(of) == len(METRICS):
            of["mean"] = round(float(np.mean(list(of.values()))), 3)
    fixed = {w: of for w, of in whole.items() if len(of) == len(METRICS) and w != "advised"}
    return {
        "settings": {
            "folds": FOLDS,
            "repeats": 1,
            "trials": TRIALS,
            "steps": LIMITS.steps,
            "most_rows": MOST_ROWS,
            "left_out": LEFT_OUT,
        },
        "data_sets": len(sets),
        "mean_regret": dict(sorted(means.items(), key=lambda item: item[1].get("mean", np.inf))),
        "advised_less": {way: _less(whole["advised"], of) for way, of in fixed.items()},
        "claims_over_reference": {"of": 2 * len(sets), **claims},
        "sets": sets,
    }


def _choices(own: dict[str, list[Any]], metric: str, known: dict[str, Known]) -> dict[str, str]:
    names = own["names"]
    numbers = {k: np.array(own[k], dtype=float) for k in ("mean", "validation", "v_row", "v_b", "v_w")}
    to_free = Differences(**numbers, units=np.zeros((len(names), 1)))
    of = Prior({metric: known})
    found = {
        "advised": posterior(to_free, [of.of(metric, name) for name in names]).best,
        "by these rows alone": posterior(to_free, [prior.FLAT] * len(names)).best,
        "the best on validation rows": int(np.nanargmax(numbers["validation"])),
    }
    return {way: names[at] for way, at in found.items()} | {"always what is free": free(metric) or REFERENCE}


def _own_loss(metric: str) -> dict[str, str]:
    own = candidates.OWN.get(metric)
    return {} if own is None else {"always the metric's own loss": own.name}


def _regret(judging: dict[str, list[Any]], metric: str) -> dict[str, float]:
    sign = 100 if SINGLE_LABEL.choices()[metric].higher else -100
    estimates = {name: sign * value for name, value in zip(judging["names"], judging["estimate"], strict=True)}
    best = np.nanmax(list(estimates.values()))
    return {name: float(best - value) for name, value in estimates.items()}


def _less(advised: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """How much less regret the advice has than another way, over metrics, with the standard error over data sets."""
    per_set = np.mean([other[m] - advised[m] for m in METRICS], axis=0)
    error = per_set.std(ddof=1) / np.sqrt(len(per_set)) if len(per_set) > 1 else np.nan
    return {"mean": round(float(per_set.mean()), 3), "standard_error": round(float(error), 3)}


def shipped(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The prior of all sets."""
    known = {
        metric: {n: Known(round(k.mean, 3), round(k.variance, 4)) for n, k in estimate(gains(results, metric)).items()}
        for metric in METRICS
    }
    sets = tuple(result["name"] for result in results)
    return Prior(known, sets, datetime.date.today().isoformat(), "python benchmarks/advice.py").to_json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=Path("/tmp/peers"), help="where the packages of data are")
    parser.add_argument("--work", type=Path, default=Path("/tmp/lossfit-advice"), help="for the trainings")
    parser.add_argument("--sets", nargs="*", default=advice_data.names(), help="data sets, as package/set")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("--seconds", type=float, default=np.inf, help="begin no other set after so many")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--prior", type=Path, default=PRIOR)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Mean of empty slice")
    options.work.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    for name in () if options.judge else options.sets:
        if time.perf_counter() - begun > options.seconds:
            break
        run(options.packages, options.work, name)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.work.glob("*.json"))]
    found = judged(results)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    options.prior.write_text(json.dumps(shipped(results), indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in found.items() if k != "sets"}, indent=1))


if __name__ == "__main__":
    main()
