"""Sums of raw counts per group, and how far sampling alone moves the pseudobulk made of them.

The pseudobulk of a group is b = log1p(T·P/S), P its counts of a gene, S of all genes, T a constant.
The delete-one jackknife estimates its sampling variance: leave out each cell in turn and see how b
moves. Nothing is computed cell by cell for zeros. A cell without the gene moves b by
log1p(a·w), a = TP/(S + TP), w = l/(S - l) with l its library size, and the sums of this and of its
square over a group's cells are power series in a, whose coefficients are moments of w.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.kernels.blocks import column_entries
from harness.kernels.jit import compiled
from harness.kernels.threads import in_threads

if TYPE_CHECKING:
    from harness.kernels.groups import Groups

BULK_TOTAL = 5e4
"""The total that a pseudobulk is scaled to in the 2026 challenge."""

SERIES_BELOW = 0.2
"""Largest w for which a group's zeros are summed by series; others are summed cell by cell."""

N_TERMS = 24
"""Terms of the series: 0.2 to the power of 24 is below the last bit of float64."""

_TILE = 64


@dataclass(frozen=True, slots=True)
class CountSums:
    """What a block of genes says of every group; each (n_groups, width) but the last.

    Parameters
    ----------
    counts
        Sum of raw counts.
    shares
        Sum over cells of count / library size.
    noise
        (n_groups,) sum over the block's genes of n times the jackknife variance of the pseudobulk
        over n - 1, that is, of the squared deviations of what leaving out a cell does.
    """

    counts: np.ndarray
    shares: np.ndarray
    noise: np.ndarray


@dataclass(frozen=True)
class Depths:
    """What the jackknife needs of library sizes; the same for every block.

    Parameters
    ----------
    sizes
        (n_cells,) library size of each cell.
    totals
        (n_groups,) their sum over each group.
    weights
        (n_cells,) w of the module's docstring; 0 where a cell has all of its group's counts.
    rest
        (n_cells,) counts of the group's other cells.
    moments
        (n_groups, N_TERMS) sums of powers of w over the cells that have a finite one.
    alone
        (n_groups,) number of cells that have all of their group's counts.
    series
        (n_groups,) bool: whether w is small enough for the series.
    members, starts
        Cells ordered by group; where each group begins, and after the last where it ends.
    """

    sizes: np.ndarray
    totals: np.ndarray
    weights: np.ndarray
    rest: np.ndarray
    moments: np.ndarray
    alone: np.ndarray
    series: np.ndarray
    members: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, sizes: np.ndarray, groups: Groups) -> Depths:
        """Prepare for cells of these library sizes in these groups."""
        sizes = np.asarray(sizes, np.float64)
        grouped = groups.codes >= 0
        codes, n_groups = groups.codes[grouped], groups.n_groups
        totals = np.bincount(codes, weights=sizes[grouped], minlength=n_groups)
        rest = np.zeros(len(sizes))
        rest[grouped] = totals[codes] - sizes[grouped]
        weights = np.divide(sizes, rest, out=np.zeros_like(sizes), where=rest > 0)
        moments = np.empty((n_groups, N_TERMS))
        power = np.ones(int(grouped.sum()))
        for term in range(N_TERMS):
            power *= weights[grouped]
            moments[:, term] = np.bincount(codes, weights=power, minlength=n_groups)
        largest = np.zeros(n_groups)
        np.maximum.at(largest, codes, weights[grouped])
        lonely = ((rest <= 0) & (sizes > 0))[grouped]
        order = np.argsort(groups.codes, kind="stable")
        return cls(
            sizes=sizes,
            totals=totals,
            weights=weights,
            rest=rest,
            moments=moments,
            alone=np.bincount(codes[lonely], minlength=n_groups),
            series=largest <= SERIES_BELOW,
            members=order.astype(np.int32),
            starts=np.searchsorted(groups.codes[order], np.arange(n_groups + 1)),
        )


