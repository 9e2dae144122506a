"""What docs/many_classes.md shows runs, the sharded part on one rank."""

import re
from pathlib import Path

import torch
from torch import distributed

import lossfit

PAGE = (Path(__file__).parents[2] / "docs" / "many_classes.md").read_text(encoding="utf-8")


def test_its_python_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    labels = torch.randint(50, (2, 6))
    names = {"torch": torch, "lossfit": lossfit, "lm_head": torch.nn.Linear(8, 50, bias=False), "labels": labels}
    names["hidden"] = torch.randn(2, 6, 8, requires_grad=True)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        losses = []
        for block in blocks:
            exec(block, names)
            losses.append(names["loss"].item())
        assert abs(losses[0] - losses[1]) < 1e-6
        weight = names["weight"].grad.full_tensor()
        torch.testing.assert_close(weight, names["lm_head"].weight.grad)
        assert names["head"](names["features"]).shape == (32, 10_000)
    finally:
        distributed.destroy_process_group()
