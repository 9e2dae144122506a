"""Where trainings run."""

from __future__ import annotations

import torch

from lossfit.compare.errors import InputError

DEVICES = ("auto", "cpu", "cuda")


def choose(asked: str) -> str:
    """The device that --device asks for; "auto" is a GPU where there is one.

    Raises:
        InputError: a GPU is asked for and PyTorch sees none.
    """
    if asked not in DEVICES:
        raise InputError(f"Expected --device to be one of {', '.join(DEVICES)}, but got {asked!r}.")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        built = "" if torch.version.cuda else ", which is built for the CPU alone"
        raise InputError(f"--device cuda: no GPU is visible to PyTorch {torch.__version__}{built}. Use --device cpu.")
    return "cuda" if there and asked != "cpu" else "cpu"
