"""Metrics that tell a good prediction from the average one: the suite ``calibrated``.

What they share: effects are centred on the mean of perturbations, not on the control, so that what
all perturbations have in common earns nothing; genes that respond weigh more than those that do
not; and cells are compared with cells. Nothing in this file reads a control of the prediction or
leaves a gene out, a perturbation's own target included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.kernels import pairwise_distances, squared_weights, standardised_u
from harness.metrics.base import CONSTANT_PREDICTION, CONSTANT_TRUTH, Values, metric
from harness.metrics.correlation import constant, pearson

if TYPE_CHECKING:
    from harness.kernels import Apart
    from harness.metrics.comparison import Comparison

ALONE = "fewer than two perturbations"
"""Why a value that needs other perturbations is undefined."""

NO_CENTRE = "no reference mean given"
"""Why a value that is centred on a mean from outside the truth is undefined."""

NO_EFFECT = 1e-5
"""A prediction none of whose genes is farther than this from the centre counts as the centre."""

FEW_CELLS = "fewer than two cells"
"""Why a mean over pairs of different cells is undefined."""


@metric("pearson_delta_perturbed_mean", needs="profiles", higher_is_better=True, best=1.0)
def pearson_delta_perturbed_mean(comparison: Comparison) -> Values:
    """Pearson correlation over genes of predicted with true effect from the other perturbations.

    corr(x̂̄_p - m, x̄_p - m), where m is the mean of the true pseudobulks of all other perturbations
    scored in the context, each counted once however many cells it has ("PearsonDeltaPerturbMean",
    Miller et al. 2025; Systema, Viñas Torné et al. 2025). Both sides are centred on the same m; no
    control takes part and no gene is left out. Which perturbations are scored together is in both
    sides, so the mean of the training perturbations scores about 1/√P with P of them:
    `pearson_delta_training_mean` has its centre from outside. Blind to scale: the mean over all
    perturbations of the truth, p among them, lies at m + (x̄_p - m) / P and correlates perfectly, so
    read it with `r2_delta_perturbed_mean`. Undefined for a single perturbation, or where either
    side is the same for all genes.
    """
    predicted, true = _centred(comparison)
    return Values.of(
        pearson(predicted, true),
        (comparison.n_pairs < 2, ALONE),
        (constant(predicted), CONSTANT_PREDICTION),
        (constant(true), CONSTANT_TRUTH),
    )


@metric("r2_delta_perturbed_mean", needs="profiles", higher_is_better=True, best=1.0)
def r2_delta_perturbed_mean(comparison: Comparison) -> Values:
    """Explained share of the variance over genes of the effect from the other perturbations.

    R² = 1 - Σ (t - t̂)² / Σ (t - t̄)², with t = x̄_p - m and t̂ = x̂̄_p - m centred as in
    `pearson_delta_perturbed_mean` (Miller et al. 2025). Unlike a correlation it sees scale. At most
    1, without a lower bound; not clipped. Undefined for a single perturbation, or where t is the
    same for all genes.
    """
    predicted, true = _centred(comparison)
    weights = np.full(true.shape, 1.0 / true.shape[1])
    return _explained(predicted, true, weights, (comparison.n_pairs < 2, ALONE))


@metric(
    "pearson_delta_training_mean", needs=("profiles", "centre"), higher_is_better=True, best=1.0
)
def pearson_delta_training_mean(comparison: Comparison) -> Values:
    """Pearson correlation over genes of predicted with true effect from the training mean.

    corr(x̂̄_p - m, x̄_p - m) as `pearson_delta_perturbed_mean`, but m comes from outside the held-out
    side: in jobs the context's control plus the mean effect of the split's training perturbations
    in the context, or over contexts where it has none; in ``harness score`` the profile of
    ``--centre``. So what the held-out perturbations have in common, and which of them were drawn,
    is in neither side, and the training mean itself scores 0: where no gene of x̂̄_p - m exceeds
    1e-5 the prediction counts as constant, and the correlation is 0. Undefined without a reference
    mean, or where the true effect is the same for all genes.
    """
    predicted, true = _from_centre(comparison)
    found = np.where(_is_centre(predicted) | constant(predicted), 0.0, pearson(predicted, true))
    return Values.of(
        found, (comparison.centre is None, NO_CENTRE), (constant(true), CONSTANT_TRUTH)
    )


@metric("r2_delta_training_mean", needs=("profiles", "centre"), higher_is_better=True, best=1.0)
def r2_delta_training_mean(comparison: Comparison) -> Values:
    """Explained share of the variance over genes of the effect from the training mean.

    R² as in `r2_delta_perturbed_mean`, centred as in `pearson_delta_training_mean`. At most 1,
    without a lower bound. Undefined without a reference mean, or where the true effect is the same
    for all genes.
    """
    predicted, true = _from_centre(comparison)
    weights = np.full(true.shape, 1.0 / true.shape[1])
    return _explained(predicted, true, weights, (comparison.centre is None, NO_CENTRE))


@metric("weighted_r2_delta_training_mean", needs=("de", "centre"), higher_is_better=True, best=1.0)
def weighted_r2_delta_training_mean(comparison: Comparison) -> Values:
    """Explained share of the weighted variance of the effect from the training mean.

    R²_w as in `weighted_r2_delta_perturbed_mean`, centred as in `pearson_delta_training_mean`. At
    most 1, without a lower bound. Undefined without a reference mean, or where the true effect is
    the same for all genes that have a weight.
    """
    predicted, true = _from_centre(comparison)
    missing = (comparison.centre is None, NO_CENTRE)
    return _explained(predicted, true, _weights(comparison), missing)


@metric("wmse", needs="de", higher_is_better=False, best=0.0)
def wmse(comparison: Comparison) -> Values:
    """Squared error of the pseudobulk, genes weighted by how clearly they respond in the truth.

    Σ_g w_g (x̂̄_pg - x̄_pg)², with w_g = s_g² / Σ s², s_g = (|z_g| - min |z|) / (max |z| - min |z|)
    over the genes of the pair (Mejia et al. 2025). z is the truth's rank test against the truth's
    control, standardised with its tie correction and without one for continuity; Mejia et al. take
    t-statistics, which a few outlying cells can move. A gene whose cells are all tied has z = 0.
    Equal weights where |z| is the same for all genes. No gene is left out.
    """
    predicted, true = _profiles(comparison)
    error = predicted - true
    return Values.of((_weights(comparison) * error**2).sum(axis=1))


@metric("weighted_r2_delta_perturbed_mean", needs="de", higher_is_better=True, best=1.0)
def weighted_r2_delta_perturbed_mean(comparison: Comparison) -> Values:
    """Explained share of the weighted variance of the effect from the other perturbations.

    R²_w = 1 - Σ w (t - t̂)² / Σ w (t - Σ w t)² with the weights of `wmse` and t, t̂ centred as in
    `pearson_delta_perturbed_mean` (Mejia et al. 2025). At most 1, without a lower bound. Undefined
    for a single perturbation, or where t is the same for all genes that have a weight.
    """
    predicted, true = _centred(comparison)
    return _explained(predicted, true, _weights(comparison), (comparison.n_pairs < 2, ALONE))


@metric("centroid_accuracy", needs="profiles", higher_is_better=True, best=1.0)
def centroid_accuracy(comparison: Comparison) -> Values:
    """Share of the other true pseudobulks that lie farther from the predicted one than its own.

    Over the perturbations q ≠ p of the context, the share with |x̂̄_p - x̄_q| > |x̂̄_p - x̄_p|,
    Euclidean over all genes (Systema, Viñas Torné et al. 2025). A tie counts as not farther.
    Undefined for a single perturbation.
    """
    farther, _ = _compared(comparison)
    return Values.of(farther, (comparison.n_pairs < 2, ALONE))


@metric("nir", needs="profiles", higher_is_better=True, best=1.0)
def nir(comparison: Comparison) -> Values:
    """Normalised inverse rank of the own true pseudobulk by distance to the predicted one.

    1 - r / (P - 1) with r the number of other true pseudobulks that are nearer plus half of those
    as near, Euclidean over all genes, P perturbations in the context (Wu et al., PerturBench 2024;
    so named by Miller et al. 2025). `centroid_accuracy` differs in ties alone. Chance is 1/2.
    Undefined for a single perturbation.
    """
    farther, tied = _compared(comparison)
    return Values.of(farther + tied / 2.0, (comparison.n_pairs < 2, ALONE))


@metric("energy_distance", needs="populations", higher_is_better=False, best=0.0)
def energy_distance(comparison: Comparison) -> Values:
    """Energy distance of the predicted cells to the true cells of the perturbation.

    2 E|X - Y| - E|X - X'| - E|Y - Y'|, Euclidean over all genes of log1p cells in single precision,
    means over pairs of different cells (Székely & Rizzo 2013). This U-statistic is 0 on average for
    cells drawn anew from the truth, which is its best value; chance makes it slightly negative,
    and a copy of the true cells always is. Undefined where either side has fewer than two cells.
    """
    return Values.of(_apart(comparison).energy, (_few(comparison), FEW_CELLS))


@metric("mmd2", needs="populations", higher_is_better=False, best=0.0)
def mmd2(comparison: Comparison) -> Values:
    """Squared maximum mean discrepancy of predicted and true cells of the perturbation, unbiased.

    E k(X, X') + E k(Y, Y') - 2 E k(X, Y) over pairs of different cells, k(a, b) =
    exp(-|a - b|² / 2σ²), over all genes of log1p cells in single precision (Gretton et al. 2012).
    σ is the exact median of the Euclidean distances among all pairs of different cells of both
    sides together, none drawn by chance; a prediction thus takes part in setting it. 0 on average
    for cells drawn anew from the truth, which is its best value; chance makes it slightly
    negative, and a copy of the true cells always is. Undefined where either side has fewer than two
    cells, or where the median is 0 since most cells are copies.
    """
    found = _apart(comparison).mmd2
    causes = ((_few(comparison), FEW_CELLS), (np.isnan(found), "median distance of zero"))
    return Values.of(found, *causes)


def _profiles(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true pseudobulks as they are, not rounded to the cells' precision."""
    predicted, true = (
        side.pseudobulk if side.exact is None else side.exact
        for side in (comparison.prediction, comparison.truth)
    )
    return predicted, true


