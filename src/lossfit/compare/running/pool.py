"""Run jobs in this process or in several, one thread each.

Small tensors do not gain from threads, and two processes that each use all cores wait for each other. So a job has one
thread, however many run, and its numbers do not depend on how many.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from lossfit.compare.errors import InputError
from lossfit.compare.running.job import Job, Measured, numbered
from lossfit.compare.training.task import Task


def run_jobs(
    jobs: Iterator[Job | None],
    count: int,
    workers: int,
    keep: Callable[[Job, Measured], None],
    report: Callable[[float, str], None],
) -> None:
    """Run the jobs, have their results kept by this process, and report the share of work done.

    The share is counted in jobs, and comes with the name of a loss at work.

    Jobs are made when their turn comes, so that few are in memory; None stands for one that others must end before. An
    interruption ends the workers at once: what they
    have not finished leaves no trace.
    """
    if workers == 1 or count <= 1:
        with _one_thread():
            for done, job in filter(None, numbered(jobs)):
                keep(job, _run_here(job, done, report))
        return
    context = multiprocessing.get_context("spawn")
    shares: Any = context.Array("d", count)  # which starts Python's process that looks after semaphores, too
    pool = ProcessPoolExecutor(min(workers, count), context, _start_worker, (shares,))
    running: dict[Future[Measured], tuple[int, Job]] = {}
    following = numbered(jobs)
    try:
        while True:
            while len(running) < workers + 1 and (one := next(following, None)) is not None:
                index, job = one
                with _interruptions_wait():  # a submission may start a worker
                    running[pool.submit(_run_there, index, job.task)] = index, job
            if not running:
                break
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                index, job = running.pop(future)
                try:
                    keep(job, future.result())
                except BrokenProcessPool as error:
                    raise InputError(
                        "A process that trained was killed, most likely for want of memory. The same command with "
                        f"--resume goes on; let there be less by --workers {max(1, workers - 1)} or --max-rows."
                    ) from error
                shares[index] = 1.0
            report(sum(shares), running[min(running, key=lambda one: running[one][0])][1].part.loss if running else "")
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _run_here(job: Job, done: int, report: Callable[[float, str], None]) -> Measured:
    return Measured.of(job.task, lambda share: report(done + share, job.part.loss))


@contextmanager
def _interruptions_wait() -> Iterator[None]:
    """In here Ctrl-C waits, and never reaches a process that is started: it inherits the mask until it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_there(index: int, task: Task) -> Measured:
    def progress(share: float) -> None:
        _shares[index] = share

    return Measured.of(task, progress)
