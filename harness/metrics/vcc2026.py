"""The metrics of the Virtual Cell Challenge 2026, after cell-eval2 0.20.0.

All of them leave out target genes. `log2 fold change`, `significant` and so on are those of
`harness.metrics.count_comparison`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.kernels import BULK_TOTAL, pairwise_distances
from harness.metrics.base import Ratio, Values, metric
from harness.metrics.count_comparison import NO_GENE

if TYPE_CHECKING:
    from harness.metrics.count_comparison import CountComparison

MIN_GENES = 10
"""Fewer significant genes than this give no fold change error."""

PURITY = 0.9
"""Share of right signs down to which a prefix of genes counts."""

TOO_FEW_GENES = f"fewer than {MIN_GENES} significant genes in truth"
"""Why `lfc_nmae` has no value; the oracle has no row then."""

NO_CHANGE = "no fold change in truth"
"""Why `lfc_nmae` has no value although there are genes; the oracle has no row then."""

NOTHING_CALLED = "no significant gene in truth or prediction"
"""Why agreement has no value: there is nothing to agree on."""

NO_EFFECT = "no measurable effect in truth"
"""Why the error has no scale: the squared lengths of the true effects sum to no more than noise."""

NO_TRUE_CALL = "no significant gene in truth, target aside"
"""Why reach has no value."""


@metric("pds_cosine", needs="counts", higher_is_better=True, best=1.0)
def pds_cosine(comparison: CountComparison) -> Values:
    """Perturbation discrimination: how many true effects are nearer than the perturbation's own.

    1 - k/(n - 1), with k the number of the context's n true effects that are strictly nearer to the
    predicted one by cosine distance, plus half of the others at the same distance. An effect is the
    pseudobulk less that of the control. The genes that any perturbation of the context targets are
    left out. The distance to or from an effect of length zero is 1, so that a prediction without
    effect gets one half. 1 where there is one perturbation only.
    """
    kept = np.ones(len(comparison.genes), dtype=bool)
    kept[comparison.targets[comparison.targets != NO_GENE]] = False
    true, predicted = (
        side.bulk[:, kept] - side.control_bulk[kept]
        for side in (comparison.truth, comparison.prediction)
    )
    distances = pairwise_distances(predicted, true, "cosine", threads=comparison.threads)
    np.clip(distances, 0.0, 2.0, out=distances)
    own = np.diagonal(distances)[:, None]
    nearer = (distances < own).sum(axis=1)
    tied = (distances == own).sum(axis=1) - 1
    return Values.of(1.0 - (nearer + tied / 2) / max(1, comparison.n_pairs - 1))


@metric("expr_mse_unbiased", needs="counts", higher_is_better=False, best=None)
def expr_mse_unbiased(comparison: CountComparison) -> Values:
    """Squared error of the pseudobulk per gene, less what sampling adds to it on both sides.

    (|x̂_p - x_p|² - Ĉ_p - C_p) / G over the genes save the pair's target, with x the pseudobulks
    and C the jackknife estimate of the sampling variance of each. An unbiased estimate of a
    number that is not negative, hence itself often below zero when a prediction is good. The
    target's share is not taken out of C.
    """
    return Values.of(_error(comparison, comparison.prediction.noise))


@metric("expr_mse_unbiased_capped", needs="counts", higher_is_better=False, best=None)
def expr_mse_unbiased_capped(comparison: CountComparison) -> Values:
    """As `expr_mse_unbiased`, the credit for the prediction's noise held within two bounds.

    N_p of `expr_mse_unbiased_capped_norm`. First, Ĉ_p counts for at most C_p. Then, if the sum of
    all Ĉ_p/G exceeds the spread of the predicted pseudobulks about their mean over perturbations
    (squared deviations, summed over genes, each row's target left out, each row divided by its
    number of genes), all Ĉ_p are scaled down to meet it: cells whose scatter cancels in the mean
    are no sample, and earn no credit for noise.
    """
    return Values.of(_error(comparison, _granted(comparison)))


@metric("expr_distance_unbiased", needs="counts", higher_is_better=None, best=None)
def expr_distance_unbiased(comparison: CountComparison) -> Values:
    """Size of the true effect: its squared length per gene, less what sampling adds to it.

    D_p of `expr_mse_unbiased_capped_norm`: (|x_p - x_c|² - C_p - C_c) / G over the genes save the
    pair's target, c the control. Below zero where the effect cannot be told from noise. It does
    not depend on the prediction.
    """
    return Values.of(_distance(comparison))


@metric("expr_real_mass_ratio", needs="counts", higher_is_better=None, best=None)
def expr_real_mass_ratio(comparison: CountComparison) -> Values:
    """Sum of the true pseudobulk over genes, before its logarithm, relative to 50,000.

    A check: 1, or 0 for a perturbation without any counts.
    """
    return Values.of(np.expm1(comparison.truth.bulk).sum(axis=1) / BULK_TOTAL)


@metric(
    "expr_mse_unbiased_capped_norm",
    needs="counts",
    higher_is_better=False,
    best=None,
    reduce=Ratio("expr_mse_unbiased_capped", "expr_distance_unbiased"),
)
def expr_mse_unbiased_capped_norm(comparison: CountComparison) -> Values:
    """Error of the predicted effects relative to the size of the true ones: Σ N_p / Σ D_p.

    A ratio of sums over the context's perturbations, of `expr_mse_unbiased_capped` and
    `expr_distance_unbiased`, and no mean of anything: the value given for a pair is its share,
    N_p over the mean D, so that the values' mean is the ratio. Predicting the control gives about
    1, the truth itself a little less than 0. (The oracle has no value for a pair, and refuses a
    truth whose D do not sum to more than 0; here they are NaN then.)
    """
    error, size = _error(comparison, _granted(comparison)), float(_distance(comparison).mean())
    return Values.of(error / (size if size > 0 else np.nan), (size <= 0, NO_EFFECT))


@metric("de_wilcoxon_lfc_nmae", needs="counts", higher_is_better=False, best=0.0)
def de_wilcoxon_lfc_nmae(comparison: CountComparison) -> Values:
    """Error of log2 fold changes over the truth's significant genes, relative to their size.

    Σ|l̂ - l| / Σ|l| over the genes significant in the truth, the pair's target aside; a gene that
    the prediction's control does not express counts with l̂ = 0. No value with fewer than ten such
    genes: the oracle then has no row.
    """
    calls = comparison.true_calls
    true = comparison.truth.log2_fold_change
    predicted = np.where(comparison.prediction.tested, comparison.prediction.log2_fold_change, 0.0)
    error, size = (np.where(calls, np.abs(x), 0.0).sum(axis=1) for x in (predicted - true, true))
    few = calls.sum(axis=1) < MIN_GENES
    ratio = np.divide(error, size, out=np.zeros_like(size), where=size > 0)
    return Values.of(ratio, (few, TOO_FEW_GENES), (size == 0, NO_CHANGE))


@metric("de_wilcoxon_direction_fidelity_yield_raw", needs="counts", higher_is_better=True, best=1.0)
def de_wilcoxon_direction_fidelity_yield_raw(comparison: CountComparison) -> Values:
    """Share of called genes whose direction is right, too many and too few calls both charged.

    k / max(n̂, n), with n the number of genes significant in the truth, n̂ of those significant in
    the prediction that change at all in the truth, and k of those that change the same way there.
    The pair's target aside. NaN where n̂ = n = 0.
    """
    true = comparison.truth
    judged = comparison.predicted_calls & true.tested & (true.log2_fold_change != 0)
    right = (judged & comparison.signs_agree).sum(axis=1)
    most = np.maximum(judged.sum(axis=1), comparison.true_calls.sum(axis=1))
    return Values.of(right / np.maximum(most, 1), (most == 0, NOTHING_CALLED))


@metric("de_wilcoxon_direction_reach_raw", needs="counts", higher_is_better=True, best=1.0)
def de_wilcoxon_direction_reach_raw(comparison: CountComparison) -> Values:
    """How deep into the truth's significant genes the prediction's directions stay right.

    The genes significant in the truth, the pair's target aside, in the prediction's order of
    confidence: significant ones first, by adjusted p, then p, then falling |log2 fold change|, then
    name. The longest prefix in which at least 90 % of directions agree, over the number of these
    genes. A gene without change in the truth is not counted in a prefix. NaN where there is none.
    """
    reached = np.array([_reach(comparison, pair) for pair in range(comparison.n_pairs)])
    n_genes = comparison.true_calls.sum(axis=1)
    return Values.of(reached / np.maximum(n_genes, 1), (n_genes == 0, NO_TRUE_CALL))


@metric("de_wilcoxon_sig_jaccard", needs="counts", higher_is_better=True, best=1.0)
def de_wilcoxon_sig_jaccard(comparison: CountComparison) -> Values:
    """Jaccard index of the genes significant in truth and in prediction, the target aside.

    |A ∩ B| / |A ∪ B|; 1 where both are empty.
    """
    true, predicted = comparison.true_calls, comparison.predicted_calls
    common, either = ((true & predicted).sum(axis=1), (true | predicted).sum(axis=1))
    return Values.of(np.where(either > 0, common / np.maximum(either, 1), 1.0))


def _reach(comparison: CountComparison, pair: int) -> int:
    """Return the length of the longest prefix with enough right directions."""
    side = comparison.prediction
    genes = np.flatnonzero(comparison.true_calls[pair] & side.tested)
    order = np.lexsort(
        (
            comparison.name_order[genes],
            -np.abs(side.log2_fold_change[pair, genes]),
            side.p[pair, genes],
            side.adjusted[pair, genes],
            ~side.called[pair, genes],
        )
    )
    genes = genes[order]
    judged = np.cumsum(comparison.truth.log2_fold_change[pair, genes] != 0)
    right = np.cumsum(comparison.signs_agree[pair, genes])
    pure = (judged > 0) & (right / np.maximum(judged, 1) >= PURITY)
    return int(judged[pure].max(initial=0))


def _error(comparison: CountComparison, credit: np.ndarray) -> np.ndarray:
    difference = comparison.prediction.bulk - comparison.truth.bulk
    return _corrected(comparison, difference, credit + comparison.truth.noise)


def _distance(comparison: CountComparison) -> np.ndarray:
    truth = comparison.truth
    difference = truth.bulk - truth.control_bulk
    return _corrected(comparison, difference, truth.noise + truth.control_noise)


def _corrected(
    comparison: CountComparison, difference: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Return the squared length less noise, without the target, per gene; NaN without genes."""
    squares = difference**2
    own, taken = comparison.without_target(squares)
    n_genes = len(comparison.genes) - taken
    total = squares.sum(axis=1) - noise - own
    out = np.full_like(total, np.nan)
    corrected: np.ndarray = np.divide(total, n_genes, out=out, where=n_genes > 0)
    return corrected


