"""The advice in sentences: the choice, what it gains, and apart from it whether that is a claim."""

from __future__ import annotations

from lossfit.compare.report import wording
from lossfit.compare.scoring.tasks import CARDS
from lossfit.compare.verdict.judge import HEAVY_TAILS, Gain, Verdict, claim


def sentences(verdict: Verdict, metric: str) -> list[str]:
    """What to use, what it gains over cross-entropy and over what is free, and whether that is measurable.

    Gains have the metric's own sign: of a metric where less is better, a gain is negative. The interval is the measured
    one; the expected gain has other data sets in mind.

    Args:
        verdict: of the comparison.
        metric: its name.
    """
    advised = verdict.advised
    name, reference, free = (wording.inline(c) for c in (advised.name, verdict.reference, verdict.free))
    if advised.name == verdict.reference:
        found = [f"Stay with {reference}: no other candidate is expected to be better. {_chance(verdict)}"]
    elif advised.name == verdict.free:
        found = [
            f"Use {name}, which is free: no other candidate is expected to be better. {_chance(verdict)}",
            _measured(advised.over_reference, reference, metric),
        ]
    else:
        expected = _signed(advised.expected, metric)
        found = [
            f"Use {name}: a change of {expected} over {free} is expected. {_chance(verdict)}",
            _measured(advised.over_reference, reference, metric),
        ]
        if verdict.free != verdict.reference:
            found.append(_measured(advised.over_free, free, metric))
    return [*found, *_claim(verdict, metric)]


def _claim(verdict: Verdict, metric: str) -> list[str]:
    """What is proven of the advised candidate, and which others are measurably worse."""
    advised, free = verdict.advised, wording.inline(verdict.free)
    reference = wording.inline(verdict.reference)
    found = []
    if advised.name not in (verdict.reference, verdict.free):
        found = {
            "better_than_free": [f"It is measurably better than {free}, for models trained on your rows."],
            "better_than_reference": [
                f"It is measurably better than {reference}, for models trained on your rows, but not proven better "
                f"than {free}, which is free."
            ],
            "none": [f"It is not proven better than {free}: the difference may be chance. It is still the best bet."],
        }[claim(advised)]
    elif advised.name != verdict.reference:
        proven = advised.over_reference.side == "better"
        found = [
            f"It is {'measurably better' if proven else 'not proven better'} than {reference}"
            f"{', for models trained on your rows' if proven else ': the difference may be chance'}."
        ]
    if found and metric in HEAVY_TAILS and claim(advised) != "none":
        found.append("Nothing is said about models trained on other rows.")
    worse = [wording.inline(c.name) for c in verdict.candidates if c.over_reference.side == "worse"]
    if worse:
        found.append(f"These are measurably worse than {reference}: {', '.join(worse)}.")
    return found


def _chance(verdict: Verdict) -> str:
    return f"It is the best of all with a probability of {wording.chance(verdict.advised.probability_best)}."


def _measured(gain: Gain, over: str, metric: str) -> str:
    ends = f"{_change(gain.low, metric)} to {_change(gain.high, metric)}"
    return f"Measured over {over}: {_signed(gain.mean, metric)} (95% interval {ends})."


def _signed(gain: float, metric: str) -> str:
    return f"{_change(gain, metric)}{wording.unit(metric)}"


def _change(gain: float, metric: str) -> str:
    return wording.change(gain if CARDS[metric].higher else -gain, metric)
