"""Sums over all pairs of two sets of points, without the pairs: O(n log n) time, O(n) memory, float64.

For points y with weights v, the sums here are over the points, sum_j v_j k(y_j - x_i), at each place x_i. Their terms
have one sign, so that nothing cancels. Weights are at least 0, and there is at least one point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, relu

from lossfit.core.limits import limits
from lossfit.losses.single_label.link import softplus

# Up to so many pairs of boxes, a matrix for each pair is faster than the pairs of one offset after the other.
_FEW_BOXES = 256
# Pairs looked at together, which stay in the cache.
_BLOCK = 1 << 17
# Numbers worked on together in what touches every point: PyTorch shares out larger blocks among its threads, which is
# slower the busier the machine is, and no faster for blocks that stay in the cache.
_SERIAL = (1 << 15) - 1
# Points and places are sorted into boxes of width 2. Boxes up to _NEAR apart meet through polynomials of _TERMS terms
# (the kernels have poles at +-i pi, so that these are exact to 1e-11), and those farther apart through the first
# _ORDERS exponentials of the kernels' expansions for large leads (exact to e^-24 = 4e-11).
_NEAR = 4
_ORDERS = 3
_TERMS = 14


class Sum(NamedTuple):
    """A sum over all pairs of a place x and a point y: its value, and its slopes by the lead, for each x and each y."""

    value: Tensor
    by_x: Tensor
    by_y: Tensor


class Surrogate(NamedTuple):
    """A function of the lead y - x, its slope, and the way to sum them over all pairs."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    fast: Callable[[Tensor, Tensor, Tensor, Tensor, bool], Sum]


def over_pairs(surrogate: Surrogate, x: Tensor, w: Tensor, y: Tensor, v: Tensor, *, wanted: bool, double: bool) -> Sum:
    """The sum of w_i v_j l(y_j - x_i) over all pairs.

    Args:
        wanted: whether the slopes are.
        double: whether pairs that are looked at alone need more than float32.
    """
    kind = torch.float64 if double else torch.float32
    if len(x) * len(y) > (limits().few_double_pairs if double else limits().few_pairs):
        return surrogate.fast(x, w, y, v, wanted)
    value, by_x, by_y = x.new_zeros(()), torch.empty_like(x), torch.zeros_like(y)
    single = v.to(kind)
    for at in _blocks(len(x), len(y), _BLOCK):
        lead = (y - x[at].unsqueeze(1)).to(kind)
        value += w[at] @ (surrogate.value(lead) @ single).double()
        if wanted:
            slope = surrogate.slope(lead)
            by_x[at] = (slope @ single).double()
            by_y += (w[at].to(kind) @ slope).double()
    return Sum(value, w * by_x, v * by_y)


