"""A linear-chain conditional random field: a model of tag sequences with exact probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from lossfit.core import masks
from lossfit.core.autograd import readable
from lossfit.core.numerics import accumulation_dtype
from lossfit.losses.sequence import chain
from lossfit.losses.sequence.chain import Chain


class LinearChainCRF(nn.Module):
    r"""A linear-chain conditional random field over sequences of K tags.

    The score of tags y for emissions e, scores of each tag at each position that a network computes from x, is

    .. math:: s(y) = a_{y_1} + \sum_{t=1}^T e_{t, y_t} + \sum_{t=2}^T A_{y_{t-1} y_t} + b_{y_T}

    and :math:`P(y | x) = e^{s(y)} / \sum_{y'} e^{s(y')}`. The parameters ``start`` a (K,), ``transitions`` A (K, K) and
    ``end`` b (K,) begin at 0, where the positions are independent softmaxes. -inf forbids a transition.

    All methods take emissions (B, T, K) and a ``mask``: None, boolean (B, T), or lengths (B,). A sequence stands at the
    left, without holes, and has at least one position; what stands to its right may hold anything. Half-precision
    emissions are computed in float32. Time is O(B T K^2), in T steps for the whole batch.

    The gradients of ``log_prob``, ``log_odds`` and ``log_partition`` are written out. A plain recursion of O(T B K^2)
    memory does the work under ``torch.compile`` (which unrolls the T steps) and ``torch.func``, for second derivatives,
    and where a tag is only reached from what lies more than 60 (float32) or 600 (float64) below the best.

    Args:
        num_tags: K, at least 1.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: J. Lafferty, A. McCallum and F. Pereira, "Conditional Random Fields: Probabilistic Models for Segmenting and
    Labeling Sequence Data", 2001, section 3.

    Example:
        >>> crf = lossfit.LinearChainCRF(2)
        >>> emissions = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
        >>> crf.viterbi(emissions)
        tensor([[0, 1]])
        >>> crf.log_prob(emissions, torch.tensor([[0, 1]])).exp()
        tensor([0.6439], grad_fn=<ExpBackward0>)
    """

    def __init__(self, num_tags: int) -> None:
        super().__init__()
        if isinstance(num_tags, bool) or not isinstance(num_tags, int):
            raise TypeError(f"Expected `num_tags` to be an integer, but got {type(num_tags).__name__}.")
        if num_tags < 1:
            raise ValueError(f"Expected `num_tags` of at least 1, but got {num_tags}.")
        self.num_tags = num_tags
        self.start = nn.Parameter(torch.zeros(num_tags))
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))
        self.end = nn.Parameter(torch.zeros(num_tags))

    def log_prob(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-probability of each row's tags (B, T), (B,): exact to the last digits also where p is near 1."""
        return logsigmoid(self.log_odds(emissions, tags, mask))

    def log_odds(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """log(p / (1 - p)) of each row's tags, (B,), with 1 - p summed over the other sequences and not subtracted."""
        read, _ = self._read(emissions, mask)
        return chain.log_odds(read, read_tags(tags, emissions, mask), "soft")

    def log_partition(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log of the sum of exp(score) over all tag sequences, (B,)."""
        return chain.log_partition(self._read(emissions, mask)[0])

    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The probability of each tag at each position, (B, T, K); 0 outside of the mask.

        They are the gradient of ``log_partition`` in the emissions, and have one themselves.
        """
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            read, _ = self._read(emissions, mask)
            scores = read.emissions if read.emissions.requires_grad else read.emissions.detach().requires_grad_()
            total = chain.log_partition(read._replace(emissions=scores)).sum()
            (found,) = torch.autograd.grad(total, scores, create_graph=differentiable)
        return found.transpose(0, 1)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The most probable tags of each row, (B, T); -100 outside of the mask. Where sequences tie, the first."""
        read, valid = self._read(emissions, mask)
        tags = chain.best_path(read).t()
        return tags if valid is None else torch.where(valid, tags, -100)

    def _read(self, emissions: Tensor, mask: Tensor | None) -> tuple[Chain, Tensor | None]:
        return read_chain(emissions, self.transitions, self.start, self.end, mask)

    def extra_repr(self) -> str:
        return f"num_tags={self.num_tags}"


def read_chain(
    emissions: Tensor, transitions: Tensor, start: Tensor | None, end: Tensor | None, mask: Tensor | None
) -> tuple[Chain, Tensor | None]:
    """A checked chain, with emissions outside of the mask at 0, and the mask, None if it is known to leave out none."""
    tags = _check_emissions(emissions)
    batch, length = emissions.shape[:2]
    weights = {"transitions": (transitions, (tags, tags)), "start": (start, (tags,)), "end": (end, (tags,))}
    for name, (value, shape) in weights.items():
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"Expected `{name}` to be a torch.Tensor, but got {type(value).__name__}.")
        if value is not None and value.shape != shape:
            raise ValueError(f"Expected `{name}` of shape {shape} for {tags} tags, but got {tuple(value.shape)}.")
    dtype = accumulation_dtype(emissions)
    valid = masks.positions(mask, batch, length)
    if valid is not None and readable(valid) and valid.all():
        valid = None
    scores = emissions.to(dtype)
    if valid is not None:
        scores = scores.masked_fill(~valid.unsqueeze(-1), 0.0)
    last = None if valid is None else _last_positions(valid)
    transitions, start, end = (
        scores.new_zeros(tags) if value is None else value.to(dtype) for value in (transitions, start, end)
    )
    return Chain(scores.transpose(0, 1), transitions, start, end, last), valid


def read_tags(tags: Tensor, emissions: Tensor, mask: Tensor | None) -> Tensor:
    """Checked tags (T, B), with those outside of the mask at 0."""
    batch, length, classes = emissions.shape
    if not isinstance(tags, Tensor):
        raise TypeError(f"Expected `tags` to be a torch.Tensor, but got {type(tags).__name__}.")
    if tags.is_floating_point() or tags.is_complex() or tags.dtype == torch.bool:
        raise TypeError(f"Expected `tags` to hold integer tags, but got {tags.dtype}.")
    if tags.shape != (batch, length):
        raise ValueError(
            f"Expected `tags` of shape {(batch, length)} for `emissions` of shape {tuple(emissions.shape)}, "
            f"but got {tuple(tags.shape)}."
        )
    valid = masks.positions(mask, batch, length)
    tags = tags.long() if valid is None else tags.long().masked_fill(~valid, 0)
    wrong = (tags < 0) | (tags >= classes)
    if readable(tags):
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            raise IndexError(f"Expected `tags` in [0, {classes}), but got {tags[at].item()} at position {at}.")
    elif tags.device.type == "cuda":
        torch._assert_async(~wrong.any(), f"Expected `tags` in [0, {classes}).")
    return tags.t()


def _check_emissions(emissions: Tensor) -> int:
    if not isinstance(emissions, Tensor):
        raise TypeError(f"Expected `emissions` to be a torch.Tensor, but got {type(emissions).__name__}.")
    if not emissions.is_floating_point():
        raise TypeError(f"Expected `emissions` to hold floating-point scores, but got {emissions.dtype}.")
    if emissions.ndim != 3 or 0 in emissions.shape[1:]:
        raise ValueError(
            "Expected `emissions` of shape (B, T, K) with at least one position and one tag, "
            f"but got {tuple(emissions.shape)}."
        )
    return emissions.shape[2]


def _last_positions(valid: Tensor) -> Tensor:
    """The index of each row's last position."""
    lengths = valid.sum(1)
    left = torch.arange(valid.shape[1], device=valid.device) < lengths.unsqueeze(1)
    if not (readable(valid) and torch.equal(left, valid) and valid[:, 0].all()):
        masks.refuse(lengths == 0, lengths, "Expected `mask` to leave at least one position in every row")
        masks.refuse(left & ~valid, valid, "Expected `mask` without holes, its positions at the left of every row")
    return lengths - 1
