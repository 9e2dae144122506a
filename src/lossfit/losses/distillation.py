"""Distillation: a teacher's probabilities as the target, beside the labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from lossfit.core import class_shards, scores
from lossfit.core.autograd import call
from lossfit.core.batch import Batch, Targets, read_batch
from lossfit.core.checks import check_choice, check_constant
from lossfit.core.cosines import autocast_dtype
from lossfit.core.hyper import Hyper, HyperValue, Number, per_row
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction, Weighing, as_row, weigh
from lossfit.linear import chunked, features
from lossfit.linear.features import Backend, Rows
from lossfit.linear.job import Job
from lossfit.linear.products import product_dtype
from lossfit.losses.nested import OuterLoss, without_reduction
from lossfit.losses.single_label import from_features
from lossfit.losses.single_label.base import SingleLabelLoss


class DistillationLoss(OuterLoss):
    r"""Distillation, :math:`\alpha T^2\, \mathrm{KL}(p_T \,\|\, q_T) + (1 - \alpha)\, \ell(z, y)`.

    :math:`p_T = \mathrm{softmax}(t / T)` for the teacher's logits t, :math:`q_T = \mathrm{softmax}(z / T)` for the
    student's, and :math:`\ell` is a single-label loss at the student's own temperature. ``loss(input, teacher,
    target)`` takes logits (N, C), (N, C, d1, ...) or (C,) of both, and targets as :class:`SingleLabelLoss` takes them.

    The divergence is summed from terms of one sign, so that it keeps its digits where the student is close to the
    teacher. Its gradient is exact where logits are -inf: a class that both exclude counts for nothing, and one that
    only the student excludes makes the loss inf. The teacher is a constant: one that requires a gradient is refused.

    Args:
        temperature: T, above 0.
        alpha: the share of the teacher in [0, 1].
        scale_by_t2: whether the divergence is multiplied by T^2, which keeps its gradient at about the size of that of
            the labels. Libraries differ here.
        loss: the single-label loss of the labels; None for cross-entropy. Its reduction is not used, and its
            ``ignore_index`` holds for both parts. A copy is kept that shares its tensors.
        reduction: "mean", "sum" or "none". The mean of the labels' part is that of ``loss``: with class weights it
            divides by their sum. The teacher's part has no class weights.

    Tensors among the hyper-parameters broadcast to the rows. Half-precision input is computed in float32.

    Range: [0, inf). Differentiable twice.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: G. Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.

    Example:
        >>> loss = lossfit.DistillationLoss(temperature=2.0, alpha=0.7)
        >>> student, teacher = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.0]])
        >>> loss(student, teacher, torch.tensor([0]))
        tensor(0.1193)
    """

    family = "distillation"
    formula = "alpha T^2 KL(softmax(t / T) || softmax(z / T)) + (1 - alpha) l(z, y)"
    source = "G. Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2"
    hypers = {
        "temperature": Hyper(
            "what both models' logits are divided by", 0.0, search=(1.0, 2.0, 4.0, 8.0), open_low=True
        ),
        "alpha": Hyper("share of the teacher", 0.0, 1.0, (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)),
    }

    alpha: float | Tensor

    def __init__(
        self,
        temperature: HyperValue = 2.0,
        alpha: HyperValue = 0.5,
        *,
        scale_by_t2: bool = True,
        loss: SingleLabelLoss | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__({"temperature": temperature, "alpha": alpha}, reduction=reduction)
        self.scale_by_t2 = scale_by_t2
        self.loss = without_reduction(loss)

    def forward(
        self,
        input: Tensor,
        teacher: Tensor,
        target: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: the student's logits (N, C), (N, C, d1, ...) or (C,).
            teacher: the teacher's logits, of the same shape.
            target: class indices or probabilities; None with ``alpha=1``, where no label is looked at.
            sample_weight: a weight for each row, or for each sample (N,).
            denominator: what reduction="mean" divides the sums by, in place of the sums of weights.
        """
        (student, targets, unbatched), teacher = self._read(input, teacher, target)
        dtype = accumulation_dtype(student)
        alpha, temperature = (self._hyper(name, targets.rows, dtype) for name in ("alpha", "temperature"))
        if unbatched:
            sample_weight = as_row(sample_weight)
        weighing = self._weighing(targets, dtype, None, sample_weight, denominator)
        if weighing.valid is not targets.valid:
            student, targets = targets.counting(student, weighing.valid)
            teacher = weighing.blank(teacher)
        parts = []
        if isinstance(alpha, Tensor) or alpha > 0:
            parts.append(weighing.reduce(alpha * self._soft_rows(student, targets, teacher, temperature)))
        if isinstance(alpha, Tensor) or alpha < 1:
            right = targets.target
            if targets.valid is not None:
                right = right.masked_fill(~targets.valid, self.loss.ignore_index)
            hard = self.loss(student, right)
            class_weight = self.loss._class_weight(targets, dtype)
            weighing = self._weighing(targets, dtype, class_weight, sample_weight, denominator)
            parts.append(weighing.reduce((1 - alpha) * hard))
        total = sum(parts[1:], parts[0])
        return total.squeeze(0) if unbatched and self.reduction == "none" else total

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        teacher_x: Tensor,
        teacher_weight: Tensor,
        target: Tensor | None = None,
        bias: Tensor | None = None,
        teacher_bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        backend: Backend = "auto",
        shift: int = 0,
    ) -> Tensor:
        r"""The loss from the last layers of both models, neither of whose logits are there as a whole.

        See :meth:`SingleLabelLoss.linear` for what is computed when.

        Args:
            x: the student's features (..., D).
            weight: of the student's last layer (C, D).
            teacher_x: the teacher's features (..., E).
            teacher_weight: of the teacher's last layer (C, E), a constant.
            target: class indices (...), or probabilities (..., C); None with ``alpha=1``.
            bias, teacher_bias: of the last layers (C,).
            sample_weight: a weight for each row, or for each sample (N,).
            denominator: what reduction="mean" divides the sums by, in place of the sums of weights.
            backend: "chunked", "dense" (the scores are made), or "auto" (dense where they fit one chunk).
            shift: the target of a position is that of so many positions later; 1 for causal language models.
        """
        check_choice("backend", backend, features.BACKENDS)
        if target is None:
            self._check_alpha()
            target = torch.zeros(getattr(x, "shape", (0,))[:-1], dtype=torch.int64, device=getattr(x, "device", None))
        check_constant(teacher_x=teacher_x)
        x, target = from_features.without_weightless(x, target, sample_weight, self.loss.ignore_index)
        rows = features.read(x, weight, target, bias, self.loss.ignore_index, shift=shift)
        if shift and isinstance(sample_weight, Tensor) and sample_weight.shape == target.shape:
            sample_weight = sample_weight[..., shift:]
        _check_teacher(rows, x, teacher_x, teacher_weight, teacher_bias)
        teacher_x = teacher_x if shift == 0 else teacher_x[..., : rows.shape[-1], :]
        kind = product_dtype(teacher_x, teacher_weight)
        teacher_x, teacher_weight = rows.take(teacher_x.detach()).to(kind), teacher_weight.detach().to(kind)
        shape = rows.shape or torch.Size([1])
        dtype = accumulation_dtype(x)
        settings = self.loss._settings(shape, dtype, rows.targets.classes).map(rows.cut)
        numbers = per_row(self._numbers(shape, dtype), rows.cut)
        numbers |= {f"loss.{n}": v for n, v in settings.named().items()}
        one = torch.ones((), dtype=dtype, device=x.device)
        soft, hard = (
            self._weighing(rows.every, dtype, weight, sample_weight, denominator).flat(shape.numel(), rows.kept)
            for weight in (None, self.loss._class_weight(rows.every, dtype))
        )
        soft_share, hard_share = (w.spread(one, shape.numel()).expand(len(rows.layer.x)) for w in (soft, hard))

        def results(z: Tensor, at: slice, numbers: dict[str, Number]) -> tuple[Tensor, ...]:
            targets = rows.targets.cut(at)
            alpha, parts = numbers["alpha"], []
            if isinstance(alpha, Tensor) or alpha > 0:
                bias = None if teacher_bias is None else teacher_bias.detach().to(kind)
                teacher = functional.linear(teacher_x[at], teacher_weight, bias)
                parts.append(soft_share[at] * (alpha * self._soft_rows(z, targets, teacher, numbers["temperature"])))
            if isinstance(alpha, Tensor) or alpha < 1:
                mine = settings.renewed(numbers, "loss.")
                parts.append(hard_share[at] * ((1 - alpha) * self.loss._weighted(z, targets, mine)))
            return (sum(parts[1:], parts[0]),)

        weighing = None if self.reduction == "none" else Weighing("sum")
        plan = rows.plan(backend)
        if soft.is_trainable or hard.is_trainable:  # then the shares are functions of what gets a gradient
            plan = plan._replace(chunked=False)
        (value,) = chunked.run(Job(results, rows.targets, numbers, weighing=weighing, plan=plan), rows.layer)
        return rows.spread(value) if weighing is None else value

    def _weighing(
        self,
        targets: Targets,
        dtype: torch.dtype,
        class_weight: Tensor | None,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
    ) -> Weighing:
        return weigh(
            targets.rows,
            dtype,
            self.reduction,
            valid=targets.valid,
            class_weight=class_weight,
            sample_weight=sample_weight,
            denominator=denominator,
            weighted=True,
        )

    def _check_alpha(self) -> None:
        if isinstance(self.alpha, Tensor) or self.alpha != 1:
            raise ValueError(f"Expected `target` where `alpha` is not 1, but got None with alpha={self.alpha}.")

    def _read(self, input: Tensor, teacher: Tensor, target: Tensor | None) -> tuple[Batch, Tensor]:
        if target is None:
            self._check_alpha()
            shape = tuple(getattr(input, "shape", ()))
            rows = (shape[0], *shape[2:]) if len(shape) > 1 else ()
            target = torch.zeros(rows, dtype=torch.int64, device=getattr(input, "device", None))
        class_shards.refuse(input=input, teacher=teacher, target=target)
        batch = read_batch(input, target, self.loss.ignore_index)
        if not isinstance(teacher, Tensor) or not teacher.is_floating_point():
            kind = teacher.dtype if isinstance(teacher, Tensor) else type(teacher).__name__
            raise TypeError(f"Expected `teacher` to be a tensor of floating-point logits, but got {kind}.")
        if teacher.shape != input.shape:
            raise ValueError(
                f"Expected `teacher` of the shape of `input`, {tuple(input.shape)}, but got {tuple(teacher.shape)}."
            )
        check_constant(teacher=teacher)
        return batch, teacher.detach().reshape(batch.scores.shape)

    def _soft_rows(self, student: Tensor, targets: Targets, teacher: Tensor, temperature: Number) -> Tensor:
        """The divergence of every row (N, d1, ...), times T^2 if asked for."""
        dtype = accumulation_dtype(student)
        teacher = teacher.to(dtype)
        if self.scale_by_t2:
            hottest = _HOTTEST[dtype]
            temperature = (
                temperature.clamp(max=hottest) if isinstance(temperature, Tensor) else min(temperature, hottest)
            )
        student, teacher = targets.blank(student), targets.blank(teacher)
        rows: Tensor = call(_Divergence, *(scores.adjust(z, temperature)[0] for z in (student, teacher)))[0]
        return temperature**2 * rows if self.scale_by_t2 else rows


