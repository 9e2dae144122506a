"""The explorer in a real browser: its formulas are the library's, it draws, trains, and can be used by keyboard."""

import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lossfit
from lossfit.losses.single_label.link import AnalyticLoss

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
GAPS = [*(i / 4 for i in range(-48, 49)), -30.0, -20.0, 20.0, 30.0]
# Links of the page by the names of the library, where they differ.
OTHER = {"squared_hinge": "hinge", "exact_log": "exact"}


@pytest.fixture(scope="module")
def view(browser: Any, address: str) -> Iterator[Any]:
    """The page, and what went wrong on it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.faults = []
    page.on("console", lambda m: page.faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((address, "data:")) else page.faults.append(r.url))
    page.goto(f"{address}explorer.html")
    page.wait_for_selector("#plane svg")
    yield page
    page.close()


def links(view: Any) -> dict[str, Any]:
    found: dict[str, Any] = view.evaluate(
        """Object.fromEntries(Object.entries(lossfitLinks.links).map(([name, link]) =>
            [name, {hypers: link.hypers, fixed: link.fixed || {}, code: link.code}]))"""
    )
    return found


def test_it_has_every_link(view: Any) -> None:
    registered = {
        name
        for name in lossfit.available_losses("single_label")
        if issubclass(lossfit.registry.get(name), AnalyticLoss | lossfit.ExactLoss)
    }
    assert {OTHER.get(name, name) for name in links(view)} == registered - {"sensitivity"}  # your own function


def test_its_formulas_are_the_librarys(view: Any) -> None:
    d = torch.tensor(GAPS, dtype=torch.float64, requires_grad=True)
    logits, target = torch.stack([d, torch.zeros_like(d)], 1), torch.zeros(len(GAPS), dtype=torch.int64)
    compared = 0
    for name, link in links(view).items():
        keys = [h["key"] for h in link["hypers"]]
        places = [[h["min"], h["value"], h["max"]] for h in link["hypers"]]
        for values in zip(*places, strict=True) if places else [()]:
            given = dict(zip(keys, values, strict=True))
            # What the slider says and the library's own number are the same.
            loss = lossfit.make(OTHER.get(name, name), **link["fixed"], **given, reduction="none")
            assert type(loss).__name__ == link["code"]
            value = loss(logits, target)
            (slope,) = torch.autograd.grad(value.sum(), d, retain_graph=True)
            found = view.evaluate(
                "([name, gaps, given]) => gaps.map((d) => Object.values(lossfitLinks.links[name].at(d, given)))",
                [name, GAPS, given],
            )
            exact = OTHER.get(name, name) == "exact"
            for gap, (theirs, pull), ours, grad in zip(GAPS, found, value.tolist(), slope.tolist(), strict=True):
                near = {"rel_tol": 1e-5, "abs_tol": 1e-7} if exact else {"rel_tol": 1e-9, "abs_tol": 1e-13}
                assert math.isclose(theirs, ours, **near), (name, given, gap)
                kink = name == "hinge" and gap == given["margin"]
                assert kink or math.isclose(pull, -grad, **near), (name, given, gap)
                compared += 1
    assert compared > 3000


def test_it_starts_from_the_librarys_defaults(view: Any) -> None:
    for name, link in links(view).items():
        parameters = inspect.signature(lossfit.registry.get(OTHER.get(name, name))).parameters
        for hyper in link["hypers"]:
            default = parameters[hyper["key"]].default
            assert hyper["value"] == (1.0 if name == "poly" else default), (name, hyper)


def test_moving_a_slider_redraws_and_trains(view: Any) -> None:
    view.select_option("#loss", "focal")
    slider = view.locator("#hyper-gamma")
    trained = "document.getElementById('explorer').dataset.trained"
    view.wait_for_function(f"({trained} || '').startsWith('focal')")
    before = view.inner_html("#curve-loss"), view.inner_html("#plane"), view.evaluate(trained)
    slider.focus()
    view.keyboard.press("End")
    view.wait_for_function(f"{trained} !== {before[2]!r}")
    assert view.inner_text("#hypers output") == "5"
    assert view.inner_text("#code") == "lossfit.FocalLoss(gamma=5)"
    assert view.inner_html("#curve-loss") != before[0]
    assert view.inner_html("#plane") != before[1]
    assert view.inner_text("#reference-accuracy").endswith("%")
    for control, value in (("#shape", "moons"), ("#model", "hidden"), ("#axis", "gap")):
        last = view.evaluate(trained), view.inner_html("#curve-loss")
        view.select_option(control, value)
        if control == "#axis":
            assert view.inner_html("#curve-loss") != last[1]
        else:
            view.wait_for_function(f"{trained} !== {last[0]!r}")
    for name in links(view):  # each draws, in the browser's own words
        view.select_option("#loss", name)
        assert "NaN" not in view.inner_html("#curve-loss") + view.inner_html("#curve-sensitivity")
    assert view.faults == []


TRAINED = """([shape, rare, noise, hidden, steps, loss, what]) => {
  const {rows, make, train, judge} = lossfitTraining;
  const link = lossfitLinks.links[loss];
  const given = lossfitLinks.defaults(link);
  return Array.from({length: 6}, (_, i) => {
    const model = make(hidden, 3);
    train(model, rows(shape, 240, rare, noise, 7 + i), (d) => link.at(d, given), {steps});
    return 100 * judge(model, rows(shape, 4000, rare, 0, 1007 + i))[what];
  });
}"""


def test_a_model_that_learnt_nothing_names_one_class(view: Any) -> None:
    found = view.evaluate(
        "(({rows, make, judge}) => judge(make(0, 3), rows('clouds', 100, 0.5, 0, 1)))(lossfitTraining)"
    )
    assert found["balanced"] == 0.5


def test_what_it_says_of_its_samples(view: Any) -> None:
    page = " ".join((ROOT / "docs" / "explorer.md").read_text(encoding="utf-8").split())
    told = [(float(low), float(high)) for low, high in re.findall(r"(\d+) to (\d+)% for", page)]
    cases = [("far", 0.5, 0, 0, 300), ("clouds", 0.5, 0.4, 12, 1000), ("clouds", 0.05, 0, 0, 300)]
    found = []
    for case, what in zip(cases, ("accuracy", "accuracy", "balanced"), strict=True):
        for loss in ("cross_entropy", "expected_accuracy"):
            values = view.evaluate(TRAINED, [*case, loss, what])
            found.append((min(values), max(values)))
    assert len(told) == len(found)
    for ours, theirs in zip(found, told, strict=True):
        assert ours == pytest.approx(theirs, abs=1.0)  # browsers differ in the last digits of exp


def test_its_gradient_is_that_of_its_loss(view: Any) -> None:
    differences = view.evaluate(
        """() => {
          const {rows, make, step} = lossfitTraining;
          const data = rows("moons", 20, 0.5, 0.2, 5);
          const at = (d) => lossfitLinks.links.focal.at(d, {gamma: 1.5});
          return [0, 4].map((hidden) => {
            const model = make(hidden, 3);
            const n = model.parameters.length;
            const gradient = new Float64Array(n);
            step(model, data, at, gradient, 0);
            return Math.max(...Array.from({length: n}, (_, i) => {
              const value = (by) => {
                const moved = {hidden, parameters: model.parameters.slice()};
                moved.parameters[i] += by;
                return step(moved, data, at, new Float64Array(n), 0);
              };
              return Math.abs((value(1e-5) - value(-1e-5)) / 2e-5 - gradient[i]);
            }));
          });
        }"""
    )
    assert max(differences) < 1e-8


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_can_be_read_and_used(browser: Any, address: str, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(f"{address}explorer.html")
    page.wait_for_selector("#plane svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = """[...document.querySelectorAll('#explorer :is(select, input, button)')]
        .filter((e) => !e.labels.length || !e.labels[0].textContent.trim()).map((e) => e.id)"""
    assert page.evaluate(unnamed) == []
    assert page.evaluate("[...document.querySelectorAll('#explorer svg[role=img]')].every((e) => e.ariaLabel)")
    contrast = """() => {
      const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
      const light = (colour) => {
        paint.clearRect(0, 0, 1, 1);
        paint.fillStyle = getComputedStyle(document.body).backgroundColor;
        paint.fillRect(0, 0, 1, 1);
        paint.fillStyle = colour;
        paint.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => {
          const c = v / 255;
          return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      const ratio = (colour) => (Math.max(light(colour), ground) + 0.05) / (Math.min(light(colour), ground) + 0.05);
      const style = (selector, part) => ratio(getComputedStyle(document.querySelector(selector))[part]);
      return {text: [style("#explorer label", "color"), style("#curve-loss text", "fill"),
                     style("#explorer td", "color"), style("#chosen-name", "color"), style(".md-typeset p a", "color")],
              lines: [style("polyline.chosen", "stroke"), style("polyline.reference", "stroke"),
                      style("#plane .first", "fill"), style("#plane .second", "fill")]};
    }"""
    found = page.evaluate(contrast)
    assert min(found["text"]) >= 4.5, found
    assert min(found["lines"]) >= 3, found
    page.close()
