"""Sparse features, such as those of TF-IDF: never made dense, whole or in mini-batches."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor


class SparseRows:
    """Rows of a sparse matrix (N, F) in the place of a dense tensor: taken by their numbers, and multiplied.

    Args:
        matrix: of float64.
    """

    def __init__(self, matrix: csr_matrix) -> None:
        self.matrix = matrix

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, at: Tensor | slice) -> SparseRows:
        return SparseRows(self.matrix[at if isinstance(at, slice) else at.numpy()])

    def times(self, weight: Tensor) -> Tensor:
        """The product with the transpose of a matrix (outputs, F)."""
        found: Tensor = _Product.apply(weight, self.matrix)
        return found


class _Product(torch.autograd.Function):
    """X W^T by SciPy, whose gradient with regard to W is G^T X."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, matrix: csr_matrix) -> Tensor:
        ctx.matrix = matrix
        return torch.from_numpy(np.ascontiguousarray(matrix @ weight.detach().numpy().T))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        gradient = ctx.matrix.T @ np.ascontiguousarray(grads[0].numpy())
        return torch.from_numpy(np.ascontiguousarray(gradient.T)), None


def row_keys(matrix: csr_matrix) -> list[bytes]:
    """The same for rows of the same entries."""
    matrix = matrix.copy()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    starts = matrix.indptr
    return [
        matrix.indices[a:b].astype(np.int64).tobytes() + b"|" + matrix.data[a:b].tobytes() for a, b in pairwise(starts)
    ]