def _check_teacher(rows: Rows, student_x: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if rows.targets.shard is not None:
        raise ValueError("Expected `weight` on one process, but got a DTensor: distillation is not spread over ranks.")
    named = {"teacher_x": x, "teacher_weight": weight} | ({} if bias is None else {"teacher_bias": bias})
    for name, value in named.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"Expected `{name}` to be a floating-point tensor, but got {kind}.")
        class_shards.refuse(**{name: value})
        if value.device != student_x.device:
            raise ValueError(f"Expected `{name}` on the device of `x`, {student_x.device}, but got {value.device}.")
        if value.dtype != x.dtype and autocast_dtype(x) is None:
            raise TypeError(f"Expected `{name}` of the type of `teacher_x`, {x.dtype}, but got {value.dtype}.")
    if x.shape[:-1] != student_x.shape[:-1]:
        raise ValueError(f"Expected `teacher_x` of shape {(*student_x.shape[:-1], 'E')}, but got {tuple(x.shape)}.")
    if weight.shape != (len(rows.layer.weight), x.shape[-1]):
        expected = (len(rows.layer.weight), x.shape[-1])
        raise ValueError(f"Expected `teacher_weight` of shape {expected}, but got {tuple(weight.shape)}.")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"Expected `teacher_bias` of shape {tuple(weight.shape[:1])}, but got {tuple(bias.shape)}.")


