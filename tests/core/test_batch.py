"""The boundary: how batches are read. What it refuses is tested with the gap and the losses."""

import pytest
import torch

import lossfit
from lossfit.core.batch import read_batch


def test_rows_that_all_count_need_no_mask() -> None:
    batch = read_batch(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), -100)
    assert batch.targets.valid is None
    assert not batch.targets.probabilities
    assert not batch.unbatched


@pytest.mark.parametrize("ignore_index", [-100, -1, 3, 255])
def test_ignored_rows_are_masked_and_given_a_class(ignore_index: int) -> None:
    y = torch.tensor([0, ignore_index, 2, ignore_index])
    batch = read_batch(torch.zeros(4, 3), y, ignore_index)
    assert batch.targets.valid.tolist() == [True, False, True, False]
    assert batch.targets.target.tolist() == [0, 0, 2, 0]
    assert y[1] == ignore_index


def test_a_class_may_be_ignored() -> None:
    batch = read_batch(torch.zeros(4, 3), torch.tensor([0, 1, 2, 1]), 1)
    assert batch.targets.valid.tolist() == [True, False, True, False]


def test_probabilities_are_known_by_their_shape_and_type() -> None:
    assert read_batch(torch.zeros(4, 3), torch.zeros(4, 3), -100).targets.probabilities
    batch = read_batch(torch.zeros(3), torch.zeros(3), -100)
    assert batch.targets.probabilities
    assert batch.unbatched
    assert batch.targets.target.shape == (1, 3)


def test_meta_tensors_have_shapes() -> None:
    z = torch.empty(4, 3, device="meta", requires_grad=True)
    y = torch.empty(4, dtype=torch.int64, device="meta")
    for name in ("cross_entropy", "gamma_cross_entropy", "hinge"):
        assert lossfit.make(name, reduction="none")(z, y).shape == (4,)
        loss = lossfit.make(name, label_smoothing=0.1)(z, y)
        assert torch.autograd.grad(loss, z)[0].shape == (4, 3)


def test_exported_programs_give_the_same() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = lossfit.GammaCrossEntropyLoss(0.2)

        def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.loss(z, y)

    z, y = torch.randn(6, 4), torch.randint(4, (6,))
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(Model(), (z, y), dynamic_shapes={"z": {0: rows}, "y": {0: rows}})
    more, their = torch.randn(9, 4), torch.randint(4, (9,))
    torch.testing.assert_close(program.module()(more, their), Model()(more, their))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
@pytest.mark.parametrize("compiled", [False, True])
def test_a_target_out_of_range_is_found(compiled: bool) -> None:
    torch._dynamo.reset()
    loss = lossfit.CrossEntropyLoss()
    call = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
    with pytest.raises((IndexError, RuntimeError), match=r"class indices in \[0, 3\) or"):
        call(torch.zeros(4, 3), torch.tensor([0, 1, 3, 2]))


def test_a_target_on_another_device_is_refused() -> None:
    """Rather than read by a kernel from where it is not."""
    y = torch.zeros(4, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="Expected `target` on the device of `input`, cpu, but got meta"):
        lossfit.gap(torch.zeros(4, 3), y)
