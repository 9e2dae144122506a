"""The page: everything in it, nothing from elsewhere, nothing that a name in the data could inject."""

import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lossfit.compare import engine, metrics
from lossfit.compare.report import render, words
from lossfit.compare.summary import summarise

CHARTS = 7
HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.inside):
            self.text += data


def hostile(folder: Path) -> Path:
    """A table whose file, columns and classes are named to break a page."""
    path = folder / f"{HOSTILE.replace('/', ' ')}.csv"
    rows = [f'{(i * 7) % 5},"{HOSTILE}{i % 3}"' for i in range(60)]
    path.write_text("\n".join([f"x,{HOSTILE}", *rows]))
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("report")
    plan = engine.Plan(str(hostile(folder)), HOSTILE, losses="focal,label_smoothing,exact", splits=3, trials=2)
    outcome = engine.run(plan, folder / "out")
    summary = summarise(outcome)
    return render(outcome, summary), summary


def test_names_in_the_data_stay_text(page: tuple[str, dict[str, Any]]) -> None:
    text, _ = page
    scripts = [attributes for tag, attributes in Page(text).elements if tag == "script"]
    assert "alert('x')</script>" not in text
    assert "<script>alert" not in text
    assert HOSTILE in html.unescape(Page(text).text)
    assert len(scripts) == text.count("<script")


def test_nothing_comes_from_elsewhere(page: tuple[str, dict[str, Any]]) -> None:
    text, _ = page
    for tag, attributes in Page(text).elements:
        assert tag not in ("iframe", "object", "embed", "base")
        assert not re.match(r"(https?:)?//", attributes.get("src") or "")
        assert tag != "link" or attributes.get("href", "").startswith("data:")
    assert not re.search(r"url\(\s*['\"]?(https?:)?//", text.split("<script")[0])
    assert len(text) < 3_000_000


def test_it_says_what_was_found_and_run(page: tuple[str, dict[str, Any]]) -> None:
    text, summary = page
    told = " ".join(html.unescape(Page(text).text).split())
    for sentence in words.answer(summary):
        assert sentence in told
    for entry in summary["losses"]:
        assert f"{words.title(entry['loss'])}{words.setting(entry['params'])}" in told
        assert words.number(entry["test"]["accuracy"]["mean"], "accuracy") in told
    for card in metrics.METRICS.values():
        assert card.title in told
    for name, version in summary["versions"].items():
        assert version in told, name
    for line in filter(None, summary["recommended"]["code"]):
        assert " ".join(line.split()) in told


def test_the_charts_are_specifications(page: tuple[str, dict[str, Any]]) -> None:
    text, _ = page
    places = {a["id"] for tag, a in Page(text).elements if "chart" in (a.get("class") or "").split()}
    found = re.search(r"const specs = (\{.*\});?\n", text)
    assert found
    specs = json.loads(found.group(1))
    assert set(specs) == places
    assert len(specs) == CHARTS
    splits = json.dumps(specs["splits"])
    assert splits.count('"split"') >= 4 * 3  # every split is there to see


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = Path("/usr/bin/chromium")
    if not executable.exists():
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(executable), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_draws_it(browser: Any, page: tuple[str, dict[str, Any]], tmp_path: Path, width: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(page[0], encoding="utf-8")
    view = browser.new_page(viewport={"width": width, "height": 900})
    faults: list[str] = []
    requests: list[str] = []
    view.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    view.on("request", lambda request: requests.append(request.url))
    view.goto(path.as_uri())
    view.wait_for_function(f"document.querySelectorAll('.chart svg').length == {CHARTS}", timeout=20_000)
    assert faults == []
    assert requests == [path.as_uri()]
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    for box in view.evaluate(
        "[...document.querySelectorAll('.chart svg')].map(s => s.getBoundingClientRect().toJSON())"
    ):
        assert box["width"] > 200
        assert box["height"] > 60
        assert box["right"] <= width
    view.close()
