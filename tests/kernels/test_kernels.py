"""Kernels against plain definitions, SciPy, and themselves in other forms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from scipy.spatial.distance import cdist
from scipy.stats import false_discovery_control, mannwhitneyu, rankdata

from harness.kernels.blocks import RowRange
from harness.kernels.columns import columns_of, pick_rows
from harness.kernels.differential import (
    adjust,
    adjust_rows,
    clipped_fold_change,
    fold_change,
)
from harness.kernels.distances import pairwise_distances
from harness.kernels.groups import Groups
from harness.kernels.normalise import log1p_normalise, median_library_size
from harness.kernels.rank_test import (
    BlockStatistics,
    block_statistics,
    joint_statistics,
    midranks,
    p_values,
)

CODES = np.array([0] * 30 + [1] * 12 + [2] * 9 + [-1] * 4 + [3] * 25 + [4] * 11 + [5])
REFERENCE = np.array([0, 0, 0, 3, 3, 3])
PERTURBED = (1, 2, 4, 5)


def screen(rng: np.random.Generator, *, decimals: int | None, width: int = 21) -> np.ndarray:
    """Draw values of which half are zero; rounding them makes ties."""
    drawn = rng.gamma(2.0, 1.0, (len(CODES), width)) * (rng.random((len(CODES), width)) < 0.5)
    drawn[:, 3] = 0
    drawn[:, 4] = 1.5
    return drawn if decimals is None else np.round(drawn, decimals)


def shuffled_groups(rng: np.random.Generator) -> Groups:
    return Groups(rng.permutation(CODES), REFERENCE)


def same(one: BlockStatistics, other: BlockStatistics) -> None:
    for name in ("sums", "u", "ties"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("decimals", [None, 1], ids=["few-ties", "many-ties"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["single", "double"])
def test_u_and_p_equal_scipy_for_every_group(
    rng: np.random.Generator, dtype: type, decimals: int | None
) -> None:
    X, groups = screen(rng, decimals=decimals).astype(dtype), shuffled_groups(rng)
    found, sizes = block_statistics(X, groups), groups.sizes()
    p = p_values(found.u, found.ties, sizes, sizes[REFERENCE], exact_when_small=False)
    wide = X.astype(np.float64)  # SciPy 1.17 would rank float32 in float32
    for group in PERTURBED:
        cells, controls = wide[groups.codes == group], wide[groups.codes == REFERENCE[group]]
        expected = mannwhitneyu(cells, controls, method="asymptotic")
        np.testing.assert_array_equal(found.u[group], expected.statistic)
        np.testing.assert_allclose(p[group], np.nan_to_num(expected.pvalue, nan=1), rtol=1e-9)
        np.testing.assert_allclose(found.sums[group], cells.sum(axis=0), rtol=1e-12)


def test_controls_have_no_u(rng: np.random.Generator) -> None:
    found = block_statistics(screen(rng, decimals=None), shuffled_groups(rng))
    assert np.isnan(found.u[[0, 3]]).all()
    assert (found.ties[[0, 3]] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["single", "double"])
@pytest.mark.parametrize(
    "form",
    [sparse.csc_matrix, sparse.csc_array, np.asfortranarray, lambda X: X[:, ::-1][:, ::-1]],
    ids=["csc-matrix", "csc-array", "fortran", "view"],
)
def test_the_form_of_a_block_changes_nothing(
    rng: np.random.Generator, form: object, dtype: type
) -> None:
    X, groups = screen(rng, decimals=1).astype(dtype), shuffled_groups(rng)
    same(block_statistics(form(X), groups), block_statistics(X, groups))  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["single", "double"])
def test_columns_of_a_matrix_stored_by_rows_need_no_copy(
    rng: np.random.Generator, dtype: type
) -> None:
    X, groups = screen(rng, decimals=None, width=90).astype(dtype), shuffled_groups(rng)
    rows = RowRange(sparse.csr_matrix(X), 3, 85)
    same(block_statistics(rows, groups, threads=2), block_statistics(X[:, 3:85], groups))


def test_explicit_zeros_are_zeros(rng: np.random.Generator) -> None:
    X, groups = screen(rng, decimals=1), shuffled_groups(rng)
    stored = sparse.csc_matrix(np.where(X == 0, -1, X))
    stored.data[stored.data == -1] = 0
    same(block_statistics(stored, groups), block_statistics(X, groups))


def test_negative_zeros_are_zeros(rng: np.random.Generator) -> None:
    X, groups = screen(rng, decimals=1).astype(np.float32), shuffled_groups(rng)
    signed = np.where(X == 0, np.float32(-0.0), X)
    same(block_statistics(signed, groups), block_statistics(X, groups))


def test_blocks_and_threads_change_nothing(rng: np.random.Generator) -> None:
    X, groups = screen(rng, decimals=1, width=600), shuffled_groups(rng)
    whole = block_statistics(X, groups, threads=3)
    for start, stop in pairwise((0, 1, 18, 600)):
        part = block_statistics(X[:, start:stop], groups)
        np.testing.assert_array_equal(part.u, whole.u[:, start:stop])
        np.testing.assert_array_equal(part.ties, whole.ties[:, start:stop])


def test_single_and_double_precision_agree(rng: np.random.Generator) -> None:
    X, groups = screen(rng, decimals=1).astype(np.float32), shuffled_groups(rng)
    same(block_statistics(X.astype(np.float64), groups), block_statistics(X, groups))


@pytest.mark.parametrize("far", [1.0, 1e-280], ids=["near", "far-apart"])
def test_doubles_are_ranked_exactly_however_far_apart(rng: np.random.Generator, far: float) -> None:
    X, groups = np.round(screen(rng, decimals=1).astype(np.float64), 1) / 3, shuffled_groups(rng)
    X[::3] = np.nextafter(X[::3], 99) * (X[::3] > 0)  # one last bit apart: not tied
    X[::7] *= far
    found, sizes = block_statistics(X, groups), groups.sizes()
    for group in np.flatnonzero(~groups.is_control):
        own, control = (X[groups.codes == g] for g in (group, groups.reference[group]))
        expected = mannwhitneyu(own, control, method="asymptotic")
        np.testing.assert_array_equal(found.u[group], expected.statistic)
        np.testing.assert_allclose(found.sums[group], own.sum(axis=0), rtol=1e-12)
        n1, n2 = sizes[[group]], sizes[[groups.reference[group]]]
        p = p_values(found.u[[group]], found.ties[[group]], n1, n2, exact_when_small=False)
        np.testing.assert_allclose(p[0], expected.pvalue, rtol=1e-9)


def test_integers_are_taken_as_numbers(rng: np.random.Generator) -> None:
    X, groups = screen(rng, decimals=0), shuffled_groups(rng)
    same(block_statistics(X.astype(np.int64), groups), block_statistics(X, groups))


def test_many_cells_are_sorted_right(rng: np.random.Generator) -> None:
    X = rng.gamma(2.0, 1.0, (9000, 2)).astype(np.float32)
    groups = Groups(np.arange(9000) % 3, np.zeros(3, int))
    wide = X.astype(np.float64)
    expected = mannwhitneyu(wide[1::3], wide[::3], method="asymptotic").statistic
    np.testing.assert_array_equal(block_statistics(X, groups).u[1], expected)
    np.testing.assert_array_equal(block_statistics(wide, groups).u[1], expected)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (14, 3), elements=st.sampled_from([0, 0.5, 1, 1.25, 3])),
    st.permutations(range(14)),
)
def test_the_order_of_cells_changes_no_bit(X: np.ndarray, order: list[int]) -> None:
    codes = np.array([0] * 5 + [1] * 4 + [2] * 5)
    reference, places = np.zeros(3, int), np.asarray(order)
    one = block_statistics(X, Groups(codes, reference))
    other = block_statistics(X[places], Groups(codes[places], reference))
    same(one, other)


@pytest.mark.parametrize("form", [np.asarray, sparse.csc_matrix], ids=["dense", "columns"])
@pytest.mark.parametrize("decimals", [None, 1], ids=["few-ties", "many-ties"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["single", "double"])
def test_groupings_ranked_together_are_ranked_as_alone(
    rng: np.random.Generator, dtype: type, decimals: int | None, form: type
) -> None:
    X = form(screen(rng, decimals=decimals, width=90).astype(dtype))
    few = Groups(rng.integers(-1, 2, len(CODES)), np.zeros(2, np.int32))
    groupings = [shuffled_groups(rng), few, shuffled_groups(rng)]
    for found, groups in zip(joint_statistics(X, groupings, threads=2), groupings, strict=True):
        same(found, block_statistics(X, groups))


def test_doubles_that_differ_in_their_last_bits_alone_are_no_ties(rng: np.random.Generator) -> None:
    X = rng.integers(0, 4, (len(CODES), 5)) * np.spacing(1.0) + 1.0
    X[:40, :2] = 0
    X[50] = 1e-300  # leaves no room for the last bits in a key
    groups = shuffled_groups(rng)
    found = block_statistics(X, groups)
    for group in PERTURBED:
        own, control = (X[groups.codes == g] for g in (group, REFERENCE[group]))
        expected = mannwhitneyu(own, control, method="asymptotic")
        np.testing.assert_array_equal(found.u[group], expected.statistic)
        both = [np.unique(part, return_counts=True)[1] for part in np.vstack([own, control]).T]
        np.testing.assert_array_equal(found.ties[group], [(t**3 - t).sum() for t in both])


@pytest.mark.parametrize("rows", [[3, 3, 19, 0], [], list(range(20))], ids=["any", "none", "all"])
def test_rows_are_picked_from_columns_in_their_order(
    rng: np.random.Generator, rows: list[int]
) -> None:
    X = rng.poisson(0.7, (20, 6)).astype(np.float32)
    stored = sparse.csc_matrix(X)
    stored.data[::5] = 0  # kept in the file, left out of what is picked
    found = pick_rows(stored, np.array(rows, np.int64))
    np.testing.assert_array_equal(found.toarray(), stored.toarray()[rows])
    assert found.has_sorted_indices
    assert (found.data != 0).all()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, (12, 2), elements=st.floats(0, 4, width=16)))
def test_u_counts_the_pairs_of_cells_that_the_group_wins(X: np.ndarray) -> None:
    codes = np.arange(12) % 2
    found = block_statistics(X, Groups(codes, np.zeros(2, int)))
    ours, theirs = X[codes == 1][:, None], X[codes == 0][None]
    np.testing.assert_array_equal(
        found.u[1], ((ours > theirs) + 0.5 * (ours == theirs)).sum(axis=(0, 1))
    )


def test_a_group_that_refers_to_no_control_is_refused() -> None:
    with pytest.raises(ValueError, match="refer to themselves"):
        Groups(np.zeros(3, int), np.array([1, 0]))
    with pytest.raises(ValueError, match="codes must lie"):
        Groups(np.array([2]), np.array([0]))
    with pytest.raises(ValueError, match="block has 4 cells"):
        block_statistics(np.zeros((4, 1)), Groups(np.zeros(3, int), np.array([0])))


def test_p_is_right_where_it_nearly_vanishes() -> None:
    n1, n2 = 400, 4000
    lowest = np.array([[0.0, 3e4, 7e4, 2e5]])
    p = p_values(lowest, np.zeros_like(lowest), [n1], [n2], exact_when_small=False)  # type: ignore[arg-type]
    from scipy.special import log_ndtr

    spread = np.sqrt(n1 * n2 / 12 * (n1 + n2 + 1))
    z = (n1 * n2 / 2 - lowest - 0.5) / spread
    assert p[0, 0] < 1e-200
    np.testing.assert_allclose(np.log(p), np.log(2) + log_ndtr(-z), rtol=1e-12)


@pytest.mark.parametrize("n1", [1, 2, 5, 8])
@pytest.mark.parametrize("n2", [3, 8, 30])
def test_small_groups_without_ties_get_exact_p(rng: np.random.Generator, n1: int, n2: int) -> None:
    X = rng.random((n1 + n2, 9))
    groups = Groups(np.repeat([0, 1], [n2, n1]), np.zeros(2, int))
    found, sizes = block_statistics(X, groups), groups.sizes()
    p = p_values(found.u, found.ties, sizes, sizes[[0, 0]], exact_when_small=True)
    np.testing.assert_allclose(p[1], mannwhitneyu(X[n2:], X[:n2]).pvalue, rtol=1e-9)


def test_small_groups_with_ties_get_the_normal_approximation(rng: np.random.Generator) -> None:
    X = np.round(rng.random((25, 30)), 1)
    groups = Groups(np.repeat([0, 1], [20, 5]), np.zeros(2, int))
    found, sizes = block_statistics(X, groups), groups.sizes()
    p = p_values(found.u, found.ties, sizes, sizes[[0, 0]], exact_when_small=True)
    np.testing.assert_allclose(p[1], mannwhitneyu(X[20:], X[:20]).pvalue, rtol=1e-9)


def test_a_gene_with_one_value_has_p_one() -> None:
    found = block_statistics(np.ones((20, 2)), Groups(np.arange(20) % 2, np.zeros(2, int)))
    p = p_values(found.u, found.ties, *np.full((2, 2), 10), exact_when_small=True)
    assert (p[1] == 1).all()


@given(hnp.arrays(np.float64, (4, 5), elements=st.sampled_from([0, 1e-300, 0.01, 0.04, 0.5, 1])))
def test_adjusted_p_equals_scipy_to_the_bit(p: np.ndarray) -> None:
    np.testing.assert_array_equal(adjust(p), false_discovery_control(p.ravel()).reshape(4, 5))
    np.testing.assert_array_equal(adjust_rows(p)[2], false_discovery_control(p[2]))


def test_fold_changes_at_zero_follow_the_convention() -> None:
    mean, control = np.log1p([0.0, 2.0, 0.0, 6.0]), np.log1p([0.0, 0.0, 3.0, 3.0])
    np.testing.assert_allclose(clipped_fold_change(mean, control), [1, 20, 1 / 20, 2])
    np.testing.assert_allclose(fold_change(mean, control), [1, np.inf, 0, 2])


@pytest.mark.parametrize(
    ("kind", "scipy_name"), [("l1", "cityblock"), ("l2", "euclidean"), ("cosine", "cosine")]
)
def test_distances_equal_scipy_on_the_columns_left(
    rng: np.random.Generator, kind: str, scipy_name: str
) -> None:
    rows, others = rng.normal(size=(4, 30)), rng.normal(size=(6, 30))
    left_out = [(), (0,), (29, 3), tuple(range(30))]
    found = pairwise_distances(rows, others, kind, left_out=left_out, threads=2)  # type: ignore[arg-type]
    for row in range(3):
        kept = np.setdiff1d(np.arange(30), left_out[row])
        expected = cdist(rows[row : row + 1, kept], others[:, kept], scipy_name)[0]
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)
    assert (found[3] == (1 if kind == "cosine" else 0)).all()


def test_equal_rows_are_equally_far(rng: np.random.Generator) -> None:
    others = np.repeat(rng.normal(size=(1, 57)), 3, axis=0)
    found = pairwise_distances(rng.normal(size=(2, 57)), others, "l1", left_out=[(5,), ()])
    assert (found == found[:, :1]).all()


def test_normalising_keeps_empty_cells_and_takes_any_form(rng: np.random.Generator) -> None:
    counts = rng.poisson(1.0, (20, 9)).astype(np.float32)
    counts[4] = 0
    sizes = counts.sum(axis=1, dtype=np.float64)
    target = median_library_size(sizes)
    found = log1p_normalise(counts, sizes, target)
    np.testing.assert_allclose(
        np.delete(np.expm1(found).sum(axis=1), 4), np.full(19, target), rtol=1e-5
    )
    assert (found[4] == 0).all()
    assert found.dtype == np.float32
    again = log1p_normalise(sparse.csc_matrix(counts), sizes, target)
    np.testing.assert_array_equal(again.toarray(), found)
    np.testing.assert_array_equal(log1p_normalise(counts.astype(int), sizes, target), found)


@pytest.mark.parametrize("threads", [1, 3])
def test_columns_come_out_of_rows(rng: np.random.Generator, threads: int) -> None:
    X = sparse.random(40, 23, 0.3, format="csr", random_state=1, dtype=np.float32)
    for start, stop in ((0, 23), (3, 4), (7, 20), (5, 5)):
        found = columns_of(X, start, stop, threads=threads)
        assert found.format == "csc"
        np.testing.assert_array_equal(found.toarray(), X[:, start:stop].toarray())


@given(hnp.arrays("f8", (3, 6), elements=st.sampled_from([-np.inf, 0.0, 1.0, 2.5, np.inf, np.nan])))
def test_midranks_are_those_of_scipy(x: np.ndarray) -> None:
    np.testing.assert_array_equal(midranks(x), rankdata(x, axis=-1))
    np.testing.assert_array_equal(midranks(x[0]), rankdata(x[0]))
