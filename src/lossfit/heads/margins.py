r"""Margins: what is taken off the target's score while training, so that classes stay apart.

Each is a function of the cosine of the angle :math:`\theta` between a feature and its class's weight. It changes the
score of the target only, so any loss and any gap works on top of it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit.core.autograd import call
from lossfit.core.checks import check_choice, check_per_class
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.tunable import Tunable

Beyond = Literal["continue", "pml", "insightface"]
BEYOND = ("continue", "pml", "insightface")

Number = float | Tensor


class Margin(Tunable):
    r"""A margin: ``margin(cosine)`` is the target's score for the cosine of its angle, both of shape (N,).

    Hyper-parameters are numbers; functions of the step, which :meth:`step` advances; or tensors, () or (C,) with one
    entry for each class, with gradients if they require them. With one entry per class, call
    ``margin(cosine, target)``.

    Half-precision cosines are computed in float32. Cosines beyond 1 in size, as rounding leaves them, count as 1.
    """

    def __init__(self, **values: HyperValue) -> None:
        numbers = {name: isinstance(v, int | float) and not isinstance(v, bool) for name, v in values.items()}
        super().__init__({name: float(v) if numbers[name] else v for name, v in values.items()})  # type: ignore[arg-type]

    def _keep(self, name: str, value: Tensor) -> None:
        if value.ndim > 1:
            raise ValueError(f"Expected `{name}` to be a number or of shape (C,), but got {tuple(value.shape)}.")
        super()._keep(name, value)

    def _check(self, name: str, value: Any, shown: str | None = None) -> None:
        super()._check(name, value, shown)
        if not (value.isfinite().all() if isinstance(value, Tensor) else math.isfinite(value)):
            raise ValueError(f"Expected `{shown or name}` to be finite, but got {value}.")

    def _hyper(self, name: str, target: Tensor | None) -> Number:
        value: Number = getattr(self, name)
        if not (isinstance(value, Tensor) and value.ndim):
            return value
        if target is None:
            raise ValueError(f"Expected `target`, the classes of the rows, since `{name}` has one entry per class.")
        return value[target]

    def _check_classes(self, classes: int) -> None:
        """Raise unless hyper-parameters with one entry per class have ``classes`` of them."""
        for name in self.hypers:
            value = getattr(self, name)
            if isinstance(value, Tensor) and value.ndim:
                check_per_class(name, value, classes)

    def forward(self, cosine: Tensor, target: Tensor | None = None) -> Tensor:
        """The target's score, of the shape of ``cosine``.

        Args:
            cosine: the cosines of the angles between the features and their classes' weights.
            target: the class of each, of the same shape; only where a hyper-parameter has one entry per class.
        """
        if not isinstance(cosine, Tensor) or not cosine.is_floating_point():
            shown = cosine.dtype if isinstance(cosine, Tensor) else type(cosine).__name__
            raise TypeError(f"Expected `cosine` to be a floating-point tensor, but got {shown}.")
        return self._score(cosine.to(accumulation_dtype(cosine)), target)

    def _score(self, cosine: Tensor, target: Tensor | None) -> Tensor:
        """The margin itself."""
        raise NotImplementedError

    def _best(self) -> float:
        r"""The score at :math:`\theta = 0`, the largest there is; of the class with the least, if classes differ."""
        sizes = [v.numel() for name in self.hypers if isinstance(v := getattr(self, name), Tensor) and v.ndim]
        device = next((v.device for v in (*self.parameters(), *self.buffers())), None)
        classes = torch.arange(max(sizes, default=1), device=device)
        with torch.no_grad():
            return float(self(torch.ones(len(classes), dtype=torch.float64, device=device), classes).min())


class AdditiveMargin(Margin):
    r"""A margin on the cosine, :math:`\cos\theta - m`: AM-Softmax, CosFace.

    Args:
        m: how far the target's cosine must lead, in [-2, 2].

    Raises:
        TypeError, ValueError: ``m`` is no number or out of range.

    Source: F. Wang et al., "Additive Margin Softmax for Face Verification", 2018, section 3; H. Wang et al., "CosFace",
    2018, section 3.2.

    Example:
        >>> lossfit.AdditiveMargin(m=0.25)(torch.tensor([1.0, 0.0]))
        tensor([ 0.7500, -0.2500])
    """

    hypers = {"m": Hyper("lead of the target's cosine", -2.0, 2.0, search=(0.1, 0.2, 0.35, 0.5))}

    def __init__(self, m: HyperValue = 0.35) -> None:
        super().__init__(m=m)

    def _score(self, cosine: Tensor, target: Tensor | None) -> Tensor:
        return cosine - self._hyper("m", target)


class ArcMargin(Margin):
    r"""A margin on the angle, :math:`\cos(\theta + m)`: ArcFace.

    Past :math:`\theta = \pi - m` the cosine would rise again. ``beyond`` says what is done about it:

    - "continue": the score is :math:`-2 - \cos(\theta + m)` there. It falls over all of :math:`[0, \pi]`, and its slope
      in :math:`\theta` has no jump.
    - "pml": :math:`\cos\theta - m \sin m` there, as in pytorch-metric-learning and older versions of insightface. It
      jumps at :math:`\pi - m`, by :math:`1 - \cos m - m \sin m`.
    - "insightface": :math:`\cos(\theta + m)` everywhere, and in place of its gradient that of :math:`\cos\theta`, as
      insightface's ``CombinedMarginLoss`` trains it. The gradient is not the derivative of the value.

    The slope in the cosine, :math:`\sin(\theta + m) / \sin\theta`, has no bound at :math:`\theta = 0`, while the slope
    in the feature has. Its divisor is kept at the square root of the machine epsilon or above, so that gradients are
    finite everywhere, and smaller than the true ones for angles below that: 3.5e-4 in float32, 1.5e-8 in float64. A
    cosine in float32 does not tell such angles apart in any case.

    Args:
        m: the angle in radians, in [0, pi]. (pytorch-metric-learning takes degrees: its 28.6 is 0.5.)
        beyond: "continue", "pml" or "insightface".

    Raises:
        TypeError, ValueError: ``m`` is no number or out of range, or ``beyond`` is unknown.

    Source: J. Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019, section 3.1.

    Example:
        >>> lossfit.ArcMargin(m=0.5)(torch.tensor([1.0, 0.0, -1.0]))
        tensor([ 0.8776, -0.4794, -1.1224])
    """

    hypers = {"m": Hyper("angle added to the target's, in radians", 0.0, math.pi, search=(0.1, 0.3, 0.5))}

    def __init__(self, m: HyperValue = 0.5, beyond: Beyond = "continue") -> None:
        check_choice("beyond", beyond, BEYOND)
        super().__init__(m=m)
        self.beyond: Beyond = beyond

    def _score(self, cosine: Tensor, target: Tensor | None) -> Tensor:
        score: Tensor = call(_Psi, cosine, 1.0, self._hyper("m", target), self.beyond)
        return score

    def extra_repr(self) -> str:
        return ", ".join([super().extra_repr(), *self._changed("m")])


class AngularMargin(Margin):
    r"""A factor on the angle, :math:`\psi(m\theta)`: SphereFace (A-Softmax), and L-Softmax on unnormalised weights.

    .. math:: \psi(\varphi) = (-1)^k \cos\varphi - 2k, \quad k = \lfloor \varphi / \pi \rfloor,

    which falls over all of :math:`\theta \in [0, \pi]`, from 1 to :math:`1 - 2m` for whole m. Of two classes
    :math:`\theta_{12}` apart the boundaries are :math:`\frac{m - 1}{m + 1} \theta_{12}` apart, so the margin is small
    where classes are close.

    Training starts easier with annealing: the score is :math:`(\lambda \cos\theta + \psi(m\theta)) / (1 + \lambda)`.
    SphereFace lets :math:`\lambda` fall over the steps, as
    ``annealing=lambda step: max(5.0, 1000 / (1 + 0.12 * step))``.

    The slope in the cosine is :math:`m^2` at :math:`\theta = 0`; at :math:`\pi`, for m that is not whole, it is bounded
    as :class:`ArcMargin` says.

    Args:
        m: the factor, at least 1; it need not be whole.
        annealing: :math:`\lambda`, at least 0, which stands for no annealing.

    Raises:
        TypeError, ValueError: a hyper-parameter is no number or out of range.

    Source: W. Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", 2017, section 3.2; W. Liu et
    al., "Large-Margin Softmax Loss for Convolutional Neural Networks", 2016, section 3.2.

    Example:
        >>> lossfit.AngularMargin(m=4)(torch.tensor([1.0, 0.0, -1.0]))
        tensor([ 1., -3., -7.])
    """

    hypers = {
        "m": Hyper("factor on the target's angle", 1.0, search=(1.35, 1.7, 2.0, 4.0)),
        "annealing": Hyper("weight of the score without a margin", 0.0),
    }

    def __init__(self, m: HyperValue = 4.0, annealing: HyperValue = 0.0) -> None:
        super().__init__(m=m, annealing=annealing)

    def _score(self, cosine: Tensor, target: Tensor | None) -> Tensor:
        psi: Tensor = call(_Psi, cosine, self._hyper("m", target), 0.0, "continue")
        annealing = self._hyper("annealing", target)
        if not isinstance(annealing, Tensor) and annealing == 0:
            return psi
        return (annealing * cosine + psi) / (1 + annealing)


class CombinedMargin(Margin):
    r"""All three margins at once, :math:`\psi(m_1 \theta + m_2) - m_3`, with psi as in :class:`AngularMargin`.

    While :math:`m_1 \theta + m_2 \leq \pi` this is :math:`\cos(m_1 \theta + m_2) - m_3`; beyond it falls on, without a
    jump in the value or in the slope in :math:`\theta`.

    Args:
        m1: the factor on the angle, above 0.
        m2: the angle added, in radians, in [-pi, pi].
        m3: what is taken off the cosine, in [-2, 2].

    Raises:
        TypeError, ValueError: a hyper-parameter is no number or out of range.

    Source: J. Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019, section 3.2.

    Example:
        >>> lossfit.CombinedMargin(m1=1.0, m2=0.3, m3=0.2)(torch.tensor([1.0, 0.0]))
        tensor([ 0.7553, -0.4955])
    """

    hypers = {
        "m1": Hyper("factor on the target's angle", 0.0, open_low=True, search=(1.0, 1.35)),
        "m2": Hyper("angle added to the target's, in radians", -math.pi, math.pi, search=(0.0, 0.3, 0.5)),
        "m3": Hyper("lead of the target's cosine", -2.0, 2.0, search=(0.0, 0.2, 0.35)),
    }

    def __init__(self, m1: HyperValue = 1.0, m2: HyperValue = 0.0, m3: HyperValue = 0.0) -> None:
        super().__init__(m1=m1, m2=m2, m3=m3)

    def _score(self, cosine: Tensor, target: Tensor | None) -> Tensor:
        psi: Tensor = call(_Psi, cosine, self._hyper("m1", target), self._hyper("m2", target), "continue")
        return psi - self._hyper("m3", target)


class _Psi(Function):
    """(cosine, m1, m2, beyond) -> the score at the angle m1 theta + m2.

    The derivatives are written down: autograd has 0 times infinity where the sine is 0.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(cosine: Tensor, m1: Number, m2: Number, beyond: Beyond) -> Tensor:
        theta = _angle(cosine, 0.0)
        phi = m1 * theta + m2
        if beyond == "continue":
            k = torch.floor(phi / math.pi)
            return _sign(k) * torch.cos(phi) - 2 * k
        if beyond == "insightface":
            return torch.cos(phi)
        return torch.where(phi <= math.pi, torch.cos(phi), cosine - m2 * _sin(m2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        cosine, m1, m2, ctx.beyond = inputs
        ctx.plain = [None if isinstance(m, Tensor) else m for m in (m1, m2)]
        ctx.save_for_backward(cosine, *(m if isinstance(m, Tensor) else None for m in (m1, m2)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cosine, *tensors = ctx.saved_tensors
        m1, m2 = (p if t is None else t for p, t in zip(ctx.plain, tensors, strict=True))
        to_cosine = to_m1 = to_m2 = None
        if ctx.needs_input_grad[0]:
            to_cosine = grad * _slope(cosine, m1, m2, ctx.beyond)
        if any(ctx.needs_input_grad[1:3]):
            theta = _angle(cosine, torch.finfo(cosine.dtype).eps)
            phi = m1 * theta + m2
            falls = -torch.sin(phi)
            if ctx.beyond == "continue":
                falls = falls * _sign(torch.floor(phi / math.pi))
            elif ctx.beyond == "pml":
                # Here m1 is 1, so this is for a tensor m2.
                falls = torch.where(phi <= math.pi, falls, -(torch.sin(m2) + m2 * torch.cos(m2)))
            if ctx.needs_input_grad[1]:
                to_m1 = (grad * falls * theta).sum_to_size(m1.shape)
            if ctx.needs_input_grad[2]:
                to_m2 = (grad * falls).sum_to_size(m2.shape)
        return to_cosine, to_m1, to_m2, None


def _slope(cosine: Tensor, m1: Number, m2: Number, beyond: Beyond) -> Tensor:
    """The derivative of the score in the cosine; plain operations, so that autograd goes on from here."""
    if beyond == "insightface":
        return torch.ones_like(cosine)
    eps = torch.finfo(cosine.dtype).eps
    # The angle is kept off the poles together with its sine, so that sin(m theta) / sin(theta) goes to m there.
    phi = m1 * _angle(cosine, eps) + m2
    slope = m1 * torch.sin(phi) / _sine(cosine, eps)
    if beyond == "pml":
        return torch.where(phi <= math.pi, slope, 1.0)
    return slope * _sign(torch.floor(phi / math.pi))


def _sine(cosine: Tensor, least: float) -> Tensor:
    return ((1 - cosine) * (1 + cosine)).clamp(min=least).sqrt()


def _angle(cosine: Tensor, least: float) -> Tensor:
    return torch.atan2(_sine(cosine, least), cosine)


def _sign(k: Tensor) -> Tensor:
    """-1 to the k."""
    return 1 - 2 * torch.remainder(k, 2)


def _sin(m: Number) -> Number:
    return torch.sin(m) if isinstance(m, Tensor) else math.sin(m)
