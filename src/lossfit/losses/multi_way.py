"""Losses for n questions of m answers each, with a logarithm around the sum over questions."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lossfit.core import class_shards
from lossfit.core.autograd import is_abstract, readable, transformed
from lossfit.core.batch import _check_range
from lossfit.core.checks import check_choice, check_constant, check_index, check_tensor
from lossfit.core.numerics import LOWEST, accumulation_dtype
from lossfit.core.reduce import Reduction, weigh
from lossfit.losses.base import Loss
from lossfit.losses.single_label.link import softplus

Kind = Literal["pairwise", "balanced", "analogy", "centered"]
KINDS = ("pairwise", "balanced", "analogy", "centered")

# The widest range of scores in a question for which products of their exponentials fit into float64.
_WIDE = 600.0


class Questions(NamedTuple):
    """Checked answers: probabilities (B, n, m), all 0 in ignored questions; which samples (B,) have any other."""

    share: Tensor
    known: Tensor | None = None
    valid: Tensor | None = None


class MultiWayLoss(Loss):
    r"""A loss for n questions of m answers each that balances the answers, as ZLPR does for labels.

    ``loss(input, target)`` takes scores (B, n, m) and as target the right answers (B, n), or probabilities (B, n, m)
    that sum to 1 over the answers, to 1e-3 or to the rounding of their type. With :math:`s` the scores and :math:`t`
    the probabilities (1 for the right answer), the loss of a sample is

    - "pairwise": :math:`\sum_{j \neq k} \log\big(1 + \sum_i t_{ij} e^{s_{ik} - s_{ij}}\big)`
    - "balanced": :math:`\sum_j \log\big(1 + w_j \sum_i t_{ij} \sum_{k \neq j} e^{s_{ik} - s_{ij}}\big)` with
      :math:`w_j = 1 / (1 + \max_h S_h - S_j)` and :math:`S_j = \sum_i \sum_{k \neq j} \sqrt{t_{ij} t_{ik}}`
    - "analogy": the same with :math:`w_j = 1`
    - "centered": :math:`\sum_j \log\big(1 + \sum_i t_{ij} e^{\bar s_i - s_{ij}}\big)` with :math:`\bar s_i` the mean
      score of the question.

    "pairwise" and "balanced" are convex and least where softmax(2 s) = t, so :meth:`predict` is that. With hard labels
    "balanced" is "analogy"; with m = 2 the first three are ZLPR on :math:`s_{i1} - s_{i0}`. Where hard labels are drawn
    from a distribution that the questions of a sample share, "pairwise" and "centered" give it back, the others do not.
    With a single question per sample, "pairwise" gives it back as softmax(s). "analogy" has no closed form for soft
    labels, and "centered" may fall to 0 on hard labels although another answer leads; both are for comparison.
    ``docs/derivations/multiway.md`` has the derivation and the limits.

    "pairwise" takes O(n m^2) time, as one matrix product in float64, and O(m (n + m)) memory; the others take O(n m) of
    both. Samples in which a question's scores range over more than 600 go through logarithms, with O(n m^2) memory; to
    find them, "pairwise" waits for the GPU. Under ``torch.func`` and ``torch.compile`` all samples go that way. A score
    of -inf takes an answer out of a question, if its label is 0 and the kind is not "centered".

    Args:
        kind: "pairwise", "balanced", "analogy" or "centered".
        ignore_index: questions with this answer, or with this number in place of all probabilities, are left out.
            Samples of which no question is left do not count in the mean.
        reduction: "mean" over samples, "sum" or "none", which gives one loss per sample, (B,).

    Labels are constants: those that require a gradient are refused.

    Range: [0, inf).

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: Jianlin Su, "An Unsuccessful Attempt: Multi-Label Cross-Entropy for n Questions of m Answers", 2022, for
    "analogy" and "centered"; the other two are answers to its question.

    Example:
        >>> loss = lossfit.MultiWayLoss()
        >>> scores = torch.tensor([[[2.0, 0.0, -1.0], [0.5, 1.0, -2.0]]])
        >>> loss(scores, torch.tensor([[0, 1]]))
        tensor(0.6982)
        >>> loss.predict(scores)
        tensor([[[0.9796, 0.0179, 0.0024],
                 [0.2685, 0.7297, 0.0018]]])
    """

    family = "multi_way"
    formula = "sum_(j != k) log(1 + sum_i t_ij exp(s_ik - s_ij))"
    source = (
        "Jianlin Su, An Unsuccessful Attempt: Multi-Label Cross-Entropy for n Questions of m Answers, 2022; "
        "pairwise and balanced: lossfit, docs/derivations/multiway.md"
    )

    def __init__(self, kind: Kind = "pairwise", *, ignore_index: int = -100, reduction: Reduction = "mean") -> None:
        check_choice("kind", kind, KINDS)
        super().__init__(reduction=reduction)
        self.kind: Kind = kind
        self.ignore_index = check_index("ignore_index", ignore_index)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: scores (B, n, m).
            target: the right answers (B, n), or probabilities (B, n, m).
            sample_weight: a weight for each sample (B,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        answers = read(input, target, self.ignore_index)
        dtype = accumulation_dtype(input)
        weighing = weigh(
            input.shape[:1],
            dtype,
            self.reduction,
            valid=answers.valid,
            sample_weight=sample_weight,
            denominator=denominator,
        )
        work = torch.float64 if self.kind == "pairwise" else dtype
        scores, share = input.to(work), answers.share.to(work)
        if answers.known is not None:
            scores = scores.masked_fill(~answers.known.unsqueeze(2), 0.0)
        scores = weighing.blank(scores)
        scores = scores.clamp(min=LOWEST[work])
        if self.kind != "pairwise":  # a question's offset costs no digits
            scores = scores - scores.detach().amax(2, keepdim=True)
        return weighing.reduce(_losses(self.kind, scores, share).to(dtype))

    def predict(self, input: Tensor) -> Tensor:
        """The probabilities of the answers, of the shape of the scores: softmax(2 s), for "centered" softmax(s)."""
        return (input if self.kind == "centered" else 2 * input).softmax(-1)


def _losses(kind: Kind, s: Tensor, t: Tensor) -> Tensor:
    """The losses of the samples, (B, n, m) -> (B,)."""
    if kind == "pairwise":
        return _pairwise(s, t)
    against = s.mean(2, keepdim=True) if kind == "centered" else _others(s)
    terms = t.log() + against - s
    if kind == "balanced":
        root = t.sqrt()
        overlap = (root * (root.sum(2, keepdim=True) - root)).sum(1, keepdim=True)
        terms = terms - torch.log1p(overlap.amax(2, keepdim=True) - overlap)
    return softplus(terms.masked_fill(t == 0, LOWEST[s.dtype]).logsumexp(1)).sum(1)


def _others(s: Tensor) -> Tensor:
    """For every answer the logsumexp of the other answers' scores, without cancellation."""
    whole = s.logsumexp(2, keepdim=True)
    leads = torch.zeros_like(s, dtype=torch.bool).scatter(2, s.argmax(2, keepdim=True), True)
    below = torch.log1p(-(s - whole).exp().masked_fill(leads, 0.0))
    behind = s.masked_fill(leads, LOWEST[s.dtype]).logsumexp(2, keepdim=True)
    return torch.where(leads, behind, whole + below)


