"""The example on unseen digits: its measures, longhand, and that it runs."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

EXAMPLE = Path(__file__).parents[2] / "examples" / "verification.py"


@pytest.fixture(scope="module")
def example() -> object:
    spec = importlib.util.spec_from_file_location("verification", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_threshold_is_the_best(example: object) -> None:
    same, other = torch.rand(30) + 0.3, torch.rand(30)
    best = example.accuracy(same, other, example.threshold(same, other))
    assert best == pytest.approx(max(example.accuracy(same, other, t.item()) for t in torch.cat([same, other])))
    assert example.threshold(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.3])) == pytest.approx(0.3)


def test_pairs_and_recall_longhand(example: object) -> None:
    features, labels = torch.randn(12, 3), torch.arange(12) % 3
    same, other = example.pairs(features, labels)
    longhand = [
        cosine_similarity(features[i], features[j], dim=0).item()
        for i, j in itertools.combinations(range(12), 2)
        if labels[i] == labels[j]
    ]
    assert sorted(same.tolist()) == pytest.approx(sorted(longhand), abs=1e-6)
    assert len(other) == len(same)
    for k in (1, 3):
        hits = 0
        for i in range(12):
            near = {j: cosine_similarity(features[i], features[j], dim=0).item() for j in range(12) if j != i}
            hits += any(labels[j] == labels[i] for j in sorted(near, key=near.get)[-k:])
        assert example.recall(features, labels, k) == pytest.approx(hits / 12)


@pytest.mark.parametrize("name", ["softmax", "NormFace", "AM-Softmax", "ArcFace", "SphereFace"])
def test_every_head_learns_the_digits(example: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "STEPS", 60)
    x, y = example.digits()
    known = y < 5
    network, head = example.train(name, x[known], y[known], seed=0)
    with torch.no_grad():
        assert (head(network(x[known])).argmax(1) == y[known]).float().mean() > 0.95
        assert example.recall(network(x[~known]), y[~known], 1) > 0.5
