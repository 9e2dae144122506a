"""The tables of the pages, from the registry of losses and from the files of results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import lossfit
from lossfit.commands.app import app
from lossfit.compare.report import wording
from lossfit.losses.base import FAMILIES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error", "mean")

BENCHMARKS = {
    "dense-cpu": ("python benchmarks/dense.py", "single-label losses, to PyTorch's `F.cross_entropy`"),
    "linear-cpu": (
        "python benchmarks/linear.py",
        "losses from features and weights, to matrix product and cross-entropy",
    ),
    "sharded-cpu": ("python benchmarks/sharded.py", "classes spread over ranks"),
    "margins-cpu": ("python benchmarks/margins.py", "heads with margins, to pytorch-metric-learning"),
    "contrastive-cpu": ("python benchmarks/contrastive.py", "NT-Xent and SupCon, to pytorch-metric-learning"),
    "crf-cpu": ("python benchmarks/crf.py", "the linear-chain CRF, to a loop over the steps"),
    "ranking-cpu": ("python benchmarks/ranking.py", "AUC and average precision, to the matrix of pairs"),
    "multilabel-cpu": ("python benchmarks/multilabel.py", "multi-label losses, to PyTorch's BCE and plain formulas"),
}
"""Files of ratios of times, with what makes them and what they compare."""


def table(head: list[str], rows: list[list[str]], right: int = 0) -> str:
    """A Markdown table, its last ``right`` columns aligned to the right."""
    marks = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, marks, *rows))


def catalogue(family: str | None = None) -> str:
    """The losses of a family, or of all."""
    if family is None:
        parts = [f"## [{title}]({name}.md)\n\n{catalogue(name)}" for name, title in FAMILIES.items()]
        return "\n\n".join(parts)
    rows = []
    for name in lossfit.available_losses(family):
        cls = lossfit.registry.get(name)
        hypers = "<br>".join(f"`{key}` in {card.range}: {card.meaning}" for key, card in cls.hypers.items())
        rows.append([f"`{cls.__name__}`", f"`{cls.formula}`", hypers])
    return table(["Class", "Loss", "Hyper-parameters"], rows)


def commands() -> str:
    """The commands of the command line, with the first sentence of their help."""
    found = typer.main.get_command(app)
    rows = [[f"`lossfit {name}`", command.get_short_help_str(200)] for name, command in found.commands.items()]
    return table(["Command", "What it does"], rows)


def regret() -> str:
    """Mean regrets over the data sets of benchmarks/advice.py, the least of each column in bold.

    Of the fixed choices the ten of the least mean are shown, and cross-entropy.
    """
    contents = json.loads((RESULTS / "advice.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, float]] = contents["mean_regret"]
    least = {metric: min(row[metric] for row in found.values() if metric in row) for metric in METRICS}

    def cell(row: dict[str, float], metric: str) -> str:
        if metric not in row:
            return ""
        return f"**{row[metric]:.2f}**" if row[metric] == least[metric] else f"{row[metric]:.2f}"

    by_mean = sorted(found.items(), key=lambda item: item[1].get("mean", float("inf")))
    partial = {name for name, row in by_mean if "mean" not in row and name != "always the metric's own loss"}
    fixed = [name for name, row in by_mean if name.startswith("always ") and "mean" in row]
    hidden = partial | {name for name in fixed[10:] if name != "always cross_entropy"}
    rows = [
        [_told_way(name), *(cell(row, metric) for metric in METRICS)] for name, row in by_mean if name not in hidden
    ]
    return table(["", *(metric.replace("_", " ") for metric in METRICS)], rows, right=len(METRICS))


def _told_way(name: str) -> str:
    loss = name.removeprefix("always ")
    return name if loss == name or " " in loss else f"always {wording.inline(loss)}"


def claim(name: str) -> str:
    """The numbers of a claim, from docs/claims/claims.json."""
    claims = json.loads((ROOT / "docs" / "claims" / "claims.json").read_text(encoding="utf-8"))["claims"]
    (found,) = [c for c in claims if c["name"] == name]
    return table(["", "found"], [[what, numbers[-1]] for what, *numbers in found["numbers"]])


def attacks() -> str:
    """What came of each attack, from benchmarks/results/attack.json."""
    kept = json.loads((RESULTS / "attack.json").read_text(encoding="utf-8"))["attacks"]
    rows = [
        [name, f"{a['tried']:,}", f"{a['wrong']:,}", str(len(a["kinds"])), str(a["seed"])] for name, a in kept.items()
    ]
    return table(["attack", "tried", "wrong", "kinds", "seed"], rows)


def files() -> str:
    """How the files of tests/files are read, a table for each kind."""
    kinds: dict[str, list[list[str]]] = {}
    for path in sorted((ROOT / "tests" / "files").glob("*.*.json")):
        meta = json.loads(path.read_text(encoding="utf-8"))
        row = [f"`{path.name.removesuffix('.json')}`", _plain(meta["shows"]), _options(meta), _reading(meta)]
        kinds.setdefault(meta["kind"], []).append(row)
    head = ["File", "What it holds", "Options", "How it is read"]
    return "\n\n".join(f"### {kind}\n\n{table(head, rows)}" for kind, rows in sorted(kinds.items()))


def _plain(text: str) -> str:
    """Text in which nothing is Markdown or a formula."""
    return re.sub(r"([\\`*_{}\[\]<>$#~])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Text as code."""
    return f"`{' '.join(text.split()) or ' '}`".replace("```", "` `")


