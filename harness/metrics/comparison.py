"""What metrics see: truth and prediction of one context, as arrays, and a suite's conventions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.kernels import adjust, adjust_rows, clipped_fold_change, fold_change, p_values

if TYPE_CHECKING:
    from harness.kernels import Apart

SIGNIFICANT_BELOW = np.float32(0.05)
"""Adjusted p below this is significant, both cast to float32: 0.049999999 is not."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """How a suite makes differential expression of means and rank sums.

    Parameters
    ----------
    fold_changes
        ``clipped``: x/0 is 20, 0/x is 1/20, 0/0 is 1. ``infinite``: ±inf, and 0/0 is 1.
    adjusted_over
        Benjamini–Hochberg over all pairs and genes of a context (``run``) or those of one ``pair``.
    exact_when_small
        Exact p-values for groups of at most eight cells without ties.
    """

    fold_changes: Literal["clipped", "infinite"]
    adjusted_over: Literal["run", "pair"]
    exact_when_small: bool


@dataclass(frozen=True)
class DETable:
    """Differential expression of every pair against control; each (n_pairs, n_genes).

    Parameters
    ----------
    p, adjusted
        Two-sided p-values of the rank test, plain and Benjamini–Hochberg adjusted; float64.
    fold_change
        Ratio of geometric means; float64.
    left_out
        Which genes are never called, whatever their p-value; None: none.
    """

    p: np.ndarray
    adjusted: np.ndarray
    fold_change: np.ndarray
    left_out: np.ndarray | None = None

    @cached_property
    def significant(self) -> np.ndarray:
        """Which genes are called, decided in float32."""
        called: np.ndarray = self.adjusted.astype(np.float32) < SIGNIFICANT_BELOW
        return called if self.left_out is None else called & ~self.left_out

    @cached_property
    def log2_fold_change(self) -> np.ndarray:
        """Float32 log2 of the fold change."""
        with np.errstate(divide="ignore"):
            logs: np.ndarray = np.log2(self.fold_change).astype(np.float32)
        return logs

    @cached_property
    def ranked(self) -> tuple[np.ndarray, ...]:
        """For each pair its significant genes by falling absolute log2 fold change.

        Ties keep the order of genes. (The oracle's sort leaves them in no stated order.)
        """
        rows = []
        for called, logs in zip(self.significant, self.log2_fold_change, strict=True):
            genes = np.flatnonzero(called)
            rows.append(genes[np.argsort(-np.abs(logs[genes]), kind="stable")])
        return tuple(rows)


@dataclass
class Side:
    """Truth or prediction in one context. Tables made of it are kept for the next comparison.

    Parameters
    ----------
    pseudobulk
        (n_pairs, n_genes) float64 mean of log1p values.
    control
        (n_genes,) the same of the control.
    u, ties
        (n_pairs, n_genes) of the rank test against the control.
    sizes
        (n_pairs,) number of cells.
    n_controls
        Number of control cells.
    exact
        (n_pairs, n_genes) the pseudobulk before it was rounded; None: it was not.
    energy
        (n_pairs,) energy distance of the pair's cells to the control's, if it was asked for.
    apart
        How far the pair's cells lie from the truth's, if it was asked for.
    given
        A table to take in place of the one that U and ties make under any conventions.
    """

    pseudobulk: np.ndarray
    control: np.ndarray
    u: np.ndarray
    ties: np.ndarray
    sizes: np.ndarray
    n_controls: int
    exact: np.ndarray | None = None
    energy: np.ndarray | None = None
    apart: Apart | None = None
    given: DETable | None = None
    _tables: dict[Conventions, DETable] = field(default_factory=dict, repr=False)

    @cached_property
    def effect(self) -> np.ndarray:
        """(n_pairs, n_genes) pseudobulk minus the control's."""
        effect: np.ndarray = self.pseudobulk - self.control
        return effect

    def de(self, conventions: Conventions) -> DETable:
        """Return the table of differential expression under these conventions."""
        if self.given is not None:
            return self.given
        if conventions not in self._tables:
            self._tables[conventions] = self._table(conventions)
        return self._tables[conventions]

    def _table(self, conventions: Conventions) -> DETable:
        controls = np.full(len(self.sizes), self.n_controls)
        p = p_values(
            self.u,
            self.ties,
            self.sizes,
            controls,
            exact_when_small=conventions.exact_when_small,
        )
        adjusted = adjust(p) if conventions.adjusted_over == "run" else adjust_rows(p)
        change = clipped_fold_change if conventions.fold_changes == "clipped" else fold_change
        return DETable(p, adjusted, change(self.pseudobulk, self.control))


@dataclass(frozen=True)
class Comparison:
    """Truth and prediction of one context side by side.

    Parameters
    ----------
    perturbations
        (n_pairs,) names in byte order.
    genes
        (n_genes,) names.
    truth, prediction
        The two sides; their rows are the perturbations, their columns the genes.
    conventions
        How differential expression is computed.
    threads
        How many threads a metric may use.
    centre
        (n_genes,) a reference profile from outside the truth, such as the mean of the training
        perturbations; None: none was given.
    targets_left_out
        Whether tables of differential expression leave out each pair's own target gene.
    """

    perturbations: tuple[str, ...]
    genes: tuple[str, ...]
    truth: Side
    prediction: Side
    conventions: Conventions
    threads: int = 1
    centre: np.ndarray | None = None
    targets_left_out: bool = False

    @property
    def n_pairs(self) -> int:
        """The number of perturbations."""
        return len(self.perturbations)

    @cached_property
    def own_genes(self) -> tuple[tuple[int, ...], ...]:
        """For each perturbation the columns of the gene whose name it bears; often none."""
        places: dict[str, list[int]] = {}
        for column, gene in enumerate(self.genes):
            places.setdefault(gene, []).append(column)
        return tuple(tuple(places.get(name, ())) for name in self.perturbations)

    @cached_property
    def without_targets(self) -> Comparison:
        """The same comparison, with each pair's own target gene left out of its DE genes."""
        return replace(self, targets_left_out=True)

    @cached_property
    def true_de(self) -> DETable:
        """The truth's differential expression."""
        return self._de(self.truth)

    @cached_property
    def predicted_de(self) -> DETable:
        """The prediction's differential expression."""
        return self._de(self.prediction)

    def _de(self, side: Side) -> DETable:
        table = side.de(self.conventions)
        if not self.targets_left_out:
            return table
        left_out = np.zeros(table.p.shape, dtype=bool)
        for pair, columns in enumerate(self.own_genes):
            left_out[pair, list(columns)] = True
        return replace(table, left_out=left_out)
