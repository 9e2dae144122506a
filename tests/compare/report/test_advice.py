"""The sentences of the advice, case by case."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from lossfit.compare.report.advice import sentences
from lossfit.compare.verdict.claims import Side
from lossfit.compare.verdict.judge import Gain, Judged, Verdict
from lossfit.compare.verdict.prior import FLAT
from lossfit.compare.verdict.variance import Differences

CE, FREE = "cross_entropy", "cross_entropy+tuned_prior"


@dataclass
class Case:
    advised: str
    over_reference: Side
    over_free: Side
    metric: str = "balanced_accuracy"
    words: list[str] = field(default_factory=list)


def verdict(case: Case) -> Verdict:
    def judged(name: str, reference: Side, free: Side) -> Judged:
        return Judged(
            name, Gain(0.5, 0.4, 0.6, "undecided"), Gain(0.039, 0.021, 0.057, reference), Gain(0.01, -0.01, 0.03, free),
            0.004, 0.31, FLAT,
        )  # fmt: skip

    advised = judged(case.advised, case.over_reference, case.over_free)
    none = np.zeros(1)
    return Verdict(
        advised, "none", [advised, judged("hinge", "worse", "worse")], CE, FREE, 2.5, 2.5,
        Differences(none, none, none, none, none, none[None]),
    )  # fmt: skip


CASES = [
    Case(
        "focal",
        "better",
        "better",
        words=["a change of +0.4 points over cross-entropy, prior tuned is expected", "31%",
               "Measured over cross-entropy: +3.9 points (95% interval +2.1 to +5.7)",
               "measurably better than cross-entropy, prior tuned, for models trained on your rows",
               "measurably worse than cross-entropy: hinge loss"],
    ),
    Case("focal", "better", "undecided", words=["not proven better than cross-entropy, prior tuned, which is free"]),
    Case("focal", "undecided", "undecided", words=["the difference may be chance. It is still the best bet"]),
    Case(FREE, "better", "undecided", words=["which is free: no other", "measurably better than cross-entropy"]),
    Case(FREE, "undecided", "undecided", words=["not proven better than cross-entropy: the difference may be chance"]),
    Case(CE, "undecided", "undecided", words=["Stay with cross-entropy"]),
    Case(
        "focal", "better", "better", "log_loss",
        words=["a change of \N{MINUS SIGN}0.004 over", "\N{MINUS SIGN}0.039 (95% interval \N{MINUS SIGN}0.021 to "
               "\N{MINUS SIGN}0.057)", "Nothing is said about models trained on other rows"],
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_sentences(case: Case) -> None:
    found = sentences(verdict(case), case.metric)
    text = " ".join(found)
    for words in case.words:
        assert words in text, text
    assert all(sentence.endswith(".") for sentence in found)
