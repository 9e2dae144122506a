"""Trainings in a process whose memory is limited: how many tries, whether they are as without a limit, and an error."""

import gc
import resource
from pathlib import Path

import torch

from lossfit.compare.errors import InputError
from lossfit.compare.training import train
from lossfit.compare.training.models import Architecture
from trainings import CLASSES, changed, task


def limit(mebibytes: int | None) -> None:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = resource.RLIM_INFINITY if mebibytes is None else pages * resource.getpagesize() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def main() -> None:
    torch.set_num_threads(1)
    whole = changed(task(count=4, features=3000), steps=8)
    whole = changed(whole, model=Architecture("mlp", 3000, CLASSES, 50), batch=82)
    small = changed(task(count=3), steps=8)
    train.train(small)  # what libraries take once
    calls = []
    original = train._together

    def counting(*arguments: object) -> object:
        calls.append(0)
        return original(*arguments)  # type: ignore[arg-type]

    train._together = counting  # type: ignore[assignment]
    (together,) = train.train(whole).values()
    calls.clear()
    limit(68)
    (divided,) = train.train(whole).values()
    print(len(calls))
    limit(None)
    close = [
        abs(a["validation"] - b["validation"]) < 1e-4 and (a["fold"], a["trial"]) == (b["fold"], b["trial"])
        for a, b in zip(divided.settings, together.settings, strict=True)
    ]
    print(all(close))
    limit(2)
    try:
        train.train(whole)
    except InputError as error:
        message = str(error)
    limit(None)
    print(message)


if __name__ == "__main__":
    main()
