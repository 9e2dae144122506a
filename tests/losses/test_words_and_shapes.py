"""Arguments as users of other libraries write them, and errors that name the argument."""

import pytest
import torch
from torch.testing import assert_close

import lossfit


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("roc_auc", "auc"),
        ("pr_auc", "average_precision"),
        ("map", "average_precision"),
        ("f1", "macro_f1"),
        ("mcc", "matthews"),
        ("kappa", "cohen_kappa"),
        ("qwk", "quadratic_weighted_kappa"),
        ("nll", "log_loss"),
    ],
)
def test_a_metric_by_its_other_name(name: str, metric: str) -> None:
    assert repr(lossfit.for_metric(name)) == repr(lossfit.for_metric(metric))


def test_masks_of_integers() -> None:
    z, y, mask = torch.randn(2, 4, 3), torch.randint(3, (2, 4)), torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0]])
    assert_close(lossfit.TokenLoss()(z, y, mask), lossfit.TokenLoss()(z, y, mask.bool()))
    with pytest.raises(ValueError, match=r"`mask` to hold 0 and 1, but got 2 at position \(0, 0\)"):
        lossfit.TokenLoss()(z, y, 2 * mask)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "f_beta", "multi_way", "nce", "sampled_softmax"])
def test_an_ignore_index_that_is_none(name: str) -> None:
    with pytest.raises(TypeError, match="Expected `ignore_index` to be an integer, but got None"):
        lossfit.make(name, ignore_index=None)


def test_a_sample_weight_that_is_no_tensor() -> None:
    loss, z, y = lossfit.CrossEntropyLoss(), torch.randn(4), torch.tensor(1)
    with pytest.raises(TypeError, match=r"`sample_weight` to be a torch.Tensor, but got float"):
        loss(z, y, sample_weight=0.5)
    with pytest.raises(TypeError, match=r"`sample_weight` to be a torch.Tensor, but got list"):
        loss.linear(torch.randn(3, 2), torch.randn(4, 2), torch.tensor([0, 1, 2]), sample_weight=[1.0], shift=1)
