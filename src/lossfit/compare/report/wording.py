"""Numbers and names as people read them."""

from __future__ import annotations

from typing import Any

from lossfit.compare.candidates.candidates import ENDINGS
from lossfit.compare.scoring.tasks import CARDS, KINDS
from lossfit.compare.verdict.judge import HEAVY_TAILS
from lossfit.compare.verdict.summary import verdict

_TITLES = {
    "for_balanced_accuracy": "Balanced accuracy loss",
    "for_macro_f1": "Macro F1 loss",
    "for_brier": "Brier loss",
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

_PROPER = ("Brier", "Cohen", "Hamming", "Jaccard", "Matthews", "F0.5", "F1", "F2")


def title(loss: str) -> str:
    """A loss's name in a sentence or a chart."""
    for step, ending in ENDINGS.items():
        if loss.endswith(ending):
            return f"{title(loss.removesuffix(ending))}, {step} tuned"
    plain = loss.replace("cross_entropy", "cross-entropy").replace("_", " ")
    return _TITLES.get(loss, plain[:1].upper() + plain[1:])


def inline(loss: str) -> str:
    """A loss's name inside a sentence."""
    name = title(loss)
    return name if name.split(",")[0].isupper() else _lower(name)


def phrase(metric: str) -> str:
    """A metric's name inside a sentence."""
    return _lower(CARDS[metric].title)


def _lower(name: str) -> str:
    """Without a capital letter, unless a person's name or an abbreviation begins with it."""
    return name if name.startswith(_PROPER) else name[:1].lower() + name[1:]


_SHORT = {"label_smoothing": "", "weight_power": "power", "prior_power": "power", "coefficients": "eps"}


def setting(params: dict[str, float]) -> str:
    """The hyper-parameters of a loss, next to its name."""
    return ", ".join(f"{_SHORT.get(name, name)} {value:g}".strip() for name, value in params.items())


def with_setting(loss: str, params: dict[str, float]) -> str:
    """Focal loss, gamma 2; Label smoothing 0.1."""
    if not params:
        return title(loss)
    plain = loss.partition("+")[0]
    joint = " " if "label_smoothing" in params else ", "
    return f"{title(plain)}{joint}{setting(params)}{title(loss).removeprefix(title(plain))}"


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


def chance(probability: float | None) -> str:
    return "" if probability is None else "< 1%" if probability < 0.01 else f"{100 * probability:.0f}%"


def answer(summary: dict[str, Any]) -> list[str]:
    """What to use, what it gains, and whether that is a claim; then what else was found."""
    metric, reference = summary["metric"], summary["reference"]
    name, base = phrase(metric), inline(reference)
    entries = {e["loss"]: e for e in summary["losses"]}
    advised = summary["advised"]
    if not entries[reference]["differences"]:
        return [f"Nothing can be compared to {base}: for a fold or more, every training of it failed."]
    value = f"{number(entries[reference]['test'][metric]['mean'], metric)}{'%' if CARDS[metric].percent else ''}"
    entry = entries[advised["loss"]]
    start = len(title(entry["loss"].partition("+")[0]))
    chosen = inline(entry["loss"])[:start] + with_setting(entry["loss"], entry["params"])[start:]
    likely = f"the best of all with a probability of {chance(advised['probability_best'])}"
    others = [e for e in summary["losses"] if e["vs_cross_entropy"] is not None and e["loss"] != advised["loss"]]
    if not others:
        why = "nothing else was compared" if len(entries) == 1 else "every other candidate failed"
        return [f"{title(reference)} reaches {value} {name}; {why}."]
    if entry["loss"] == reference:
        found = [f"Stay with {base} ({value} {name}): it is {likely}."]
    elif entry["loss"] == summary["free"]:
        found = [f"Use {inline(entry['loss'])}, which costs no training: it is {likely}."]
    else:
        of = "of " if unit(metric) else "in "
        expected = f"{_signed(entry['expected'], metric)} {of}{name} expected over {inline(summary['free'])}"
        found = [f"Use {chosen}: {expected}, {likely}."]
    if entry["loss"] != reference:
        measured = f"{change(entry['vs_cross_entropy']['difference'], metric)}{unit(metric)}"
        found.append(
            f"Measured over {base}'s {value}: {measured} (95% interval {interval(entry['vs_cross_entropy'], metric)})."
        )
        found.append(_claim(summary, entry))
        if metric in HEAVY_TAILS and advised["claim"] != "none":
            found.append("Nothing is said about models trained on other rows.")
    else:
        found.append("No other candidate is expected to gain anything.")
    more = [entries[loss] for loss in summary["alternatives"]]
    if more:
        told = ", ".join(f"{inline(e['loss'])} ({_outlook(e, metric)})" for e in more)
        found.append(f"Next: {told}.")
    also = [e for e in others if verdict(e["vs_cross_entropy"]) == "better" and e not in more]
    worse = [e for e in others if verdict(e["vs_cross_entropy"]) == "worse"]
    if also:
        found.append(f"Measurably better than {base} too: {_list(also, metric)}.")
    if worse:
        found.append(f"Measurably worse than {base}: {_list(worse, metric)}.")
    if summary["prior"]["note"]:
        found.append(summary["prior"]["note"])
    return found + _borrowed(summary, [advised["loss"], *summary["alternatives"]])


def _borrowed(summary: dict[str, Any], named: list[str]) -> list[str]:
    """What was expected without other data sets having measured it, of the candidates that are named."""
    borrowed = summary["prior"].get("borrowed", {})
    if not borrowed:
        return []
    median = f"the median of all candidates by {phrase(next(iter(borrowed.values())))} stands in"
    if len(borrowed) == len(summary["losses"]):
        return [f"No other data set was measured by {phrase(summary['metric'])}: {median}."]
    unknown = [inline(loss) for loss in named if loss in borrowed]
    return [f"Other data sets say nothing about {', '.join(unknown)}: {median}."] if unknown else []


def _claim(summary: dict[str, Any], entry: dict[str, Any]) -> str:
    """Whether the gain of the advised candidate is more than chance."""
    base, free = inline(summary["reference"]), inline(summary["free"])
    claimed, rows = summary["advised"]["claim"], "for models trained on these rows"
    if claimed == "none":
        return f"Not proven better than {base}: the difference may be chance. Still the best bet."
    if claimed == "better_than_free" and summary["free"] != summary["reference"]:
        return f"Measurably better than {base}, and than {free}, {rows}."
    if claimed == "better_than_free" or entry["loss"] == summary["free"]:
        return f"Measurably better than {base}, {rows}."
    return (
        f"Measurably better than {base}, {rows}. Not proven better than {free}: the difference may be chance. Still "
        "the best bet."
    )


def _outlook(entry: dict[str, Any], metric: str) -> str:
    return f"{_signed(entry['expected'], metric)} expected, probability {chance(entry['probability_best'])}"


def _signed(gain: float, metric: str) -> str:
    """A gain, of which more is better, as a change of the metric."""
    return change(gain if CARDS[metric].higher else -gain, metric) + unit(metric)


def gain(value: float | None, metric: str) -> str:
    """The same in a table."""
    return "" if value is None else change(value if CARDS[metric].higher else -value, metric)


def _list(entries: list[dict[str, Any]], metric: str) -> str:
    return ", ".join(f"{inline(e['loss'])} ({change(e['vs_cross_entropy']['difference'], metric)})" for e in entries)


def searched(summary: dict[str, Any]) -> str:
    """How the settings were tried and chosen, and what was given up early."""
    search = summary["search"]
    found = (
        f"{summary['trials']} for each loss: the same learning rates and weight decays, and values of its own. For "
        f"each fold the setting is chosen that is best by {phrase(summary['metric'])} on the rows outside of that "
        f"fold, at the best of {search['checkpoints']} checkpoints."
    )
    if search["pruned"]:
        found += (
            f" After a quarter and after half of the steps the worse half of a fold's settings was given up: "
            f"{search['pruned']:,} of {search['settings']:,}."
        )
    if search["stopped"]:
        found += (
            f" {search['stopped']:,} ended early: no setting of their fold had improved for {search['patience']} "
            "checkpoints."
        )
    return found


def other_metrics(summary: dict[str, Any]) -> list[str]:
    """For each metric not asked for, which candidates are better or worse than the reference."""
    found = []
    for metric, card in KINDS[summary["labels"]].measured(summary["metric"]).items():
        if metric == summary["metric"]:
            continue
        sides: dict[str, list[str]] = {"better": [], "worse": []}
        for entry in summary["losses"]:
            difference = entry["differences"].get(metric)
            side = verdict(difference)
            if side in sides:
                sides[side].append(f"{inline(entry['loss'])} ({change(difference['difference'], metric)})")
        parts = [f"{side}: {', '.join(names)}" for side, names in sides.items() if names]
        if parts:
            found.append(f"{card.title}{unit(metric) and ', points'} - {'; '.join(parts)}.")
    return found
