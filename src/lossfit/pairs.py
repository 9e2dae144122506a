"""Sums over all pairs of two sets of points, without the pairs: O(n log n) time, O(n) memory, float64.

For points y with weights w, everything here is a sum over the points, sum_j w_j k(y_j - x_i), at each place x_i. Its
terms have one sign, so that nothing cancels. Weights are at least 0, and there is at least one point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lossfit.losses.link import softplus

Sums = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(points, weights, places) -> the sum of a surrogate of the differences at each place, and the sum of its slope."""

# Up to so many pairs, the pairs themselves are faster (measured).
_FEW = 200_000
# Points and places are sorted into boxes of width 2. Boxes up to _NEAR apart meet through polynomials of _TERMS terms
# (the kernels have poles at +-i pi, so that these are exact to 1e-11), and those farther apart through the first
# _ORDERS exponentials of the kernels' expansions for large leads (exact to e^-24 = 4e-11).
_NEAR = 4
_ORDERS = 3
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


class _Kernel(NamedTuple):
    """A function k of the lead, with k(v) = sum_n a_n e^(n v) far below 0, and k(v) = line +- k(-v)."""

    of: Callable[[Tensor], Tensor]
    expansion: tuple[float, ...]
    line: Literal["lead", "one", "zero"]
    sign: int


KERNELS = {
    "softplus": _Kernel(softplus, (1, -1 / 2, 1 / 3), "lead", 1),
    "sigmoid": _Kernel(torch.sigmoid, (1, -1, 1), "one", -1),
    "bell": _Kernel(lambda lead: torch.sigmoid(lead) * torch.sigmoid(-lead), (1, -2, 3), "zero", 1),
}
"""Each is the slope of the one before."""


def potential(kernels: tuple[str, ...], points: Tensor, weights: Tensor, places: Tensor) -> list[Tensor]:
    """The sums of some of the KERNELS of the leads; to 1e-9 relative at each place."""
    if len(points) * len(places) <= _FEW:
        lead = points - places.unsqueeze(1)
        return [KERNELS[name].of(lead) @ weights for name in kernels]
    sources, targets = _boxes(points), _boxes(places)
    moments = torch.stack([torch.bincount(sources.of, weights * term) for term in _chebyshev(sources.local)], 1)
    series = _near(kernels, moments, sources.grid, targets.grid)
    grow, shrink = _exponentials().to(moments.device)
    fall = _far_below(moments @ grow.T, sources.grid, targets.grid)
    rise = _far_below((moments @ shrink.T).flip(0), -sources.grid.flip(0), -targets.grid.flip(0)).flip(0)
    number, lead = _far_above(moments, sources.grid, targets.grid)
    for name, found in zip(kernels, series, strict=True):
        kernel = KERNELS[name]
        factor = fall.new_tensor(kernel.expansion).unsqueeze(1)
        found.addmm_(fall, factor * shrink).addmm_(rise, kernel.sign * factor * grow)
        if kernel.line == "one":
            found[:, 0] += number
        elif kernel.line == "lead":
            found[:, 0] += lead
            found[:, 1] -= number
    return [_evaluate(found, targets) for found in series]


class _Boxes(NamedTuple):
    """Points in boxes of width 2, of which only those are kept that are not empty.

    ``grid`` (boxes,) is the number of each box along the line, whole but in float64; ``of`` (n,) is each point's box,
    and ``local`` (n,) its place in the box, from -1 to 1.
    """

    grid: Tensor
    of: Tensor
    local: Tensor


def _boxes(points: Tensor) -> _Boxes:
    grid, of = torch.unique(torch.floor(points / 2), return_inverse=True)
    return _Boxes(grid, of, points - 2 * grid[of] - 1)


