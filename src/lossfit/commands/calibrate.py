"""lossfit calibrate."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import lossfit
from lossfit import plot
from lossfit.calibration import TemperatureScaling
from lossfit.commands import terminal
from lossfit.commands.terminal import Terminal
from lossfit.compare import files, written_tables
from lossfit.compare.calibrate import predictions, recalibrate
from lossfit.compare.calibrate.predictions import Predictions
from lossfit.compare.calibrate.recalibrate import AS_IS, METRICS, TITLES, Estimate, Outcome
from lossfit.compare.errors import InputError
from lossfit.core.checks import check_choice

if TYPE_CHECKING:
    import altair as alt

_PICTURES = ("png", "svg", "html")
_SIGNIFICANT = {True: "green", False: "red"}


def calibrate(
    source: Annotated[
        Path, typer.Argument(help="A table, such as a .csv or .parquet file, with a column of scores for each class.")
    ],
    target: Annotated[str | None, typer.Option(help="The column with the labels; needed.")] = None,
    logits: Annotated[
        str | None,
        typer.Option(
            help='The columns of scores: "a,b,c", or what they begin with. If not given, those with the labels in '
            "their names, or all other numbers. A single column is of the probability of one of two classes."
        ),
    ] = None,
    scale: Annotated[
        str, typer.Option(help="logits, probabilities, percent, or auto: probabilities if rows sum to 1.")
    ] = "auto",
    test_share: Annotated[
        float | None, typer.Option(help="Share of the rows to measure on, 0.5 if not given; the others fit.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Measure on all rows instead, each by scalings fitted on the other folds.")
    ] = None,
    ridge: Annotated[
        float | None, typer.Option(help="Of matrix scaling; chosen by cross-validation if not given.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Resamples of the test rows for the intervals.")] = 1000,
    picture: Annotated[str, typer.Option(help=f"The picture's format: {', '.join(_PICTURES)}.")] = "png",
    seed: Annotated[int, typer.Option(help="Fixes the parts and the resamples.")] = 0,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Write cells of the .csv as they are. If not given, an apostrophe is put before those that a "
            "spreadsheet would run as a formula.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; lossfit-calibrate-SOURCE if not given.")
    ] = None,
) -> None:
    """Calibrate predictions: by temperature, vector and matrix scaling, measured on rows that did not fit them.

    \b
    lossfit calibrate predictions.csv --target label
    lossfit calibrate predictions.csv --target label --logits "cat,dog,bird" --folds 5
    lossfit calibrate predictions.parquet --target y --logits logit_ --test-share 0.3 --picture svg

    Writes calibration.json, calibrated.csv and a reliability diagram.
    """
    console = terminal.console()
    check_choice("--picture", picture, _PICTURES)
    if test_share is not None and folds is not None:
        raise InputError("Pass --test-share or --folds, not both.")
    out = out or Path(f"lossfit-calibrate-{source.stem}")
    names = {"calibrated.csv", f"reliability.{picture}"}  # written before calibration.json, which ends it
    if out.exists() and (not out.is_dir() or files.names_in(out) - names):
        raise InputError(f"The output {str(out)!r} exists; name another folder by --out.")
    read = predictions.read(source, target, logits, scale)  # type: ignore[arg-type]
    settings = {"test_share": 0.5 if test_share is None else test_share, "folds": folds, "seed": seed}
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        outcome = recalibrate.run(
            read.logits,
            read.labels,
            ridge=ridge,
            resamples=resamples,
            report=lambda text, done: bar.update(task, description=text, completed=done),
            **settings,  # type: ignore[arg-type]
        )
    summary = _summary(source, read, outcome, {**settings, "resamples": resamples}, out)
    written: dict[str, str | bytes] = {
        "calibrated.csv": written_tables.contents(_table_of_probabilities(read, outcome, folds), ".csv", raw=raw),
        f"reliability.{picture}": plot.contents(chart(read, outcome), f".{picture}"),
        "calibration.json": json.dumps(summary, indent=2, allow_nan=False),
    }
    files.make_folder(out)
    files.write({out / name: contents for name, contents in written.items()})
    _print(console, read, outcome, summary, out)


def chart(read: Predictions, outcome: Outcome) -> alt.TopLevelMixin:
    """Accuracy against confidence, a panel for each method: ten bins of equal mass with their 95% intervals."""
    import altair as alt

    axis: dict[str, Any] = {"axis": alt.Axis(format="%", tickCount=5), "scale": alt.Scale(domain=[0, 1])}
    diagonal = (
        alt.Chart(alt.Data(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(color="#9aa0a6", strokeDash=[4, 4])
        .encode(x=alt.X("x:Q", title="Confidence", **axis), y=alt.Y("y:Q", title="Accuracy", **axis))
    )
    panels = []
    for method in outcome.methods:
        bins = outcome.reliability(method, read.labels)
        records = []
        for n, confidence, hits in zip(*(v.tolist() for v in bins), strict=True):
            if n:
                low, high = _wilson(hits, n)
                records.append({"x": confidence / n, "y": hits / n, "low": low, "high": high, "rows": int(n)})
        base = alt.Chart(alt.Data(values=records))
        color = "#0b7a75" if method == outcome.recommended else "#5f6b7a"
        rules = base.mark_rule(color=color, strokeWidth=2).encode(x="x:Q", y="low:Q", y2="high:Q")
        dots = base.mark_circle(color=color, size=60, opacity=1).encode(
            x="x:Q",
            y="y:Q",
            tooltip=[
                alt.Tooltip("x:Q", title="confidence", format=".1%"),
                alt.Tooltip("y:Q", title="accuracy", format=".1%"),
                "rows:Q",
            ],
        )
        error = outcome.found[method]["calibration_error"].value
        title = alt.Title(TITLES[method], subtitle=f"calibration error {100 * error:.1f}%", anchor="start")
        panels.append(alt.layer(diagonal, rules, dots).properties(width=230, height=230, title=title))
    return alt.concat(*panels, columns=2)


def _wilson(hits: float, n: float) -> tuple[float, float]:
    """E. Wilson's 95% interval of a share (1927)."""
    z = 1.959964
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _table_of_probabilities(read: Predictions, outcome: Outcome, folds: int | None) -> pl.DataFrame:
    p = outcome.logits[outcome.recommended].softmax(1)
    parts = [f"fold {k + 1}" if folds else ("fit", "test")[k] for k in outcome.part.tolist()]
    columns = {f"p_{name}": p[:, c].numpy() for c, name in enumerate(read.classes)}
    return pl.DataFrame({"label": read.label_values, "part": parts, **columns})


