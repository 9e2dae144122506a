"""Several tasks at once: their losses weighed by trainable uncertainties, or their gradients brought together."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lossfit.core.checks import check_choice
from lossfit.core.numerics import accumulation_dtype

Task = Literal["classification", "regression"]
TASKS = ("classification", "regression")


class UncertaintyWeighting(nn.Module):
    r"""The losses of several tasks, each divided by a variance that is trained with the model.

    .. math:: \sum_t f_t\, e^{-s_t} L_t + \tfrac12 s_t, \quad s_t = \log\sigma_t^2

    f is 1 for classification, where :math:`\sigma^2` is a temperature of the logits and the form is the paper's
    approximation, exact at :math:`\sigma = 1`; and 1/2 for regression, where with L the squared error the form is the
    Gaussian's negative log-likelihood up to a constant. At the optimum :math:`\sigma^2` is 2 L for classification and L
    for regression. A loss that can reach 0 lets its s fall for ever, and one that may be negative has no optimum.

    Called with the losses of a batch, one number for each task, in a sequence or a tensor (T,); returns their weighted
    sum. Give the parameters ``log_variance`` (T,) to the optimiser beside the model's, without weight decay.

    Args:
        num_tasks: T, at least 1.
        kinds: "classification" or "regression", for all tasks or for each.

    Range: (-inf, inf). Half-precision losses are weighed in float32.

    Raises:
        TypeError, ValueError: an argument is of another type, or there are more or fewer losses than tasks.

    Source: A. Kendall, Y. Gal and R. Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry
    and Semantics", 2018, section 3.2.

    Example:
        >>> total = lossfit.UncertaintyWeighting(2, ["classification", "regression"])
        >>> total([torch.tensor(0.7), torch.tensor(3.0)])
        tensor(2.2000, grad_fn=<SumBackward0>)
    """

    factor: Tensor

    def __init__(self, num_tasks: int, kinds: Task | Sequence[Task] = "classification") -> None:
        super().__init__()
        if isinstance(num_tasks, bool) or not isinstance(num_tasks, int):
            raise TypeError(f"Expected `num_tasks` to be a whole number, but got {type(num_tasks).__name__}.")
        if num_tasks < 1:
            raise ValueError(f"Expected `num_tasks` of at least 1, but got {num_tasks}.")
        each = (kinds,) * num_tasks if isinstance(kinds, str) else tuple(kinds)
        if len(each) != num_tasks:
            raise ValueError(f"Expected `kinds` to be one, or one for each of {num_tasks} tasks, but got {len(each)}.")
        for kind in each:
            check_choice("kinds", kind, TASKS)
        self.kinds = each
        self.log_variance = nn.Parameter(torch.zeros(num_tasks))
        factor = torch.tensor([1.0 if kind == "classification" else 0.5 for kind in each])
        self.register_buffer("factor", factor, persistent=False)

    @property
    def weights(self) -> Tensor:
        """What each loss is multiplied by now, (T,)."""
        return self.factor * torch.exp(-self.log_variance.detach())

    def forward(self, losses: Sequence[Tensor] | Tensor) -> Tensor:
        """The weighted sum of the losses, one number for each task."""
        stacked = _stacked(losses)
        if len(stacked) != len(self.kinds):
            raise ValueError(f"Expected `losses` to hold {len(self.kinds)}, one for each task, but got {len(stacked)}.")
        stacked = stacked.to(accumulation_dtype(stacked))
        return (self.factor * torch.exp(-self.log_variance) * stacked + 0.5 * self.log_variance).sum()

    def extra_repr(self) -> str:
        return f"{len(self.kinds)}, kinds={self.kinds}"


def _stacked(losses: Sequence[Tensor] | Tensor) -> Tensor:
    """Losses as one tensor (T,)."""
    each = losses.unbind() if isinstance(losses, Tensor) and losses.ndim == 1 else losses
    if isinstance(each, Tensor) or not all(isinstance(loss, Tensor) and loss.ndim == 0 for loss in each):
        shapes = [tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__ for loss in each]
        raise ValueError(f"Expected `losses` to hold one number for each task, tensors of shape (), but got {shapes}.")
    return torch.stack(tuple(each)) if each else torch.empty(0)


def aggregate(losses: Sequence[Tensor] | Tensor, parameters: Iterable[Tensor], aggregator: Any = "UPGrad") -> None:
    """Bring the gradients of several losses together, and add the result to ``.grad`` of the parameters.

    It takes the place of ``sum(losses).backward()``: a method of TorchJD chooses the direction where the gradients of
    the tasks point against each other. The gradients are told apart over the given parameters; one that a loss does not
    depend on counts with 0, and one that requires no gradient is left out.

    Args:
        losses: one number for each task, in a sequence or a tensor (T,).
        parameters: which get a gradient.
        aggregator: an object of a class in ``torchjd.aggregation``, or the name of one that needs no arguments and
            keeps no state: "UPGrad", "MGDA", "PCGrad", "Mean", ...

    Raises:
        ImportError: TorchJD is not installed: ``pip install 'lossfit[multitask]'``.
        TypeError, ValueError: there are no losses or no parameters, or no such aggregator.

    Source: P. Quinton and V. Rey, "Jacobian Descent for Multi-Objective Optimization", 2024.

    Example:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> aggregate([2 * w[0], w[1] - w[0]], [w])  # doctest: +SKIP
        >>> w.grad  # doctest: +SKIP
        tensor([0.5000, 1.0000])
    """
    each = list(_stacked(losses).unbind())
    if not each:
        raise ValueError("Expected `losses` to hold at least one, but got none.")
    inputs_ = [parameter for parameter in parameters if parameter.requires_grad]
    if not inputs_:
        raise ValueError("Expected `parameters` to hold one that requires a gradient, but got none.")
    try:
        autojac, aggregation = (importlib.import_module(f"torchjd.{part}") for part in ("autojac", "aggregation"))
        method = _aggregator(aggregation, aggregator)
    except ImportError as error:
        raise ImportError("aggregate needs an extra: pip install 'lossfit[multitask]'.") from error
    autojac.backward(each, inputs=inputs_)
    autojac.jac_to_grad(inputs_, method)


def _aggregator(aggregation: Any, given: Any) -> Any:
    if isinstance(given, aggregation.Aggregator):
        return given
    if not isinstance(given, str):
        raise TypeError(f"Expected `aggregator` to be a name or an object of TorchJD, but got {type(given).__name__}.")
    classes = {name: getattr(aggregation, name) for name in aggregation.__all__}
    plain = [name for name, kind in classes.items() if issubclass(kind, aggregation.Aggregator) and _plain(kind)]
    check_choice("aggregator", given, plain)
    return classes[given]()


def _plain(kind: type) -> bool:
    """Whether a class can be made without arguments, and anew at every step."""
    needs = any(p.default is p.empty for p in inspect.signature(kind).parameters.values())
    return not needs and not inspect.isabstract(kind) and not hasattr(kind, "reset")
