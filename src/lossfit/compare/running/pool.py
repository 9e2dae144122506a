"""Run jobs in this process or in several, one thread each.

Small tensors do not gain from threads, and two processes that each use all cores wait for each other. So a job has one
thread, however many run, and its numbers do not depend on how many.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lossfit.compare.errors import InputError
from lossfit.compare.running.store import write_part
from lossfit.compare.scoring import class_counts
from lossfit.compare.training.train import Task, train


class Measured(NamedTuple):
    """The records of a task, and the seconds that each training took."""

    records: list[dict[str, Any]]
    seconds: float

    @classmethod
    def of(cls, task: Task, progress: Callable[[float], None]) -> Measured:
        start = time.perf_counter()
        records = class_counts.thin(train(task, progress), higher=task.kind.metrics[task.metric].higher)
        return cls(records, (time.perf_counter() - start) / (len(task.splits) * len(task.settings)))


@dataclass(frozen=True)
class Job:
    """A task, and the file that its records go to."""

    task: Task
    part: Path
    first_split: int

    def run(self, progress: Callable[[float], None]) -> None:
        self.write(Measured.of(self.task, progress))

    def write(self, measured: Measured) -> None:
        write_part(self.part, measured.records, self.first_split, measured.seconds)


def run_jobs(jobs: Iterator[Job], count: int, workers: int, report: Callable[[float, str], None]) -> None:
    """Run the jobs, and report the share of work done, in jobs, with the name of a loss at work.

    Jobs are made when their turn comes, so that few are in memory. An interruption ends the workers at once: what they
    have not finished leaves no trace.
    """
    if workers == 1 or count <= 1:
        with _one_thread():
            for done, job in enumerate(jobs):
                _run_here(job, done, report)
        return
    context = multiprocessing.get_context("spawn")
    shares: Any = context.Array("d", count)
    pool = ProcessPoolExecutor(min(workers, count), context, _start_worker, (shares,))
    running: dict[Future[None], tuple[int, str]] = {}
    numbered = enumerate(jobs)
    try:
        while True:
            while len(running) < workers + 1 and (following := next(numbered, None)) is not None:
                index, job = following
                running[pool.submit(_run_there, index, job)] = index, job.task.candidate.name
            if not running:
                break
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                index, _ = running.pop(future)
                try:
                    future.result()
                except BrokenProcessPool as error:
                    raise InputError(
                        "A process that trained was killed, most likely for want of memory. The same command with "
                        f"--resume goes on; let there be less by --workers {max(1, workers - 1)} or --max-rows."
                    ) from error
                shares[index] = 1.0
            name = min(running.values())[1] if running else ""
            report(sum(shares), name)
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _run_here(job: Job, done: int, report: Callable[[float, str], None]) -> None:
    job.run(lambda share: report(done + share, job.task.candidate.name))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_shares: Any = None


def _start_worker(shares: Any) -> None:
    global _shares
    _shares = shares
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_there(index: int, job: Job) -> None:
    def progress(share: float) -> None:
        _shares[index] = share

    job.run(progress)
