"""lossfit compare."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lossfit.commands import terminal
from lossfit.commands.columns import print_columns
from lossfit.commands.noise import print_noise, write_noise
from lossfit.commands.terminal import Terminal
from lossfit.compare import files
from lossfit.compare.data import dataset as sources
from lossfit.compare.data.folds import FOLDS, REPEATS
from lossfit.compare.data.sources import name_of
from lossfit.compare.errors import InputError, NotWrittenError
from lossfit.compare.export import final
from lossfit.compare.features import make
from lossfit.compare.outcome import Outcome
from lossfit.compare.plan import MAX_ROWS, QUICK_TRIALS, TRIALS, Plan
from lossfit.compare.report import render, wording
from lossfit.compare.running import engine
from lossfit.compare.running import label_noise as noise_levels
from lossfit.compare.scoring import tasks
from lossfit.compare.verdict.summary import summarise, verdict

_SHOWN = 10
_STYLES = {"better": "green", "worse": "red", "undecided": ""}


def compare(
    source: Annotated[
        list[str],
        typer.Argument(
            help="tweets or yeast (bundled); a table in a .csv, .tsv, .txt, .jsonl, .xlsx, .arrow or .parquet file, or "
            "several of them; - for the standard input; an .npz file (X, y); a folder of images with a folder for each "
            "class; or a folder that Hugging Face's datasets saved."
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="The column with the classes; needed for a table. Given again: columns of 0 and 1, one for each of "
            "the classes of which any number may be right.",
            metavar="COLUMN",
        ),
    ] = None,
    votes: Annotated[
        str | None,
        typer.Option(
            help="Instead of --target, a column for each class with its votes or probabilities, such as neg,neu,pos: "
            "training labels are drawn from them, and the test is on the class of most votes.",
            metavar="A,B,...",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="A column to read as text; given again, one more, each by itself. Columns of many long strings are "
            "read so anyway.",
            metavar="COLUMN",
        ),
    ] = None,
    numeric: Annotated[
        list[str] | None, typer.Option(help="Columns to read as numbers, such as year,price.", metavar="A,B,...")
    ] = None,
    categorical: Annotated[
        list[str] | None, typer.Option(help="Columns to read as categories, such as zip.", metavar="A,B,...")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Columns to leave out.", metavar="A,B,...")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Rows of one value of this column, such as patient, stay together.", metavar="COLUMN"),
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option(help="What each row counts, in training and in the metrics.", metavar="COLUMN"),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Rows to test on, with the same columns, such as test.csv.", metavar="FILE")
    ] = None,
    test_column: Annotated[
        str | None,
        typer.Option(help="A column that is true, 1 or test for the rows to test on.", metavar="COLUMN"),
    ] = None,
    max_rows: Annotated[
        int,
        typer.Option(help="Rows that take part at most; given test rows come on top. 0: no limit."),
    ] = MAX_ROWS,
    impute: Annotated[bool, typer.Option("--impute", help="Fill in missing values instead of stopping.")] = False,
    na_values: Annotated[
        list[str] | None,
        typer.Option(help="What stands for a missing value, besides nothing, NA and the like.", metavar="A,B,..."),
    ] = None,
    keep_na: Annotated[
        list[str] | None, typer.Option(help="Columns in which NA and the like are values.", metavar="A,B,...")
    ] = None,
    date_order: Annotated[
        str | None, typer.Option(help="dmy or mdy: what 01/02/2019 is, where nothing else tells.")
    ] = None,
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label", help="The target holds any number of classes in each row: lists, or such as 'a|b'."
        ),
    ] = False,
    separator: Annotated[
        str | None, typer.Option(help="What stands between the fields of a text file; found if not given.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a text file, such as cp1252; UTF-8, or found, if not given.")
    ] = None,
    comment: Annotated[
        str | None, typer.Option(help="What lines of a text file that are no rows begin with, such as #.")
    ] = None,
    skip_rows: Annotated[int, typer.Option(help="Lines of a text file before the names of the columns.")] = 0,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and count them.")
    ] = False,
    embedding: Annotated[
        str | None,
        typer.Option(help="Read the text by this sentence-transformers model (name or path)."),
    ] = None,
    text_features: Annotated[
        str,
        typer.Option(
            help="tfidf: words and pairs by a vocabulary; hashing: by their hashes, for much text; sentence: vectors "
            f"of --embedding, or of {make.PACKAGED} if that is installed. auto: tfidf, or hashing from "
            f"{make.MUCH_TEXT:,} characters on."
        ),
    ] = "auto",
    metric: Annotated[
        str | None,
        typer.Option(
            help=f"What counts: {', '.join(tasks.SINGLE_LABEL.choices())}; with several targets "
            f"{', '.join(tasks.MULTI_LABEL.choices())}. The first of them if not given."
        ),
    ] = None,
    losses: Annotated[
        str | None, typer.Option(help="all, if not given, or names separated by commas (see `lossfit list`).")
    ] = None,
    folds: Annotated[
        int,
        typer.Option(help="Each setting is trained once for every two folds, on the others, and tested on the two."),
    ] = FOLDS,
    repeats: Annotated[
        int | None,
        typer.Option(
            help=f"How often the rows are dealt out anew, {REPEATS} if not given. From the second time on, only losses "
            "take part that may still be the best."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help=f"Settings tried for each loss, {TRIALS} if not given.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One repeat, 4 settings, and a few losses: an answer within a minute or so.")
    ] = False,
    label_noise: Annotated[
        str,
        typer.Option(
            help="Share of training labels to replace by another class; several, such as 0,0.1,0.2,0.4, run the "
            "comparison at each, in folders of their own, and draw the losses over the noise."
        ),
    ] = "0",
    model: Annotated[
        str,
        typer.Option(
            help="linear; mlp: one hidden layer of 32 units; cnn: a small residual network for images; "
            "package.module:factory: your own, a function or class in the current folder or installed, called with "
            "those of features, classes and shape that it takes, which returns a torch.nn.Module. auto: mlp, or cnn "
            "for images if a training takes 3 s at most."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, or cuda.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings at once; if not given, as many as this machine or the cluster has cores."),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            "--engine",
            help="local: processes of this machine; ray: tasks of a Ray cluster, with the same numbers.",
        ),
    ] = engine.ENGINES[0],
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Of the cluster, such as 10.0.0.1:6379, or auto for the one that this machine is part of. If not "
            "given, --engine ray starts one here and ends it.",
            metavar="HOST:PORT",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes folds, noise, weights and batches.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; lossfit-SOURCE if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in that folder.")] = False,
) -> None:
    """Train every loss on your data, fairly, and say which one to use.

    \b
    lossfit compare yeast --metric balanced_accuracy
    lossfit compare customers.csv --target churned --metric macro_f1
    lossfit compare reviews.parquet --target stars --text body --losses focal,label_smoothing
    lossfit compare mails.csv --target folder --text subject --text body --text-features hashing
    lossfit compare films.csv --text plot --target drama --target comedy --target crime
    lossfit compare digits.npz --metric log_loss
    lossfit compare photos/ --quick --max-rows 5000
    lossfit compare photos/ --model networks:small --repeats 1 --trials 4
    lossfit compare scans.csv --target finding --group patient --drop scanner,date
    lossfit compare survey.csv --target vote --weight design_weight --categorical zip
    lossfit compare train.csv --target churned --test test.csv
    lossfit compare rated.csv --votes neg,neu,pos --text body --test-column held_out
    lossfit compare tweets --label-noise 0.4 --out noisy --resume
    lossfit compare tweets --label-noise 0,0.1,0.2,0.4 --out robust
    lossfit compare films.csv --target genres --multi-label
    lossfit compare '2024-*.csv' --target churned --na-values -999 --date-order dmy
    lossfit compare photos/ --engine ray --ray-address 10.0.0.1:6379

    Writes report.html (open it), summary.json, results.parquet with what was known of each setting, and passes.parquet
    with what was measured.
    """
    console = terminal.console()
    targets = tuple(target or ())
    levels = noise_levels.levels(label_noise)
    kind = tasks.MULTI_LABEL if len(targets) > 1 or multi_label else tasks.SINGLE_LABEL
    plan = Plan(
        source[0] if len(source) == 1 else tuple(source),
        targets if len(targets) > 1 else next(iter(targets), None),
        tuple(text) if text and len(text) > 1 else next(iter(text or ()), None),
        tuple(drop or ()),
        impute,
        embedding,
        tasks.ALIASES.get(metric or "", metric) or kind.metric,
        losses or ("quick" if quick else "all"),
        folds,
        (1 if quick else REPEATS) if repeats is None else repeats,
        (QUICK_TRIALS if quick else TRIALS) if trials is None else trials,
        levels[0],
        model,
        seed,
        votes=(votes,) if votes else (),
        numeric=tuple(numeric or ()),
        categorical=tuple(categorical or ()),
        group=group,
        weight=weight,
        test=None if test is None else str(test),
        test_column=test_column,
        max_rows=max_rows,
        device=device,
        text_features=text_features,
        separator=separator,
        encoding=encoding,
        comment=comment,
        skip_rows=skip_rows,
        skip_unreadable=skip_unreadable,
        na_values=tuple(na_values or ()),
        keep_na=tuple(keep_na or ()),
        date_order=date_order,
        multi_label=multi_label,
    )
    out = out or Path(f"lossfit-{name_of(plan.source)}")
    runs = noise_levels.plans(plan, out, levels, resume=resume) if len(levels) > 1 else [(plan, out)]
    summaries = []
    try:
        with _progress(console) as progress:
            for i, (own, folder) in enumerate(runs):
                outcome = engine.run(
                    own,
                    folder,
                    resume=resume,
                    workers=workers or (os.cpu_count() if where == "local" else None),
                    progress=_part_of(progress, i, len(runs)),
                    show=(lambda data: print_columns(console, data)) if i == 0 else lambda _: None,
                    engine=where,
                    ray_address=ray_address,
                    say=console.say,
                )
                summaries.append(_written(outcome, folder))
        if len(levels) > 1:
            over_noise = write_noise(summaries, [folder.name for _, folder in runs], out)
    except KeyboardInterrupt:
        console.say(f"\nStopped. What is finished is kept in {out}; the same command with --resume goes on.")
        raise typer.Exit(130) from None
    except NotWrittenError as error:
        raise InputError(f"{error} What is finished is kept; the same command with --resume goes on.") from error
    if len(levels) > 1:
        print_noise(console, over_noise, out)
    else:
        _print(console, plan, summaries[0], out)


def _part_of(progress: engine.Progress, part: int, parts: int) -> engine.Progress:
    """The progress of one of several comparisons."""
    return lambda loss, share, trainings: progress(loss, (part + share) / parts, trainings * parts)


def _written(outcome: Outcome, out: Path) -> dict[str, Any]:
    """The summary, which is written with its report."""
    summary = summarise(outcome)
    contents = json.dumps(_finite(summary), indent=2, allow_nan=False)
    files.write({out / "report.html": render(outcome, summary), out / "summary.json": contents})
    return summary


@contextmanager
def _progress(console: Terminal) -> Iterator[engine.Progress]:
    """A bar with the loss at work and the time left, on a terminal; nothing elsewhere."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[count]} trainings"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Reading", total=None, count="")

        def show(loss: str, done: float, trainings: int) -> None:
            bar.update(task, description=wording.title(loss), completed=done, total=1.0, count=f"{trainings:,}")

        yield show