def _options(meta: dict[str, Any]) -> str:
    told = []
    for name, value in meta.get("options", {}).items():
        given = "" if value is True else f" {','.join(value) if isinstance(value, list) else value}"
        told.append(_code(f"--{name.replace('_', '-')}{given}"))
    return " ".join(told)


def _reading(meta: dict[str, Any]) -> str:
    if "refused" in meta:
        return "refused: " + "; ".join(_plain(part) for part in meta["refused"])
    told = [f"{_code(name)} {_plain(kind)}" for name, kind in meta["columns"].items() if name not in ("a", "b")]
    classes = meta.get("classes", ["no", "yes"])
    if classes != ["no", "yes"]:
        told.append(f"classes {', '.join(map(_code, classes))}")
    told += [f"note: {_plain(note)}" for note in meta.get("notes", [])]
    return "; ".join(told) or "numbers and classes as they stand there"


def ratios() -> str:
    """Every ratio of every benchmark, a folded table for each file."""
    parts = []
    for name, (command, what) in BENCHMARKS.items():
        contents = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        hardware = contents.pop("hardware")
        threads = f"{hardware['threads']} thread{'s' if hardware['threads'] > 1 else ''}"
        on = f"{hardware['cpu']}, {threads}, torch {hardware['torch']}"
        rows = [[where, f"{r['median']:.3g}", f"{r['low']:.3g} to {r['high']:.3g}"] for where, r in _ratios(contents)]
        lines = [f'??? note "{what[0].upper()}{what[1:].replace("`", "")}"', ""]
        lines += [f"    `{command}` wrote `benchmarks/results/{name}.json` on {hardware['date']}: {on}.", ""]
        lines += [f"    {row}" for row in table(["", "median", "range"], rows, right=2).splitlines()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _ratios(contents: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, float]]]:
    """Where in the file there is a median with its range, in words."""
    if isinstance(contents, dict):
        if {"median", "low", "high"} <= contents.keys():
            yield ", ".join(w for w in where if w not in ("ratio", "ratios", "rows", "shapes", "losses")), contents
            return
        labels = [
            f"{key} {_told(value)}"
            for key, value in contents.items()
            if not isinstance(value, dict | list)
            and key in ("rows", "features", "classes", "loss", "ranks", "sample_rate")
        ]
        labels += [f"({_told(contents['shape'])})"] if "shape" in contents else []
        for key, value in contents.items():
            yield from _ratios(value, (*where, *labels, str(key).replace("_", " ")))
    elif isinstance(contents, list):
        for value in contents:
            yield from _ratios(value, where)


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value).replace("_", " ")