def _granted(comparison: CountComparison) -> np.ndarray:
    """Return the prediction's noise that counts, within both bounds."""
    side = comparison.prediction
    credit: np.ndarray = np.minimum(side.noise, comparison.truth.noise)
    _, taken = comparison.without_target(side.bulk)
    weights = 1.0 / np.maximum(len(comparison.genes) - taken, 1.0)
    claim = float((credit * weights).sum())
    if claim > 0:
        credit = credit * min(1.0, _spread(comparison, weights) / claim)
    return credit


def _spread(comparison: CountComparison, weights: np.ndarray) -> float:
    """Return the weighted squared deviations of the predicted rows from their mean, over genes."""
    bulk = comparison.prediction.bulk
    own = np.zeros(bulk.shape, dtype=bool)
    rows = np.flatnonzero(comparison.targets != NO_GENE)
    own[rows, comparison.targets[rows]] = True
    mass = np.where(own, 0.0, weights[:, None])
    deviation = bulk - bulk.mean(axis=0)
    total, first = mass.sum(axis=0), (mass * deviation).sum(axis=0)
    second = (mass * deviation * deviation).sum(axis=0)
    enough = (~own).sum(axis=0) >= 2
    squares = second[enough] - first[enough] ** 2 / total[enough]
    return float(np.maximum(squares, 0.0).sum())
