"""Maps from a predicted profile to cells: arrays in, arrays out.

All values are on the log1p scale. `shift_controls` adds the predicted effect to control cells;
`ControlQuantiles` replaces each control value by the value of the same rank in a distribution that
has the predicted mean.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy.special import nbdtrik

from harness.kernels.jit import compiled
from harness.kernels.threads import available_threads, in_threads

_FOLDS = 2.0 ** np.arange(-8, 9)
"""Fold changes of a gene's mean count for which the mean on the log1p scale is tabulated."""

_LEAST_FOLD = 1e-6
"""No fold change goes below this, or above its inverse; the last factor does the rest."""

_REFINEMENTS = 2
"""How often the fold change that was read from the table is corrected by the mean that it gives."""

_FEW_ZEROS = 5
"""With fewer zeros a gene's share of zeros is that of its distribution."""

_LEVELS = 64
"""Quantiles that are kept of the values above zero of each gene."""

_LOG_MEANS = np.log(2.0) * np.arange(-8, 9.5, 0.5)
_LOG_SIZES = np.log(10.0) * np.arange(-1, 3.5, 0.5)
_MEANS, _SIZES = np.exp(_LOG_MEANS), np.exp(_LOG_SIZES)
"""Means and sizes for which quantiles of negative binomial counts are tabulated."""

_WIDTH = 256
"""Genes that a thread works on together."""


def shift_controls(controls: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Add an effect to control cells, and cut off at 0.

    Parameters
    ----------
    controls
        (n_cells, n_genes) float32. Not changed.
    effect
        (n_genes,) what is added to each gene.

    Returns
    -------
    (n_cells, n_genes) float32.
    """
    cells: np.ndarray = controls + effect.astype(np.float32)
    np.maximum(cells, 0, out=cells)
    return cells


class ControlQuantiles:
    """The distribution of each gene over control cells, moved to the mean of a profile.

    Counts are taken to be negative binomial, with the gene's own mean λ and size r (inverse
    overdispersion) in the controls. A fold change f of the mean changes the share q of cells with
    any count (of the distribution, where the controls have fewer than five zeros) to

        q(f) = 1 - (1 - q) ^ (log(1 + f λ / r) / log(1 + λ / r))

    and multiplies the k-th quantile of the values above zero by the ratio of the k-th quantiles of
    the two distributions above zero, before log1p. So f = 1 gives the controls' own distribution,
    whatever it is. f is chosen for the predicted mean; a last factor on the log1p scale, near 1,
    makes the mean exact.

    A cell keeps its rank in each gene. Equal control values, zeros above all, are ordered by the
    cells' positions, from another cell on in each gene. So what a gene's values are depends on the
    distribution in the controls, the profile and the number of cells alone.

    Parameters
    ----------
    controls
        (n_controls, n_genes) float32 log1p values of at least 0.
    order
        (n_controls,) the order in which cells are taken: n cells are made from the first n
        controls, again from the first where there are fewer. None: as they stand.
    threads
        How many threads share the genes; the result does not depend on it.
    """

    def __init__(
        self,
        controls: np.ndarray,
        threads: int | None = None,
        order: np.ndarray | None = None,
    ) -> None:
        self.n_controls, self.n_genes = controls.shape
        self._threads = threads or available_threads()
        small = np.uint16 if self.n_controls <= np.iinfo(np.uint16).max else np.uint32
        self._order = np.empty((self.n_genes, self.n_controls), dtype=small)
        self._levels = np.empty((self.n_genes, _LEVELS))
        self._moments = np.empty((self.n_genes, 3))  # q, λ, r
        self._means = np.empty((self.n_genes, len(_FOLDS)))
        unit = _unit(controls)

        def fit(first: int) -> None:
            genes = slice(first, first + _WIDTH)
            some = controls[:, genes] if order is None else controls[order, genes]
            levels, moments = self._levels[genes], self._moments[genes]
            _fit(np.ascontiguousarray(some.T), first, unit, self._order[genes], levels, moments)
            _tabulate(levels, moments, _FOLDS, _quantile_table(), self._means[genes])

        in_threads(fit, range(0, self.n_genes, _WIDTH), self._threads)

    def cells(self, profile: np.ndarray, n_cells: int) -> np.ndarray:
        """Make cells whose mean is the profile, or 0 where that is negative.

        Parameters
        ----------
        profile
            (n_genes,) log1p values. One that is not finite becomes the gene's value in all cells.
        n_cells
            How many cells.

        Returns
        -------
        (n_cells, n_genes) float32. A gene's values do not decrease with those of the controls.
        """
        means = np.maximum(np.asarray(profile, dtype=np.float64), 0)
        cells = np.zeros((n_cells, self.n_genes), dtype=np.float32)

        def make(first: int) -> None:
            genes = slice(first, first + _WIDTH)
            shift = np.array(
                [
                    np.interp(mean, known, np.log(_FOLDS))
                    for mean, known in zip(means[genes], self._means[genes], strict=True)
                ]
            )
            _make(
                means[genes],
                np.exp(shift),
                self._order[genes],
                self._levels[genes],
                self._moments[genes],
                _quantile_table(),
                cells[:, genes],
            )

        in_threads(make, range(0, self.n_genes, _WIDTH), self._threads)
        return cells


@cache
def _quantile_table() -> np.ndarray:
    """Return quantiles above zero of negative binomial counts: (n_means, n_sizes, n_levels).

    Means are `_MEANS`, sizes `_SIZES`; the largest stands for the Poisson distribution.
    """
    mean, size = _MEANS[:, None, None], _SIZES[:, None]
    share = (np.arange(_LEVELS) + 0.5) / _LEVELS
    of_zero = np.exp(-size * np.log1p(mean / size))
    quantiles: np.ndarray = np.ceil(
        nbdtrik(of_zero + share * (1 - of_zero), size, size / (size + mean))
    )
    np.maximum(quantiles, 1.0, out=quantiles)
    return quantiles


def _unit(controls: np.ndarray) -> float:
    """Return about what one count is, before log1p: the median cell's least value above zero."""
    least = np.full(len(controls), np.inf)
    for first in range(0, controls.shape[1], _WIDTH):  # no copy of all controls
        block = controls[:, first : first + _WIDTH]
        np.minimum(least, np.where(block > 0, block, np.inf).min(axis=1), out=least)
    found = least[np.isfinite(least)]
    return float(np.expm1(np.median(found))) if found.size else 1.0


