"""On the meta device and in FakeTensors every loss gives the shape of its value."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import lossfit
from families import EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_loss_of_another_family(name: str) -> None:
    batch, loss = EXAMPLES[name](), lossfit.make(name)
    expected = loss(*batch)
    on_meta = loss(*(value.to("meta") for value in batch))
    assert (on_meta.shape, on_meta.dtype, on_meta.device.type) == (expected.shape, expected.dtype, "meta")
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        fake = loss(*(mode.from_tensor(value) for value in batch))
    assert (fake.shape, fake.dtype) == (expected.shape, expected.dtype)


def test_priors_and_representations() -> None:
    with torch.device("meta"):
        loss = lossfit.CrossEntropyLoss(class_prior=torch.ones(3), temperature=torch.nn.Parameter(torch.ones(())))
    assert repr(loss) == "CrossEntropyLoss(temperature=(), class_prior=(3,))"
    value = loss(torch.empty(5, 3, device="meta"), torch.zeros(5, dtype=torch.int64, device="meta"))
    assert value.shape == ()
