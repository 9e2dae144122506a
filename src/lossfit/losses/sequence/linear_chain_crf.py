"""A linear-chain conditional random field: a model of tag sequences with exact probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from lossfit.core import masks
from lossfit.core.autograd import readable
from lossfit.core.checks import check_tensor
from lossfit.core.numerics import accumulation_dtype
from lossfit.losses.sequence import chain
from lossfit.losses.sequence.chain import Chain


class LinearChainCRF(nn.Module):
    r"""A linear-chain conditional random field over sequences of K tags.

    The score of tags y for emissions e, scores of each tag at each position that a network computes from x, is

    .. math:: s(y) = a_{y_1} + \sum_{t=1}^T e_{t, y_t} + \sum_{t=2}^T A_{y_{t-1} y_t} + b_{y_T}

    and :math:`P(y | x) = e^{s(y)} / \sum_{y'} e^{s(y')}`. The parameters ``start`` a (K,), ``transitions`` A (K, K) and
    ``end`` b (K,) begin at 0, where the positions are independent softmaxes. -inf forbids a transition.

    ``crf(emissions, tags, mask)`` is the loss, the mean of :math:`-\log P(y | x)` over the rows, and ``decode`` gives
    the most probable tags. All methods take emissions (B, T, K) and a ``mask``: None, (B, T) of booleans or of 0 and 1,
    or lengths (B,). Positions outside of the mask, and those of tag -100 (later pieces of a word, padding), are taken
    out wherever they stand, and may hold anything; the tags next to them become neighbours. A row has at least one
    position. Half-precision emissions are computed in float32. Time is O(B T K^2), in T steps for the whole batch.

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
        >>> crf(emissions, torch.tensor([[0, -100]])), crf.decode(emissions, torch.tensor([[1, 0]]))
        (tensor(0.1269, grad_fn=<NegBackward0>), [[0]])
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

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """The negative log-likelihood, averaged over the rows: a loss to minimise."""
        return -self.log_prob(emissions, tags, mask).mean()

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """The most probable tags of each row, without the positions outside of the mask."""
        tags = self.viterbi(emissions, mask)
        return [[tag for tag in row if tag >= 0] for row in tags.tolist()]

    def log_prob(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-probability of each row's tags (B, T), (B,): exact to the last digits also where p is near 1."""
        return logsigmoid(self.log_odds(emissions, tags, mask))

    def log_odds(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """log(p / (1 - p)) of each row's tags, (B,), with 1 - p summed over the other sequences and not subtracted."""
        read, tags = read_tagged(emissions, tags, self.transitions, self.start, self.end, mask)
        return chain.log_odds(read, tags, "soft")

    def log_partition(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log of the sum of exp(score) over all tag sequences, (B,)."""
        return chain.log_partition(self._read(emissions, mask)[0])

    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The probability of each tag at each position, (B, T, K); 0 outside of the mask.

        They are the gradient of ``log_partition`` in the emissions, and have one themselves.
        """
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            read, valid = self._read(emissions, mask)
            scores = read.emissions if read.emissions.requires_grad else read.emissions.detach().requires_grad_()
            total = chain.log_partition(read._replace(emissions=scores)).sum()
            (shares,) = torch.autograd.grad(total, scores, create_graph=differentiable)
        return _in_place(shares.transpose(0, 1), valid, 0.0)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The most probable tags of each row, (B, T); -100 outside of the mask. Where sequences tie, the first."""
        read, valid = self._read(emissions, mask)
        return _in_place(chain.best_path(read).t(), valid, -100)

    def _read(self, emissions: Tensor, mask: Tensor | None) -> tuple[Chain, Tensor | None]:
        return read_chain(emissions, self.transitions, self.start, self.end, mask)

    def extra_repr(self) -> str:
        return f"num_tags={self.num_tags}"


def read_chain(
    emissions: Tensor, transitions: Tensor, start: Tensor | None, end: Tensor | None, mask: Tensor | None
) -> tuple[Chain, Tensor | None]:
    """A checked chain of the positions inside of the mask, and the mask, None if it is known to leave out none."""
    tags = _check_emissions(emissions)
    batch, length = emissions.shape[:2]
    weights = {"transitions": (transitions, (tags, tags)), "start": (start, (tags,)), "end": (end, (tags,))}
    for name, (value, shape) in weights.items():
        if value is None:
            continue
        check_tensor(name, value)
        if value.shape != shape:
            raise ValueError(f"Expected `{name}` of shape {shape} for {tags} tags, but got {tuple(value.shape)}.")
    dtype = accumulation_dtype(emissions)
    valid = masks.positions(mask, batch, length)
    if valid is not None and readable(valid) and valid.all():
        valid = None
    scores, last = emissions.to(dtype), None
    if valid is not None:
        scores = _packed(scores.masked_fill(~valid.unsqueeze(-1), 0.0), valid)
        last = _last_positions(valid)
    transitions, start, end = (
        scores.new_zeros(tags) if value is None else value.to(dtype) for value in (transitions, start, end)
    )
    return Chain(scores.transpose(0, 1), transitions, start, end, last), valid


def read_tagged(
    emissions: Tensor,
    tags: Tensor,
    transitions: Tensor,
    start: Tensor | None,
    end: Tensor | None,
    mask: Tensor | None,
) -> tuple[Chain, Tensor]:
    """A checked chain and its tags (T, B), of the positions inside of the mask whose tag is not -100."""
    classes = _check_emissions(emissions)
    batch, length = emissions.shape[:2]
    check_tensor("tags", tags)
    if tags.is_floating_point() or tags.is_complex() or tags.dtype == torch.bool:
        raise TypeError(f"Expected `tags` to hold integer tags, but got {tags.dtype}.")
    if tags.shape != (batch, length):
        raise ValueError(
            f"Expected `tags` of shape {(batch, length)} for `emissions` of shape {tuple(emissions.shape)}, "
            f"but got {tuple(tags.shape)}."
        )
    valid, tagged = masks.positions(mask, batch, length), tags != -100
    valid = tagged if valid is None else valid & tagged
    read, valid = read_chain(emissions, transitions, start, end, valid)
    tags = tags.long() if valid is None else tags.long().masked_fill(~valid, 0)
    wrong = (tags < 0) | (tags >= classes)
    if readable(tags):
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            raise IndexError(f"Expected `tags` in [0, {classes}), but got {tags[at].item()} at position {at}.")
    elif tags.device.type == "cuda":
        torch._assert_async(~wrong.any(), f"Expected `tags` in [0, {classes}).")
    return read, (tags if valid is None else _packed(tags, valid)).t()


def _packed(values: Tensor, valid: Tensor) -> Tensor:
    """Values (B, T, ...) with those of the valid positions at the left."""
    if _at_left(valid):
        return values
    return values.take_along_dim(_order(valid).view(*valid.shape, *(1,) * (values.ndim - 2)), 1)


def _in_place(values: Tensor, valid: Tensor | None, fill: float) -> Tensor:
    """What :func:`_packed` took together, at the positions where it stood."""
    if valid is None:
        return values
    if not _at_left(valid):
        back = _order(valid).argsort(1)
        values = values.take_along_dim(back.view(*valid.shape, *(1,) * (values.ndim - 2)), 1)
    return values.masked_fill(~valid.view(*valid.shape, *(1,) * (values.ndim - 2)), fill)


def _order(valid: Tensor) -> Tensor:
    return (~valid).byte().sort(dim=1, stable=True).indices


def _at_left(valid: Tensor) -> bool:
    """Whether every row is seen to have its valid positions at the left, without holes."""
    return readable(valid) and not bool((valid[:, 1:] & ~valid[:, :-1]).any())


def _check_emissions(emissions: Tensor) -> int:
    check_tensor("emissions", emissions)
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
    masks.refuse(lengths == 0, lengths, "Expected `mask` to leave at least one position in every row")
    return lengths - 1
