"""The user's own network: found by its name, called, and tried."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lossfit.compare.errors import InputError, first_line, is_exhausted

OFFERED = ("features", "classes", "shape")


def load(name: str, folder: str) -> Callable[..., Any]:
    """What ``package.module:factory`` names, found in the folder or among what is installed.

    Raises:
        InputError: there is no such module or nothing of that name in it, importing it raises, or it is not callable.
    """
    path, _, attribute = name.partition(":")
    if not path or not attribute:
        raise InputError(f"Expected --model as package.module:factory, but got {name!r}.")
    # What a module draws when it is imported is no part of a training.
    with _importing_from(folder), torch.random.fork_rng(devices=[]):
        try:
            found: Any = importlib.import_module(path)
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing is not None and (path == missing or path.startswith(f"{missing}.")):
                raise InputError(
                    f"--model {name}: there is no module {missing!r}, neither in the folder {folder!r} nor installed."
                ) from error
            raise InputError(f"--model {name}: importing {path!r} raised {_told(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [n for n, v in vars(found).items() if callable(v) and not n.startswith("_")]
            there = f" It has {', '.join(names[:10])}." if names else ""
            raise InputError(f"--model {name}: the module {path!r} has no {attribute!r}.{there}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"--model {name}: expected a function or a class, but got {_kind(found)}.")
    function: Callable[..., Any] = found
    return function


def make(name: str, folder: str, offered: dict[str, Any]) -> tuple[nn.Module, bool]:
    """A network, from the factory called with those of the offered arguments that its signature has.

    Whether it wants plain rows comes too: it is called with the number of features and not with the shape.

    Raises:
        InputError: the factory needs other arguments, raises, or returns no module.
    """
    function = load(name, folder)
    arguments = _accepted(name, function, offered)
    told = f"{name.partition(':')[2]}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
    with _importing_from(folder):
        try:
            found = function(**arguments)
        except Exception as error:
            if is_exhausted(error):
                raise
            raise InputError(f"--model {name}: {told} raised {_told(error)}") from error
    if not isinstance(found, nn.Module):
        raise InputError(f"--model {name}: expected {told} to return a torch.nn.Module, but got {_kind(found)}.")
    return found, "features" in arguments and "shape" not in arguments


def check(name: str, new: Callable[[], nn.Module], rows: Tensor, classes: int) -> None:
    """Try the network on a few rows, as it will be trained and as it will be measured.

    Args:
        name: of the factory.
        new: makes a network.
        rows: (B, D).
        classes: how many scores a row must get.

    Raises:
        InputError: it has nothing to learn or is the same object in two calls, it raises, or its output is not (B,
            classes), not floating, or without a gradient.
    """
    module, other = new(), new()
    learnt = [p for p in module.parameters() if p.requires_grad]
    if not learnt:
        raise InputError(f"--model {name}: expected a module with parameters to train, but it has none.")
    if {id(p) for p in learnt} & {id(p) for p in other.parameters()}:
        raise InputError(f"--model {name}: expected a new module in every call, but two calls share parameters.")
    for learning in (True, False):
        module.train(learning)
        with torch.set_grad_enabled(learning):
            found = output(name, module, rows)
        mode = "training" if learning else "evaluation"
        _check_shape(name, found, (len(rows), classes), mode)
        if not found.is_floating_point():
            raise InputError(f"--model {name}: expected floating-point scores in {mode} mode, but got {found.dtype}.")
        if learning and not found.requires_grad:
            raise InputError(f"--model {name}: the scores do not depend on the parameters; nothing would be learnt.")


def scores(name: str, classes: int, module: nn.Module, rows: Tensor) -> Tensor:
    """What the network gives in the middle of a training, where it may still raise or give another shape."""
    found = output(name, module, rows)
    _check_shape(name, found, (len(rows), classes), "training" if module.training else "evaluation")
    checked: Tensor = found
    return checked


def _check_shape(name: str, found: Any, shape: tuple[int, int], mode: str) -> None:
    if not isinstance(found, Tensor):
        raise InputError(f"--model {name}: expected a tensor {shape} in {mode} mode, but got {_kind(found)}.")
    if tuple(found.shape) != shape:
        raise InputError(
            f"--model {name}: expected scores of the shape (rows, classes) = {shape} in {mode} mode, but got "
            f"{tuple(found.shape)}."
        )


def output(name: str, module: nn.Module, rows: Tensor) -> Any:
    """What the network gives; an error of its own is told with its name."""
    try:
        return module(rows)
    except Exception as error:
        if is_exhausted(error) or isinstance(error, InputError):
            raise
        shape = tuple(getattr(module, "image", rows.shape[1:]))
        raise InputError(f"--model {name}: on {len(rows)} rows of {shape} it raised {_told(error)}") from error


def _accepted(name: str, function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return offered
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return offered
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in kinds]
    unknown = [n for n in needed if n not in named or n not in offered]
    if unknown:
        raise InputError(
            f"--model {name}: it needs {', '.join(map(repr, unknown))}, but is called with those of "
            f"{', '.join(OFFERED)} that it takes by name."
        )
    return {k: v for k, v in offered.items() if k in named}


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}" if str(error) else f"{type(error).__name__}."


def _kind(value: object) -> str:
    kind = type(value)
    return (
        "None"
        if value is None
        else kind.__name__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__name__}"
    )


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    """As Python itself does when it runs a file there."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
