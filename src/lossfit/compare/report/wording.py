"""Numbers and names as people read them."""

from __future__ import annotations

from typing import Any

from lossfit.compare.scoring.tasks import CARDS, KINDS
from lossfit.compare.verdict.summary import verdict

_TITLES = {
    "for_balanced_accuracy": "Balanced accuracy loss",
    "for_macro_f1": "Macro F1 loss",
    "for_brier": "Brier loss",
    "cross_entropy+tuned_prior": "Cross-entropy, prior tuned",
    "cross_entropy+temperature": "Cross-entropy, temperature tuned",
    "bce+tuned_thresholds": "Binary cross-entropy, thresholds tuned",
    "exact": "EXACT",
    "bce": "Binary cross-entropy",
    "zlpr": "ZLPR",
    "focal_bce": "Focal binary cross-entropy",
    "asymmetric": "Asymmetric loss",
    "focal": "Focal loss",
    "poly": "Poly loss",
    "hinge": "Hinge loss",
    "squared": "Squared loss",
    "exponential": "Exponential loss",
    "logistic_margin": "Logistic margin",
    "exponential_margin": "Exponential margin",
}


def title(loss: str) -> str:
    """A loss's name in a sentence or a chart."""
    plain = loss.replace("cross_entropy", "cross-entropy").replace("_", " ")
    return _TITLES.get(loss, plain[:1].upper() + plain[1:])


def inline(loss: str) -> str:
    """A loss's name inside a sentence."""
    name = title(loss)
    return name if name.isupper() else name[:1].lower() + name[1:]


def phrase(metric: str) -> str:
    """A metric's name inside a sentence."""
    name = CARDS[metric].title
    return name[:1].lower() + name[1:]


_SHORT = {"label_smoothing": "", "weight_power": "power", "prior_power": "power", "coefficients": "eps"}


def setting(params: dict[str, float]) -> str:
    """The hyper-parameters of a loss, next to its name."""
    return ", ".join(f"{_SHORT.get(name, name)} {value:g}".strip() for name, value in params.items())


def with_setting(loss: str, params: dict[str, float]) -> str:
    """Focal loss, gamma 2; Label smoothing 0.1."""
    joint = " " if "label_smoothing" in params else ", "
    return f"{title(loss)}{joint}{setting(params)}" if params else title(loss)


def number(value: float | None, metric: str) -> str:
    """A metric's value: in percent where it is one."""
    if value is None:
        return "failed"
    return f"{100 * value:.1f}" if CARDS[metric].percent else f"{value:.3f}"


def change(value: float, metric: str) -> str:
    """A difference with its sign, in percentage points where the metric is in percent."""
    found = f"{100 * value:+.1f}" if CARDS[metric].percent else f"{value:+.3f}"
    return found.replace("-", "\N{MINUS SIGN}")


def interval(difference: dict[str, Any], metric: str) -> str:
    low, high = difference["ci95"]
    return f"{change(low, metric)} to {change(high, metric)}"


def unit(metric: str) -> str:
    return " points" if CARDS[metric].percent else ""


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def chance(probability: float | None) -> str:
    return "" if probability is None else "< 1%" if probability < 0.01 else f"{100 * probability:.0f}%"


def answer(summary: dict[str, Any]) -> list[str]:
    """The recommendation in a sentence, and what else was found out."""
    metric = summary["metric"]
    name = phrase(metric)
    reference = summary["reference"]
    entries = {e["loss"]: e for e in summary["losses"]}
    base = f"{number(entries[reference]['test'][metric]['mean'], metric)}{'%' if CARDS[metric].percent else ''}"
    others = [e for e in summary["losses"] if e["vs_cross_entropy"] is not None and e["loss"] != reference]
    sides = {
        side: [e for e in others if verdict(e["vs_cross_entropy"], metric) == side] for side in ("better", "worse")
    }
    if not entries[reference]["differences"]:
        failed = f"Nothing can be compared to {inline(reference)}: in a split or more, every training of it failed"
        return [f"{failed} (its numbers stopped being finite)."]
    if not others:
        why = (
            "in a split or more, every training of each other loss failed"
            if len(entries) > 1
            else "nothing else was compared"
        )
        return [f"{title(reference)} reaches {base} {name}; {why}."]
    entry = entries[summary["recommended"]["loss"]]
    chosen = with_setting(entry["loss"], entry["params"])
    if summary["recommended"]["better_than_cross_entropy"]:
        verb = f"Keep {inline(reference)} and tune it after training" if entry["free"] else f"Train with {chosen}"
        found = [f"{verb}: {_gain(entry, metric)} {name} over {inline(reference)}'s {base}."]
        found += [
            f"It beats what is free too: {change(v['difference'], metric)}{unit(metric)} over {inline(v['loss'])}."
            for v in summary["recommended"]["better_than_free"]
        ]
    elif entry["free"]:
        found = [f"Use {inline(entry['loss'])}: it is free, and no loss is measurably better than it."]
    elif summary["distinguishable"]:
        found = [f"Stay with {inline(reference)} ({base} {name}): no other loss is measurably better."]
    else:
        found = [f"No loss is distinguishable from {inline(reference)} ({base} {name}) on this data: stay with it."]
    also = [e for e in sides["better"] if e is not entry]
    if also:
        found.append(f"Measurably better than {inline(reference)} too: {_list(also, metric)}.")
    if summary["held_back"]:
        names = ", ".join(inline(held) for held in summary["held_back"])
        found.append(f"Not measurably better than what is free: {names}.")
    if not sides["better"]:
        found += _undecided(summary, others, metric)
    if sides["worse"]:
        found.append(f"Measurably worse: {_list(sides['worse'], metric)}.")
    return found


