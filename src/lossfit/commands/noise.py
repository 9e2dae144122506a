"""lossfit compare --label-noise 0,0.2,0.4: what is written and printed of all levels together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lossfit.commands.terminal import Terminal
from lossfit.compare import files
from lossfit.compare.report import noise, wording


def write_noise(summaries: list[dict[str, Any]], folders: list[str], out: Path) -> dict[str, Any]:
    """Write report.html and noise.json, whose contents are returned."""
    contents = {
        "source": summaries[0]["source"],
        "metric": summaries[0]["metric"],
        "levels": [
            {
                "label_noise": summary["label_noise"],
                "folder": folder,
                "advised": summary["advised"]["loss"],
                "claim": summary["advised"]["claim"],
                "recommended": summary["recommended"]["loss"],
                "better_than_cross_entropy": summary["recommended"]["better_than_cross_entropy"],
                "answer": wording.answer(summary)[0],
            }
            for summary, folder in zip(summaries, folders, strict=True)
        ],
    }
    page = noise.render(summaries, folders)
    files.write({out / "report.html": page, out / "noise.json": json.dumps(contents, indent=2)})
    return contents


def print_noise(console: Terminal, contents: dict[str, Any], out: Path) -> None:
    """The answer at each level, and where the page is."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Wrong labels", justify="right", no_wrap=True)
    table.add_column("What the comparison says")
    for level in contents["levels"]:
        table.add_row(f"{100 * level['label_noise']:g}%", Text(level["answer"]))
    console.print(table)
    console.print(f"\nReport: {out / 'report.html'}", soft_wrap=True, markup=False)