def _pairwise(s: Tensor, t: Tensor) -> Tensor:
    if transformed() or torch.compiler.is_compiling() or is_abstract(s):
        return _pairwise_by_logarithms(s, t)
    fixed = s.detach()
    high = fixed.amax(2, keepdim=True)
    low = torch.where(t > 0, fixed, high).amin(2, keepdim=True)
    wide = ((high - low) > _WIDE).flatten(1).any(1)
    if not wide.any():
        return _pairwise_by_product(s, t, (high + low) / 2)
    losses = s.new_zeros(s.shape[0])
    narrow = ~wide
    losses = losses.index_put((narrow,), _pairwise_by_product(s[narrow], t[narrow], ((high + low) / 2)[narrow]))
    return losses.index_put((wide,), _pairwise_by_logarithms(s[wide], t[wide]))


def _pairwise_by_product(s: Tensor, t: Tensor, centre: Tensor) -> Tensor:
    """The sums over questions of all pairs, as one product. The loss does not depend on the centres."""
    toward = (s - centre).exp()
    away = t * torch.where(t > 0, centre - s, 0.0).exp()
    return torch.log1p(_without_diagonal(away.mT @ toward, 0.0)).flatten(1).sum(1)


def _pairwise_by_logarithms(s: Tensor, t: Tensor) -> Tensor:
    lowest = LOWEST[s.dtype]
    away = (t.log() - s).masked_fill(t == 0, lowest)
    pairs = [(away[:, :, j : j + 1] + s).logsumexp(1) for j in range(s.shape[2])]
    return softplus(_without_diagonal(torch.stack(pairs, 1), lowest)).flatten(1).sum(1)


