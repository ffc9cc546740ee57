"""Metrics of pseudobulks and effects: how near a predicted profile is, and to which true one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.kernels import pairwise_distances
from harness.metrics.base import (
    CONSTANT_PREDICTION,
    CONSTANT_TRUTH,
    Metric,
    Values,
    metric,
    register,
)
from harness.metrics.correlation import constant, one_for_all, pearson

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.metrics.comparison import Comparison


@metric("mae", needs="profiles", higher_is_better=False, best=0.0)
def mae(comparison: Comparison) -> Values:
    """Mean absolute error of the pseudobulk: mean over genes of |x̂̄_p - x̄_p|, on the log1p scale.

    One of the three metrics of the Virtual Cell Challenge 2025 (Roohani et al., Cell 2025).
    """
    error = np.abs(comparison.prediction.pseudobulk - comparison.truth.pseudobulk)
    return Values.of(error.mean(axis=1))


@metric("mse", needs="profiles", higher_is_better=False, best=0.0)
def mse(comparison: Comparison) -> Values:
    """Mean squared error of the pseudobulk: mean over genes of (x̂̄_p - x̄_p)², on the log1p scale."""
    error = comparison.prediction.pseudobulk - comparison.truth.pseudobulk
    return Values.of((error**2).mean(axis=1))


@metric("mse_delta", needs="profiles", higher_is_better=False, best=0.0)
def mse_delta(comparison: Comparison) -> Values:
    """Mean squared error of the effect: mean over genes of (δ̂_p - δ_p)².

    Each effect is measured from its own side's control.
    """
    error = comparison.prediction.effect - comparison.truth.effect
    return Values.of((error**2).mean(axis=1))


@metric("mae_delta", needs="profiles", higher_is_better=False, best=0.0)
def mae_delta(comparison: Comparison) -> Values:
    """Mean absolute error of the effect: mean over genes of |δ̂_p - δ_p|.

    Each effect is measured from its own side's control.
    """
    return Values.of(np.abs(comparison.prediction.effect - comparison.truth.effect).mean(axis=1))


@metric("pearson_delta", needs="profiles", higher_is_better=True, best=1.0)
def pearson_delta(comparison: Comparison) -> Values:
    """Pearson correlation over genes of the predicted with the true effect.

    Each effect is measured from its own side's control. Undefined where either effect is the same
    for all genes.
    """
    predicted, true = comparison.prediction.effect, comparison.truth.effect
    return Values.of(
        pearson(predicted, true),
        (constant(predicted), CONSTANT_PREDICTION),
        (constant(true), CONSTANT_TRUTH),
    )


@metric("pearson_edistance", needs="energy", higher_is_better=True, best=1.0, per_context=True)
def pearson_edistance(comparison: Comparison) -> Values:
    """Pearson correlation over perturbations of predicted with true energy distances to control.

    E = 2 E|X - Y| - E|X - X'| - E|Y - Y'| between the cells of a perturbation and its own side's
    control, Euclidean over all genes; means over all ordered pairs of cells, each cell with itself
    among them (the V-statistic; Székely & Rizzo 2013). One value for all perturbations of a
    context; undefined for fewer than two, or where the distances do not vary (by more than one part
    in a million: the oracle then correlates rounding errors).
    """
    predicted, true = comparison.prediction.energy, comparison.truth.energy
    assert predicted is not None
    assert true is not None
    return one_for_all(predicted, true, pearson)


def _discrimination(kind: Literal["l1", "l2", "cosine"]) -> Callable[[Comparison], Values]:
    names = {"l1": "L1", "l2": "Euclidean", "cosine": "cosine"}

    def discrimination_score(comparison: Comparison) -> Values:
        distances = pairwise_distances(
            comparison.prediction.effect,
            comparison.truth.effect,
            kind,
            left_out=comparison.own_genes,
            threads=comparison.threads,
        )
        own = np.diagonal(distances)[:, None]
        index = np.arange(comparison.n_pairs)
        nearer = (distances < own).sum(axis=1)
        tied_before = ((distances == own) & (index < index[:, None])).sum(axis=1)
        return Values.of(1.0 - (nearer + tied_before) / comparison.n_pairs)

    discrimination_score.__doc__ = f"""Perturbation discrimination score by {names[kind]} distance.

    1 - r/P, where r is the place, from 0, of the perturbation's own true effect among all P true
    effects of the context, by rising distance to its predicted effect (Wu et al., PerturBench 2024;
    one of the metrics of the Virtual Cell Challenge 2025). The column of the gene that bears the
    perturbation's name is left out; a name that is no gene leaves out nothing. Equal distances are
    ordered by index, so a prediction without effect scores whatever place that gives it. The
    cosine distance to an effect of length zero is 1.
    """
    return discrimination_score


for _kind in ("l1", "l2", "cosine"):
    register(
        Metric(
            name=f"discrimination_score_{_kind}",
            version=1,
            needs=frozenset(["profiles"]),
            higher_is_better=True,
            best=1.0,
            function=_discrimination(_kind),
        )
    )