@compiled
def _fit(columns: Any, first: int, unit: float, order: Any, levels: Any, moments: Any) -> None:
    n_genes, n = columns.shape
    n_levels = levels.shape[1]
    for g in range(n_genes):
        # Equal values are ordered from another cell on in each gene.
        start = ((first + g) * 2654435761) % n
        positive = np.empty(n, dtype=np.int64)
        n_zero = n_positive = 0
        for i in range(n):
            row = (start + i) % n
            if columns[g, row] > 0:
                positive[n_positive] = row
                n_positive += 1
            else:
                order[g, n_zero] = row
                n_zero += 1
        values = np.empty(n_positive)
        for i in range(n_positive):
            values[i] = np.expm1(columns[g, positive[i]])
        ranked = np.argsort(values, kind="mergesort")
        total = squared = 0.0
        for i in range(n_positive):
            order[g, n_zero + i] = positive[ranked[i]]
            total += values[i] / unit
            squared += (values[i] / unit) ** 2
        if not n_positive:  # as if found once in two times as many cells
            levels[g] = unit
            moments[g, 0], moments[g, 1], moments[g, 2] = 0.5 / n, 0.5 / n, _SIZES[-1]
            continue
        for k in range(n_levels):
            levels[g, k] = _at(values, ranked, (k + 0.5) / n_levels)
        mean = total / n
        extra = squared / n - mean * mean - mean
        size = mean * mean / extra if extra > 0 else _SIZES[-1]
        size = min(max(size, _SIZES[0]), _SIZES[-1])
        share = n_positive / n
        if n_zero < _FEW_ZEROS:  # too few to count; the distribution tells how many to expect
            share = 1 - (1 + mean / size) ** -size
        moments[g, 0], moments[g, 1], moments[g, 2] = share, mean, size


