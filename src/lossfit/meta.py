"""Learn a loss: gradients of a validation loss through steps of training, with respect to hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossfit.core.hyper import Hyper
from lossfit.core.tunable import Tunable
from lossfit.losses.single_label.cross_entropy import CrossEntropyLoss

Batch = Sequence[Tensor]
"""What a model is called with, and then what its output is compared with: (input, target, ...)."""


class HyperGradient:
    r"""Learn the parameters of a loss by what they do to a validation loss.

    A trial step of training moves the model's weights w by the loss with hyper-parameters :math:`\lambda`,

    .. math:: w'(\lambda) = w - \eta\, \nabla_w L_{train}(w, \lambda)

    and :math:`\nabla_\lambda L_{val}(w'(\lambda))` is the hyper-gradient, exact for that step (or for several). It is
    blind to all that comes later: what helps at once is preferred to what helps in the end. The model itself, its
    buffers and gradients stay as they are; train it with your own optimiser between the calls.

    Hyper-parameters are those parameters of the loss that require gradients: make the loss with an ``nn.Parameter``.
    The loss must be twice differentiable, which EXACT is not.

    Args:
        model: called with the first tensor of a batch.
        loss: called with the model's output and the rest of a batch. Any module with parameters will do; those of a
            loss of this library are kept in the ranges of their cards, by clamping.
        learning_rate: eta of the trial steps, above 0. They are plain gradient descent, without momentum or decay.
        optimizer: what moves the hyper-parameters; by default Adam with a learning rate of 0.01.
        validation_loss: called like the loss; by default cross-entropy. It should not depend on hyper-parameters that
            are trainable, or they are driven to where it is small, and not the errors.

    Raises:
        TypeError, ValueError: the loss has no parameter to learn, or an argument is out of range.

    Source: J. Luketina et al., "Scalable Gradient-Based Tuning of Continuous Regularization Hyperparameters", 2016,
    for one step; D. Maclaurin, D. Duvenaud and R. P. Adams, "Gradient-based Hyperparameter Optimization through
    Reversible Learning", 2015, for several.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(8, 3), torch.randint(2, (8,))
        >>> loss = lossfit.GammaCrossEntropyLoss(gamma=torch.nn.Parameter(torch.tensor(0.5)))
        >>> learner = lossfit.meta.HyperGradient(torch.nn.Linear(3, 2), loss, learning_rate=0.1)
        >>> learner.step((x[:4], y[:4]), (x[4:], y[4:]))
        tensor(0.8746)
        >>> loss.gamma
        Parameter containing:
        tensor(0.4900, requires_grad=True)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        learning_rate: float,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        validation_loss: Callable[..., Tensor] | None = None,
    ) -> None:
        for name, value in (("model", model), ("loss", loss)):
            if not isinstance(value, nn.Module):
                raise TypeError(f"Expected `{name}` to be a torch.nn.Module, but got {type(value).__name__}.")
        Hyper("of the trial steps", 0.0, open_low=True).check("learning_rate", learning_rate)
        self.hypers = {name: p for name, p in loss.named_parameters() if p.requires_grad}
        if not self.hypers:
            raise ValueError("Expected `loss` to have a hyper-parameter that is an nn.Parameter, but it has none.")
        self.model, self.loss, self.learning_rate = model, loss, learning_rate
        self.optimizer = torch.optim.Adam(self.hypers.values(), 0.01) if optimizer is None else optimizer
        self.validation_loss = CrossEntropyLoss() if validation_loss is None else validation_loss

    def gradient(self, train: Batch | Sequence[Batch], validation: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The validation loss after the trial steps, and its gradient by the name of the hyper-parameter.

        Args:
            train: a batch for one trial step, or a sequence of batches for as many steps. Memory grows with them.
            validation: the batch to measure on.

        Raises:
            TypeError: a batch does not hold tensors.
        """
        batches = _batches(train)
        _check("validation", [validation])
        weights = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        state: dict[str, Tensor] = {name: p.detach() for name, p in self.model.named_parameters()}
        state |= {name: b.detach().clone() for name, b in self.model.named_buffers()}
        state |= {name: p.detach().requires_grad_() for name, p in weights.items()}
        with torch.enable_grad():
            for batch in batches:
                value = self.loss(functional_call(self.model, state, (batch[0],)), *batch[1:])
                slopes = torch.autograd.grad(
                    value, [state[name] for name in weights], create_graph=True, materialize_grads=True
                )
                for name, slope in zip(weights, slopes, strict=True):
                    state[name] = state[name] - self.learning_rate * slope
            after = self.validation_loss(functional_call(self.model, state, (validation[0],)), *validation[1:])
            grads = torch.autograd.grad(after, list(self.hypers.values()), materialize_grads=True)
        return after.detach(), dict(zip(self.hypers, grads, strict=True))

    def step(self, train: Batch | Sequence[Batch], validation: Batch) -> Tensor:
        """Move the hyper-parameters down their gradient and into their ranges; returns the validation loss.

        See :meth:`gradient` for the batches.
        """
        value, gradients = self.gradient(train, validation)
        for name, hyper in self.hypers.items():
            hyper.grad = gradients[name]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._clamp()
        return value

    @torch.no_grad()
    def _clamp(self) -> None:
        for module in self.loss.modules():
            if isinstance(module, Tunable):
                for name, value in module.named_parameters(recurse=False):
                    if name in module._hypers:
                        card = module._card(name)
                        low = card.low + torch.finfo(value.dtype).eps if card.open_low else card.low
                        value.clamp_(low, card.high)


def _batches(train: Batch | Sequence[Batch]) -> Sequence[Batch]:
    whole = isinstance(train, Sequence) and len(train) > 0 and isinstance(train[0], Tensor)
    batches = cast(Sequence[Batch], [train] if whole else train)
    _check("train", batches)
    return batches


def _check(name: str, batches: Sequence[Batch]) -> None:
    good = isinstance(batches, Sequence) and len(batches) > 0
    if not good or not all(isinstance(b, Sequence) and len(b) > 1 and isinstance(b[0], Tensor) for b in batches):
        raise TypeError(f"Expected `{name}` to hold tensors, an input and a target, but got {repr(batches)[:80]}.")
