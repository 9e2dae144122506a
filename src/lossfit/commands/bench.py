"""lossfit bench."""

from __future__ import annotations

import inspect
import json
import platform
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import lossfit
from lossfit import registry
from lossfit.commands import terminal, timing
from lossfit.commands.specs import single_label
from lossfit.compare import device as devices
from lossfit.compare import files
from lossfit.compare.errors import InputError, first_line
from lossfit.kernels import backend_for

DTYPES = ("float32", "bfloat16", "float16", "float64")


def bench(
    losses: Annotated[
        list[str] | None,
        typer.Argument(help="Losses as name or name:setting=value,setting=value; every single-label one if none is."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Of the batch; tokens of a language model.")] = 4096,
    classes: Annotated[int, typer.Option(min=2, help="Of the scores.")] = 1000,
    features: Annotated[
        int | None,
        typer.Option(min=1, help="Start from so many features and the last layer's weight, by loss.linear."),
    ] = None,
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}.")] = DTYPES[0],
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of PyTorch on a CPU; its own choice if not given.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Every loss is timed once in each.")] = 7,
    out: Annotated[Path | None, typer.Option(help="A .json file for the numbers.")] = None,
) -> None:
    """What a step of each loss takes on this machine, as a ratio to F.cross_entropy.

    \b
    lossfit bench
    lossfit bench focal:gamma=2 exact --rows 128 --classes 10
    lossfit bench cross_entropy gamma_cross_entropy --features 512 --classes 32000 --dtype bfloat16
    lossfit bench --device cuda --rows 8192 --classes 128256 --dtype bfloat16 --out bench.json

    A step is forward and backward on random numbers. The ratio is the median over rounds, and the range its quartiles.
    With --features the baseline makes the scores by x @ weight.T, and gradients of both are asked for.
    """
    if dtype not in DTYPES:
        raise InputError(f"Expected --dtype to be one of {', '.join(DTYPES)}, but got {dtype!r}.")
    if out is not None and (out.suffix.lower() != ".json" or out.is_dir()):
        raise InputError(f"Expected --out to be a .json file, but got {str(out)!r}.")
    where = devices.choose(device)
    if threads is not None:
        torch.set_num_threads(threads)
    wanted = {spec: single_label(spec) for spec in dict.fromkeys(losses or _without_settings())}
    console = terminal.console()
    shape = f"({rows}, {classes})" + (f" from {features} features" if features else "")
    console.say(f"Scores {shape}, {dtype}, on {_hardware(where)}")
    console.say(f"Backend: {backend_for(where, getattr(torch, dtype))}\n")
    try:
        found = timing.steps(wanted, rows, classes, features, getattr(torch, dtype), where)
        with Progress(console=terminal.console(errors=True), transient=True) as progress:
            task = progress.add_task("Timing", total=len(found) * (rounds + 1))
            costs = timing.measure(found, rounds, where, lambda: progress.advance(task))
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise InputError(f"Scores {shape} of {dtype} do not fit the memory: {first_line(error)}") from error
    console.print(_table(costs))
    if out is not None:
        of = {"rows": rows, "classes": classes, "features": features, "dtype": dtype, "rounds": rounds}
        numbers = {name: one._asdict() for name, one in costs.items()}
        result = {"hardware": _hardware(where), "versions": _versions(), **of, "losses": numbers}
        files.write({out: json.dumps(result, indent=1) + "\n"})
        console.say(f"\nWrote {out}")


def _without_settings() -> list[str]:
    """The single-label losses that need none."""
    names = registry.available_losses("single_label")
    return [
        name
        for name in names
        if all(
            p.default is not p.empty or p.kind is p.VAR_KEYWORD
            for p in inspect.signature(registry.get(name)).parameters.values()
        )
    ]


def _table(costs: dict[str, timing.Cost]) -> Table:
    known = any(one.peak_mib is not None for one in costs.values())
    table = Table(box=None, pad_edge=False)
    table.add_column("Loss", overflow="fold")
    for title in ("ms a step", "ratio", "range", *(["peak, MiB"] if known else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for name, one in costs.items():
        cells: list[Any] = [f"{one.milliseconds:.3g}", f"{one.ratio:.2f}", f"{one.low:.2f} to {one.high:.2f}"]
        table.add_row(Text(name), *cells, *([f"{one.peak_mib:,.0f}"] if one.peak_mib is not None else []))
    return table


def _hardware(where: str) -> str:
    if where == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "lossfit": lossfit.__version__}
