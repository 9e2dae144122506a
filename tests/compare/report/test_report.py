"""The page: everything in it, nothing from elsewhere, nothing that a name in the data could inject."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lossfit.compare.plan import Plan
from lossfit.compare.report import render, wording
from lossfit.compare.running import engine
from lossfit.compare.scoring import metrics
from lossfit.compare.verdict.summary import summarise
from pages import HOSTILE, LEAST_CONTRAST, Page, View
from trainings import QUICK

CHARTS = 12
MEGABYTES = 6


def hostile(folder: Path) -> Path:
    """A table whose file, columns and classes are named to break a page."""
    path = folder / f"{HOSTILE.replace('/', ' ')}.csv"
    rows = [f'{(i * 7) % 5},"{HOSTILE}{i % 3}"' for i in range(60)]
    path.write_text("\n".join([f"x,{HOSTILE}", *rows]))
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("report")
    plan = Plan(str(hostile(folder)), HOSTILE, losses="focal,label_smoothing,exact", folds=3, repeats=1, trials=2)
    outcome = engine.run(plan, folder / "out", limits=QUICK)
    summary = summarise(outcome)
    text = render(outcome, summary)
    return text, summary | {"outcome": outcome}


def test_names_in_the_data_stay_text(page: tuple[str, dict[str, Any]]) -> None:
    text, _ = page
    scripts = [attributes for tag, attributes in Page(text).elements if tag == "script"]
    assert "alert('x')</script>" not in text
    assert "<script>alert" not in text
    assert "<img" not in text.split('<script type="module">')[0]
    assert HOSTILE in html.unescape(Page(text).text)
    assert len(scripts) == text.count("<script")


def test_nothing_comes_from_elsewhere(page: tuple[str, dict[str, Any]]) -> None:
    text, _ = page
    for tag, attributes in Page(text).elements:
        assert tag not in ("iframe", "object", "embed", "base")
        assert not re.match(r"(https?:)?//", attributes.get("src") or "")
        assert tag != "link" or attributes.get("href", "").startswith("data:")
    assert not re.search(r"url\(\s*['\"]?(https?:)?//", text.split("<script")[0])
    assert len(text.encode()) < MEGABYTES * 1_000_000


def test_it_says_what_was_found_and_run(page: tuple[str, dict[str, Any]]) -> None:
    text, summary = page
    told = " ".join(html.unescape(Page(text).text).split())
    for sentence in wording.answer(summary):
        assert sentence in told
    for entry in summary["losses"]:
        assert f"{wording.title(entry['loss'])}{wording.setting(entry['params'])}" in told
        assert wording.number(entry["test"]["accuracy"]["mean"], "accuracy") in told
    for card in metrics.METRICS.values():
        assert card.title in told
    for name, version in summary["versions"].items():
        assert version in told, name
    for line in filter(None, summary["advised"]["code"]):
        assert " ".join(line.split()) in told


def test_it_says_how_rows_are_dealt_out(page: tuple[str, dict[str, Any]]) -> None:
    text, summary = page
    assert "It is tested on each of the two, where the other one helps to choose it" in text
    outcome = summary["outcome"]
    given = replace(outcome, data=replace(outcome.data, test=np.arange(60) < 20))
    told = render(given, summary)
    assert "folds, tested on given rows" in told
    assert "Both choose it, and it is tested on the given rows." in told


def data(text: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="page-data">(.*)</script>', text)
    assert found
    read: dict[str, Any] = json.loads(found.group(1))
    return read


def test_the_charts_are_specifications(page: tuple[str, dict[str, Any]]) -> None:
    text, _ = page
    places = {a["id"] for tag, a in Page(text).elements if "chart" in (a.get("class") or "").split()}
    specs = data(text)["specs"]
    assert set(specs) == places
    assert len(specs) == CHARTS
    assert {spec["description"] for spec in specs.values()}
    assert all(len(spec["description"]) > 40 and spec["usermeta"]["columns"] for spec in specs.values())
    assert specs["cost"]["encoding"]["x"]["scale"]["domainMin"] == 0  # no seconds below 0
    passes = json.dumps(specs["passes"])
    assert passes.count('"pass"') >= 4 * 2  # every pass is there to see


@pytest.fixture(scope="module")
def address(page: tuple[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page[0], encoding="utf-8")
    return path.as_uri()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_browser_draws_it(browser: Any, address: str, width: int, scheme: str) -> None:
    view = View(browser, width, scheme)
    view.open(address)
    assert view.page.evaluate("document.querySelectorAll('.chart svg').length") == CHARTS
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    for box in view.page.evaluate(
        "[...document.querySelectorAll('.chart svg')].map(s => s.getBoundingClientRect().toJSON())"
    ):
        assert box["width"] > 200
        assert box["height"] > 60
        assert box["right"] <= width
    # The answer is on the first screen, and names in the data are text in the charts.
    assert view.page.locator(".answer").bounding_box()["y"] < 500
    assert "<script>alert" in view.text("by_class")
    least, told, count = view.page.evaluate(LEAST_CONTRAST)
    assert count > 300
    assert least >= 4.5, told
    assert view.faults == []
    assert view.requests == [address]
    view.page.close()


@pytest.mark.browser
def test_controls_change_the_charts(browser: Any, address: str) -> None:
    view = View(browser, 1280)
    view.open(address)
    page = view.page
    before = {name: view.text(name) for name in ("differences", "passes", "risk_coverage", "by_class", "confusion")}
    assert "Focal loss" in before["differences"]
    page.locator("details.picker summary").click()
    page.get_by_label("Focal loss", exact=True).uncheck()
    for name in ("differences", "passes", "risk_coverage"):
        assert "Focal loss" not in view.changed(name, before[name]), name
    assert page.locator("[data-picked]").inner_text() == "3 of 4"
    page.get_by_role("button", name="All").click()
    page.keyboard.press("Escape")
    assert not page.locator("details.picker").evaluate("e => e.open")
    page.wait_for_function("document.getElementById('differences').innerText.includes('Focal loss')")

    page.locator("[data-state=metric]").select_option("log_loss")
    assert "Difference in log loss" in view.changed("differences", before["differences"])
    page.wait_for_function("document.getElementById('cost').innerText.includes('Log loss')")
    assert "log loss" in page.locator("[data-text='@metric.phrase']").inner_text()

    page.locator("details[data-of=differences] summary").click()
    rows = page.locator("details[data-of=differences] tbody tr")
    rows.first.wait_for()
    assert sorted(rows.nth(i).locator("td").first.inner_text() for i in range(rows.count())) == [
        *("EXACT", "Focal loss", "Label smoothing"),
    ]
    page.locator("[data-state=measure]").select_option("recall")
    assert "recall of the class" in view.changed("by_class", before["by_class"])
    shown = page.locator("[data-by=confused]:visible").get_attribute("data-if")
    other = "Focal loss" if shown != "Focal loss" else "EXACT"
    page.locator("[data-state=confused]").select_option(other)
    assert page.locator("[data-by=confused]:visible").get_attribute("data-if") == other
    page.locator("#by_class svg path[aria-label]").last.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "<script>alert" in page.locator("#vg-tooltip-element").inner_text()
    view.drawn()
    assert view.faults == []
    page.close()


@pytest.mark.browser
def test_keyboard_theme_and_print(browser: Any, address: str) -> None:
    view = View(browser, 1280)
    view.open(address)
    page = view.page
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.dataset.state || document.activeElement.tagName"
            )
        )
    assert {"theme", "metric", "against", "gap_of", "loss", "measure", "confused", "SUMMARY"} <= set(reached)
    page.locator("details.picker summary").focus()
    page.keyboard.press("Enter")
    page.locator("[data-state=picked]").first.focus()
    page.keyboard.press("Space")
    assert page.locator("[data-picked]").inner_text() == "3 of 4"

    colours = (
        "[getComputedStyle(document.body).backgroundColor, "
        "getComputedStyle(document.querySelector('#differences svg text')).fill]"
    )
    light = page.evaluate(colours)
    page.locator("#theme").select_option("dark")
    dark = page.evaluate(colours)
    assert all(a != b for a, b in zip(light, dark, strict=True))

    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(colours)[1] == light[1]
    assert page.locator(".picker:visible, details.behind:visible, .theme:visible, button:visible").count() == 0
    assert page.locator(".chart svg:visible").count() == CHARTS
    page.emulate_media(media="screen")
    assert page.evaluate(colours) == dark
    assert view.faults == []
    page.close()
