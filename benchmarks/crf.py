"""The linear-chain CRF against a recursion written longhand, step by step, and against pytorch-crf.

    python benchmarks/crf.py                  # written to benchmarks/results/crf-cpu.json
    python benchmarks/crf.py --rounds 5 --out /tmp/crf.json

Negative log-likelihood, forward and backward, and Viterbi decoding, eager, with rows of all lengths from T / 2 to T.
One round times the longhand loop and then every contender; a ratio is taken within its round; the median over rounds
is reported with its quartiles. The longhand and pytorch-crf decode into lists, row by row, lossfit into a tensor; a
single row has no padding. pytorch-crf takes part if it is installed (pip install pytorch-crf).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dense import hardware, spread
from torch import Tensor, nn

import lossfit

try:
    from torchcrf import CRF as PytorchCRF  # noqa: N811
except ImportError:
    PytorchCRF = None
    print("pytorch-crf takes no part: it is not installed (pip install pytorch-crf).")

SHAPES = ((1, 10, 5), (4, 10, 5), (16, 40, 9), (64, 100, 20), (32, 50, 64), (256, 30, 9))


class Longhand(nn.Module):
    """What the textbook says, one step after the other, differentiated by autograd."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.start, self.end = nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))
        self.transitions = nn.Parameter(torch.zeros(tags, tags))

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        rows = torch.arange(len(tags))
        score = self.start[tags[:, 0]] + emissions[rows, 0, tags[:, 0]]
        total = self.start + emissions[:, 0]
        for t in range(1, tags.shape[1]):
            step = self.transitions[tags[:, t - 1], tags[:, t]] + emissions[rows, t, tags[:, t]]
            score = score + torch.where(mask[:, t], step, 0.0)
            into = (total.unsqueeze(2) + self.transitions).logsumexp(1) + emissions[:, t]
            total = torch.where(mask[:, t].unsqueeze(1), into, total)
        score = score + self.end[tags[rows, mask.sum(1) - 1]]
        return ((total + self.end).logsumexp(1) - score).mean()

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor) -> list[list[int]]:
        best, back = self.start + emissions[:, 0], []
        for t in range(1, emissions.shape[1]):
            into, before = (best.unsqueeze(2) + self.transitions).max(1)
            best = torch.where(mask[:, t].unsqueeze(1), into + emissions[:, t], best)
            back.append(before)
        paths = []
        for row, tag in enumerate((best + self.end).argmax(1).tolist()):
            path = [tag]
            for before in reversed(back[: int(mask[row].sum()) - 1]):
                path.append(int(before[row, path[-1]]))
            paths.append(path[::-1])
        return paths


def contenders(tags: int) -> dict[str, tuple[nn.Module, Callable[..., Any], Callable[..., Any]]]:
    """By name: the module, its loss and its decoding, all with the same weights."""
    ours, naive = lossfit.LinearChainCRF(tags), Longhand(tags)
    nll, focal = lossfit.CRFLoss(), lossfit.CRFLoss(lossfit.FocalLoss(2.0))
    found: dict[str, tuple[nn.Module, Callable[..., Any], Callable[..., Any]]] = {
        "longhand": (naive, naive, naive.viterbi),
        "lossfit": (ours, lambda e, y, m: nll(e, y, ours.transitions, ours.start, ours.end, m), ours.viterbi),
        "lossfit, focal": (ours, lambda e, y, m: focal(e, y, ours.transitions, ours.start, ours.end, m), ours.viterbi),
    }
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(shape, generator=generator) for shape in ((tags,), (tags, tags), (tags,))]
    for module in (ours, naive):
        for name, weight in zip(("start", "transitions", "end"), weights, strict=True):
            getattr(module, name).data.copy_(weight)
    if PytorchCRF is not None:
        theirs = PytorchCRF(tags, batch_first=True)
        for name, weight in zip(("start_transitions", "transitions", "end_transitions"), weights, strict=True):
            getattr(theirs, name).data.copy_(weight)
        found["pytorch-crf"] = (theirs, lambda e, y, m: -theirs(e, y, m, reduction="mean"), theirs.decode)
    return found


def batch(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    rows, length, tags = shape
    generator = torch.Generator().manual_seed(0)
    emissions = torch.randn(shape, generator=generator).mul_(2).requires_grad_()
    lengths = torch.linspace(length / 2, length, rows).round().long()
    lengths[-1] = length
    target = torch.randint(tags, (rows, length), generator=generator)
    return emissions, target, torch.arange(length) < lengths.unsqueeze(1)


def compare(shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    emissions, target, mask = batch(shape)
    found = contenders(shape[2])

    def train(name: str) -> None:
        module, loss, _ = found[name]
        module.zero_grad()
        emissions.grad = None
        loss(emissions, target, mask).backward()

    def decode(name: str) -> None:
        found[name][2](emissions.detach(), mask)

    agree(found, emissions, target, mask)
    result: dict[str, Any] = {"shape": shape}
    for part, run in (("train", train), ("decode", decode)):
        names = [name for name in found if part == "train" or name != "lossfit, focal"]
        for name in names:
            run(name)
        calls = max(1, round(0.05 / once(run, "longhand", 2)))
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                times[name].append(once(run, name, calls))
        base = times.pop("longhand")
        result[part] = {
            "longhand_ms": round(statistics.median(base) * 1e3, 3),
            "ratio": {n: spread([t / b for t, b in zip(ts, base, strict=True)]) for n, ts in times.items()},
        }
        print(f"\n{shape}, {part}: longhand {result[part]['longhand_ms']:.3g} ms = 1")
        for name, r in result[part]["ratio"].items():
            print(f"  {name:16} {r['median']:6.3f}   [{r['low']:.3f}, {r['high']:.3f}]")
    return result


def agree(found: dict[str, Any], emissions: Tensor, target: Tensor, mask: Tensor) -> None:
    """All compute the same."""
    values = [loss(emissions, target, mask) for name, (_, loss, _) in found.items() if name != "lossfit, focal"]
    for value in values[1:]:
        torch.testing.assert_close(value, values[0], rtol=1e-4, atol=1e-4)


def once(run: Callable[[str], None], name: str, calls: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        run(name)
    return (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per shape (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "crf-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {"hardware": hardware(), "shapes": [compare(shape, options.rounds) for shape in SHAPES]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
