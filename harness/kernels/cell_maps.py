"""Maps from a predicted profile to cells: arrays in, arrays out.

All values are on the log1p scale. `shift_controls` adds the predicted effect to control cells;
`ControlQuantiles` replaces each control value by the value of the same rank in a distribution that
has the predicted mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.kernels.jit import compiled
from harness.kernels.threads import available_threads, in_threads

_FOLDS = 2.0 ** np.arange(-8, 8.5, 0.5)
"""Fold changes of a gene's mean count for which the mean on the log1p scale is tabulated."""

_LEVELS = 64
"""Quantiles that are kept of the values above zero of each gene."""

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

    A fold change f of the mean count changes the share of cells with any count from q to

        q(f) = 1 - (1 - q)^f

    which is exact where counts are Poisson distributed, and uses the gene's own share of zeros
    where they are overdispersed. Among cells with a count, values keep the gene's own quantiles,
    multiplied by f q / q(f) before log1p, so that the mean count is f times what it was. f is
    chosen for the predicted mean; a last factor on the log1p scale, near 1, makes the mean exact.

    A cell keeps its rank in each gene. Equal control values, zeros above all, are ordered by the
    cells' positions, from another cell on in each gene. So what a gene's values are depends on the
    distribution in the controls, the profile and the number of cells alone.

    Parameters
    ----------
    controls
        (n_controls, n_genes) float32 log1p values of at least 0, in the order in which cells are
        taken: n cells are made from the first n controls, again from the first where there are
        fewer.
    threads
        How many threads share the genes; the result does not depend on it.
    """

    def __init__(self, controls: np.ndarray, threads: int | None = None) -> None:
        self.n_controls, self.n_genes = controls.shape
        self._threads = threads or available_threads()
        small = np.uint16 if self.n_controls <= np.iinfo(np.uint16).max else np.uint32
        self._order = np.empty((self.n_genes, self.n_controls), dtype=small)
        self._share = np.empty(self.n_genes)
        self._levels = np.empty((self.n_genes, _LEVELS))
        self._means = np.empty((self.n_genes, len(_FOLDS)))
        unit = _unit(controls)

        def fit(first: int) -> None:
            genes = slice(first, first + _WIDTH)
            columns = np.ascontiguousarray(controls[:, genes].T)
            _fit(
                columns,
                first,
                unit,
                _FOLDS,
                self._order[genes],
                self._share[genes],
                self._levels[genes],
                self._means[genes],
            )

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
            _make(
                means[genes],
                _FOLDS,
                self._order[genes],
                self._share[genes],
                self._levels[genes],
                self._means[genes],
                cells[:, genes],
            )

        in_threads(make, range(0, self.n_genes, _WIDTH), self._threads)
        return cells


def _unit(controls: np.ndarray) -> float:
    """Return about what one count is, before log1p: the median cell's least value above zero."""
    least = np.full(len(controls), np.inf)
    for first in range(0, controls.shape[1], _WIDTH):  # no copy of all controls
        block = controls[:, first : first + _WIDTH]
        np.minimum(least, np.where(block > 0, block, np.inf).min(axis=1), out=least)
    found = least[np.isfinite(least)]
    return float(np.expm1(np.median(found))) if found.size else 1.0


@compiled
def _fit(  # noqa: PLR0913 - one pass over a gene fills all arrays
    columns: Any,
    first: int,
    unit: float,
    folds: Any,
    order: Any,
    share: Any,
    levels: Any,
    means: Any,
) -> None:
    n_genes, n = columns.shape
    for g in range(n_genes):
        # Equal values are ordered from another cell on in each gene.
        start = ((first + g) * 2654435761) % n
        n_zero = 0
        positive = np.empty(n, dtype=np.int64)
        n_positive = 0
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
            values[i] = columns[g, positive[i]]
        ranked = np.argsort(values, kind="mergesort")
        for i in range(n_positive):
            order[g, n_zero + i] = positive[ranked[i]]
        # A gene that no control has counts as found once in two times as many cells.
        q = max(n_positive, 0.5) / n
        share[g] = q
        n_levels = levels.shape[1]
        for k in range(n_levels):
            levels[g, k] = unit
            if n_positive:
                at = min(max((k + 0.5) / n_levels * n_positive - 0.5, 0.0), n_positive - 1.0)
                low = int(at)
                high = min(low + 1, n_positive - 1)
                below, above = values[ranked[low]], values[ranked[high]]
                levels[g, k] = np.expm1(below + (at - low) * (above - below))
        for f in range(len(folds)):
            found = 1 - (1 - q) ** folds[f]
            total = 0.0
            for k in range(n_levels):
                total += np.log1p(levels[g, k] * folds[f] * q / found)
            means[g, f] = found * total / n_levels


@compiled
def _make(  # noqa: PLR0913 - the arrays that `_fit` filled
    profile: Any, folds: Any, order: Any, share: Any, levels: Any, means: Any, cells: Any
) -> None:
    n, n_controls = cells.shape[0], order.shape[1]
    n_levels = levels.shape[1]
    values = np.empty(n)
    for g in range(len(profile)):
        mean = profile[g]
        if not np.isfinite(mean):
            cells[:, g] = mean  # the writer refuses it, by the gene's name
            continue
        if mean <= 0:
            continue
        fold = np.exp(np.interp(mean, means[g], np.log(folds)))
        found = 1 - (1 - share[g]) ** fold
        n_positive = min(max(round(found * n), 1), n)
        factor = fold * share[g] / found
        total = 0.0
        for i in range(n_positive):
            at = min(max((i + 0.5) / n_positive * n_levels - 0.5, 0.0), n_levels - 1.0)
            low = int(at)
            high = min(low + 1, n_levels - 1)
            level = levels[g, low] + (at - low) * (levels[g, high] - levels[g, low])
            values[i] = np.log1p(level * factor)
            total += values[i]
        exact = mean * n / total
        rank = 0
        for i in range(n_controls):
            row = np.int64(order[g, i])
            while row < n:
                if rank >= n - n_positive:
                    cells[row, g] = values[rank - (n - n_positive)] * exact
                rank += 1
                row += n_controls
