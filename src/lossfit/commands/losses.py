"""lossfit list and lossfit plot."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from lossfit import plot as plots
from lossfit import registry
from lossfit.commands import terminal
from lossfit.commands.specs import single_label
from lossfit.compare import files
from lossfit.compare.errors import InputError
from lossfit.losses.base import FAMILIES, Loss


def list_losses(
    name: Annotated[str | None, typer.Argument(help="A loss to tell all about.")] = None,
) -> None:
    """Every loss: formula, hyper-parameters, source.

    \b
    lossfit list
    lossfit list focal
    """
    console = terminal.console()
    if name is not None:
        cls = registry.get(name)
        console.print(Text(f"lossfit.{cls.__name__}{_signature(cls)}\n", style="bold"), soft_wrap=True)
        console.print(Text(inspect.getdoc(cls) or ""), soft_wrap=True)
        return
    for family, title in FAMILIES.items():
        if registry.available_losses(family):
            console.print(Text(f"\n{title}", style="bold underline"))
        for name in registry.available_losses(family):
            cls = registry.get(name)
            console.print(Text(name, style="bold"))
            lines = [("l", cls.formula), ("S(p)", cls.sensitivity)]
            lines += [(h, f"{card.meaning}, in {card.range}") for h, card in cls.hypers.items()]
            lines.append(("from", cls.source))
            for label, line in lines:
                if line:
                    console.print(Text(f"    {label:<12} {line}"), soft_wrap=True)


def _signature(cls: type[Loss]) -> str:
    own = [p for p in list(inspect.signature(cls.__init__).parameters.values())[1:] if p.kind is not p.VAR_KEYWORD]
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in own]))


def plot(
    losses: Annotated[list[str], typer.Argument(help="Losses as name or name:setting=value,setting=value.")],
    out: Annotated[Path, typer.Option(help="A .png or .svg file.")] = Path("losses.png"),
    against: Annotated[str, typer.Option(help="p, the target's probability, or gap.")] = "p",
) -> None:
    """Draw losses and their sensitivities.

    \b
    lossfit plot cross_entropy focal:gamma=2 gamma_cross_entropy:gamma=0.1
    lossfit plot hinge:squared=true exact exact:log=true --against gap --out margins.svg
    """
    if out.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"Expected --out to end in .png or .svg, but got {str(out)!r}.")
    named = {spec: single_label(spec) for spec in dict.fromkeys(losses)}
    files.write({out: plots.contents(plots.pair(named, against), out.suffix)})  # type: ignore[arg-type]
    terminal.console().say(f"Wrote {out}")
