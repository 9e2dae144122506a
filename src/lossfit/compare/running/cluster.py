"""Run jobs as Ray tasks, on the cores of this machine or on many machines.

A task gets its rows from Ray's object store, where they are put once, and returns its records; this process alone
writes files, so the machines need no folder in common. Each task has one thread, as in ``pool``, and its numbers are
the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import lossfit
from lossfit.compare.errors import InputError, first_line
from lossfit.compare.running import watch
from lossfit.compare.running.job import Job, Measured, numbered
from lossfit.compare.training.task import FoldRows, Recipe, Task

_NAMED = "LOSSFIT_RAY_SESSION"
_HAS_PROC = sys.platform == "linux"
TRIES = 5
"""How often a task is begun whose worker is lost."""
_CONNECT, _TICK, _NOTE = 10.0, 0.5, 1.0


def check(address: str | None) -> None:
    """Raise InputError unless Ray is installed and a cluster may be at the address."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("--engine ray needs an extra: pip install 'lossfit[ray]'.")
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise InputError(f"Expected --ray-address as HOST:PORT, or auto, but got {address!r}.")
    try:  # Ray itself would wait for a minute
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
    except OSError as error:
        raise InputError(
            f"--ray-address {address}: no cluster answers there ({first_line(error)}). Start one by "
            "`ray start --head`, and pass the address that it prints."
        ) from error


@dataclass
class _Sent:
    """A job, its number, and how often its worker was lost."""

    index: int
    job: Job
    lost: int = 0


def run_jobs(
    jobs: Iterator[Job | None],
    count: int,
    workers: int | None,
    keep: Callable[[Job, Measured], None],
    report: Callable[[float, str], None],
    address: str | None = None,
) -> None:
    """Run the jobs, have their results kept by this process, and report the share of work done.

    The share is counted in jobs, and comes with the name of a loss at work.

    A job whose worker or machine is lost runs again. An interruption cancels what runs; what has arrived is kept.

    Args:
        jobs: made when their turn comes; None as long as what comes next waits for what runs.
        count: how many there are.
        workers: how many run at once; as many as the cluster has cores (or GPUs, if they train there) if None.
        keep: called with each job and its results.
        report: called now and then.
        address: of a cluster, which is left running. If None, the Ray that this process is connected to, or else one
            on this machine for the time of the run.

    Raises:
        InputError: the cluster cannot be reached or has no GPU where one is needed, a training fails, or its worker is
            lost :data:`TRIES` times.
    """
    if count:
        with _connected(address, workers) as ray:
            _Run(ray, workers, keep, report).all(jobs)


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    if address is None:  # Ray wants a token where it starts by itself, and would leave one in $HOME
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do, and announces in a warning
    ray: Any = importlib.import_module("ray")
    if ray.is_initialized():
        if address is not None:
            raise InputError("This process is connected to Ray already; leave out the address.")
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _session() if address is None else nullcontext("") as folder:
        try:
            if address is None:
                ray.init("local", num_cpus=workers, include_dashboard=False, _temp_dir=folder, **quiet)
            else:  # one attempt to connect, which takes Ray 40 s; by default Ray makes twenty
                os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
                ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = "Ray could not be started here" if address is None else f"--ray-address {address}: no cluster"
            raise InputError(f"{where} ({first_line(error)}).") from error
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _session() -> Iterator[str]:
    """A folder for a Ray of this run alone, which is gone with all its processes when the run ends or is killed."""
    # The paths of sockets in it may have 107 characters.
    folder = tempfile.mkdtemp(prefix="lossfit-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)
    command = [sys.executable, "-I", str(Path(watch.__file__)), folder]
    watching = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) if _HAS_PROC else None
    os.environ[_NAMED] = folder  # so that its processes are known
    try:
        yield folder
    finally:
        del os.environ[_NAMED]
        if watching is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            watching.communicate()


