"""What the pictures of margins show, against the margins' formulas."""

import math
from pathlib import Path

import pytest
import torch

import lossfit
from lossfit import plot, plot_margins


def test_curves_are_the_formulas() -> None:
    found = plot_margins.curve(lossfit.AdditiveMargin(0.2))
    assert found["angle"] == pytest.approx(list(range(181)))
    assert found["score"] == pytest.approx([math.cos(math.radians(a)) - 0.2 for a in range(181)])
    assert plot_margins.curve(None)["score"] == pytest.approx(
        [math.cos(math.radians(a)) for a in range(181)], abs=1e-15
    )


def test_boundaries_of_two_classes() -> None:
    diagonal = plot_margins.boundary(None)
    assert diagonal["rival"] == pytest.approx(diagonal["target"], abs=1e-5)
    arc = plot_margins.boundary(lossfit.ArcMargin(math.radians(30)))
    assert arc["rival"] == pytest.approx([a + 30 for a in arc["target"]], abs=1e-5)
    assert max(arc["target"]) == pytest.approx(150)
    angular = plot_margins.boundary(lossfit.AngularMargin(3))
    assert angular["rival"] == pytest.approx([3 * a for a in angular["target"]], abs=1e-5)
    assert max(angular["target"]) == pytest.approx(60)
    additive = plot_margins.boundary(lossfit.AdditiveMargin(0.5))
    assert additive["rival"][0] == pytest.approx(60)


def test_regions_of_the_plane() -> None:
    head = lossfit.CosineHead(2, 4, margin=lossfit.ArcMargin(math.radians(30)))
    with torch.no_grad():  # right, up, left, down
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]))
    found = plot_margins.regions(head, reach=2.0, points=40)
    assert min(found["x"]) == -2
    assert max(found["y"]) == 2
    for x, y, c, held in zip(*found.values(), strict=True):
        direction = math.degrees(math.atan2(y, x))
        off = (direction + 45) % 90 - 45  # from the nearest axis
        if abs(abs(off) - 45) > 1e-3:
            assert c == round(direction / 90) % 4
        if abs(abs(off) - 30) > 1e-3:
            assert held == (abs(off) < 30)  # theta + 30 < 90 - theta
    with pytest.raises(ValueError, match="`head` with 2 features, but got 3"):
        plot_margins.regions(lossfit.LinearHead(3, 2))


def test_angles_to_the_own_and_the_nearest_other_class() -> None:
    head = lossfit.CosineHead(2, 3)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
    x = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in (20, 100)])
    own, other = plot_margins.angles(head, x, torch.tensor([0, 2]))
    assert own.tolist() == pytest.approx([20, 80], abs=1e-3)
    assert other.tolist() == pytest.approx([70, 10], abs=1e-3)


def test_histograms() -> None:
    found = plot_margins.histogram(torch.tensor([0.0, 44.9, 45.0, 180.0]), bins=4)
    assert found == {"start": [0, 45, 90, 135], "end": [45, 90, 135, 180], "share": [0.5, 0.25, 0, 0.25]}
    assert plot_margins.histogram(torch.zeros(0), bins=2)["share"] == [0, 0]


def test_charts_are_drawn(tmp_path: Path) -> None:
    margins = {"none": None, "a <b>": lossfit.ArcMargin(0.5)}
    head = lossfit.CosineHead(2, 3, margin=lossfit.AdditiveMargin(0.2))
    x = torch.randn(30, 2)
    charts = {
        "a &lt;b&gt;": plot_margins.curves_chart(margins),
        "angle to the rival": plot_margins.boundaries_chart(margins),
        "cats": plot_margins.regions_chart(head, ["cats", "dogs", "birds"]),
        "mine": plot_margins.angles_chart({"mine": (head, x, torch.zeros(30, dtype=torch.int64))}),
    }
    for i, (word, chart) in enumerate(charts.items()):
        path = tmp_path / f"{i}.svg"
        plot.write(chart, path)
        assert word in path.read_text()
