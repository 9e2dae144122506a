"""A small language model, trained on made-up text with a plain head and with the library's, step by step in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossfit
from gpu_parts import peers
from gpu_parts.contest import Part, tell
from gpu_parts.device import MIB, Device, spread

Head = Callable[[Tensor, Tensor, Tensor], Tensor]
LEARNING_RATE = 1e-3
CONTROL = "plain, jittered"
"""The plain head again, from weights that differ by the rounding of bfloat16: how far apart curves are for nothing."""


class Block(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(features) for _ in range(2))
        self.qkv = nn.Linear(features, 3 * features, bias=False)
        self.out = nn.Linear(features, features, bias=False)
        self.wide = nn.Linear(features, 4 * features, bias=False)
        self.narrow = nn.Linear(4 * features, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norms[0](x)).chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.wide(self.norms[1](x))))


class Model(nn.Module):
    def __init__(self, text: dict[str, int]) -> None:
        super().__init__()
        features = text["features"]
        self.tokens = nn.Embedding(text["vocabulary"], features)
        self.places = nn.Embedding(text["positions"], features)
        self.blocks = nn.ModuleList(Block(features, text["heads"]) for _ in range(text["layers"]))
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, text["vocabulary"], bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def made_up(text: dict[str, int], sequences: int) -> tuple[Tensor, float]:
    """Sequences of tokens, and the nats per token that the best model of them would have.

    Every token belongs to a group. A group is followed by one of four others, with probabilities 0.6, 0.2, 0.15 and
    0.05, and a token is drawn from its group by Zipf's law.
    """
    generator = torch.Generator().manual_seed(0)
    groups, size = text["groups"], text["vocabulary"] // text["groups"]
    followers = torch.stack([torch.randperm(groups, generator=generator)[:4] for _ in range(groups)])
    chances = torch.tensor([0.6, 0.2, 0.15, 0.05])
    zipf = 1 / torch.arange(1, size + 1, dtype=torch.float64) ** 1.5
    zipf /= zipf.sum()
    length = text["positions"] + 1
    group = torch.randint(groups, (sequences,), generator=generator)
    turns = torch.multinomial(chances, sequences * length, True, generator=generator).view(length, sequences)
    found = []
    for turn in turns:
        found.append(group)
        group = followers[group, turn]
    ranks = torch.searchsorted(zipf.cumsum(0), torch.rand(sequences, length, generator=generator, dtype=torch.float64))
    least = sum(-(p * p.log()).sum().item() for p in (chances.double(), zipf))
    return torch.stack(found, 1) + groups * ranks.clamp(max=size - 1), least


def language_model(part: Part, sizes: dict[str, Any]) -> None:
    text, device = sizes["text"], part.device
    tokens, least = made_up(text, text["steps"] * text["batch"])
    batches = tokens.to(device.name).split(text["batch"])
    heads: dict[str, Head] = {
        "plain": peers.plain_linear,
        "torch.compile": peers.compiled(device, lambda x, w, y: peers.plain_linear(x, w, y))(),
        "lossfit": peers.fused(lossfit.CrossEntropyLoss()),
    }
    runs = {name: Training(device, text, head) for name, head in heads.items()}
    runs[CONTROL] = Training(device, text, peers.plain_linear, jitter=2.0**-9)
    entries: dict[str, dict[str, Any]] = {
        name: {"status": "crashed", "why": "the process ended while it ran"}
        if name in part.without
        else {"status": "waiting"}
        for name in runs
    }
    part.found |= {"text": text, "least_possible": round(least, 4)}
    part.found["contenders"] = entries
    for at, batch in enumerate(batches):
        if part.left() < 5:
            break
        for name, run in runs.items():
            if entries[name]["status"] in ("waiting", "ok"):
                try:
                    run.step(at, batch)
                    entries[name]["status"] = "ok"
                except Exception as error:
                    tell(part, entries[name], error)
        if at == text["steps"] // 2:
            device.look()
        if at % 50 == 0:
            part.flush()
    part.found["clocks_while_timed"] = device.seen()
    for name, run in runs.items():
        entries[name] |= run.results()
        if entries[name]["status"] == "ok":
            e = entries[name]
            print(
                f"    {name:16} {len(e['loss'])} steps, loss {e['loss'][-1]:.3f}, {e['median_ms']:.2f} ms", flush=True
            )


class Training:
    """A model, its optimiser, and what its steps gave."""

    def __init__(self, device: Device, text: dict[str, int], head: Head, jitter: float = 0.0) -> None:
        torch.manual_seed(0)
        self.device, self.head = device, head
        with torch.device(device.name):
            self.model = Model(text)
        if jitter:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.mul_(1 + jitter * torch.randn_like(parameter))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=not device.smoke)
        self.losses: list[Tensor] = []
        self.ms: list[float] = []
        self.peaks: list[int] = []

    def step(self, at: int, tokens: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (at + 1) / 20)
        before = self.device.mark()
        self.ms.append(self.device.milliseconds(lambda: self._step(tokens)))
        if before is not None:
            self.peaks.append(self.device.above(before))

    def _step(self, tokens: Tensor) -> None:
        with torch.autocast(self.device.name, torch.bfloat16):
            hidden = self.model(tokens[:, :-1]).flatten(0, 1)
            loss = self.head(hidden, self.model.head.weight, tokens[:, 1:].flatten())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.detach())

    def results(self) -> dict[str, Any]:
        """Times without the first steps, which compile; the peak beyond what the models and optimisers hold."""
        if not self.losses:
            return {}
        steady = self.ms[5:] or self.ms
        return {
            "loss": [round(value.item(), 5) for value in self.losses],
            "ms": [round(t, 4) for t in self.ms],
            **{f"{key}_ms": value for key, value in spread(steady).items()},
            "peak_mib": round(max(self.peaks[5:]) / MIB, 1) if self.peaks[5:] else None,
        }
