"""Every link on the probability of a whole tag sequence."""

from __future__ import annotations

from torch import Tensor

from lossfit.core.reduce import Reduction, weigh
from lossfit.losses.base import Loss
from lossfit.losses.sequence import chain
from lossfit.losses.sequence.linear_chain_crf import read_tagged
from lossfit.losses.single_label.cross_entropy import CrossEntropyLoss
from lossfit.losses.single_label.link import GapLoss


class CRFLoss(Loss):
    r"""A link on the log-odds of the right tag sequence under a linear-chain CRF.

    With :math:`p = P(y | x)` of :class:`lossfit.LinearChainCRF` and :math:`d = \log p - \log(1 - p)`, the loss of a row
    is link(d): cross-entropy gives the negative log-likelihood, expected accuracy the probability of any error in the
    sequence. :math:`1 - p` is the sum over the other sequences, by a recursion that leaves the right one out, so that
    rows far ahead keep their digits. Links on the hard gap get the lead over the best rival sequence, the margin of
    structured support vector machines.

    ``loss(emissions, tags, crf.transitions, crf.start, crf.end, mask)`` takes emissions (B, T, K), tags (B, T),
    transitions (K, K), start and end (K,) or None for zeros, and a mask, (B, T) or lengths (B,). Positions outside of
    the mask, and those of tag -100, are taken out wherever they stand.

    Args:
        link: any loss that is a function of the gap, cross-entropy by default. Its reduction is not used; its
            tensors among the hyper-parameters broadcast to the rows (B,).
        reduction: "mean", "sum" or "none". Rows are whole sequences.

    Raises:
        TypeError: ``link`` is not a link.
        ValueError: ``link`` has what is meant for classes (weight, class_prior, label_smoothing, temperature), or is
            the hinge over all rivals; a shape does not fit; a mask leaves nothing in a row.
        IndexError: a tag is out of range; the error names its position.

    With a single possible sequence d is 1e30, or 1e300 in float64.

    Example:
        >>> emissions = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
        >>> loss = lossfit.CRFLoss(link=lossfit.FocalLoss(2.0))
        >>> loss(emissions, torch.tensor([[0, 1]]), torch.zeros(2, 2))
        tensor(0.0558)
    """

    family = "sequence"
    formula = "link(d), d the log-odds of the tag sequence under a linear-chain CRF"
    source = (
        "J. Lafferty, A. McCallum and F. Pereira, Conditional Random Fields: Probabilistic Models for Segmenting and "
        "Labeling Sequence Data, 2001, section 3"
    )

    def __init__(self, link: GapLoss | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        link = CrossEntropyLoss() if link is None else link
        _check_link(link)
        self.link = link

    def forward(
        self,
        emissions: Tensor,
        tags: Tensor,
        transitions: Tensor,
        start: Tensor | None = None,
        end: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            emissions: the scores of the tags at each position, (B, T, K).
            tags: the right tags (B, T).
            transitions: the score of tag k after tag j at [j, k], (K, K).
            start, end: the scores of the first and the last tag (K,).
            mask: boolean (B, T), or lengths (B,).
            sample_weight: a weight for each row (B,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        read, tags = read_tagged(emissions, tags, transitions, start, end, mask)
        weighing = weigh(
            emissions.shape[:1],
            read.emissions.dtype,
            self.reduction,
            sample_weight=sample_weight,
            denominator=denominator,
        )
        if weighing.valid is not None:
            read = read._replace(emissions=weighing.blank(read.emissions.transpose(0, 1)).transpose(0, 1))
        d = chain.log_odds(read, tags, self.link.gap)
        rows = self.link._losses(d, self.link._settings(d.shape, d.dtype, classes=1).own)
        return weighing.reduce(rows)

    def step(self, to: int | None = None) -> None:
        """Advance the schedules of the link."""
        self.link.step(to)


def _check_link(link: object) -> None:
    if not isinstance(link, GapLoss):
        raise TypeError(f"Expected `link` to be a loss that is a function of the gap, but got {type(link).__name__}.")
    plain = {"label_smoothing": 0.0, "temperature": 1.0, "weight": None, "class_prior": None}
    for name, default in plain.items():
        value = getattr(link, name)
        if (value is not None) if default is None else (isinstance(value, Tensor) or value != default):
            raise ValueError(f"Expected `link` without `{name}`, which is for classes, but got {link}.")