def _near(kernels: tuple[str, ...], moments: Tensor, sources: Tensor, targets: Tensor) -> list[Tensor]:
    """The sums over the near boxes as series in each target's box (boxes, terms), for each kernel."""
    matrices = torch.cat([_matrices(name) for name in kernels], 2).to(moments.device)
    found = moments.new_zeros(len(targets), matrices.shape[2])
    lowest = int((sources[0] - targets[-1]).clamp(min=-_NEAR))
    highest = int((sources[-1] - targets[0]).clamp(max=_NEAR))
    at, ends = torch.searchsorted(sources, targets + lowest), pad(sources, (0, 1), value=math.inf)
    for offset in range(lowest, highest + 1):
        met = ends[at] - targets == offset
        hit = met.nonzero().squeeze(1)
        found.index_add_(0, hit, moments[at[hit]] @ matrices[offset + _NEAR])
        at += met
    return list(found.split(_TERMS, 1))


def _far_below(masses: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """The sums of e^(n lead), n = 1, 2, .., over the boxes far below, at the middle of each target's box.

    Args:
        masses: the sums of e^(n local) in each source's box (boxes, orders).
    """
    order = torch.arange(1, _ORDERS + 1, device=masses.device)
    levels = pad((masses.log() + order * (2 * sources).unsqueeze(1)).logcumsumexp(0), (0, 0, 1, 0), value=-math.inf)
    level = levels[torch.searchsorted(sources, targets - _NEAR)]
    sums: Tensor = torch.exp(level - order * (2 * targets).unsqueeze(1))
    return sums


def _far_above(moments: Tensor, sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The weight in the boxes far above each target's box, and the sum of the leads over its centre."""
    left = 2 * sources
    count, reach, _ = _above(left, moments[:, 0])
    inside = pad(_from_right(moments[:, 0] + moments[:, 1]), (0, 1))
    first = torch.searchsorted(sources, targets + _NEAR, right=True)
    lead = left[first.clamp(max=len(left) - 1)] - (2 * targets + 1)
    return count[first], reach[first] + count[first] * lead + inside[first]


def _chebyshev(x: Tensor) -> list[Tensor]:
    terms = [torch.ones_like(x), x]
    while len(terms) < _TERMS:
        terms.append(2 * x * terms[-1] - terms[-2])
    return terms


def _evaluate(series: Tensor, boxes: _Boxes) -> Tensor:
    """The Chebyshev series of each point's box (boxes, terms) at the point, by Clenshaw's rule."""
    x = boxes.local
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    constant, *coefficients = series.T.contiguous().unbind()
    for coefficient in reversed(coefficients):
        first, second = coefficient[boxes.of].add_(2 * x * first).sub_(second), first
    return constant[boxes.of].add_(x * first).sub_(second)


def _nodes() -> tuple[Tensor, Tensor]:
    """Places from -1 to 1, and the matrix from a function's values there to its Chebyshev series."""
    number = torch.arange(_TERMS, dtype=torch.float64, device="cpu")
    angle = (number + 0.5) * (math.pi / _TERMS)
    transform = torch.cos(number.unsqueeze(1) * angle) * (2 / _TERMS)
    transform[0] /= 2
    return angle.cos(), transform


@cache
def _matrices(kernel: str) -> Tensor:
    """k(2 offset + s - t) as a Chebyshev series in s and t from -1 to 1, by offset: (offsets, terms of s, of t)."""
    node, transform = _nodes()
    offset = 2 * torch.arange(-_NEAR, _NEAR + 1, dtype=torch.float64, device="cpu").view(-1, 1, 1)
    return transform @ KERNELS[kernel].of(offset + node.unsqueeze(1) - node) @ transform.T


@cache
def _exponentials() -> Tensor:
    """e^(n t) and e^(-n t), n = 1, 2, .., as Chebyshev series: (2, orders, terms)."""
    node, transform = _nodes()
    grow = torch.arange(1, _ORDERS + 1, dtype=torch.float64, device="cpu").unsqueeze(1) * node
    return torch.stack([grow.exp(), (-grow).exp()]) @ transform.T
