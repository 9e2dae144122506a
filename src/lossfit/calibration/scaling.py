"""Scalings: maps of the logits, of few numbers, that are fitted on rows which did not train the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lossfit.calibration import rows
from lossfit.core.autograd import readable
from lossfit.core.checks import check_tensor
from lossfit.core.numerics import accumulation_dtype
from lossfit.losses.single_label.cross_entropy import CrossEntropyLoss

_STEPS = 1000
_CROSS_ENTROPY = CrossEntropyLoss()


class Scaling(nn.Module):
    """What the scalings share: they are fitted by log loss, and called on logits give logits.

    The numbers are parameters that ask for no gradient, in float64. The logits may be (N, C), (N, C, d1, ...) or (C,),
    and have gradients. Logits of half precision are scaled in float32.
    """

    takes_masks: ClassVar[bool] = True
    """Whether a logit may be -inf, for a class that is no choice in its row; the calibrated logit is -inf too."""

    __call__: Callable[..., Tensor]

    def forward(self, logits: Tensor) -> Tensor:
        """Calibrated logits, of the shape of ``logits``; their softmax is the calibrated probabilities."""
        check_tensor("logits", logits)
        if not logits.is_floating_point():
            raise TypeError(f"Expected `logits` to be floating point, but got {logits.dtype}.")
        self._check_classes(logits)
        at = 1 if logits.ndim > 1 else 0
        z = logits.to(accumulation_dtype(logits)).movedim(at, -1)
        out = z == -torch.inf
        if not self.takes_masks and readable(out) and out.any():
            raise ValueError(f"Expected `logits` without -inf for {type(self).__name__}, which mixes the classes.")
        return self._scaled(z.masked_fill(out, 0.0)).masked_fill(out, -torch.inf).movedim(-1, at)

    def fit(self, logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Self:
        """Find the numbers of the lowest mean log loss.

        L-BFGS with a strong Wolfe line search, in float64 and without chance: the same rows give the same numbers.
        Where the scaled logits can tell all labels apart, the log loss has no minimum; the search then ends where its
        gradient is below 1e-9.

        Args:
            logits: (N, C) or (N, C, d1, ...), of rows which did not train the model; -inf for classes that are masked
                out, but not for :class:`MatrixScaling`.
            labels: class indices (N,) or (N, d1, ...).
            ignore_index: rows with this label are left out.

        Returns:
            The scaling itself.

        Raises:
            TypeError, ValueError, IndexError: naming the argument, what was expected and what came.
        """
        z, y = rows.read("logits", logits, labels, ignore_index, masked=self.takes_masks)
        self._check_classes(z)
        if not len(z):
            raise ValueError("Expected `labels` with at least one row that is not ignored, but got none.")
        with torch.inference_mode(False), torch.enable_grad():
            out = z == -torch.inf
            self._fit(z.masked_fill(out, 0.0), y.clone(), out)
        return self

    def _check_classes(self, logits: Tensor) -> None:
        pass

    def _scaled(self, logits: Tensor) -> Tensor:
        """Logits (..., C) to calibrated ones."""
        raise NotImplementedError

    def _fit(self, z: Tensor, y: Tensor, out: Tensor) -> None:
        """Find the numbers on finite logits (R, C), labels (R,), and the classes that are masked out (R, C)."""
        raise NotImplementedError


class TemperatureScaling(Scaling):
    r"""Logits divided by one temperature, :math:`z / T`: the order of the classes stays, and so does the accuracy.

    What is kept and fitted is :math:`\log T`, so that T is positive whatever the rows.

    Args:
        temperature: T before it is fitted, positive.

    Raises:
        ValueError: the temperature is not a positive, finite number.

    Source: C. Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2.

    Example:
        >>> logits = 3 * torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> scaling = lossfit.calibration.TemperatureScaling().fit(logits, torch.tensor([0, 0, 1, 1]))
        >>> scaling(logits).softmax(1)[0]  # three of four are right
        tensor([0.7500, 0.2500])
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if not number or not 0 < temperature < math.inf:
            raise ValueError(f"Expected `temperature` to be a positive, finite number, but got {temperature!r}.")
        self.log_temperature = _fixed(torch.tensor(math.log(temperature), dtype=torch.float64))

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.exp()

    def extra_repr(self) -> str:
        return f"temperature={self.temperature.item():g}"

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits / self.temperature.to(logits.dtype)

    def _fit(self, z: Tensor, y: Tensor, out: Tensor) -> None:
        self.log_temperature.data.copy_(_log_temperature(z, y, out))


