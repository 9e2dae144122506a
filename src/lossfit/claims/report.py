"""The claims as a page, as Markdown with pictures, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from lossfit import page, plot
from lossfit.claims import ARTICLES, Claim, Finding, Verdict
from lossfit.compare import files
from lossfit.compare.outcome import versions

VERDICTS: tuple[Verdict, ...] = ("holds", "holds with a correction", "refuted")
_COLORS = {"holds": "better", "holds with a correction": "undecided", "refuted": "worse"}


def run(
    claims: list[Claim], progress: Callable[[str, int], None] = lambda *_: None
) -> list[tuple[Claim, Finding, float]]:
    """Run claims, with the seconds that each took; ``progress`` is told what begins, and how many are done."""
    found = []
    for done, claim in enumerate(claims):
        progress(claim.name, done)
        start = perf_counter()
        found.append((claim, claim.run(), perf_counter() - start))
    return found


def write(results: list[tuple[Claim, Finding, float]], out: Path) -> dict[str, Any]:
    """Write claims.html, claims.md with its pictures, and claims.json to a folder; the contents of the last
    are returned.
    """
    files.make_folder(out)
    records = [
        {
            "name": claim.name,
            "article": claim.article,
            "place": claim.place,
            "statement": claim.statement,
            "ran": claim.ran,
            "verdict": finding.verdict,
            "remark": finding.remark,
            "numbers": finding.numbers,
            "seconds": round(seconds, 1),
        }
        for claim, finding, seconds in results
    ]
    counted = Counter(finding.verdict for _, finding, _ in results)
    contents: dict[str, Any] = {
        "claims": records,
        "counts": {verdict: counted[verdict] for verdict in VERDICTS if counted[verdict]},
        "seconds": round(sum(seconds for *_, seconds in results), 1),
        "versions": versions(),
    }
    charts = {claim.name: finding.chart for claim, finding, _ in results if finding.chart is not None}
    pictures = {
        out / f"{name}.svg": plot.contents(chart.properties(width=460, height=260), ".svg")
        for name, chart in charts.items()
    }
    texts = {"claims.html": _page(contents, charts), "claims.md": _markdown(contents, set(charts))}
    texts["claims.json"] = json.dumps(contents, indent=1, ensure_ascii=False) + "\n"
    files.write({**pictures, **{out / name: text for name, text in texts.items()}})
    return contents


def _page(contents: dict[str, Any], charts: dict[str, Any]) -> str:
    fitted = {
        f"chart-{name}": chart.properties(width="container", height=280).configure(**plot.STYLE)
        for name, chart in charts.items()
    }
    used = {c["article"] for c in contents["claims"]}
    articles = {article: title for article, title in ARTICLES.items() if article in used}
    return page.render("claims.html.j2", fitted, **contents, articles=articles, pictures=set(charts), colors=_COLORS)


def _markdown(contents: dict[str, Any], pictures: set[str]) -> str:
    lines = ["# The articles' claims, run", ""]
    told = ", ".join(f"{verdict}: {count}" for verdict, count in contents["counts"].items())
    lines += [
        f"{told}. Made by `lossfit claims` ({', '.join(f'{k} {v}' for k, v in contents['versions'].items())}).",
        "",
    ]
    lines += ["| Claim | Verdict |", "| --- | --- |"]
    lines += [
        f"| [{_cell(c['statement'])}](#{c['name'].replace('_', '-')}) | {c['verdict']} |" for c in contents["claims"]
    ]
    for article, title in ARTICLES.items():
        group = [c for c in contents["claims"] if c["article"] == article]
        if group:
            lines += ["", f"## {title}"]
        for c in group:
            lines += ["", f"### {c['name'].replace('_', ' ')}", "", f"{c['statement']} *({c['place']})*", ""]
            lines += [f"**{c['verdict'][:1].upper()}{c['verdict'][1:]}.** {c['remark']}", "", f"Run: {c['ran']}", ""]
            if c["name"] in pictures:
                lines += [f"![{c['name'].replace('_', ' ')}]({c['name']}.svg)", ""]
            lines += ["| | claimed | found |", "| --- | --- | --- |"]
            lines += [f"| {_cell(what)} | {_cell(claimed)} | {_cell(found)} |" for what, claimed, found in c["numbers"]]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