def _summary(source: Path, read: Predictions, outcome: Outcome, settings: dict[str, Any], out: Path) -> dict[str, Any]:
    methods: dict[str, dict[str, Any]] = {}
    for m in outcome.methods:
        methods[m] = {"test": _estimates(outcome.found[m])}
        if m != AS_IS:
            scaling = outcome.fitted[m]
            methods[m]["vs_as_is"] = _estimates(outcome.change[m])
            methods[m]["state"] = {k: v.tolist() for k, v in scaling.state_dict().items()}
            if isinstance(scaling, TemperatureScaling):
                methods[m]["temperature"] = scaling.temperature.item()
            if m == "matrix":
                methods[m]["ridge"] = outcome.ridge
    return {
        "lossfit": lossfit.__version__,
        "source": str(source),
        "target": read.target,
        "rows": len(read.labels),
        "test_rows": int(outcome.tested.sum()),
        "scores": "logits" if read.floor is None else "probabilities",
        "columns": read.columns,
        "classes": read.classes,
        "settings": settings,
        "notes": read.notes,
        "methods": methods,
        "recommended": outcome.recommended,
        "calibration_error_if_true": outcome.noise,
        "code": _code(read, outcome, out),
    }


def _estimates(found: dict[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {k: {"value": e.value, "ci95": [e.low, e.high]} for k, e in found.items()}


def _code(read: Predictions, outcome: Outcome, out: Path) -> list[str]:
    """The lines to paste."""
    method = outcome.recommended
    if method == AS_IS:
        return []
    given = "logits" if read.floor is None else "probabilities"
    if len(read.columns) == 1:
        other = "torch.zeros_like(logits)" if read.floor is None else "1 - probabilities"
        given = f"torch.stack([{other}, {given}], 1)"
    scores = given if read.floor is None else f"{given}.clamp(min={read.floor:.3g}).log()"
    scaling = outcome.fitted[method]
    first, last = _plain(read.columns[0]), _plain(read.columns[-1])
    where = f"columns {first} to {last}" if len(read.columns) > 1 else f"column {first}"
    use = f"probabilities = calibrate({scores}).softmax(1)  # {where}"
    if isinstance(scaling, TemperatureScaling):
        return [
            "import lossfit, torch" if len(read.columns) == 1 else "import lossfit",
            f"calibrate = lossfit.calibration.TemperatureScaling({scaling.temperature.item():.6g})",
            use,
        ]
    return [
        "import json, pathlib, lossfit, torch",
        f"path = pathlib.Path({json.dumps(str(out / 'calibration.json'))})",
        f'state = json.loads(path.read_text())["methods"]["{method}"]["state"]',
        f"calibrate = lossfit.calibration.{type(scaling).__name__}({len(read.classes)})",
        "calibrate.load_state_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in state.items()})",
        use,
    ]


def _plain(name: str) -> str:
    """A column's name that stays in its comment, whatever it is."""
    return name if name.isprintable() else ascii(name)


def _print(console: Terminal, read: Predictions, outcome: Outcome, summary: dict[str, Any], out: Path) -> None:
    n, tested = summary["rows"], summary["test_rows"]
    how = f"{n - tested:,} to fit by, {tested:,} to test" if tested < n else f"{summary['settings']['folds']} folds"
    console.say(f"{n:,} rows ({how}), {len(read.classes)} classes, read as {summary['scores']}.")
    for note in read.notes:
        console.say(note)
    if "matrix" not in outcome.methods:
        console.say(
            f"Matrix scaling is left out for more than {recalibrate.MOST_CLASSES} classes; --ridge brings it in."
        )
    console.say()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("On test rows", no_wrap=True)
    for method in outcome.methods:
        table.add_column(TITLES[method].removesuffix(" scaling"), justify="right", no_wrap=True)
    for metric, title in METRICS.items():
        cells = []
        for method in outcome.methods:
            told = _told(outcome.found[method][metric], metric)
            cells.append(Text(told, style="" if method == AS_IS else _style(outcome.change[method][metric], metric)))
        table.add_row(title, *cells)
    console.print(table)
    console.say()
    if outcome.recommended == AS_IS:
        console.say("No scaling lowers the log loss measurably: leave the predictions as they are.")
    else:
        change = outcome.change[outcome.recommended]["log_loss"]
        console.say(
            f"{TITLES[outcome.recommended]} lowers the log loss by {-change.value:.3f} "
            f"({-change.high:.3f} to {-change.low:.3f})."
        )
    console.say(
        f"True probabilities would show a calibration error of {100 * outcome.noise:.1f}% on these rows, by chance."
    )
    console.say(f"Written: {', '.join(str(p) for p in sorted(out.iterdir()))}")
    if summary["code"]:
        console.say()
    for line in summary["code"]:
        console.say(f"    {line}")


def _told(e: Estimate, metric: str) -> str:
    if metric in ("log_loss", "brier"):
        return f"{e.value:.3f}\n{e.low:.3f} to {e.high:.3f}"
    return f"{100 * e.value:.1f}\n{100 * e.low:.1f} to {100 * e.high:.1f}"


def _style(change: Estimate, metric: str) -> str:
    if change.low <= 0 <= change.high:
        return ""
    return _SIGNIFICANT[(change.value > 0) == (metric == "accuracy")]
