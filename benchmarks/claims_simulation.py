"""How often paired folds claim a difference that is not there, and how often one that is: by simulation.

    python benchmarks/claims_simulation.py      # written to benchmarks/results/claims_simulation.json; about 3 minutes

A row is right or wrong under a model if a normal number is below a threshold: the sum of how hard the row is for all
models, how hard it is for models of this loss, how hard it is for this model, and how good the model is. So losses
differ on rows in what they get right, trainings differ in a loss, and the true accuracy of a loss is set exactly. Five
folds and two repeats: each pair of folds has a model, which is tested on both.

- equal: 21 losses of the same accuracy. Any claim, better or worse, is false.
- twins: 21 times the same loss, with other seeds. Any claim is false.
- one loss of 21 is better by 1, 2 or 4 points. Found is a claim for this one; false is a claim for another one.

Coverage is that of the 95% intervals of single differences to the reference. No difference that other training rows
would make is simulated: the claims are about models trained on these rows.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from lossfit.compare.verdict.judge import Verdict, judge
from lossfit.compare.verdict.prior import Prior
from lossfit.compare.verdict.variance import Layout, Passes

FOLDS, REPEATS = 5, 2
REFERENCE = "cross_entropy"


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        losses: besides the reference.
        rows: of the data set.
        accuracy: of every loss but the last.
        effect: by how many points the last loss is better.
        of_loss, of_model, of_training: how much rows differ between losses, between models, and models as a whole, in
            units of how much rows differ for all models.
    """

    losses: int = 20
    rows: int = 500
    accuracy: float = 0.75
    effect: float = 0.0
    of_loss: float = 0.4
    of_model: float = 0.5
    of_training: float = 0.05


def comparison(setting: Setting, rng: np.random.Generator) -> tuple[Passes, Layout]:
    """What the models of all losses get right, pass by pass."""
    names = [REFERENCE, *(f"loss_{i}" for i in range(setting.losses))]
    spread = np.sqrt(1 + setting.of_loss**2 + setting.of_model**2 + setting.of_training**2)
    accuracy = np.full(len(names), setting.accuracy)
    accuracy[-1] += setting.effect / 100
    threshold = spread * norm.ppf(accuracy)[:, None]
    hard = rng.normal(size=setting.rows) + setting.of_loss * rng.normal(size=(len(names), setting.rows))
    folds = np.stack([rng.permutation(setting.rows) % FOLDS for _ in range(REPEATS)])
    hits = np.empty((len(names), REPEATS, FOLDS - 1, setting.rows))
    for repeat, fold in enumerate(folds):
        for a in range(FOLDS):
            for b in range(a):
                at = (fold == a) | (fold == b)
                model = setting.of_model * rng.normal(size=(len(names), at.sum()))
                model += setting.of_training * rng.normal(size=(len(names), 1))
                right = hard[:, at] + model < threshold
                for tested, other in ((a, b), (b, a)):
                    own = np.flatnonzero(fold == tested)
                    hits[:, repeat, (other - tested) % FOLDS - 1, own] = right[:, fold[at] == tested]
    values = hits.mean(3)
    layout = Layout(folds, REPEATS * FOLDS * (FOLDS - 1) // 2)
    return Passes(names, values, values.mean(2), (hits - values[..., None]).astype(np.float32)), layout


def outcome(setting: Setting, verdict: Verdict) -> dict[str, bool | float]:
    """What is claimed in one comparison, and what is true."""
    others = verdict.candidates[1:]
    last = others[-1]
    wrong = others[:-1] if setting.effect else others
    true = [0.0] * (len(others) - 1) + [setting.effect / 100]
    reaches = [c.over_reference for c in others]
    return {
        "found": setting.effect > 0 and last.over_reference.side == "better",
        "false_better": any(c.over_reference.side == "better" for c in wrong),
        "false": any(c.over_reference.side != "undecided" for c in wrong) or last.over_reference.side == "worse",
        "covered": float(np.mean([g.low <= t <= g.high for g, t in zip(reaches, true, strict=True)])),
        "half_width": 100 * float(np.mean([(g.high - g.low) / 2 for g in reaches])),
        "critical": verdict.critical_reference,
        "advised_best": last is verdict.advised,
    }


def measure(setting: Setting, count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        passes, layout = comparison(setting, rng)
        found.append(outcome(setting, judge(passes, layout, "accuracy", Prior(), reference=REFERENCE, seed=i)))
    column = {name: [one[name] for one in found] for name in found[0]}
    return {
        **asdict(setting),
        "comparisons": count,
        **{name: int(sum(column[name])) for name in ("found", "false_better", "false", "advised_best")},
        "coverage": round(float(np.mean(column["covered"])), 3),
        "half_width_points": round(float(np.mean(column["half_width"])), 2),
        "critical_value": round(float(np.mean(column["critical"])), 2),
    }


SETTINGS = {
    "equal": Setting(),
    "twins": Setting(of_loss=0.0),
    "better by 1 point": Setting(effect=1.0),
    "better by 2 points": Setting(effect=2.0),
    "better by 4 points": Setting(effect=4.0),
    "better by 2 points of 2,000 rows": Setting(effect=2.0, rows=2000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=400, help="of each setting (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "claims_simulation.json")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "command": f"python benchmarks/claims_simulation.py --comparisons {options.comparisons} --seed {options.seed}",
        "settings": {},
    }
    for name, setting in SETTINGS.items():
        start = time.perf_counter()
        result["settings"][name] = measure(setting, options.comparisons, options.seed)
        print(f"{name}: {result['settings'][name]}, {time.perf_counter() - start:.0f} s", flush=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
