"""Trainings in a process whose memory is limited: how many parts, whether they are as without a limit, and an error."""

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
    whole = changed(task(count=2, features=3000), steps=6)
    whole = changed(whole, model=Architecture("mlp", 3000, CLASSES, 100))
    train.train(whole.part(range(1), range(1)))  # what libraries take once
    calls = []
    original = train.together

    def counting(*arguments: object) -> object:
        calls.append(0)
        return original(*arguments)

    train.together = counting
    limit(25)
    divided = train.train(whole)
    print(len(calls))
    limit(None)
    together = train.train(whole)
    close = [
        abs(a["test_log_loss"] - b["test_log_loss"]) < 1e-4 and (a["split"], a["trial"]) == (b["split"], b["trial"])
        for a, b in zip(divided, together, strict=True)
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