def _without_diagonal(pairs: Tensor, fill: float) -> Tensor:
    return pairs.masked_fill(torch.eye(pairs.shape[2], dtype=torch.bool, device=pairs.device), fill)


def read(input: Tensor, target: Tensor, ignore_index: int) -> Questions:
    """Check scores and answers against each other, and find the questions that count."""
    class_shards.refuse(input=input, target=target)
    for name, value in (("input", input), ("target", target)):
        check_tensor(name, value)
    if not input.is_floating_point():
        raise TypeError(
            f"Expected `input` to hold floating-point scores, but got {input.dtype}. Convert it with input.float()."
        )
    shape, given = tuple(input.shape), tuple(target.shape)
    if len(shape) != 3 or shape[2] == 0:
        raise ValueError(f"Expected `input` of shape (B, n, m) with m of at least 1, but got {shape}.")
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"Expected `target` to hold the indices of answers or probabilities, but got {target.dtype}.")
    expected = shape if target.is_floating_point() else shape[:2]
    if given != expected:
        what = "probabilities" if target.is_floating_point() else "the indices of answers"
        raise ValueError(
            f"Expected `target` of {target.dtype} to hold {what}, of shape {expected} for `input` of shape {shape}, "
            f"but got {given}."
        )
    if target.is_floating_point():
        check_constant(target=target)
        return _probabilities(target, ignore_index)
    right, known = _check_range(target, shape[2], ignore_index)
    # Not one_hot, which looks at the numbers, and not in place, since under vmap only the target may be mapped over.
    share = torch.zeros(shape, device=input.device).scatter(2, right.unsqueeze(2), 1.0)
    return _without_ignored(share, known)


def _probabilities(target: Tensor, ignore_index: int) -> Questions:
    known = ~(target == ignore_index).all(2)
    tolerance = max(1e-3, torch.finfo(target.dtype).eps)
    total = target.sum(2, dtype=accumulation_dtype(target))
    fits = ~known | ((target >= 0).all(2) & ((total - 1).abs() <= tolerance))
    if readable(target):
        if not fits.all():
            position = tuple((~fits).nonzero()[0].tolist())
            raise ValueError(
                f"Expected `target` to hold probabilities that are not negative and sum to 1 over the answers, or only "
                f"ignore_index={ignore_index}, but got {target[position].tolist()} at question {position} "
                f"(sum {total[position].item():g}; {int((~fits).sum())} of {fits.numel()} questions are wrong)."
            )
        if known.all():
            return Questions(target)
    elif target.device.type != "meta" and not transformed():
        torch._assert_async(fits.all(), "Expected `target` to hold probabilities that sum to 1 over the answers.")
    return _without_ignored(target, known)


def _without_ignored(share: Tensor, known: Tensor | None) -> Questions:
    if known is None:
        return Questions(share)
    return Questions(share.masked_fill(~known.unsqueeze(2), 0.0), known, known.any(1))
