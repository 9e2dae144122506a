"""The model: standardised features, hidden layers if there are any, and scores."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from lossfit.integrations.sklearn.sparse_rows import SparseRows

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid, "gelu": nn.GELU}


class Network(nn.Module):
    """A linear model or a network in float64, from features as they come (N, F) to scores (N, outputs).

    Args:
        sizes: features, units of the hidden layers, outputs.
        activation: after each hidden layer, one of ``ACTIVATIONS``.
        rng: of the first weights: uniform as by Glorot and Bengio, 2010, and 0 in a linear model and for biases.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, sizes: tuple[int, ...], activation: str, rng: np.random.RandomState) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(sizes[0], dtype=torch.float64))
        self.register_buffer("scale", torch.ones(sizes[0], dtype=torch.float64))
        self.layers = nn.Sequential()
        for fan_in, fan_out in pairwise(sizes):
            layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out, dtype=torch.float64)
            bound = math.sqrt(6 / (fan_in + fan_out)) if len(sizes) > 2 else 0.0
            drawn = rng.uniform(-bound, bound, (fan_out, fan_in))
            layer.weight.data.copy_(torch.from_numpy(drawn))
            layer.bias.data.zero_()
            self.layers.append(layer)
            self.layers.append(ACTIVATIONS[activation]())
        del self.layers[-1]

    def standardise_by(self, mean: np.ndarray, scale: np.ndarray) -> None:
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(scale))

    def standardised(self, x: np.ndarray | csr_matrix) -> Tensor | SparseRows:
        if not isinstance(x, np.ndarray):  # sparse, whose mean is taken for 0, so that zeros stay what they are
            return SparseRows(csr_matrix(x.multiply(1 / self.scale.numpy())))
        # A new tensor, since x may be read-only.
        return (torch.tensor(x, dtype=torch.float64) - self.mean) / self.scale

    def scores(self, x: Tensor | SparseRows) -> Tensor:
        """Scores (N, outputs) of standardised features."""
        if isinstance(x, SparseRows):
            first, *others = self.layers
            assert isinstance(first, nn.Linear)
            found = x.times(first.weight) + first.bias
            for layer in others:
                found = layer(found)
            return found
        scores: Tensor = self.layers(x)
        return scores

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers((x - self.mean) / self.scale)
        return scores

    @property
    def weights(self) -> list[Tensor]:
        """The matrices of the layers, without the biases."""
        return [parameter for parameter in self.parameters() if parameter.ndim == 2]

    def penalty(self, alpha: float) -> Tensor:
        return alpha / 2 * torch.stack([weight.square().sum() for weight in self.weights]).sum()


def logits(scores: Tensor) -> Tensor:
    """Scores (N, C), or (N, 1) of the second of two classes, to logits of all classes."""
    return scores if scores.shape[1] > 1 else torch.cat([torch.zeros_like(scores), scores], 1)
