"""What metrics of raw counts see: truth and prediction of one context, as arrays.

The conventions are those of the Virtual Cell Challenge 2026: effects from the pseudobulk of the
control that a side was tested against (of a prediction: the truth's), differential expression of
counts per million among genes that this control expresses, everything in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.kernels import adjust, p_values

SIGNIFICANT_BELOW = 0.05
"""Adjusted p below this is significant."""

EXPRESSED_ABOVE = 5.0
"""Mean counts per million of the control above which a gene is tested."""

EPSILON = 1e-9
"""Added to both means of a fold change, in counts per million."""

NO_GENE = -1
"""In place of a column: the perturbation's target is no gene of the screen, or unknown."""


@dataclass
class CountSide:
    """Truth or prediction in one context, tested against its control.

    Parameters
    ----------
    bulk, control_bulk
        (n_pairs, n_genes) and (n_genes,) pseudobulk: log1p of summed counts scaled to 50,000.
    noise, control_noise
        (n_pairs,) and number: estimated sampling variance of the pseudobulk, summed over genes.
    cpm, control_cpm
        (n_pairs, n_genes) and (n_genes,) mean counts per million.
    u, ties
        (n_pairs, n_genes) of the rank test against the control.
    sizes
        (n_pairs,) number of cells.
    n_controls
        Number of control cells.
    """

    bulk: np.ndarray
    control_bulk: np.ndarray
    noise: np.ndarray
    control_noise: float
    cpm: np.ndarray
    control_cpm: np.ndarray
    u: np.ndarray
    ties: np.ndarray
    sizes: np.ndarray
    n_controls: int

    @cached_property
    def tested(self) -> np.ndarray:
        """(n_genes,) bool: which genes are tested, by the control alone."""
        tested: np.ndarray = self.control_cpm > EXPRESSED_ABOVE
        return tested

    @cached_property
    def p(self) -> np.ndarray:
        """(n_pairs, n_genes) two-sided p of the rank test, by the normal approximation."""
        controls = np.full(len(self.sizes), self.n_controls)
        return p_values(self.u, self.ties, self.sizes, controls, exact_when_small=False)

    @cached_property
    def adjusted(self) -> np.ndarray:
        """(n_pairs, n_genes) p, Benjamini–Hochberg adjusted over a pair's tested genes; else 1."""
        adjusted = np.ones_like(self.p)
        if self.tested.any():
            for row, p in zip(adjusted, self.p, strict=True):
                row[self.tested] = adjust(p[self.tested])
        return adjusted

    @cached_property
    def called(self) -> np.ndarray:
        """(n_pairs, n_genes) bool: tested and significant."""
        called: np.ndarray = self.tested & (self.adjusted < SIGNIFICANT_BELOW)
        return called

    @cached_property
    def log2_fold_change(self) -> np.ndarray:
        """(n_pairs, n_genes) log2 of the ratio of mean counts per million."""
        logs: np.ndarray = np.log2((self.cpm + EPSILON) / (self.control_cpm + EPSILON))
        return logs


@dataclass(frozen=True)
class CountComparison:
    """Truth and prediction of one context side by side.

    Parameters
    ----------
    perturbations
        (n_pairs,) names in byte order.
    genes
        (n_genes,) names, each once.
    truth, prediction
        The two sides; their rows are the perturbations, their columns the genes.
    targets
        (n_pairs,) column of the gene that each perturbation acts on, or `NO_GENE`.
    threads
        How many threads a metric may use.
    """

    perturbations: tuple[str, ...]
    genes: tuple[str, ...]
    truth: CountSide
    prediction: CountSide
    targets: np.ndarray
    threads: int = 1

    @property
    def n_pairs(self) -> int:
        """The number of perturbations."""
        return len(self.perturbations)

    @cached_property
    def effective_targets(self) -> np.ndarray:
        """(n_pairs,) `targets`, save those that the truth does not test."""
        known = (self.targets != NO_GENE) & self.truth.tested[self.targets]
        return np.where(known, self.targets, NO_GENE)

    @cached_property
    def others(self) -> np.ndarray:
        """(n_pairs, n_genes) bool: the genes that are not the pair's effective target."""
        others = np.ones((self.n_pairs, len(self.genes)), dtype=bool)
        rows = np.flatnonzero(self.effective_targets != NO_GENE)
        others[rows, self.effective_targets[rows]] = False
        return others

    @cached_property
    def true_calls(self) -> np.ndarray:
        """(n_pairs, n_genes) bool: the truth's significant genes, the pair's target aside."""
        calls: np.ndarray = self.truth.called & self.others
        return calls

    @cached_property
    def predicted_calls(self) -> np.ndarray:
        """(n_pairs, n_genes) bool: the prediction's significant genes, the target aside."""
        calls: np.ndarray = self.prediction.called & self.others
        return calls

    @cached_property
    def signs_agree(self) -> np.ndarray:
        """(n_pairs, n_genes) bool: both fold changes go the same way."""
        true, predicted = (np.sign(side.log2_fold_change) for side in (self.truth, self.prediction))
        agree: np.ndarray = (true != 0) & (true == predicted)
        return agree

    @cached_property
    def name_order(self) -> np.ndarray:
        """(n_genes,) place of each gene by name."""
        return np.argsort(np.argsort(np.array(self.genes)))

    def without_target(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the target's own column of a table, 0 where there is none, and 1 for each taken.

        Parameters
        ----------
        squares
            (n_pairs, n_genes).
        """
        known = self.targets != NO_GENE
        own = squares[np.arange(self.n_pairs), self.targets]
        return np.where(known, own, 0.0), known.astype(np.float64)


def target_columns(perturbations: tuple[str, ...], genes: tuple[str, ...]) -> np.ndarray:
    """Return the column of the gene that each perturbation is named after, or `NO_GENE`."""
    place = {gene: column for column, gene in enumerate(genes)}
    return np.array([place.get(name, NO_GENE) for name in perturbations], dtype=np.int64)
