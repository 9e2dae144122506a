"""Mutated files: each must be read, or refused in a line that says what is wrong."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attacks import folders, mutations
from attacks.tally import Tally
from lossfit.compare import load_model
from lossfit.compare.calibrate import predictions
from lossfit.compare.data import dataset, folds
from lossfit.compare.errors import InputError
from lossfit.compare.export import final
from lossfit.compare.features import make
from lossfit.compare.report import diff, server

_LONGEST = 30
_WORKERS = 2


class Case(NamedTuple):
    """A file that is mutated, and what reads it afterwards.

    Attributes:
        path: below the folder.
        mutate: its bytes.
        read: what a command does with it; it gets the folder.
        share: how many of all files are this one.
    """

    path: str
    mutate: mutations.Mutation
    read: Callable[[Path], Any]
    share: float


def _data(path: str, target: str | None = None, **roles: Any) -> Callable[[Path], Any]:
    """All that a comparison does before it trains."""

    def read(root: Path) -> None:
        data = dataset.load(str(root / path), target, **roles)
        drawn = folds.draw(data, 3, 1)
        reader, _ = make.reader(data)
        parts = (make.Parts(drawn.train(0, p), np.concatenate(drawn.held_out(0, p)), drawn.test) for p in drawn.pairs)
        make.make(data, list(parts), reader)

    return read


def _predict(root: Path) -> None:
    load_model(root / "out").predictions(folders.table(9, 1))


def _predict_from(path: str) -> Callable[[Path], Any]:
    return lambda root: load_model(root / "out").predictions(root / path)


def _diff(root: Path) -> None:
    diff.render(diff.read_run(root / "out"), diff.read_run(root / "other"))


def _serve(root: Path) -> None:
    found = server.find(root)
    if "noise/" not in found or "other/" not in found:
        raise AssertionError("a file took down the list of the others")


def _export(root: Path) -> None:
    """Up to the training."""
    real, final.fit = final.fit, lambda *_: None  # type: ignore[assignment]
    try:
        final.export(root / "out", source=str(root / "t.csv"))
    finally:
        final.fit = real


_TABS = partial(mutations.cells_of, separator=b"\t")
_SEMICOLONS = partial(mutations.cells_of, separator=b";")
GRADE = {"text": "note"}
PICTURES = [
    *("dark/00.png", "light/01.jpg", "dark/02.gif", "light/03.bmp"),
    *("light/05.webp", "light/07.tif", "dark/08.ppm"),
]
CASES = [
    Case("t.csv", mutations.cells_of, _data("t.csv", "grade", **GRADE), 0.14),
    Case("t.tsv", _TABS, _data("t.tsv", "grade", **GRADE), 0.06),
    Case("s.csv", _SEMICOLONS, _data("s.csv", "grade", **GRADE), 0.06),
    Case("t.parquet", mutations.bytes_of, _data("t.parquet", "grade", **GRADE), 0.12),
    Case("t.npz", mutations.bytes_of, _data("t.npz"), 0.08),
    Case("saved/data-00000-of-00001.arrow", mutations.bytes_of, _data("saved"), 0.06),
    Case("saved/state.json", mutations.json_of, _data("saved"), 0.02),
    Case("saved/dataset_info.json", mutations.json_of, _data("saved"), 0.04),
    *(Case(f"pictures/{name}", mutations.bytes_of, _data("pictures"), 0.015) for name in PICTURES),
    Case("p.csv", mutations.cells_of, lambda root: predictions.read(root / "p.csv", "y"), 0.04),
    Case("t.csv", mutations.cells_of, _predict_from("t.csv"), 0.04),
    Case("out/model/model.json", mutations.json_of, _predict, 0.08),
    Case("out/model/model.safetensors", mutations.bytes_of, _predict, 0.06),
    Case("out/plan.json", mutations.json_of, _export, 0.03),
    Case("out/summary.json", mutations.json_of, _export, 0.02),
    Case("out/plan.json", mutations.json_of, _diff, 0.01),
    Case("out/summary.json", mutations.json_of, _diff, 0.02),
    Case("out/passes.parquet", mutations.bytes_of, _diff, 0.005),
    Case("out/summary.json", mutations.json_of, _serve, 0.005),
    Case("noise/noise.json", mutations.json_of, lambda root: server.find(root), 0.005),
]


def run(count: int, seed: int) -> Tally:
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "original"
        root.mkdir()
        folders.everything(root)
        total = sum(case.share for case in CASES)
        jobs = [
            (c, seed * 1_000_003 + i)
            for c, case in enumerate(CASES)
            for i in range(max(1, round(count * case.share / total)))
        ]
        jobs += [(0, seed * 1_000_003 + 500_000 + i) for i in range(count - len(jobs))]
        context = multiprocessing.get_context("forkserver")  # the threads of Polars do not outlive a fork
        context.set_forkserver_preload(["attacks.inputs"])
        workers = []
        for w in range(_WORKERS):
            copy = Path(name) / f"copy{w}"
            shutil.copytree(root, copy)
            workers.append(_Worker(context, copy, jobs[w::_WORKERS]))
        for worker in workers:
            tally.join(worker.tally())
    return tally


class _Worker:
    """Goes through jobs in a process; one that ends the process is wrong, and the next goes on after it."""

    def __init__(self, context: Any, root: Path, jobs: list[tuple[int, int]]) -> None:
        self.context, self.root, self.jobs = context, root, jobs
        self.result = root.parent / f"{root.name}.txt"
        self.result.touch()
        self.start(0)

    def start(self, at: int) -> None:
        self.process = self.context.Process(target=_go_through, args=(self.root, self.jobs[at:], self.result))
        self.process.start()

    def tally(self) -> Tally:
        while True:
            self.process.join()
            done = self.result.read_text().splitlines()
            if len(done) >= len(self.jobs):
                break
            case, seed = self.jobs[len(done)]
            with self.result.open("a") as file:
                file.write(json.dumps([f"seed {seed}: ended the process ({self.process.exitcode})"]) + "\n")
            self.start(len(done) + 1)
        found = Tally()
        for (case, _), line in zip(self.jobs, done, strict=False):
            (told,) = json.loads(line)
            ended = told if told in ("read", "refused") else "wrong"
            found.add(f"{CASES[case].path}: {ended}", "" if ended != "wrong" else told)
        return found


def _go_through(root: Path, jobs: list[tuple[int, int]], result: Path) -> None:
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with result.open("a") as file:
        for case, seed in jobs:
            file.write(json.dumps([_one(root, CASES[case], seed)]) + "\n")
            file.flush()


def _too_long(*_: object) -> None:
    raise TimeoutError(f"took more than {_LONGEST} s")


def _one(root: Path, case: Case, seed: int) -> str:
    path = root / case.path
    whole = path.read_bytes()
    changed = case.mutate(whole, random.Random(seed))
    path.write_bytes(changed)
    about = root / "out" / "model" / "model.json"
    described = about.read_bytes()
    if path.suffix == ".safetensors":  # else every change is found by the digest
        digest = hashlib.sha256(changed).hexdigest()
        about.write_text(json.dumps({**json.loads(described), "weights_sha256": digest}))
    signal.alarm(_LONGEST)
    try:
        case.read(root)
    except InputError as error:
        return "refused" if len(str(error).splitlines()) == 1 else f"seed {seed}: several lines: {error}"
    except BaseException as error:
        if isinstance(error, ValueError | TypeError) and str(error).startswith("Expected "):
            return "refused"
        return f"seed {seed}: {type(error).__name__}: {error} {traceback.format_exc().splitlines()[-3:-1]}"
    finally:
        signal.alarm(0)
        path.write_bytes(whole)
        about.write_bytes(described) if path != about else None
    return "read"
