"""The metrics of raw counts by definition, on arrays small enough to work out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from harness.kernels.groups import Groups
from harness.kernels.jackknife import Depths, count_sums
from harness.metrics import registered
from harness.metrics.anchored_score import fault, scaled
from harness.metrics.count_comparison import NO_GENE, CountComparison, CountSide
from harness.scoring.count_statistics import Picked, Rescaled, Stacked, measure_counts
from tests.golden import cases

RATIO = "expr_mse_unbiased_capped_norm"


def left_out(X: np.ndarray, codes: np.ndarray, n_groups: int, target: float) -> np.ndarray:
    """The jackknife by leaving out each cell in turn."""
    deviations = np.zeros(n_groups)
    for group in range(n_groups):
        Y = X[codes == group].astype(np.float64)
        if len(Y) < 2 or not Y.sum():
            continue
        whole = np.log1p(target * Y.sum(axis=0) / Y.sum())
        moved = []
        for cell in range(len(Y)):
            rest = np.delete(Y, cell, axis=0)
            total = rest.sum()
            moved.append((np.log1p(target * rest.sum(axis=0) / total) if total else 0) - whole)
        deviations[group] = ((moved - np.mean(moved, axis=0)) ** 2).sum()
    return deviations


@pytest.mark.parametrize("stored", ["dense", "csc"])
@pytest.mark.parametrize("depth", [1, 300], ids=["shallow", "deep"])
def test_the_jackknife_leaves_out_every_cell(stored: str, depth: int) -> None:
    X = np.floor(depth * cases.uniforms(1, 120, 30) ** 6 * 8)
    codes = np.repeat(np.arange(6), [60, 3, 2, 1, 4, 50]).astype(np.int32)
    X[codes == 2] = 0
    X[np.flatnonzero(codes == 4)[1:]] = 0  # one cell has all counts
    groups = Groups(codes, np.zeros(6, np.int32))
    block = sparse.csc_matrix(X) if stored == "csc" else X
    depths = Depths.of(X.sum(axis=1), groups)
    assert depths.series.tolist() == [True, False, True, True, True, True]
    found = count_sums(block, groups, depths, 5e4, threads=2)
    np.testing.assert_allclose(found.noise, left_out(X, codes, 6, 5e4), rtol=1e-9, atol=1e-12)
    for group in range(6):
        np.testing.assert_array_equal(found.counts[group], X[codes == group].sum(axis=0))


def test_cells_in_no_group_are_not_counted() -> None:
    X = np.floor(9 * cases.uniforms(2, 40, 20))
    codes = np.repeat([0, 1, -1], [15, 15, 10]).astype(np.int32)
    groups = Groups(codes, np.zeros(2, np.int32))
    found = count_sums(X, groups, Depths.of(X.sum(axis=1), groups), 5e4)
    np.testing.assert_allclose(found.noise, left_out(X, codes, 2, 5e4), rtol=1e-9)


class Plain:
    """Counts in memory."""

    def __init__(self, X: Any) -> None:
        self.X, self.genes = X, tuple(f"g{gene}" for gene in range(X.shape[1]))
        self.sizes = np.asarray(X.sum(axis=1), np.float64).ravel()
        self.n_cells = X.shape[0]

    def block(self, start: int, stop: int) -> Any:
        return self.X[:, start:stop]


@pytest.mark.parametrize("stored", ["dense", "csc"])
def test_rows_are_picked_rescaled_and_stacked_without_a_matrix(stored: str) -> None:
    X = np.floor(5 * cases.uniforms(4, 20, 18)).astype(np.float32)
    source = Plain(sparse.csc_matrix(X) if stored == "csc" else X)
    factors = cases.uniforms(5, 18) * 2
    rows = np.array([3, 3, 19, 0])
    made = Stacked(Picked(Rescaled(source, factors, memory=1), rows), Picked(source, rows[:2]))
    expected = np.vstack([(X * factors).astype(np.float32)[rows], X[rows[:2]]])
    block = made.block(2, 18)
    block = block.toarray() if stored == "csc" else block
    np.testing.assert_array_equal(block, expected[:, 2:])
    np.testing.assert_allclose(made.sizes, expected.sum(axis=1, dtype=np.float64), rtol=1e-12)


def test_a_group_without_counts_has_a_pseudobulk_of_zeros() -> None:
    X = np.floor(5 * cases.uniforms(4, 20, 18))
    X[:5] = 0
    groups = Groups(np.repeat([1, 0], [5, 15]).astype(np.int32), np.zeros(2, np.int32))
    found = measure_counts(Plain(X), [groups])[0]
    assert not found.bulk[1].any()
    assert found.noise[1] == 0
    np.testing.assert_allclose(np.expm1(found.bulk[0]).sum(), 5e4)
    np.testing.assert_allclose(found.cpm[0].sum(), 1e6)


def side(
    bulk: np.ndarray, changes: np.ndarray | None = None, p: np.ndarray | None = None
) -> CountSide:
    """A side whose control has a pseudobulk of zeros and expresses every gene at 8 CPM."""
    bulk = np.asarray(bulk, dtype=np.float64)
    made = CountSide(
        bulk=bulk,
        control_bulk=np.zeros(bulk.shape[1]),
        noise=np.zeros(len(bulk)),
        control_noise=0.0,
        cpm=8.0 * 2.0 ** (np.zeros_like(bulk) if changes is None else np.asarray(changes)),
        control_cpm=np.full(bulk.shape[1], 8.0),
        u=np.zeros_like(bulk),
        ties=np.zeros_like(bulk),
        sizes=np.full(len(bulk), 20),
        n_controls=20,
    )
    made.p = np.ones_like(bulk) if p is None else np.asarray(p)
    return made


def compared(truth: CountSide, prediction: CountSide, targets: list[int] | None = None) -> Any:
    n_pairs, n_genes = truth.bulk.shape
    return CountComparison(
        perturbations=tuple("ABCDEFGH"[:n_pairs]),
        genes=tuple(f"g{gene}" for gene in range(n_genes)),
        truth=truth,
        prediction=prediction,
        targets=np.array(targets or [NO_GENE] * n_pairs),
    )


def values(name: str, comparison: Any) -> list[float]:
    return registered()[name](comparison).values.tolist()


def test_ties_in_discrimination_count_half() -> None:
    truth = side([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    flat = side(np.zeros((3, 4)))
    assert values("pds_cosine", compared(truth, flat)) == [0.5, 0.5, 0.5]
    beside = side([[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 5, 0]])
    assert values("pds_cosine", compared(truth, beside)) == [0.25, 1.0, 1.0]


def test_discrimination_leaves_out_the_targets_of_the_whole_panel() -> None:
    truth = side([[9, 0, 1, 0], [0, 9, 0, 1]])
    crossed = side([[0, 9, 1, 0], [9, 0, 0, 1]])  # wrong only where it is not looked at
    assert values("pds_cosine", compared(truth, crossed, [0, 1])) == [1.0, 1.0]
    assert values("pds_cosine", compared(truth, crossed)) == [0.0, 0.0]


def test_credit_for_noise_is_capped_by_the_truths_and_by_the_spread() -> None:
    truth, prediction = side([[1.0, 0], [0, 1.0]]), side([[1.0, 0.2], [0.2, 1.0]])
    truth.noise[:], prediction.noise[:] = 0.1, 5.0
    comparison = compared(truth, prediction)
    assert values("expr_mse_unbiased", comparison) == pytest.approx([(0.04 - 5.1) / 2] * 2)
    # min(5, 0.1) each; the spread of 0.64 allows both
    capped = values("expr_mse_unbiased_capped", comparison)
    assert capped == pytest.approx([(0.04 - 0.2) / 2] * 2)
    pinned = side([[1.0, 0.2], [1.0, 0.2]])  # no spread, no credit
    pinned.noise[:] = 5.0
    found = values("expr_mse_unbiased_capped", compared(truth, pinned))
    assert found == pytest.approx([(0.04 - 0.1) / 2, (1.64 - 0.1) / 2])


def test_error_and_size_leave_out_the_own_target_alone() -> None:
    truth, prediction = side([[3.0, 1, 0], [0, 2.0, 0]]), side([[0.0, 2, 0], [0, 2.0, 3]])
    comparison = compared(truth, prediction, [0, NO_GENE])
    assert values("expr_mse_unbiased", comparison) == [1 / 2, 9 / 3]
    assert values("expr_distance_unbiased", comparison) == [1 / 2, 4 / 3]
    assert np.mean(values(RATIO, comparison)) == pytest.approx((0.5 + 3) / (0.5 + 4 / 3))


HIGH, LOW = 1.0, 1e-9


def test_fidelity_charges_calls_too_many_and_too_few() -> None:
    bulk = np.zeros((3, 6))
    truth = side(
        bulk, np.tile([1, 1, -1, -1, 0, 1], (3, 1)), np.tile([LOW] * 4 + [HIGH] * 2, (3, 1))
    )
    called = np.array([[LOW] * 6, [LOW] + [HIGH] * 5, [HIGH] * 6])
    prediction = side(bulk, np.tile([1, -1, -1, -1, 1, 1], (3, 1)), called)
    found = values("de_wilcoxon_direction_fidelity_yield_raw", compared(truth, prediction))
    assert found == [4 / 5, 1 / 4, 0.0]  # gene 4 does not change in truth: not judged


def test_agreement_is_undefined_where_nothing_is_called() -> None:
    nothing = side(np.zeros((1, 6)))
    for name in ("direction_fidelity_yield_raw", "direction_reach_raw", "lfc_nmae"):
        found = registered()[f"de_wilcoxon_{name}"](compared(nothing, nothing))
        assert np.isnan(found.values).all()
        assert "significant gene" in found.reasons[0]
    assert values("de_wilcoxon_sig_jaccard", compared(nothing, nothing)) == [1.0]


def test_reach_is_the_longest_prefix_with_nine_in_ten_right() -> None:
    n = 30
    right = np.ones((1, n))
    wrong = np.where(np.arange(n) % 20 == 9, -1.0, 1.0)[None]  # genes 9 and 29
    truth = side(np.zeros((1, n)), right, np.full((1, n), LOW))
    order = np.linspace(LOW, LOW * 100, n)[None]
    prediction = side(np.zeros((1, n)), wrong, order)
    reach = "de_wilcoxon_direction_reach_raw"
    assert values(reach, compared(truth, prediction)) == [1.0]  # 28 of 30
    worse = side(np.zeros((1, n)), np.where(np.arange(n) >= 12, -1.0, 1.0)[None], order)
    assert values(reach, compared(truth, worse)) == [13 / 30]  # 12 of 13


def test_genes_of_equal_confidence_are_ordered_by_change_then_name() -> None:
    genes = 4
    truth = side(np.zeros((1, genes)), np.ones((1, genes)), np.full((1, genes), LOW))
    flat = np.full((1, genes), 0.5)
    larger = side(np.zeros((1, genes)), [[1.0, 1.0, 5.0, -2.0]], flat)
    reach = "de_wilcoxon_direction_reach_raw"
    assert values(reach, compared(truth, larger)) == [1 / 4]
    mixed = side(np.zeros((1, genes)), [[1.0, 1.0, -1.0, 1.0]], np.full((1, genes), LOW))
    same = side(np.zeros((1, genes)), np.ones((1, genes)), flat)
    assert values(reach, compared(mixed, same)) == [2 / 4]


def test_an_untested_gene_of_the_prediction_counts_as_unchanged() -> None:
    n = 10
    truth = side(np.zeros((1, n)), np.ones((1, n)), np.full((1, n), LOW))
    prediction = side(np.zeros((1, n)), np.ones((1, n)), np.full((1, n), LOW))
    prediction.control_cpm[:2] = 4.0
    assert values("de_wilcoxon_lfc_nmae", compared(truth, prediction))[0] == pytest.approx(0.2)
    assert values("de_wilcoxon_sig_jaccard", compared(truth, prediction)) == [0.8]


@pytest.mark.parametrize(
    ("name", "user", "expected"),
    [
        ("pds_cosine", 0.2, -0.75),
        ("pds_cosine", 1.0, 1.25),
        ("pds_cosine", np.nan, -1.25),
        ("expr_mse_unbiased_capped_norm", 2.0, 0.0),
        ("expr_mse_unbiased_capped_norm", -1.0, 1.0),
        ("expr_mse_unbiased_capped_norm", np.nan, 0.0),
        ("de_wilcoxon_lfc_nmae", 100.0, -6.0),
        ("de_wilcoxon_lfc_nmae", 0.1, 2.25),
        ("de_wilcoxon_lfc_nmae", np.nan, -6.0),
    ],
    ids=lambda value: str(value),
)
def test_only_two_members_are_held_within_bounds(name: str, user: float, expected: float) -> None:
    ends = (0.5, 0.9) if name == "pds_cosine" else (1.0, 0.6)
    assert scaled(name, user, *ends) == pytest.approx(expected)


def test_faults_of_a_scale_are_named() -> None:
    assert fault("pds_cosine", 0.5, 0.9) == ""
    assert "no better than the baseline" in fault("pds_cosine", 0.5, 0.5)
    assert "no better than the baseline" in fault("de_wilcoxon_lfc_nmae", 0.5, 0.7)
    assert "one end is undefined" in fault("pds_cosine", np.nan, 0.5)
    assert "no better than the worst value" in fault("pds_cosine", -0.5, -0.2)