class _Run:
    """Jobs on their way through a cluster."""

    def __init__(
        self, ray: Any, workers: int | None, keep: Callable[[Job, Measured], None], report: Callable[[float, str], None]
    ) -> None:
        self.ray, self.workers, self.keep, self.report = ray, workers, keep, report
        self.running: dict[Any, _Sent] = {}
        self.again: list[_Sent] = []
        self.stored: dict[int, Any] = {}
        self.done = 0
        self.board = _board(ray)
        self.asked, self.shares, self.shown = self.board.read.remote(), dict[int, float](), 0.0

    def all(self, jobs: Iterator[Job | None]) -> None:
        """Run them to the end."""
        following = (None if one is None else _Sent(*one) for one in numbered(jobs))
        try:
            while True:
                while len(self.running) < self._limit() and (sent := self._next(following)) is not None:
                    self._send(sent)
                if not self.running:
                    break
                for arrived in self.ray.wait(list(self.running), timeout=_TICK)[0]:
                    self._take(arrived)
                self._tell()
        except BaseException:
            arrived, others = self.ray.wait(list(self.running), num_returns=max(len(self.running), 1), timeout=0)
            for one in others:
                self.ray.cancel(one, force=True)
            for one in arrived:
                with suppress(InputError):
                    self._take(one)
            raise

    def _next(self, following: Iterator[_Sent | None]) -> _Sent | None:
        return self.again.pop() if self.again else next(following, None)

    def _limit(self) -> int:
        """How many may run at once. A cluster may grow, or lose machines."""
        return self.workers or max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def _send(self, sent: _Sent) -> None:
        (recipe, rows), (_, repeat) = sent.job
        if repeat not in self.stored:  # the losses have their rows in common
            self.stored = {repeat: self.ray.put(rows)}
        gpus = int(recipe.device != "cpu")
        if gpus and not self.ray.cluster_resources().get("GPU"):
            raise InputError("The cluster has no GPU, but this machine has one. Use --device cpu.")
        train = self.ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_train)
        self.running[train.remote(sent.index, recipe, self.stored[repeat], _versions(), self.board)] = sent

    def _take(self, arrived: Any) -> None:
        """Keep what a task returned, or have it run again."""
        errors = self.ray.exceptions
        sent = self.running.pop(arrived)
        name = sent.job.part.loss
        try:
            measured = self.ray.get(arrived)
        except errors.RayTaskError as error:
            cause = error.cause
            told = str(cause) if isinstance(cause, InputError) else f"{type(cause).__name__}: {first_line(cause)}"
            raise InputError(f"Training {name} failed. {told}") from error
        except errors.RayError as error:
            sent.lost += 1
            if sent.lost == TRIES:
                told = f"{type(error).__name__}: {first_line(error)}"
                raise InputError(f"Training {name} was begun {TRIES} times, and its worker was lost. {told}") from error
            self.again.append(sent)
            return
        self.keep(sent.job, measured)
        self.done += 1

    def _tell(self) -> None:
        """Report what is done; never less than before, though a lost task begins anew."""
        if self.ray.wait([self.asked], timeout=0)[0]:
            with suppress(self.ray.exceptions.RayError):
                self.shares = self.ray.get(self.asked)
            self.asked = self.board.read.remote()
        at_work = sorted((sent.index, sent.job.part.loss) for sent in self.running.values())
        share = self.done + sum(self.shares.get(index, 0.0) for index, _ in at_work)
        self.shown = max(self.shown, share)
        self.report(self.shown, at_work[0][1] if at_work else "")


def _board(ray: Any) -> Any:
    """Where tasks note how far they are: a process beside this one, which stays when other machines are lost."""

    class Board:  # a class of a function goes by value: its process need not import PyTorch
        def __init__(self) -> None:
            self.shares: dict[int, float] = {}

        def note(self, index: int, share: float) -> None:
            self.shares[index] = share

        def read(self) -> dict[int, float]:
            return self.shares

    strategies = importlib.import_module("ray.util.scheduling_strategies")
    here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()


def _versions() -> tuple[str, str]:
    """What the numbers depend on."""
    return lossfit.__version__, torch.__version__.partition("+")[0]


def _train(
    index: int,
    recipe: Recipe,
    rows: FoldRows,
    versions: tuple[str, str],
    board: Any,
) -> Measured:
    """On a machine of the cluster."""
    if versions != _versions():
        here, there = (f"lossfit {own} and PyTorch {of_torch}" for own, of_torch in (_versions(), versions))
        raise InputError(f"A machine of the cluster has {here}, but the command runs with {there}.")
    torch.set_num_threads(1)
    noted = time.monotonic()

    def progress(share: float) -> None:
        nonlocal noted
        if time.monotonic() > noted + _NOTE:
            noted = time.monotonic()
            board.note.remote(index, share)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # none is written to
        return Measured.of(Task(recipe, rows), progress)