def _blocks(rows: int, columns: int, size: int) -> list[slice]:
    step = max(1, size // columns)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _square(x: Tensor, w: Tensor, y: Tensor, v: Tensor, wanted: bool) -> Sum:
    origin = y[0]
    x, y, rows, columns = x - origin, y - origin, w.sum(), v.sum()
    mean_x, mean_y = w @ x / rows, v @ y / columns
    value = columns * (w @ (mean_y - x) ** 2) + rows * (v @ (y - mean_y) ** 2)
    return Sum(value, 2 * columns * w * (mean_y - x), 2 * rows * v * (y - mean_x))


def _hinge(x: Tensor, w: Tensor, y: Tensor, v: Tensor, wanted: bool) -> Sum:
    count, reach, _ = _excess(y, v, x)
    # Seen from y, upside down: the lead of -x over -y is that of y over x.
    mirrored = _excess(-x, w, -y)[0] if wanted else v
    return Sum(w @ reach, w * count, v * mirrored)


def _squared_hinge(x: Tensor, w: Tensor, y: Tensor, v: Tensor, wanted: bool) -> Sum:
    _, reach, squares = _excess(y, v, x)
    mirrored = _excess(-x, w, -y)[1] if wanted else v
    return Sum(w @ squares, 2 * w * reach, 2 * v * mirrored)


def _smooth(value: str, slope: str) -> Surrogate:
    """A surrogate from two of the KERNELS."""

    def fast(x: Tensor, w: Tensor, y: Tensor, v: Tensor, wanted: bool) -> Sum:
        places, points = Points(x), Points(y)
        if not wanted:
            return Sum(w @ potential((value,), points, v, places)[0], w, v)
        values, by_x = potential((value, slope), points, v, places)
        (by_y,) = potential((slope,), places.mirrored(), w, points.mirrored())
        return Sum(w @ values, w * by_x, v * by_y)

    return Surrogate(KERNELS[value].of, KERNELS[slope].of, fast)


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


SURROGATES = {
    "logistic": _smooth("softplus", "sigmoid"),
    "squared_hinge": Surrogate(lambda lead: relu(lead).square_(), lambda lead: 2 * relu(lead), _squared_hinge),
    "square": Surrogate(torch.square, lambda lead: 2 * lead, _square),
    "hinge": Surrogate(relu, lambda lead: (lead > 0).to(lead.dtype), _hinge),
    "sigmoid": _smooth("sigmoid", "bell"),
}


class Points:
    """Points on the line, and the boxes of width 2 that hold them."""

    def __init__(self, at: Tensor) -> None:
        self.at = at

    @cached_property
    def boxes(self) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes that are not empty, the box of each point, and the polynomials of its place there.

        The first are numbers along the line (boxes,), whole but in float64; the second indices into them (n,); the
        third Chebyshev's polynomials (n, terms) of the place, which goes from -1 to 1.
        """
        grid, of = torch.unique(torch.floor(self.at / 2), return_inverse=True)
        angle = torch.acos(self.at - 2 * grid[of] - 1)
        return grid, of, (angle.unsqueeze(1) * torch.arange(_TERMS, device=angle.device)).cos_()

    def mirrored(self) -> Points:
        """The points -x, in the mirrored boxes."""
        grid, of, terms = self.boxes
        points = Points(-self.at)
        odd = torch.arange(_TERMS, device=grid.device) % 2
        points.boxes = (-1 - grid.flip(0), len(grid) - 1 - of, terms * (1 - 2 * odd))
        return points


def potential(kernels: tuple[str, ...], points: Points, weights: Tensor, places: Points) -> list[Tensor]:
    """The sums of some of the KERNELS of the leads of the points, at each place; to 1e-9 relative."""
    if len(points.at) * len(places.at) <= limits().few_double_pairs:
        leads = points.at - places.at.unsqueeze(1)
        return [KERNELS[name].of(leads) @ weights for name in kernels]
    sources, of, terms = points.boxes
    targets, target_of, target_terms = places.boxes
    moments = terms.new_zeros(len(sources), _TERMS)
    for at in _blocks(len(of), _TERMS, _SERIAL):
        moments.index_add_(0, of[at], terms[at] * weights[at].unsqueeze(1))
    span = int(sources[0] - targets[-1]), int(sources[-1] - targets[0])
    series = _near(kernels, moments, sources, targets, span)
    if span[0] < -_NEAR or span[1] > _NEAR:
        _add_far(kernels, series, moments, sources, targets)
    return [_evaluate(found, target_of, target_terms) for found in series]


def _evaluate(series: Tensor, of: Tensor, terms: Tensor) -> Tensor:
    """The series of each point's box at the point."""
    return torch.cat([torch.linalg.vecdot(terms[at], series[of[at]]) for at in _blocks(len(of), _TERMS, _SERIAL)])


def _near(
    kernels: tuple[str, ...], moments: Tensor, sources: Tensor, targets: Tensor, span: tuple[int, int]
) -> list[Tensor]:
    """The sums over the near boxes as series in each target's box (boxes, terms), for each kernel."""
    matrices = torch.cat([_matrices(name) for name in kernels], 2).to(moments.device)
    if len(sources) * len(targets) <= _FEW_BOXES:
        offsets = sources - targets.unsqueeze(1)
        near = (offsets.abs() <= _NEAR).unsqueeze(2).unsqueeze(3)
        each = matrices[offsets.clamp(-_NEAR, _NEAR).long() + _NEAR] * near
        found = moments.flatten() @ each.flatten(1, 2)
        return list(found.split(_TERMS, 1))
    found = moments.new_zeros(len(targets), matrices.shape[2])
    lowest, highest = max(span[0], -_NEAR), min(span[1], _NEAR)
    at, ends = torch.searchsorted(sources, targets + lowest), pad(sources, (0, 1), value=math.inf)
    for offset in range(lowest, highest + 1):
        met = ends[at] - targets == offset
        hit = met.nonzero().squeeze(1)
        found.index_add_(0, hit, moments[at[hit]] @ matrices[offset + _NEAR])
        at += met
    return list(found.split(_TERMS, 1))


def _add_far(kernels: tuple[str, ...], series: list[Tensor], moments: Tensor, sources: Tensor, targets: Tensor) -> None:
    """Add the sums over the far boxes to the series of each kernel."""
    grow, shrink = _exponentials().to(moments.device)
    fall = _far_below(moments @ grow.T, sources, targets)
    rise = _far_below((moments @ shrink.T).flip(0), -sources.flip(0), -targets.flip(0)).flip(0)
    number, lead = _far_above(moments, sources, targets)
    for name, found in zip(kernels, series, strict=True):
        kernel = KERNELS[name]
        factor = fall.new_tensor(kernel.expansion).unsqueeze(1)
        found.addmm_(fall, factor * shrink).addmm_(rise, kernel.sign * factor * grow)
        if kernel.line == "one":
            found[:, 0] += number
        elif kernel.line == "lead":
            found[:, 0] += lead
            found[:, 1] -= number


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
