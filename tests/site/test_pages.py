"""What the pages show runs, every loss and public name has its place, and what is built asks nothing of the network."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lossfit
from lossfit.losses.base import FAMILIES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.name not in ("claims.md", "changelog.md"))
# Tested where their surroundings are: ranks, language models, kernels, a folder of results.
ELSEWHERE = {"many_classes.md", "kernels.md", "language_models.md", "summary.md"}


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text(path), re.DOTALL | re.MULTILINE)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "path", [p for p in PAGES if p.name not in ELSEWHERE and blocks(p)], ids=lambda p: str(p.relative_to(DOCS))
)
def test_its_python_runs(path: Path) -> None:
    if path.name == "sklearn.md":
        pytest.importorskip("sklearn")
    names: dict[str, Any] = {}
    for block in blocks(path):
        exec(block, names)


def test_every_loss_is_on_the_page_of_its_family() -> None:
    for family in FAMILIES:
        page = text(DOCS / "losses" / f"{family}.md")
        for name in lossfit.available_losses(family):
            assert f"::: lossfit.{lossfit.registry.get(name).__name__}\n" in page, name


def test_every_public_name_has_an_entry() -> None:
    entries = {entry for path in PAGES for entry in re.findall(r"^::: (lossfit[\w.]*)$", text(path), re.MULTILINE)}
    for name in lossfit.__all__:
        for wanted in public(name):
            last = wanted.rsplit(".", 1)[-1]
            assert {wanted, f"lossfit.{last}", f"{wanted}.{last}"} & entries, wanted


def test_an_entry_is_no_module_of_the_same_name() -> None:
    for path in PAGES:
        for entry in re.findall(r"^::: (lossfit[\w.]*)$", text(path), re.MULTILINE):
            module = ROOT / "src" / f"{entry.replace('.', '/')}.py"
            assert entry == "lossfit.functional" or not module.exists(), (path, entry)


def test_what_arguments_are_is_told_in_their_line() -> None:
    # The site leaves out names that go on in a second line.
    names = re.compile(r"^ {4}(?:Args|Attributes):\n((?: {8}.*\n|\n)+)", re.MULTILINE)
    for path in (ROOT / "src").rglob("*.py"):
        for found in names.finditer(text(path)):
            for line in re.findall(r"^ {8}(\S.*)$", found[1], re.MULTILINE):
                assert re.match(r"[\w*., ]+(\([^)]*\))?:", line), (path, line)


def public(name: str) -> list[str]:
    """A name of the library, or what the module of this name has for users."""
    value = getattr(lossfit, name)
    if not inspect.ismodule(value) or name == "functional":
        return [f"lossfit.{name}"]
    own = getattr(value, "__all__", None) or [
        n for n, v in vars(value).items() if getattr(v, "__module__", None) == value.__name__ and callable(v)
    ]
    return [f"lossfit.{name}.{n}" for n in own if not n.startswith("_") and f"{name}.{n}" != "registry.add"]


def test_every_page_has_a_place() -> None:
    nav = text(ROOT / "mkdocs.yml")
    for path in PAGES:
        assert f" {path.relative_to(DOCS).as_posix()}\n" in nav, path


def test_roles_become_markdown() -> None:
    pytest.importorskip("griffe")
    to_markdown = load("docstrings").to_markdown
    assert to_markdown("x :math:`a\n    b` :class:`~lossfit.Loss`") == "x $a b$ `lossfit.Loss`"
    assert to_markdown("of\n\n.. math:: a\n    = b\n\nand") == "of\n\n$$a = b$$\n\nand"
    assert to_markdown("  .. math:: \\frac12,\n      c\n  on") == "  $$\\frac12, c$$\n  on"
    for name in lossfit.__all__:
        told = to_markdown(inspect.cleandoc(getattr(lossfit, name).__doc__ or ""))
        assert ":math:" not in told
        assert ".. math" not in told


def test_an_unknown_line_fails() -> None:
    sys.path.insert(0, str(ROOT / "scripts" / "site"))
    try:
        hooks = load("hooks")
        with pytest.raises(KeyError):
            hooks.fill("figure", "nothing of this name")
        with pytest.raises(KeyError):
            hooks.fill("nothing", "")
        assert "| advised |" in hooks.fill("regret", "")
        outside = hooks.without_outside("[its schema](../src/lossfit/py.typed), [start](start.md)", Path("summary.md"))
        assert outside == "its schema (`src/lossfit/py.typed`), [start](start.md)"
        inside = "[a](../many_classes.md) [b](../nowhere.md) [c](../../no/such/file)"
        assert hooks.without_outside(inside, Path("losses/x.md")) == inside
    finally:
        sys.path.remove(str(ROOT / "scripts" / "site"))


def test_nothing_is_left_to_fill_in(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        built = text(page)
        assert not re.search(r"\{\{ \w+ [^}]*\}\}", built), page
        paragraphs = re.findall(r"<p>(?:(?!</p>).)*", re.sub(r"<pre.*?</pre>", "", built, flags=re.DOTALL), re.DOTALL)
        assert not [p for p in paragraphs if re.search(r"\n[-*] ", p)], page
        # The contribution guide shows a docstring as it is written.
        assert page.name == "contributing.html" or not re.search(r":math:|\.\. math::", built), page


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text(page)):
            for place in re.findall(r'(?:src|href)="([^"]*)"', tag):
                assert not re.match(r"(https?:)?//", place), (page, tag)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", text(sheet)), sheet


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_the_pages(browser: Any, address: str, width: int) -> None:
    faults: list[str] = []
    view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if width == 400 else "light")
    view.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else faults.append(r.url))
    for page in ("index", "theory", "losses/single_label", "claims/claims"):
        view.goto(f"{address}{page}.html")
        assert view.evaluate("document.documentElement.scrollWidth") <= width, page
        assert view.locator(".katex-error").count() == 0, page
        formulas = view.locator(".arithmatex")
        assert view.locator(".arithmatex .katex").count() == formulas.count(), page
        for box in view.evaluate(
            "[...document.querySelectorAll('.drawn svg')].map(s => s.getBoundingClientRect().right)"
        ):
            assert box <= width, page
    view.close()
    assert faults == []