class VectorScaling(Scaling):
    r"""A weight and a bias for each class, :math:`w_c z_c + b_c`.

    Args:
        classes: C, at least 2.

    Raises:
        ValueError: there are fewer than two classes.

    Source: C. Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2.

    Example:
        >>> logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.5, 0.0]])
        >>> scaling = lossfit.calibration.VectorScaling(2).fit(logits, torch.tensor([0, 1, 1, 1, 0]))
        >>> scaling(logits).softmax(1).mean(0)  # by its biases, the shares of the classes
        tensor([0.4000, 0.6000])
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = _at_least_two(classes)
        self.weight = _fixed(torch.ones(classes, dtype=torch.float64))
        self.bias = _fixed(torch.zeros(classes, dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"classes={self.classes}"

    def _check_classes(self, logits: Tensor) -> None:
        _same_classes(logits, self.classes)

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits * self.weight.to(logits.dtype) + self.bias.to(logits.dtype)

    def _fit(self, z: Tensor, y: Tensor, out: Tensor) -> None:
        inverse = torch.exp(-_log_temperature(z, y, out))
        u, start = z * inverse, (z.new_ones(z.shape[1]), z.new_zeros(z.shape[1]))
        weight, bias = _minimise(lambda w, b: _log_loss(u * w + b, y, out), *start)
        self.weight.data.copy_(weight * inverse)
        self.bias.data.copy_(bias)


class MatrixScaling(Scaling):
    r"""A matrix and a bias for each class, :math:`W z + b`, fitted with an optional ridge.

    With a ridge :math:`\lambda` the fit minimises the mean log loss plus
    :math:`\lambda \left(\frac{1}{C (C - 1)} \sum_{i \neq j} W_{ij}^2 + \frac1C \sum_c b_c^2\right)`: the off-diagonal
    weights and the biases are drawn to 0, the diagonal is free. Kull et al. give the two sums a factor each. Without a
    ridge, :math:`C (C + 1)` numbers are fitted freely, which few rows do not support.

    Args:
        classes: C, at least 2.
        ridge: :math:`\lambda`, at least 0.

    Raises:
        ValueError: there are fewer than two classes, or the ridge is negative or not finite.

    Source: C. Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2; the ridge: M. Kull et al.,
    "Beyond Temperature Scaling", 2019, section 3.

    Example:
        >>> logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.5, 0.0]])
        >>> scaling = lossfit.calibration.MatrixScaling(2, ridge=0.1).fit(logits, torch.tensor([0, 1, 1, 1, 0]))
        >>> scaling(logits).shape
        torch.Size([5, 2])
    """

    takes_masks = False

    def __init__(self, classes: int, ridge: float = 0.0) -> None:
        super().__init__()
        self.classes = _at_least_two(classes)
        if not 0 <= ridge < math.inf:
            raise ValueError(f"Expected `ridge` in [0, inf), but got {ridge}.")
        self.ridge = ridge
        self.weight = _fixed(torch.eye(classes, dtype=torch.float64))
        self.bias = _fixed(torch.zeros(classes, dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"classes={self.classes}, ridge={self.ridge:g}"

    def _check_classes(self, logits: Tensor) -> None:
        _same_classes(logits, self.classes)

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits @ self.weight.to(logits.dtype).mT + self.bias.to(logits.dtype)

    def _fit(self, z: Tensor, y: Tensor, out: Tensor) -> None:
        inverse = torch.exp(-_log_temperature(z, y, out))
        u = z * inverse
        eye = torch.eye(self.classes, dtype=z.dtype, device=z.device)
        ridge = self.ridge * inverse.square() / (self.classes * (self.classes - 1))

        def objective(w: Tensor, b: Tensor) -> Tensor:
            return (
                _log_loss(u @ w.mT + b, y, out)
                + ridge * (w * (1 - eye)).square().sum()
                + self.ridge * b.square().mean()
            )

        weight, bias = _minimise(objective, eye, z.new_zeros(self.classes))
        self.weight.data.copy_(weight * inverse)
        self.bias.data.copy_(bias)


def _log_temperature(z: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """The logarithm of the best temperature. The search starts at the spread of the scores, for any unit of them."""
    there = ~out
    mean = z.sum(1, keepdim=True) / there.sum(1, keepdim=True)
    spread = ((z - mean).square()[there]).mean().sqrt()
    start = torch.where(spread > 0, spread, 1.0).log()
    (log_t,) = _minimise(lambda log_t: _log_loss(z * torch.exp(-log_t), y, out), start)
    return log_t


def _log_loss(z: Tensor, y: Tensor, out: Tensor) -> Tensor:
    return _CROSS_ENTROPY(z.masked_fill(out, -torch.inf), y)


def _minimise(objective: Callable[..., Tensor], *start: Tensor) -> list[Tensor]:
    """Where the objective is lowest, searched from ``start``."""
    at = [s.clone().requires_grad_() for s in start]
    optimizer = torch.optim.LBFGS(
        at,
        max_iter=_STEPS,
        history_size=100 if sum(s.numel() for s in start) < 20_000 else 20,
        tolerance_grad=1e-9,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(*at)
        value.backward()
        return value

    optimizer.step(closure)
    return [a.detach() for a in at]


def _fixed(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _at_least_two(classes: int) -> int:
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(f"Expected `classes` to be an integer of at least 2, but got {classes!r}.")
    return classes


def _same_classes(logits: Tensor, classes: int) -> None:
    found = logits.shape[1 if logits.ndim > 1 else 0] if logits.ndim else 0
    if found != classes:
        raise ValueError(f"Expected `logits` of {classes} classes, but got shape {tuple(logits.shape)}.")
