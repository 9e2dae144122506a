"""The choice of the backend, and losses, in threads, tasks and processes."""

import asyncio
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor

import lossfit
from lossfit import kernels

Z = torch.linspace(-2, 2, 30).view(6, 5)
Y = torch.tensor([0, 1, 2, 3, 4, 0])


def gradient(seed: int) -> Tensor:
    z = (Z * (1 + seed)).requires_grad_()
    lossfit.GammaCrossEntropyLoss(0.3)(z, Y).backward()
    assert z.grad is not None
    return z.grad


def test_a_choice_does_not_leak_between_threads() -> None:
    inside, over = threading.Event(), threading.Event()
    seen = []

    def first() -> None:
        with kernels.using("torch"):
            inside.set()
            over.wait(60)
            seen.append(kernels.current())

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(60)
    assert kernels.current() == "auto"
    with kernels.using("triton"):
        over.set()
        thread.join()
        assert kernels.current() == "triton"
    assert seen == ["torch"]
    assert kernels.current() == "auto"


def test_a_choice_does_not_leak_between_tasks() -> None:
    async def task(backend: kernels.Backend, turns: int) -> list[str]:
        seen = []
        with kernels.using(backend):
            for _ in range(turns):
                await asyncio.sleep(0)
                seen.append(kernels.current())
        seen.append(kernels.current())
        return seen

    async def both() -> list[list[str]]:
        return await asyncio.gather(task("torch", 3), task("triton", 5), task("auto", 4))

    assert asyncio.run(both()) == [["torch"] * 3 + ["auto"], ["triton"] * 5 + ["auto"], ["auto"] * 5]
    assert kernels.current() == "auto"


def test_compiled_code_follows_the_choice_of_its_caller() -> None:
    def told(x: Tensor) -> Tensor:
        return x + {"auto": 0, "torch": 1, "triton": 2}[kernels.current()]

    def inner(x: Tensor) -> Tensor:
        with kernels.using("triton"):
            return told(x)

    torch.compiler.reset()
    zero = torch.zeros(())
    outside, inside = (torch.compile(f, fullgraph=True, backend="eager") for f in (told, inner))
    for backend, expected in (("auto", 0), ("torch", 1), ("auto", 0), ("triton", 2), ("torch", 1)):
        with kernels.using(backend):
            assert outside(zero) == expected
            assert inside(zero) == 2
            assert kernels.current() == backend


def test_losses_in_threads() -> None:
    expected = [gradient(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(map(torch.equal, pool.map(gradient, range(8)), expected))


def test_losses_in_tasks() -> None:
    async def every() -> list[Tensor]:
        return await asyncio.gather(*(asyncio.to_thread(gradient, seed) for seed in range(8)))

    assert all(map(torch.equal, asyncio.run(every()), [gradient(seed) for seed in range(8)]))


def test_losses_in_processes() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        (found,) = pool.map(gradient, [3])
    assert torch.equal(found, gradient(3))
