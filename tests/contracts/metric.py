"""What every metric must satisfy, whoever wrote it.

`CONTRACT` holds one function for each clause; each takes a metric and raises AssertionError. The
screen is small and its effects strong, so that a prediction drawn anew is good and one whose
perturbations are exchanged is bad.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from harness.scoring.scorer import prepare, score
from tests.golden import cases, compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.metrics import Metric
    from harness.scoring.scores import Scores


def _screen(metric: Metric, name: str) -> cases.Matrix:
    return _side(name, "counts" if "counts" in metric.needs else "plain")


@cache
def _side(name: str, scale: str) -> cases.Matrix:
    plain = cases.Case(
        cases.counts(100, cases.SIZES, cases.GENES, 6.0),
        cases.counts(200, cases.SIZES, cases.GENES, 5.0),
    )
    if scale == "plain":
        plain = cases.SIMULATED["plain"]()
    if name == "truth":
        return plain.truth
    if name == "prediction":
        return plain.prediction
    names = [label for label in cases.SIZES if label != cases.CONTROL]
    exchanged = dict(zip(names, names[1:] + names[:1], strict=True))
    labels = [exchanged.get(str(label), cases.CONTROL) for label in plain.prediction.labels]
    return replace(plain.prediction, labels=np.array(labels))


def _scores(metric: Metric, truth: cases.Matrix, prediction: cases.Matrix) -> Scores:
    sides = (compare.annotated(side) for side in (truth, prediction))
    centre = np.zeros(truth.X.shape[1])  # where a metric needs one from outside the truth
    return score(*sides, metrics=[metric.name], centre=lambda _: centre)


def _values(metric: Metric, truth: cases.Matrix, prediction: cases.Matrix) -> np.ndarray:
    return _scores(metric, truth, prediction).frame["value"].to_numpy()


def _named(metric: Metric, name: str) -> np.ndarray:
    return _values(metric, _screen(metric, "truth"), _screen(metric, name))


UNBIASED = ("energy_distance", "mmd2")
"""Estimates that are at their best on average; of a copy, which no model is, they fall below."""


def truth_scores_best(metric: Metric) -> None:
    """The truth as its own prediction gets the best value there is."""
    if metric.name in UNBIASED:
        assert metric.best == 0
        assert (_named(metric, "truth") < 0).all()
    elif metric.best is not None:
        np.testing.assert_allclose(_named(metric, "truth"), metric.best, atol=1e-12)


def exchanged_predictions_score_worse(metric: Metric) -> None:
    """Perturbations exchanged among each other score worse, as the direction says."""
    if metric.higher_is_better is None:
        return
    right, wrong = (_named(metric, name).mean() for name in ("prediction", "exchanged"))
    assert right > wrong if metric.higher_is_better else right < wrong


def every_value_is_a_number_or_has_a_reason(metric: Metric) -> None:
    """NaN and a reason come together, one value for each pair."""
    frame = _scores(metric, _screen(metric, "truth"), _screen(metric, "exchanged")).frame
    assert len(frame) == len(cases.SIZES) - 1
    assert (frame["value"].isna() == (frame["reason"] != "")).all()


def order_of_cells_does_not_matter(metric: Metric) -> None:
    """Cells in another order score the same, up to the order in which matrices are multiplied."""
    side = _screen(metric, "prediction")
    order = np.argsort(cases.uniforms(9, len(side.labels)))
    shuffled = replace(side, X=side.X[order], labels=side.labels[order])
    found = _values(metric, _screen(metric, "truth"), shuffled)
    np.testing.assert_allclose(found, _named(metric, "prediction"), rtol=1e-7)


def storage_does_not_matter(metric: Metric) -> None:
    """Sparse cells score as dense ones."""
    side = _screen(metric, "prediction")
    sparse = replace(side, X=cases.sparse.csr_matrix(side.X))
    found = _values(metric, _screen(metric, "truth"), sparse)
    np.testing.assert_allclose(found, _named(metric, "prediction"), rtol=1e-12)


def description_says_what_it_means(metric: Metric) -> None:
    """The docstring has a first sentence for lists and a body for readers."""
    assert 20 < len(metric.summary) < 150
    assert metric.summary.endswith(".")
    assert metric.key == f"{metric.name}@{metric.version}"


def truth_may_be_shared(metric: Metric) -> None:
    """A prepared truth scores as one that is read anew, also the second time."""
    truth = _screen(metric, "truth")
    centre = np.zeros(truth.X.shape[1])
    prepared = prepare(compare.annotated(truth), centre=lambda _: centre)
    for name in ("exchanged", "prediction"):
        found = score(prepared, compare.annotated(_screen(metric, name)), metrics=[metric.name])
        np.testing.assert_array_equal(found.frame["value"], _named(metric, name))


CONTRACT: tuple[Callable[[Metric], None], ...] = (
    truth_scores_best,
    exchanged_predictions_score_worse,
    every_value_is_a_number_or_has_a_reason,
    order_of_cells_does_not_matter,
    storage_does_not_matter,
    description_says_what_it_means,
    truth_may_be_shared,
)
