"""Metrics of differential expression: whether a prediction calls the truth's genes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.metrics.base import (
    CONSTANT_PREDICTION,
    CONSTANT_TRUTH,
    NO_TRUE_GENES,
    Function,
    Metric,
    Values,
    register,
)
from harness.metrics.correlation import one_for_all, spearman

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.metrics.comparison import Comparison

FLOOR = np.float32(1e-10)
"""Adjusted p below this counts as this where significance is a score."""


def _de_metric(
    name: str, *, higher_is_better: bool | None, best: float | None, per_context: bool = False
) -> Callable[[Function], Function]:
    """Register the decorated function, and once more without each pair's own target gene."""

    def decorate(function: Function) -> Function:
        complete = Metric(
            name,
            1,
            frozenset(["de"]),
            higher_is_better,
            best,
            function,
            per_context=per_context,
        )

        def without_target(comparison: Comparison) -> Values:
            return function(comparison.without_targets)

        without_target.__doc__ = f"""As `{name}`, without the perturbation's own target gene.

        That a knocked-down gene is down is known before any experiment. The gene that bears the
        perturbation's name is taken out of the lists of both sides after p-values were adjusted, so
        all other genes are called as in `{name}`. A pair whose name is no gene, a combination among
        them, has the value of `{name}`.
        """
        register(complete)
        register(replace(complete, name=f"{name}_no_target", function=without_target))
        return function

    return decorate


@_de_metric("overlap_at_N", higher_is_better=True, best=1.0)
def overlap_at_n(comparison: Comparison) -> Values:
    """Differential expression score: share of the truth's DE genes among as many predicted ones.

    |top-k of truth ∩ top-k of prediction| / k, where k is the number of genes significant in the
    truth (adjusted p < 0.05, decided in float32) and both lists hold significant genes only, by
    falling |log2 fold change| (Roohani et al., Virtual Cell Challenge 2025). A prediction with
    fewer than k is not padded. 0 where no gene is significant in the truth. Genes with the same
    fold change keep the order of the gene axis; the oracle's order among them is arbitrary, so
    where the cut at k falls among such ties the two may differ.
    """
    return Values.of(_overlaps(comparison, None))


@_de_metric("precision_at_N", higher_is_better=True, best=1.0)
def precision_at_n(comparison: Comparison) -> Values:
    """Share of the prediction's DE genes that are among as many of the truth's largest.

    As `overlap_at_N`, save that k is the number of genes significant in the prediction, and 0 where
    that is none.
    """
    return Values.of(_overlaps(comparison, None, by="prediction"))


def _overlaps(
    comparison: Comparison, k: int | None, by: Literal["truth", "prediction"] = "truth"
) -> np.ndarray:
    shares = np.zeros(comparison.n_pairs)
    lists = zip(comparison.true_de.ranked, comparison.predicted_de.ranked, strict=True)
    for pair, (true, predicted) in enumerate(lists):
        there = len(true) if by == "truth" else len(predicted)
        depth = there if k is None else min(k, there)
        if depth:
            common = np.intersect1d(true[:depth], predicted[:depth], assume_unique=True)
            shares[pair] = len(common) / depth
    return shares


def _overlap_at(k: int) -> Callable[[Comparison], Values]:
    def overlap(comparison: Comparison) -> Values:
        return Values.of(_overlaps(comparison, k))

    overlap.__doc__ = f"""Share of the truth's top {k} DE genes among the prediction's top {k}.

    As `overlap_at_N` with k = {k}, or the number of genes significant in the truth if that is less.
    """
    return overlap


def _precision_at(k: int) -> Callable[[Comparison], Values]:
    def precision(comparison: Comparison) -> Values:
        return Values.of(_overlaps(comparison, k, by="prediction"))

    precision.__doc__ = f"""Share of the prediction's top {k} DE genes among the truth's top {k}.

    As `precision_at_N` with k = {k}, or the number of genes significant in the prediction if that
    is less.
    """
    return precision


for _k in (50, 100, 200, 500):
    _de_metric(f"overlap_at_{_k}", higher_is_better=True, best=1.0)(_overlap_at(_k))
    _de_metric(f"precision_at_{_k}", higher_is_better=True, best=1.0)(_precision_at(_k))


@_de_metric("de_spearman_sig", higher_is_better=True, best=1.0, per_context=True)
def de_spearman_sig(comparison: Comparison) -> Values:
    """Spearman correlation over perturbations of how many genes are significant on each side.

    Over the perturbations with a significant gene in the truth; one value for all perturbations of
    a context. 1 where there is no such perturbation; undefined where there is one, or where either
    side's numbers do not vary.
    """
    true = comparison.true_de.significant.sum(axis=1)
    predicted = comparison.predicted_de.significant.sum(axis=1)
    any_true = true > 0
    if not any_true.any():
        return Values.for_all(1.0, comparison.n_pairs)
    found = one_for_all(predicted[any_true], true[any_true], spearman)
    return Values.for_all(found.values[0], comparison.n_pairs, found.reasons[0])


