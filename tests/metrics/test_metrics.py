"""Metrics by definition, on arrays small enough to work out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from harness.metrics import Comparison, Conventions, Metric, Side, register, registered, suite_named
from harness.metrics.base import Values
from harness.metrics.combined_score import scaled_scores
from harness.metrics.comparison import DETable
from harness.metrics.suites import registered_suites

CONVENTIONS = Conventions(fold_changes="clipped", adjusted_over="run", exact_when_small=True)


def side(pseudobulk: np.ndarray, u: np.ndarray | None = None, n: int = 50) -> Side:
    """A side with a control of ones; U decides which genes are significant."""
    pseudobulk = np.asarray(pseudobulk, dtype=np.float64)
    middle = np.full(pseudobulk.shape, n * n / 2)
    return Side(
        pseudobulk=pseudobulk,
        control=np.ones(pseudobulk.shape[1]),
        u=middle if u is None else u,
        ties=np.zeros(pseudobulk.shape),
        sizes=np.full(len(pseudobulk), n),
        n_controls=n,
    )


def compared(truth: Side, prediction: Side, names: str = "ABCDEFGH") -> Comparison:
    n_pairs, n_genes = truth.pseudobulk.shape
    genes = tuple(f"g{gene}" for gene in range(n_genes))
    return Comparison(tuple(names[:n_pairs]), genes, truth, prediction, CONVENTIONS)


def values(name: str, comparison: Comparison) -> list[float]:
    return registered()[name](comparison).values.tolist()


def called(*rows: tuple[int, ...], n_genes: int = 6) -> np.ndarray:
    """U such that just these genes are significant."""
    u = np.full((len(rows), n_genes), 1250.0)
    for row, genes in enumerate(rows):
        u[row, list(genes)] = 0.0
    return u


def test_mae_is_the_mean_distance_of_profiles() -> None:
    found = values("mae", compared(side([[1.0, 2.0], [0.0, 4.0]]), side([[2.0, 2.0], [1.0, 1.0]])))
    assert found == [0.5, 2.0]


def test_discrimination_counts_true_effects_that_are_nearer() -> None:
    truth = side([[2, 1, 1], [1, 2, 1], [1, 1, 2]])
    prediction = side([[2, 1, 1], [1, 1, 2], [1, 1.4, 2]])
    found = values("discrimination_score_l1", compared(truth, prediction))
    assert found == pytest.approx([1, 1 - 2 / 3, 1])


def test_equal_distances_are_ordered_by_index() -> None:
    truth = side([[2, 1, 1], [1, 2, 1], [1, 1, 2]])
    flat = compared(truth, side(np.ones((3, 3))))
    for kind in ("l1", "l2", "cosine"):
        assert values(f"discrimination_score_{kind}", flat) == pytest.approx([1, 2 / 3, 1 / 3])


def test_the_gene_that_bears_the_perturbations_name_is_left_out() -> None:
    truth, prediction = side([[9, 1, 2], [1, 1, 1]]), side([[9, 1, 1], [1, 1, 1]])
    genes = ("A", "x", "y")
    comparison = Comparison(("A", "B"), genes, truth, prediction, CONVENTIONS)
    assert comparison.own_genes == ((0,), ())
    assert values("discrimination_score_l1", comparison) == [0.5, 1.0]


@pytest.mark.parametrize(
    ("predicted", "share"),
    [
        ((0, 1, 2), 1.0),
        ((0, 1), 2 / 3),  # fewer are not padded
        ((0, 1, 2, 3, 4), 1 / 3),  # more are cut to the largest three: 4, 3 and 2
        ((), 0.0),
    ],
    ids=["same", "fewer", "more", "none"],
)
def test_overlap_compares_as_many_genes_as_the_truth_has(
    predicted: tuple[int, ...], share: float
) -> None:
    profile = np.array([[1.2, 1.3, 1.4, 1.5, 1.6, 1.7]])
    truth, prediction = side(profile, called((0, 1, 2))), side(profile, called(predicted))
    assert values("overlap_at_N", compared(truth, prediction)) == pytest.approx([share])


def test_overlap_is_zero_without_true_genes() -> None:
    profile = np.ones((1, 6))
    comparison = compared(side(profile, called(())), side(profile, called((1, 2))))
    assert values("overlap_at_N", comparison) == [0.0]


def test_tied_fold_changes_keep_the_order_of_genes() -> None:
    profile = np.array([[0.0, 1.5, 0.0, 2.0, 0.0, 1.0]])
    table = side(profile, called((0, 1, 2, 3, 4))).de(CONVENTIONS)
    assert table.ranked[0].tolist() == [0, 2, 4, 3, 1]


def test_significance_is_decided_in_float32() -> None:
    table = side(np.ones((1, 3))).de(CONVENTIONS)
    adjusted = np.array([[0.049999999, 0.0499999, 0.05]])
    exact = type(table)(table.p, adjusted, table.fold_change)
    assert exact.significant.tolist() == [[False, True, False]]


def test_p_values_are_adjusted_over_the_run_or_over_the_pair() -> None:
    one = side(np.ones((2, 6)), called((0, 1, 2), ()))
    run = one.de(CONVENTIONS)
    pair = one.de(Conventions("clipped", "pair", exact_when_small=True))
    expected = mannwhitneyu(np.arange(50), np.arange(50, 100), method="asymptotic").pvalue
    assert run.adjusted[0, 0] == pytest.approx(expected * 12 / 3)
    assert pair.adjusted[0, 0] == pytest.approx(expected * 6 / 3)


def test_undefined_values_take_the_first_reason() -> None:
    causes = ((np.array([True, False, True]), "one"), (np.array([True, True, False]), "two"))
    found = Values.of(np.arange(3), *causes)
    assert np.isnan(found.values).all()
    assert found.reasons == ("one", "two", "one")


def test_a_name_is_registered_once() -> None:
    taken: Metric = registered()["mae"]
    with pytest.raises(ValueError, match="'mae' is registered already"):
        register(taken)


@pytest.mark.parametrize("name", registered_suites())
def test_suites_name_registered_metrics(name: str) -> None:
    suite = suite_named(name)
    assert [metric.name for metric in suite.members()] == list(suite.metrics)
    assert set(suite.combined) <= set(suite.metrics)


def test_scaled_scores_run_from_baseline_to_best() -> None:
    found = scaled_scores([0.7, 0.2, 0.1, np.nan], [0.4, 0.4, 0.4, 0.4], [1.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(found, [0.5, 0.5, 0, 0])


DE_METRICS = [name for name in registered() if f"{name}_no_target" in registered()]


@pytest.mark.parametrize("name", DE_METRICS)
def test_without_its_target_a_pair_scores_as_if_the_gene_had_not_been_measured(name: str) -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0, 0.1, size=(2, 3, 40))
    fold_change = np.exp(rng.normal(size=(2, 3, 40)))
    genes = tuple(f"g{gene}" for gene in range(40))

    def comparison(columns: np.ndarray, names: tuple[str, ...], rows: slice) -> Comparison:
        sides = []
        for i in range(2):
            values = p[i][rows][:, columns], fold_change[i][rows][:, columns]
            table = DETable(values[0], values[0], values[1])
            sides.append(replace(side(np.ones(values[0].shape)), given=table))
        kept = tuple(genes[column] for column in columns)
        return Comparison(names, kept, *sides, CONVENTIONS)

    everything = np.arange(40)
    names = ("g7", "g31", "compound")
    found = registered()[f"{name}_no_target"](comparison(everything, names, slice(None))).values
    if registered()[name].per_context:
        assert not np.isnan(found).any()
        return
    for row, left_out in enumerate((7, 31, -1)):
        kept = everything[everything != left_out]
        alone = comparison(kept, names[row : row + 1], slice(row, row + 1))
        assert found[row] == registered()[name](alone).values[0]


def test_differential_expression_scores_all_exist_without_the_target() -> None:
    assert set(DE_METRICS) == set(suite_named("cell-eval:de").metrics)