def _centred(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true pseudobulks less the mean of the other true ones."""
    predicted, true = _profiles(comparison)
    others = (true.sum(axis=0) - true) / max(comparison.n_pairs - 1, 1)
    return predicted - others, true - others


def _from_centre(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true pseudobulks less the reference mean; as they are without one."""
    predicted, true = _profiles(comparison)
    centre = 0.0 if comparison.centre is None else comparison.centre
    return predicted - centre, true - centre


def _is_centre(centred: np.ndarray) -> np.ndarray:
    """Find pairs where no gene of a centred prediction exceeds `NO_EFFECT`: (n_pairs,) bool."""
    same: np.ndarray = np.abs(centred).max(axis=-1, initial=0.0) <= NO_EFFECT
    return same


def _explained(
    predicted: np.ndarray,
    true: np.ndarray,
    weights: np.ndarray,
    undefined: tuple[np.ndarray | bool, str],
) -> Values:
    """Weighted coefficient of determination along the last axis; the weights sum to 1."""
    mean = (weights * true).sum(axis=1, keepdims=True)
    error = (weights * (true - predicted) ** 2).sum(axis=1)
    variance = (weights * (true - mean) ** 2).sum(axis=1)
    flat = constant(np.where(weights > 0, true, _first_weighted(true, weights)))
    return Values.of(
        1.0 - np.divide(error, variance, out=np.ones_like(error), where=variance > 0),
        undefined,
        (flat | (variance == 0), CONSTANT_TRUTH),
    )


def _first_weighted(true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the value of each row's first gene with a weight: (n_rows, 1)."""
    return np.take_along_axis(true, np.argmax(weights > 0, axis=1)[:, None], axis=1)


def _weights(comparison: Comparison) -> np.ndarray:
    truth = comparison.truth
    controls = np.full(len(truth.sizes), truth.n_controls)
    return squared_weights(standardised_u(truth.u, truth.ties, truth.sizes, controls))


def _compared(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of other true pseudobulks that are farther than the own, and as near."""
    distances = pairwise_distances(*_profiles(comparison), "l2", threads=comparison.threads)
    own = np.diagonal(distances)[:, None]
    n_others = max(comparison.n_pairs - 1, 1)
    farther = (distances > own).sum(axis=1) / n_others
    return farther, ((distances == own).sum(axis=1) - 1) / n_others


def _apart(comparison: Comparison) -> Apart:
    apart = comparison.prediction.apart
    assert apart is not None, "distances between cells are measured for a metric that needs them"
    return apart


def _few(comparison: Comparison) -> np.ndarray:
    few: np.ndarray = np.minimum(comparison.truth.sizes, comparison.prediction.sizes) < 2
    return few