@_de_metric("de_direction_match", higher_is_better=True, best=1.0)
def de_direction_match(comparison: Comparison) -> Values:
    """Share of the truth's DE genes whose predicted fold change has the true sign.

    Whether or not the prediction calls them; a fold change of 1 matches only another. Where a
    prediction repeats the control's mean, fold changes are 1; the oracle's have the sign of a
    rounding error. Undefined without a significant gene in the truth.
    """
    signs = [np.sign(de.log2_fold_change) for de in (comparison.true_de, comparison.predicted_de)]
    return _mean_over_true(comparison, signs[0] == signs[1])


@_de_metric("de_spearman_lfc_sig", higher_is_better=True, best=1.0)
def de_spearman_lfc_sig(comparison: Comparison) -> Values:
    """Spearman correlation of predicted with true log2 fold changes over the truth's DE genes.

    Infinite fold changes take part, as ranks. Undefined without a significant gene in the truth,
    with only one, or where either side's fold changes do not vary.
    """
    called = comparison.true_de.significant
    found, few = np.full(comparison.n_pairs, np.nan), called.sum(axis=1)
    flat = np.zeros((2, comparison.n_pairs), dtype=bool)
    for pair, genes in enumerate(called):
        if few[pair] > 1:
            predicted = comparison.predicted_de.log2_fold_change[pair, genes]
            true = comparison.true_de.log2_fold_change[pair, genes]
            flat[:, pair] = predicted.max() == predicted.min(), true.max() == true.min()
            found[pair] = spearman(predicted, true)
    return Values.of(
        found,
        (few == 0, NO_TRUE_GENES),
        (few == 1, "one significant gene in truth"),
        (flat[0], CONSTANT_PREDICTION),
        (flat[1], CONSTANT_TRUTH),
    )


@_de_metric("de_sig_genes_recall", higher_is_better=True, best=1.0)
def de_sig_genes_recall(comparison: Comparison) -> Values:
    """Share of the truth's DE genes that are significant in the prediction.

    Undefined without a significant gene in the truth.
    """
    return _mean_over_true(comparison, comparison.predicted_de.significant)


def _mean_over_true(comparison: Comparison, hits: np.ndarray) -> Values:
    called = comparison.true_de.significant
    number = called.sum(axis=1)
    share = (hits & called).sum(axis=1) / np.maximum(number, 1)
    return Values.of(share, (number == 0, NO_TRUE_GENES))


@_de_metric("de_nsig_counts_real", higher_is_better=None, best=None)
def de_nsig_counts_real(comparison: Comparison) -> Values:
    """Count the genes significant in the truth."""
    return Values.of(comparison.true_de.significant.sum(axis=1))


@_de_metric("de_nsig_counts_pred", higher_is_better=None, best=None)
def de_nsig_counts_pred(comparison: Comparison) -> Values:
    """Count the genes significant in the prediction."""
    return Values.of(comparison.predicted_de.significant.sum(axis=1))


@_de_metric("pr_auc", higher_is_better=True, best=1.0)
def pr_auc(comparison: Comparison) -> Values:
    """Area under the precision-recall curve of predicted significance for the truth's DE genes.

    Average precision: the sum over thresholds of (R_n - R_{n-1}) P_n, genes by falling -log10 of
    the predicted adjusted p, floored at 1e-10, in float32. Undefined where all or none of the genes
    are significant in the truth.
    """

    def area(hits: np.ndarray, misses: np.ndarray) -> float:
        gained = np.diff(hits, prepend=0) / hits[-1]
        return float((gained * hits / (hits + misses)).sum())

    return _areas(comparison, area)


@_de_metric("roc_auc", higher_is_better=True, best=1.0)
def roc_auc(comparison: Comparison) -> Values:
    """Area under the ROC curve of predicted significance for the truth's DE genes.

    Genes by -log10 of the predicted adjusted p, floored at 1e-10, in float32; ties count one half.
    Undefined where all or none of the genes are significant in the truth.
    """

    def area(hits: np.ndarray, misses: np.ndarray) -> float:
        rates = [np.concatenate([[0], counts]) / counts[-1] for counts in (misses, hits)]
        return float(np.trapezoid(rates[1], rates[0]))

    return _areas(comparison, area)


def _areas(comparison: Comparison, area: Callable[[np.ndarray, np.ndarray], float]) -> Values:
    """Apply `area` to the cumulative hits and misses at each threshold, for every pair."""
    called, left_out = comparison.true_de.significant, comparison.true_de.left_out
    kept = np.ones(called.shape, dtype=bool) if left_out is None else ~left_out
    number = called.sum(axis=1)
    one_class = (number == 0) | (number == kept.sum(axis=1))
    floored = np.clip(comparison.predicted_de.adjusted.astype(np.float32), FLOOR, 1)
    # Rounded twice, as the oracle does: it decides which genes are tied.
    logs = np.log(floored.astype(np.float64)).astype(np.float32)
    scores = -(logs / np.log(10, dtype=np.float32))
    found = np.full(comparison.n_pairs, np.nan)
    for pair in np.flatnonzero(~one_class):
        order = np.flatnonzero(kept[pair])
        order = order[np.argsort(-scores[pair, order], kind="stable")]
        ordered, true = scores[pair, order], called[pair, order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        found[pair] = area(np.cumsum(true)[last], np.cumsum(~true)[last])
    return Values.of(found, (one_class, "all or no genes significant in truth"))