def _undecided(summary: dict[str, Any], others: list[dict[str, Any]], metric: str) -> list[str]:
    """What the means say, what would tell, and what to take if one has to choose."""
    best = others[0]
    # Means of the same numbers in another order may differ in the last digit.
    if best["vs_cross_entropy"]["difference"] * (1 if CARDS[metric].higher else -1) <= 1e-12:
        return ["None is better on average either."]
    found = [f"On average the best, {inline(best['loss'])}, changes it by {_gain(best, metric)}."]
    needed = best["needed"] or {"splits": None, "rows": None}
    if needed["splits"] is not None:
        found.append(f"If that is true, about {needed['splits']} splits would tell; that is an estimate.")
    elif needed["rows"] is not None and needed["rows"] > 1000:
        found.append("If that is true, neither more splits nor a thousand times the rows would tell.")
    elif needed["rows"] is not None:
        times = f"{needed['rows']:.1f}" if needed["rows"] < 10 else f"{needed['rows']:.0f}"
        found.append(
            f"If that is true, no number of splits would tell, but about {times} times the rows; that is an estimate."
        )
    guess = summary["best_guess"]
    if guess is not None and guess["loss"] != summary["reference"]:
        free = "which is free and " if any(e["free"] for e in others if e["loss"] == guess["loss"]) else ""
        found.append(
            f"As a guess, which is no finding: {with_setting(guess['loss'], guess['params'])}, {free}the best of all "
            f"with a probability of {100 * guess['probability_best']:.0f}%."
        )
    return found


def _gain(entry: dict[str, Any], metric: str) -> str:
    versus = entry["vs_cross_entropy"]
    return f"{change(versus['difference'], metric)}{unit(metric)} (95% interval {interval(versus, metric)})"


def _list(entries: list[dict[str, Any]], metric: str) -> str:
    return ", ".join(f"{inline(e['loss'])} ({change(e['vs_cross_entropy']['difference'], metric)})" for e in entries)


def searched(summary: dict[str, Any]) -> str:
    """How the settings were tried and chosen, and what was given up early."""
    search = summary["search"]
    tried = f"{summary['trials']} for each loss: the same learning rates and weight decays, and values of its own"
    found = (
        f"{tried}. In each split the one that is best by {phrase(summary['metric'])} on the validation rows is tested, "
        f"at the best of {search['checkpoints']} checkpoints."
    )
    if search["pruned"]:
        found += (
            f" After a quarter and after half of the steps the worse half of a split's settings was given up: "
            f"{search['pruned']:,} of {summary['trainings']:,} trainings."
        )
    if search["stopped"]:
        found += (
            f" {search['stopped']:,} ended early: no training of their split had improved for {search['patience']} "
            "checkpoints."
        )
    return found


def other_metrics(summary: dict[str, Any]) -> list[str]:
    """For each metric not asked for, which losses are better or worse than the reference."""
    found = []
    for metric, card in KINDS[summary["labels"]].metrics.items():
        if metric == summary["metric"]:
            continue
        sides: dict[str, list[str]] = {"better": [], "worse": []}
        for entry in summary["losses"]:
            difference = entry["differences"].get(metric)
            side = verdict(difference, metric)
            if side in sides:
                sides[side].append(f"{inline(entry['loss'])} ({change(difference['difference'], metric)})")
        parts = [f"{side}: {', '.join(names)}" for side, names in sides.items() if names]
        if parts:
            found.append(f"{card.title}{unit(metric) and ', points'} - {'; '.join(parts)}.")
    return found