def count_sums(
    block: Any, groups: Groups, depths: Depths, target: float, *, threads: int = 1
) -> CountSums:
    """Sum the counts of a block of genes in every group, and the jackknife's deviations.

    Parameters
    ----------
    block
        (n_cells, width) raw counts, dense or SciPy CSC.
    groups, depths
        The group of each cell; `Depths.of` the library sizes and these groups.
    target
        The total that a pseudobulk is scaled to: T of the module's docstring.
    threads
        How many threads share the genes; the result does not depend on it.
    """
    width = block.shape[1]
    sparse = getattr(block, "format", "dense") == "csc"
    counts, shares = np.zeros((width, groups.n_groups)), np.zeros((width, groups.n_groups))
    noise = np.zeros((width, groups.n_groups))
    cells = (groups.codes, depths.sizes, depths.weights, depths.rest)
    of_groups = (
        groups.sizes(),
        depths.totals,
        depths.moments,
        depths.alone,
        depths.series,
        depths.members,
        depths.starts,
    )

    def fill(start: int) -> None:
        stop = min(start + _TILE, width)
        results = (counts[start:stop], shares[start:stop], noise[start:stop])
        if sparse:
            entries = (block.data, block.indices, block.indptr[start : stop + 1])
        else:
            entries = column_entries(np.asarray(block)[:, start:stop])
        _sum_columns(entries, cells, of_groups, target, results)

    in_threads(fill, range(0, width, _TILE), threads)
    return CountSums(counts.T, shares.T, noise.sum(axis=0))


@compiled
def _log1p(x):
    """Logarithm of 1 + x; by its series where that is exact, which takes a third of the time."""
    if -0.02 < x < 0.02:
        total = 0.0
        for k in range(9, 0, -1):
            total = x * ((1.0 / k) - total)
        return total
    return math.log1p(x)


@compiled
def _sum_columns(entries, cells, groups, target, results):
    """Fill the results of some columns; the tuples are as `count_sums` makes them."""
    data, rows, starts = entries
    counts, shares, noise = results
    n_groups = groups[0].size
    moved = np.empty((n_groups, 2))
    slope = np.empty(n_groups)
    for column in range(starts.size - 1):
        here = slice(starts[column], starts[column + 1])
        _add_counts(data[here], rows[here], cells, counts[column], shares[column])
        _leave_out_zeros(counts[column], cells, groups, target, slope, moved)
        _leave_out_others(data[here], rows[here], cells, target, slope, moved)
        for code in range(n_groups):
            if slope[code] > 0.0:
                mean = moved[code, 0] / groups[0][code]
                noise[column, code] = moved[code, 1] - moved[code, 0] * mean


@compiled
def _add_counts(data, rows, cells, counts, shares):
    codes, sizes = cells[0], cells[1]
    for k in range(data.size):
        code = codes[rows[k]]
        if code >= 0 and sizes[rows[k]] > 0.0:
            counts[code] += data[k]
            shares[code] += data[k] / sizes[rows[k]]


@compiled
def _leave_out_zeros(counts, cells, groups, target, slope, moved):
    """Start each group's sums as if none of its cells had counts of the gene."""
    weights = cells[2]
    n_cells, totals, moments, alone, series, members, firsts = groups
    for code in range(counts.size):
        scaled = target * counts[code] / totals[code] if totals[code] > 0.0 else 0.0
        if n_cells[code] < 2:
            scaled = 0.0
        slope[code] = scaled / (1.0 + scaled)
        # The cell that has all of a group's counts leaves a group of none, whose pseudobulk is 0.
        level = math.log1p(scaled)
        moved[code, 0], moved[code, 1] = -alone[code] * level, alone[code] * level * level
        if scaled == 0.0:
            continue
        if series[code]:
            _add_series(slope[code], moments[code], moved[code])
            continue
        for at in range(firsts[code], firsts[code + 1]):
            step = math.log1p(slope[code] * weights[members[at]])
            moved[code, 0] += step
            moved[code, 1] += step * step


@compiled
def _leave_out_others(data, rows, cells, target, slope, moved):
    """Replace what was assumed for the cells that do have counts of the gene."""
    codes, _, weights, rest = cells
    for k in range(data.size):
        row = rows[k]
        code = codes[row]
        if code < 0 or slope[code] == 0.0 or rest[row] <= 0.0:
            continue
        without = slope[code] * weights[row]
        own = target * data[k] / rest[row] * (1.0 - slope[code])
        step, assumed = _log1p(without - own), _log1p(without)
        moved[code, 0] += step - assumed
        moved[code, 1] += step * step - assumed * assumed


@compiled
def _add_series(slope, moments, moved):
    """Add up log1p(slope·w) and its square over the cells whose moments are given."""
    power, harmonic, sign = 1.0, 0.0, 1.0
    for term in range(moments.size):
        power *= slope
        k = term + 1
        moved[0] += sign * power * moments[term] / k
        moved[1] -= sign * 2.0 * harmonic * power * moments[term] / k
        harmonic += 1.0 / k
        sign = -sign