def _finite(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _export(plan: Plan, summary: dict[str, Any], out: Path) -> str:
    """The command that trains the model to use, with all that a file may not choose by itself."""
    words = ["lossfit", "export", str(out)]
    for option, path in (("--source", plan.source), ("--test", plan.test)):
        words += [option, path] if isinstance(path, str) and not final.is_offered(path) else []
    kind = summary["architecture"]["kind"]
    words += ["--model", kind] if ":" in kind else []
    words += ["--embedding", plan.embedding] if plan.embedding not in (None, make.PACKAGED) else []
    return terminal.command(*words)


def _print(console: Terminal, plan: Plan, summary: dict[str, Any], out: Path) -> None:
    metric = summary["metric"]
    card = tasks.CARDS[metric]
    console.print(
        Text(f"{card.title}{', %' if card.percent else ''} ({'higher' if card.higher else 'lower'} is better)\n")
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Loss and setting")
    table.add_column("mean", justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95% interval", justify="right", no_wrap=True)
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("best", justify="right", no_wrap=True)
    shown = _shown(summary)
    for entry in shown:
        versus = entry["vs_cross_entropy"]
        row = [
            wording.with_setting(entry["loss"], entry["params"]),
            wording.number(entry["test"][metric]["mean"], metric),
        ]
        chances = [wording.gain(entry["expected"], metric), wording.chance(entry["probability_best"])]
        style = "bold" if entry["loss"] == summary["advised"]["loss"] else ""
        if versus is None or entry["loss"] == summary["reference"]:
            table.add_row(*(Text(cell) for cell in [*row, "", "", *(chances if versus else ())]), style=style)
            continue
        change = Text(wording.change(versus["difference"], metric), style=_STYLES[verdict(versus)])
        rest = (Text(cell) for cell in (wording.interval(versus, metric), *chances))
        table.add_row(*(Text(cell) for cell in row), change, *rest, style=style)
    console.print(table)
    left = len(summary["losses"]) - len(shown)
    console.print(f"{left} more in the report.\n" if left else "", highlight=False)
    for note in summary["data"]["notes"] if summary["source"] not in sources.BUNDLED else ():
        console.say(note)
    for sentence in wording.answer(summary):
        console.say(sentence)
    console.say(
        f"\n{summary['trainings']:,} trainings in {summary['seconds']:.0f} s. Report: {out / 'report.html'}\n"
        f"A model for new rows: {_export(plan, summary, out)}\n"
    )
    for line in summary["advised"]["code"]:
        console.say(f"    {line}" if line else "")


def _shown(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The best few, and what they are compared to."""
    always = (summary["reference"], summary["free"])
    return [e for i, e in enumerate(summary["losses"]) if i < _SHOWN or e["loss"] in always]
