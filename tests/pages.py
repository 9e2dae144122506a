"""What tests of pages share: hostile names, a page's elements, and a view that notes what goes wrong."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"

# The least contrast of visible text with what is behind it, and the text that has it.
LEAST_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = at => {
    for (let e = at; e; e = e.parentElement) {
      const found = rgb(getComputedStyle(e).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  let least = [21, ""], count = 0;
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const at = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !at.checkVisibility()) continue;
    const style = getComputedStyle(at);
    const colour = rgb(at instanceof SVGElement ? style.fill : style.color);
    const pair = [light(colour), light(behind(at))].sort((a, b) => b - a);
    const contrast = (pair[0] + .05) / (pair[1] + .05);
    count += 1;
    if (contrast < least[0]) least = [contrast, text];
  }
  return [...least, count];
}"""
DRAWN = "[...document.querySelectorAll('.chart')].every(chart => chart.dataset.drawn && chart.querySelector('svg'))"


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


class View:
    """A page in a browser.

    Attributes:
        page: Playwright's.
        faults: errors and warnings of the console, uncaught exceptions, and dialogs, which a script in the data opens.
        requests: every address that was asked for.
    """

    def __init__(self, browser: Any, width: int, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(10_000)
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, address: str) -> None:
        """Open a page, and wait for its charts."""
        self.page.goto(address)
        self.drawn()

    def drawn(self) -> None:
        self.page.wait_for_function(DRAWN, timeout=300_000)

    def changed(self, chart: str, before: str) -> str:
        """A chart's text, when it is another one."""
        self.page.wait_for_function(f"document.getElementById('{chart}').innerText !== {before!r}")
        return self.text(chart)

    def text(self, chart: str) -> str:
        found: str = self.page.evaluate(f"document.getElementById('{chart}').innerText")
        return found
