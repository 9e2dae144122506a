"""The lines that the command and the report give to paste run as they are."""

from typing import Any

import pytest
import torch

from lossfit.compare.candidates import candidates
from lossfit.compare.scoring.tasks import KINDS

N, C = 12, 4
CANDIDATES = [(family, name) for family in KINDS for name in candidates.candidates(family)]


def names(family: str) -> dict[str, Any]:
    """What one's own training loop has, and nothing else."""
    logits = torch.randn(N, C, requires_grad=True)
    single, several = torch.arange(N) % C, (torch.rand(N, C) > 0.5).float()
    labels = single if family == "single_label" else several
    return {
        "logits": logits,
        "labels": labels,
        "train_labels": labels,
        "validation_logits": logits.detach() * 2,
        "validation_labels": labels,
    }


@pytest.mark.parametrize(("family", "name"), CANDIDATES)
def test_every_candidate(family: str, name: str) -> None:
    for metric in KINDS[family].choices():
        plain = candidates.candidates(family)[name]
        candidate = candidates.tuned(plain, metric, family) or plain
        for setting in candidates.settings(candidate, 3, 0):
            there = names(family)
            exec("\n".join(candidate.code(setting, metric)), there)
            loss = there["loss"]
            assert loss.shape == ()
            (gradient,) = torch.autograd.grad(loss, there["logits"])
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0
            own = {k: v for k, v in candidate.describe(setting).items() if not k.endswith("_power")}
            plain = candidates.make_loss(candidate, **own)
            if own == candidate.describe(setting):
                assert torch.equal(loss, plain(there["logits"], there["labels"]))
            else:  # by class weights or a prior, which make a difference where classes are not even
                uneven = {**names(family), "train_labels": torch.tensor([0] * 7 + [1, 2, 3, 3])}
                exec("\n".join(candidate.code(setting, metric)), uneven)
                assert not torch.equal(uneven["loss"], plain(uneven["logits"], uneven["labels"]))
            if candidate.tuned == "temperature":
                assert there["p"].sum(1).tolist() == pytest.approx([1] * N)
            elif candidate.tuned:
                assert there["predicted"].shape == ((N,) if family == "single_label" else (N, C))
