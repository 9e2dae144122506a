"""Any module for each training, behind the same interface as the stacked models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

# Rows at once where nothing is learnt: a network on images holds many numbers for each.
EVALUATED = 512


class Modules:
    """S x T modules, one for each split and setting.

    All settings of a split start from the same weights, and draw the same numbers in a training step, such as those of
    dropout: both depend on the split's seed alone, and the caller's random numbers are left as they are. While
    gradients are on, the modules are in training mode; else in evaluation mode, and rows go through them in parts.

    Args:
        make: a new module, its weights drawn by PyTorch's own generator. It takes (B, D) to (B, C).
        settings: T.
        generators: one for each split; their seeds are used, not their numbers.
        device: where the modules are.

    Attributes:
        parameters: what is learnt.
        decays: for each parameter, whether it is shrunk by the weight decay: those of two dimensions and more, which
            leaves out biases and the scales of norms.
    """

    def __init__(
        self, make: Callable[[], nn.Module], settings: int, generators: list[torch.Generator], device: str = "cpu"
    ) -> None:
        self.splits, self.settings, self.device = len(generators), settings, device
        self.seeds, self.taken = [generator.initial_seed() for generator in generators], 0
        self.modules = []
        for seed in self.seeds:
            for _ in range(settings):
                with drawing(seed, device):
                    self.modules.append(make().to(device))
        named = [list(module.named_parameters()) for module in self.modules]
        learnt = [(m, n) for m, pairs in enumerate(named) for n, p in pairs if p.requires_grad]
        buffers = [(m, name) for m, module in enumerate(self.modules) for name, _ in module.named_buffers()]
        self._names = learnt + buffers
        self.parameters = [p for pairs in named for _, p in pairs if p.requires_grad]
        self.decays = [p.ndim > 1 for p in self.parameters]

    @property
    def state(self) -> list[Tensor]:
        """All that a trained model consists of and training changes: the parameters, then the buffers."""
        return [value for _, _, value in self._owned()]

    def _owned(self) -> Iterator[tuple[int, str, Tensor]]:
        """Which module has which tensor. A module may put new tensors in the place of its buffers."""
        there = [{**dict(module.named_parameters()), **dict(module.named_buffers())} for module in self.modules]
        return ((m, name, there[m][name]) for m, name in self._names)

    def __call__(self, x: Tensor, state: list[Tensor] | None = None) -> Tensor:
        """Logits (S, B, T, C) of inputs (S, B, D), by another state if one is given."""
        learning = torch.is_grad_enabled()
        if learning:
            self.taken += 1
        each = []
        for m, module in enumerate(self.modules):
            split = m // self.settings
            if module.training != learning:
                module.train(learning)
            changed = None
            if state is not None:
                changed = {name: v for (owner, name), v in zip(self._names, state, strict=True) if owner == m}
            parts = [x[split]] if learning else x[split].split(EVALUATED)
            with drawing(self.seeds[split] * 1_000_003 + self.taken, self.device):
                found = [functional_call(module, changed, (rows,)) if changed else module(rows) for rows in parts]
            each.append(torch.cat(found).to(x.dtype))
        return torch.stack(each).unflatten(0, (self.splits, self.settings)).transpose(1, 2)

    def by_setting(self, values: Tensor, index: int) -> Tensor:
        """Of numbers (T,) or (S, T) the one that a tensor of the state goes by."""
        return values.expand(self.splits, self.settings).flatten()[self._names[index][0]]

    def state_dict(self, split: int, setting: int, state: list[Tensor] | None = None) -> dict[str, Tensor]:
        """One of the models, as a state dict of its architecture's module."""
        index = split * self.settings + setting
        module = copy.deepcopy(self.modules[index])
        there = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for (owner, name), value in zip(self._names, state or self.state, strict=True):
            if owner == index:
                there[name].data.copy_(value)
        return {name: value.detach().clone() for name, value in module.state_dict().items()}


@contextmanager
def drawing(seed: int, device: str = "cpu") -> Iterator[None]:
    """PyTorch's own generators begin with this seed, and go on afterwards as if nothing had been drawn."""
    devices = [torch.device(device, torch.cuda.current_device())] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed % 2**63)
        yield
