"""Any module for each training, behind the same interface as the stacked models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lossfit.compare.training.models.base import Models

# Rows at once where nothing is learnt: a network on images holds many numbers for each.
EVALUATED = 512


class Modules(Models):
    """S x T modules, one for each split and setting.

    All settings of a split start from the same weights, and draw the same numbers in a training step, such as those of
    dropout: both depend on the split's seed alone, and the caller's random numbers are left as they are. While
    gradients are on, the modules are in training mode; else in evaluation mode, and rows go through them in parts.
    Parameters of two dimensions and more decay, which leaves out biases and the scales of norms.

    Args:
        make: a new module, its weights drawn by PyTorch's own generator. It takes (B, D) to (B, C).
        settings: T.
        generators: one for each split; their seeds are used, not their numbers.
        device: where the modules are.
        call: a module on rows, which may check what it gives.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        settings: int,
        generators: list[torch.Generator],
        device: str = "cpu",
        call: Callable[[nn.Module, Tensor], Tensor] = nn.Module.__call__,
    ) -> None:
        self._call = call
        self.splits, self.settings, self.device, self._taken = len(generators), settings, device, 0
        self._seeds = [generator.initial_seed() for generator in generators]

        def new(seed: int) -> nn.Module:
            with drawing(seed, device):
                return make().to(device)

        self._modules = [new(seed) for seed in self._seeds for _ in range(settings)]
        self._spare = new(0)
        named = dict(self._spare.named_parameters())
        self._learnt = [name for name, p in named.items() if p.requires_grad]
        frozen = [name for name in named if name not in self._learnt]
        self._other = frozen + [name for name, _ in self._spare.named_buffers()]
        self.decays = [named[name].ndim > 1 for name in self._learnt]
        self._adopt([self._gathered(name) for name in self._learnt])

    def _adopt(self, parameters: list[Tensor]) -> None:
        """Let the modules' parameters be views of these, (S, T, ...), so that a step changes them all at once."""
        self.parameters = parameters
        for name, stacked in zip(self._learnt, parameters, strict=True):
            for module, own in zip(self._modules, stacked.flatten(0, 1), strict=True):
                module.get_parameter(name).data = own

    def _gathered(self, name: str) -> Tensor:
        """A tensor of all modules, (S, T, ...)."""
        found: Tensor = torch.stack([_named(m, name).detach() for m in self._modules]).unflatten(
            0, (self.splits, self.settings)
        )
        return found

    @property
    def state(self) -> list[Tensor]:
        """All that trained models consist of: the parameters, then those that are not learnt and the buffers."""
        return [*self.parameters, *(self._gathered(name) for name in self._other)]

    def __call__(self, x: Tensor, state: list[Tensor] | None = None) -> Tensor:
        """Logits (S, B, T, C) of inputs (S, B, D), by another state of any T if one is given."""
        learning = state is None and torch.is_grad_enabled()
        self._taken += learning
        settings = self.settings if state is None else state[0].shape[1]
        each = []
        # A state may be of other splits than these; nothing should be drawn there.
        seeds = self._seeds if state is None else [0] * len(x)
        for s, seed in enumerate(seeds):
            for t in range(settings):
                module = self._modules[s * settings + t] if state is None else self._loaded(self._spare, s, t, state)
                if module.training != learning:
                    module.train(learning)
                with drawing(seed * 1_000_003 + self._taken, self.device):
                    found = [self._call(module, rows) for rows in ([x[s]] if learning else x[s].split(EVALUATED))]
                each.append(torch.cat(found).to(x.dtype))
        z: Tensor = torch.stack(each).unflatten(0, (len(seeds), settings)).transpose(1, 2)
        return z

    def _loaded(self, module: nn.Module, split: int, setting: int, state: list[Tensor]) -> nn.Module:
        with torch.no_grad():
            for name, value in zip([*self._learnt, *self._other], state, strict=True):
                _named(module, name).copy_(value[split, setting])
        return module

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Of each of the parameters; zeros where the loss does not depend on one."""
        own = [module.get_parameter(name) for name in self._learnt for module in self._modules]
        found = torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True)
        count, shape = len(self._modules), (self.splits, self.settings)
        return [torch.stack(found[i : i + count]).unflatten(0, shape) for i in range(0, len(found), count)]

    def keep(self, splits: Tensor, trials: Tensor) -> None:
        """Go on with some models only: of the splits (S',) the settings (S', T')."""
        rows = (splits.unsqueeze(1) * self.settings + trials).flatten().tolist()
        picked = [self.pick(value, i, splits, trials) for i, value in enumerate(self.parameters)]
        self._modules = [self._modules[m] for m in rows]
        self._seeds = [self._seeds[s] for s in splits.tolist()]
        self.splits, self.settings = trials.shape
        self._adopt(picked)

    def state_dict(self, split: int, setting: int, state: list[Tensor] | None = None) -> dict[str, Tensor]:
        """One of the models, as a state dict of its architecture's module."""
        module = self._loaded(self._spare, split, setting, state or self.state)
        return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _named(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer. A module may put new tensors in the place of its buffers."""
    path, _, last = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(path), last)
    return found


@contextmanager
def drawing(seed: int, device: str = "cpu") -> Iterator[None]:
    """PyTorch's own generators begin with this seed, and go on afterwards as if nothing had been drawn."""
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed % 2**63)
        yield
