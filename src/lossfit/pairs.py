"""Sums over all pairs of two sets of points, without the pairs: O(n log n) time, O(n) memory, float64.

For points y with weights w, everything here is a sum over the points, sum_j w_j k(y_j - x_i), at each place x_i. Its
terms have one sign, so that nothing cancels. Weights are at least 0, and there is at least one point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lossfit.losses.link import softplus

Sums = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(points, weights, places) -> the sum of a surrogate of the differences at each place, and the sum of its slope."""

# Up to so many pairs, the pairs themselves are faster (measured).
_FEW = 200_000
# Differences up to _NEAR boxes of width 2 go through polynomials of this many terms. What is farther away is taken
# as an exponential or a line, to e^-20 = 2e-9. The kernels have poles at +-i pi, which gives the polynomials 1e-11.
_NEAR = 10
_TERMS = 14


def square(points: Tensor, weights: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    origin = points[0]
    points, places, total = points - origin, places - origin, weights.sum()
    mean = weights @ points / total
    lead = mean - places
    return total * lead * lead + weights @ (points - mean) ** 2, 2 * total * lead


def hinge(points: Tensor, weights: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    count, reach, _ = _excess(points, weights, places)
    return reach, count


def squared_hinge(points: Tensor, weights: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    _, reach, squares = _excess(points, weights, places)
    return squares, 2 * reach


def logistic(points: Tensor, weights: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    value, slope = potential(("softplus", "sigmoid"), points, weights, places)
    return value, slope


def sigmoid(points: Tensor, weights: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    value, slope = potential(("sigmoid", "bell"), points, weights, places)
    return value, slope


SURROGATES: dict[str, Sums] = {
    "logistic": logistic,
    "squared_hinge": squared_hinge,
    "square": square,
    "hinge": hinge,
    "sigmoid": sigmoid,
}
"""Functions of the lead of a point over a place."""


def _excess(points: Tensor, weights: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The number of points above each place, the sum of their leads, and that of the squares."""
    points, order = points.sort()
    count, reach, squares = _above(points, weights[order])
    first = torch.searchsorted(points, places, right=True)
    lead = points[first.clamp(max=len(points) - 1)] - places
    n, by = count[first], reach[first]
    return n, by + n * lead, squares[first] + lead * (2 * by + n * lead)


def _above(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each of the sorted points: the weight from there on, with leads over it to the power 0, 1 and 2; then 0."""
    gap = points.diff()
    count = _from_right(weights)
    reach = pad(_from_right(count[1:] * gap), (0, 1))
    squares = pad(_from_right(gap * (2 * reach[1:] + count[1:] * gap)), (0, 1))
    return pad(count, (0, 1)), pad(reach, (0, 1)), pad(squares, (0, 1))


def _from_right(x: Tensor) -> Tensor:
    return x.flip(0).cumsum(0).flip(0)


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": softplus,
    "sigmoid": torch.sigmoid,
    "bell": lambda lead: torch.sigmoid(lead) * torch.sigmoid(-lead),
}
"""Each the slope of the one before."""


def potential(kernels: tuple[str, ...], points: Tensor, weights: Tensor, places: Tensor) -> list[Tensor]:
    """The sums of some of the KERNELS of the leads; to 1e-8 relative in each place."""
    if len(points) * len(places) <= _FEW:
        lead = points - places.unsqueeze(1)
        return [KERNELS[kernel](lead) @ weights for kernel in kernels]
    sources, targets = _boxes(points), _boxes(places)
    near = _near(kernels, sources, weights, targets)
    fall = _below(sources, weights, targets)
    sums = []
    for kernel, coefficients in zip(kernels, near, strict=True):
        if kernel == "bell":
            rise = _below(_mirrored(sources), weights, _mirrored(targets))
        else:
            rise = _far_above(sources, weights, targets, kernel == "softplus")
        sums.append(_series(coefficients, targets).add_(fall).add_(rise))
    return sums


class _Boxes(NamedTuple):
    """Points in boxes of width 2, of which only those are kept that are not empty.

    ``grid`` (boxes,) is the number of each box along the line, whole but in float64; ``of`` (n,) is each point's box,
    and ``local`` (n,) its place in the box, from -1 to 1.
    """

    grid: Tensor
    of: Tensor
    local: Tensor

    @property
    def centre(self) -> Tensor:
        return 2 * self.grid + 1

    def sums(self, weights: Tensor) -> Tensor:
        return torch.bincount(self.of, weights, minlength=len(self.grid))


def _boxes(points: Tensor) -> _Boxes:
    grid, of = torch.unique(torch.floor(points / 2), return_inverse=True)
    return _Boxes(grid, of, points - 2 * grid[of] - 1)


def _mirrored(boxes: _Boxes) -> _Boxes:
    return _Boxes(-1 - boxes.grid.flip(0), len(boxes.grid) - 1 - boxes.of, -boxes.local)


def _below(sources: _Boxes, weights: Tensor, targets: _Boxes) -> Tensor:
    """The sum of e^lead over the boxes far below a place, for each place."""
    mass = sources.sums(weights * sources.local.exp()).log() + sources.centre
    mass = pad(mass.logcumsumexp(0), (1, 0), value=-math.inf)
    scale = torch.exp(mass[torch.searchsorted(sources.grid, targets.grid - _NEAR)] - targets.centre)
    return scale[targets.of] * torch.exp(-targets.local)


def _far_above(sources: _Boxes, weights: Tensor, targets: _Boxes, linear: bool) -> Tensor:
    """The weight of the boxes far above a place, or the sum of the leads of what is in them, for each place."""
    edge = 2 * sources.grid
    count, reach, _ = _above(edge, sources.sums(weights))
    first = torch.searchsorted(sources.grid, targets.grid + _NEAR, right=True)
    number = count[first]
    if not linear:
        return number[targets.of]
    inside = pad(_from_right(sources.sums(weights * (sources.local + 1))), (0, 1))
    lead = edge[first.clamp(max=len(edge) - 1)] - targets.centre
    return (reach[first] + number * lead + inside[first])[targets.of] - number[targets.of] * targets.local


def _near(kernels: tuple[str, ...], sources: _Boxes, weights: Tensor, targets: _Boxes) -> Tensor:
    """The sum over the near boxes as a Chebyshev series in each target's box: (kernels, terms, boxes)."""
    moments = torch.stack([sources.sums(weights * term) for term in _chebyshev(sources.local)], 1)
    matrices = torch.cat([_matrices(kernel) for kernel in kernels], 2).to(moments.device)
    found = moments.new_zeros(len(targets.grid), matrices.shape[2])
    lowest = int((sources.grid[0] - targets.grid[-1]).clamp(min=-_NEAR))
    highest = int((sources.grid[-1] - targets.grid[0]).clamp(max=_NEAR))
    for offset in range(lowest, highest + 1):
        at = torch.searchsorted(sources.grid, targets.grid + offset).clamp_(max=len(sources.grid) - 1)
        hit = (sources.grid[at] - targets.grid == offset).nonzero().squeeze(1)
        found.index_add_(0, hit, moments[at[hit]] @ matrices[offset + _NEAR])
    return found.T.contiguous().view(len(kernels), _TERMS, -1)


def _chebyshev(x: Tensor) -> list[Tensor]:
    terms = [torch.ones_like(x), x]
    while len(terms) < _TERMS:
        terms.append(2 * x * terms[-1] - terms[-2])
    return terms


def _series(coefficients: Tensor, boxes: _Boxes) -> Tensor:
    """The Chebyshev series of each point's box at the point, by Clenshaw's rule."""
    x = boxes.local
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    for coefficient in coefficients[1:].flip(0):
        first, second = coefficient[boxes.of].add_(2 * x * first).sub_(second), first
    return coefficients[0][boxes.of].add_(x * first).sub_(second)


@cache
def _matrices(kernel: str) -> Tensor:
    """k(2 offset + s - t) as a Chebyshev series in s and t from -1 to 1, by offset: (offsets, terms of s, of t)."""
    number = torch.arange(_TERMS, dtype=torch.float64, device="cpu")
    angle = (number + 0.5) * (math.pi / _TERMS)
    transform = torch.cos(number.unsqueeze(1) * angle) * (2 / _TERMS)
    transform[0] /= 2
    node = angle.cos()
    offset = 2 * torch.arange(-_NEAR, _NEAR + 1, dtype=torch.float64, device="cpu").view(-1, 1, 1)
    return transform @ KERNELS[kernel](offset + node.unsqueeze(1) - node) @ transform.T