# Up to so far apart in all logits the divergence is a function of their differences.
_CLOSE = 0.1
# Temperatures from here on are taken as this one: the divergence times T^2 has reached its limit.
_HOTTEST = {torch.float32: 1e15, torch.float64: 1e100}


def _of_close(student: Tensor, teacher: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows (N, 1, ...) are close, and the divergence and q - p of these.

    With x the differences of the logits less their mean under p, KL(p || q) = log(1 + sum p (e^x - 1 - x)): no
    probability is rounded, whatever the temperature.
    """
    excluded = (student == -torch.inf) & (teacher == -torch.inf)
    apart = (student - teacher).masked_fill(excluded, 0.0)
    known = ((p > 0) | excluded).all(1, keepdim=True)
    near = known & (apart.amax(1, keepdim=True) - apart.amin(1, keepdim=True) < _CLOSE)
    apart = torch.where(near, apart, 0.0)
    x = apart - (p * apart).sum(1, keepdim=True)
    curve = x * x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6))))
    divergence = torch.log1p((p * curve).sum(1, keepdim=True))
    return near, divergence.squeeze(1), p * torch.expm1(x - divergence)


class _Divergence(Function):
    """Logits of q and p (N, C, ...) -> KL(p || q) of every row, and q - p, its gradient with respect to those of q.

    With r = log q - log p the sum of p (e^r - 1 - r) is the divergence, since q and p both sum to 1, and no term is
    negative.
    """

    has_plain_forward = generate_vmap_rule = True

    @staticmethod
    def forward(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        log_q, log_p = student.log_softmax(1), teacher.log_softmax(1)
        q, p, r = log_q.exp(), log_p.exp(), log_q - log_p
        ahead = torch.where(r.abs() < 1, p * torch.expm1(r), q - p)
        terms = torch.where(p == 0, q, (ahead - p * r).clamp(min=0))
        near, close, close_ahead = _of_close(student, teacher, p)
        return torch.where(near.squeeze(1), close, terms.sum(1)), torch.where(near, close_ahead, ahead)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, Tensor | None]:
        if grad is None:
            return None, None
        student, teacher, ahead = ctx.saved_tensors
        grad = grad.unsqueeze(1)
        if torch.is_grad_enabled():  # to be differentiated again
            ahead = student.softmax(1) - teacher.softmax(1)
        to_teacher = None
        if ctx.needs_input_grad[1]:  # it depends on a trainable temperature
            p = teacher.softmax(1)
            log_ratio = (teacher.log_softmax(1) - student.log_softmax(1)).masked_fill(p == 0, 0.0)
            to_teacher = grad * p * (log_ratio - (p * log_ratio).sum(1, keepdim=True))
        return grad * ahead, to_teacher