@compiled
def _at(values: Any, ranked: Any, share: float) -> Any:
    """Return a quantile of values, between the two that are next to it."""
    n = len(values)
    at = min(max(share * n - 0.5, 0.0), n - 1.0)
    low = int(at)
    below, above = values[ranked[low]], values[ranked[min(low + 1, n - 1)]]
    return below + (at - low) * (above - below)


@compiled
def _tabulate(levels: Any, moments: Any, folds: Any, table: Any, means: Any) -> None:
    moved = np.empty(levels.shape[1])
    for g in range(len(levels)):
        for f in range(len(folds)):
            share = _move(levels[g], moments[g], folds[f], table, moved)
            means[g, f] = share * np.log1p(moved).mean()


@compiled
def _move(levels: Any, moments: Any, fold: float, table: Any, moved: Any) -> Any:
    """Write a gene's levels at a fold change, and return the share of cells above zero."""
    share, mean, size = moments
    column = _place(size, _LOG_SIZES)
    old, new = _place(mean, _LOG_MEANS), _place(mean * fold, _LOG_MEANS)
    # Beyond the largest mean of the table, quantiles grow with the mean.
    beyond = max(mean * fold / _MEANS[-1], 1.0) / max(mean / _MEANS[-1], 1.0)
    for k in range(len(moved)):
        ratio = _quantile(table, new, column, k) / _quantile(table, old, column, k)
        moved[k] = levels[k] * ratio * beyond
        if k and moved[k] < moved[k - 1]:
            moved[k] = moved[k - 1]
    return 1 - (1 - share) ** (np.log1p(mean * fold / size) / np.log1p(mean / size))


@compiled
def _place(value: float, logs: Any) -> Any:
    """Return between which two of evenly spaced logarithms a value lies, and how far along."""
    at = min(max((np.log(value) - logs[0]) / (logs[1] - logs[0]), 0.0), len(logs) - 1.0)
    low = min(int(at), len(logs) - 2)
    return low, at - low


@compiled
def _quantile(table: Any, row: Any, column: Any, level: int) -> Any:
    i, x = row
    j, y = column
    left = table[i, j, level] * (1 - x) + table[i + 1, j, level] * x
    right = table[i, j + 1, level] * (1 - x) + table[i + 1, j + 1, level] * x
    return left * (1 - y) + right * y


@compiled
def _make(  # noqa: PLR0913 - the arrays that `_fit` filled
    profile: Any, folds: Any, order: Any, levels: Any, moments: Any, table: Any, cells: Any
) -> None:
    n, n_controls = cells.shape[0], order.shape[1]
    n_levels = levels.shape[1]
    moved, values = np.empty(n_levels), np.empty(n)
    for g in range(len(profile)):
        if not np.isfinite(profile[g]):
            cells[:, g] = profile[g]  # the writer refuses it, by the gene's name
            continue
        if profile[g] <= 0:
            continue
        fold = folds[g]
        for _ in range(_REFINEMENTS):
            share = _move(levels[g], moments[g], fold, table, moved)
            fold *= profile[g] / (share * np.log1p(moved).mean())
            fold = min(max(fold, _LEAST_FOLD), 1 / _LEAST_FOLD)
        share = _move(levels[g], moments[g], fold, table, moved)
        n_positive = min(max(round(share * n), 1), n)
        total = 0.0
        for i in range(n_positive):
            at = min(max((i + 0.5) / n_positive * n_levels - 0.5, 0.0), n_levels - 1.0)
            low = int(at)
            high = min(low + 1, n_levels - 1)
            values[i] = np.log1p(moved[low] + (at - low) * (moved[high] - moved[low]))
            total += values[i]
        exact = profile[g] * n / total
        rank = 0
        for i in range(n_controls):
            row = np.int64(order[g, i])
            while row < n:
                if rank >= n - n_positive:
                    cells[row, g] = values[rank - (n - n_positive)] * exact
                rank += 1
                row += n_controls
