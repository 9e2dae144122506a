"""Curves of the losses, against their formulas."""

import math
from pathlib import Path

import pytest

import lossfit
from helpers import REQUIRED, case_id, every_case, promises_value_gradient
from lossfit import plot


def test_cross_entropy_against_p() -> None:
    found = plot.curve(lossfit.CrossEntropyLoss())
    assert found["p"] == pytest.approx([0.005 + 0.99 * i / (plot.POINTS - 1) for i in range(plot.POINTS)])
    assert found["gap"] == pytest.approx([math.log(p / (1 - p)) for p in found["p"]], abs=1e-12)
    assert found["loss"] == pytest.approx([-math.log(p) for p in found["p"]])
    assert found["sensitivity"] == pytest.approx([1 / p for p in found["p"]])


def test_hinge_against_the_gap() -> None:
    found = plot.curve(lossfit.HingeLoss(margin=1.0), "gap", reach=3.0)
    assert found["gap"][0] == -3
    assert found["gap"][-1] == 3
    assert found["loss"] == pytest.approx([max(0.0, 1 - d) for d in found["gap"]])
    away = [(d, s) for d, s in zip(found["gap"], found["sensitivity"], strict=True) if abs(d - 1) > 1e-9]
    assert [s for _, s in away] == [float(d < 1) for d, _ in away]


@pytest.mark.parametrize("case", every_case(), ids=case_id)
def test_the_sensitivity_is_the_slope(case: tuple[str, dict[str, object]]) -> None:
    name, settings = case
    loss = lossfit.make(name, **{**REQUIRED.get(name, {}), **settings})
    found = plot.curve(loss, "gap")
    assert all(map(math.isfinite, found["loss"]))
    if not promises_value_gradient(name, settings) or name in ("hinge", "sum_hinge"):
        return
    step = found["gap"][1] - found["gap"][0]
    for i in range(1, plot.POINTS - 1):
        slope = (found["loss"][i - 1] - found["loss"][i + 1]) / (2 * step)
        # The curvature of EXACT's logarithm and of an exponential bound the error of a central difference.
        assert found["sensitivity"][i] == pytest.approx(slope, rel=0.05, abs=5e-3)


def test_a_loss_keeps_its_reduction() -> None:
    loss = lossfit.FocalLoss(reduction="sum")
    plot.curve(loss)
    assert loss.reduction == "sum"


def test_an_unknown_axis() -> None:
    with pytest.raises(ValueError, match=r"`against` to be one of 'p', 'gap', but got 'x'"):
        plot.curve(lossfit.FocalLoss(), "x")


def test_names_become_a_legend(tmp_path: Path) -> None:
    path = tmp_path / "losses.svg"
    plot.save({"mine": lossfit.FocalLoss(), "a <b> & c": lossfit.HingeLoss()}, path, "gap")
    picture = path.read_text()
    assert "mine" in picture
    assert "a &lt;b&gt; &amp; c" in picture
