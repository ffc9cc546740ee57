"""The suite `calibrated`: by definition, by what must not change it, and against scPertEval."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import mannwhitneyu, norm, pearsonr

from harness.kernels.cell_distances import Apart
from harness.kernels.gene_weights import squared_weights, standardised_u
from harness.metrics import Comparison, Conventions, Side, registered
from harness.scoring.scorer import score
from tests.golden import cases, compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.metrics.base import Values

CONVENTIONS = Conventions(fold_changes="infinite", adjusted_over="pair", exact_when_small=False)
PROFILES = (
    "pearson_delta_perturbed_mean",
    "r2_delta_perturbed_mean",
    "wmse",
    "weighted_r2_delta_perturbed_mean",
    "centroid_accuracy",
    "nir",
)
GOLDEN = compare.golden("calibrated")


def side(pseudobulk: Any, u: Any = None, sizes: Any = None, apart: Apart | None = None) -> Side:
    pseudobulk = np.asarray(pseudobulk, dtype=np.float64)
    n_pairs, n_genes = pseudobulk.shape
    return Side(
        pseudobulk=pseudobulk,
        control=np.zeros(n_genes),
        u=np.asarray(u if u is not None else np.tile(np.arange(n_genes) * 9.0, (n_pairs, 1))),
        ties=np.zeros(pseudobulk.shape),
        sizes=np.full(n_pairs, 20) if sizes is None else np.asarray(sizes),
        n_controls=30,
        apart=apart,
    )


def values(name: str, truth: Side, prediction: Side) -> Values:
    n_pairs, n_genes = truth.pseudobulk.shape
    names = tuple("ABCDEFGHIJ"[:n_pairs])
    genes = tuple(f"g{gene}" for gene in range(n_genes))
    return registered()[name](Comparison(names, genes, truth, prediction, CONVENTIONS))


@pytest.fixture
def profiles(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.random((5, 12))
    return truth, truth + 0.3 * rng.random((5, 12))


def test_effects_are_centred_on_the_other_true_perturbations(
    profiles: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, prediction = profiles
    pearson = values("pearson_delta_perturbed_mean", side(truth), side(prediction)).values
    r2 = values("r2_delta_perturbed_mean", side(truth), side(prediction)).values
    for p in range(5):
        others = np.mean([truth[q] for q in range(5) if q != p], axis=0)
        t, guess = truth[p] - others, prediction[p] - others
        assert pearson[p] == pytest.approx(pearsonr(t, guess).statistic)
        assert r2[p] == pytest.approx(1 - ((t - guess) ** 2).sum() / ((t - t.mean()) ** 2).sum())


def test_genes_weigh_by_their_squared_scaled_statistic(
    profiles: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, prediction = profiles
    u = np.random.default_rng(3).integers(0, 600, (5, 12)).astype(float)
    error = values("wmse", side(truth, u), side(prediction)).values
    r2 = values("weighted_r2_delta_perturbed_mean", side(truth, u), side(prediction)).values
    for p in range(5):
        size = np.abs(u[p] - 300)  # without ties the deviation of U is the same for all genes
        share = (size - size.min()) / (size.max() - size.min())
        w = share**2 / (share**2).sum()
        assert error[p] == pytest.approx((w * (prediction[p] - truth[p]) ** 2).sum())
        t = truth[p] - np.delete(truth, p, axis=0).mean(axis=0)
        spread = (w * (t - (w * t).sum()) ** 2).sum()
        assert r2[p] == pytest.approx(1 - error[p] / spread)


def test_standardised_u_is_what_scipy_makes_p_values_of(rng: np.random.Generator) -> None:
    x, y = rng.integers(0, 4, (15, 6)), rng.integers(0, 5, (22, 6))
    x[:, 5] = y[:, 5] = 1  # all tied
    found = mannwhitneyu(x, y, method="asymptotic", use_continuity=False)
    counts = [np.unique(np.r_[x[:, g], y[:, g]], return_counts=True)[1] for g in range(6)]
    ties = np.array([[(count.astype(float) ** 3 - count).sum() for count in counts]])
    z = standardised_u(found.statistic[None], ties, np.array([15]), np.array([22]))[0]
    np.testing.assert_allclose(2 * norm.sf(np.abs(z[:5])), found.pvalue[:5], rtol=1e-10)
    assert z[5] == 0


@given(hnp.arrays("f8", (3, 7), elements=st.floats(-50, 50)), st.floats(0.1, 10))
def test_weights_sum_to_one_and_ignore_scale_and_sign(z: np.ndarray, scale: float) -> None:
    z = np.round(z, 3)
    found = squared_weights(z)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(squared_weights(-scale * z), found, rtol=1e-6, atol=1e-12)


def test_equal_statistics_weigh_all_genes_alike() -> None:
    assert squared_weights(np.array([[2.0, -2.0, 2.0, 2.0]])).tolist() == [[0.25] * 4]


def test_a_tie_is_half_a_rank_for_nir_and_not_farther_for_centroid_accuracy() -> None:
    truth = side([[0, 0], [2, 0], [0, 2], [5, 5]])
    prediction = side([[1, 0], [2, 0], [0, 0], [5, 5]])
    accuracy = values("centroid_accuracy", truth, prediction).values
    rank = values("nir", truth, prediction).values
    assert accuracy == pytest.approx([2 / 3, 1, 1 / 3, 1])
    assert rank == pytest.approx([2.5 / 3, 1, 1.5 / 3, 1])


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "wmse"])
def test_a_single_perturbation_has_nothing_to_be_told_from(name: str) -> None:
    found = values(name, side([[1.0, 2, 3]]), side([[1.0, 2, 4]]))
    assert np.isnan(found.values).all()
    assert found.reasons == ("fewer than two perturbations",)


def test_the_mean_of_the_others_has_no_correlation_and_explains_nothing(
    profiles: tuple[np.ndarray, np.ndarray],
) -> None:
    truth = np.round(profiles[0] * 64)  # whole numbers: means without rounding error
    others = (truth.sum(axis=0) - truth) / 4
    found = values("pearson_delta_perturbed_mean", side(truth), side(others))
    assert set(found.reasons) == {"constant prediction"}
    assert (values("r2_delta_perturbed_mean", side(truth), side(others)).values <= 0).all()


def test_a_mean_that_holds_the_truth_itself_is_told_by_r2_not_by_correlation(
    profiles: tuple[np.ndarray, np.ndarray],
) -> None:
    truth = profiles[0]
    mean = np.tile(truth.mean(axis=0), (5, 1))
    assert values("pearson_delta_perturbed_mean", side(truth), side(mean)).values == pytest.approx(
        1
    )
    assert (values("r2_delta_perturbed_mean", side(truth), side(mean)).values < 0.4).all()


def test_a_truth_without_variance_has_no_explained_share() -> None:
    truth, prediction = side([[1.0, 1, 1], [3, 3, 3]]), side([[1.0, 2, 1], [3, 3, 4]])
    for name in ("r2_delta_perturbed_mean", "weighted_r2_delta_perturbed_mean"):
        assert set(values(name, truth, prediction).reasons) == {"constant truth"}


@given(
    hnp.arrays("f8", (2, 4, 6), elements=st.floats(0, 8).map(lambda value: round(value, 2))),
    hnp.arrays("f8", 6, elements=st.floats(-3, 3).map(lambda value: round(value, 2))),
    st.permutations(range(4)),
)
@settings(max_examples=40, deadline=None)
def test_a_common_shift_and_the_order_of_perturbations_change_nothing(
    drawn: np.ndarray, shift: np.ndarray, order: list[int]
) -> None:
    spread = np.random.default_rng(1).random((2, 4, 6))  # no ties for rounding to break
    truth, prediction = drawn + spread
    for name in PROFILES:
        expected = values(name, side(truth), side(prediction)).values
        shifted = values(name, side(truth + shift), side(prediction + shift)).values
        np.testing.assert_allclose(shifted, expected, rtol=1e-6, atol=1e-9, err_msg=name)
        moved = values(name, side(truth[order]), side(prediction[order])).values
        np.testing.assert_allclose(moved, expected[order], rtol=1e-6, atol=1e-9, err_msg=name)


def test_distances_between_cells_are_undefined_where_there_are_too_few() -> None:
    apart = Apart(np.array([1.5, np.nan, np.nan]), np.array([np.nan, np.nan, np.nan]))
    truth = side(np.ones((3, 2)), sizes=[5, 5, 1])
    prediction = side(np.ones((3, 2)), sizes=[5, 1, 5], apart=apart)
    energy = values("energy_distance", truth, prediction)
    assert energy.reasons == ("", "fewer than two cells", "fewer than two cells")
    found = values("mmd2", truth, prediction)
    assert found.reasons == ("median distance of zero", *energy.reasons[1:])


def agrees(case: cases.Case, expected: dict[str, list[Any]]) -> None:
    found = score(*map(compare.annotated, (case.truth, case.prediction)), suite="calibrated")
    # The oracle calls the distances within a single cell zero, where a mean over none is undefined.
    few = found.frame[found.frame["reason"] == "fewer than two cells"]
    undefined = set(zip(few["metric"], few["perturbation"], strict=True))
    pairs = expected["perturbation"]
    expected = {
        name: [
            "NaN" if (name, pair) in undefined else value
            for pair, value in zip(pairs, column, strict=True)
        ]
        for name, column in expected.items()
    }
    table = found.results("calibrated")
    assert table["perturbation"].tolist() == pairs
    for name in expected.keys() - {"perturbation"}:
        values = [compare.number(value) for value in expected[name]]
        # The oracle's distances between copies of a cell are rounding errors, where ours are zero.
        near = compare.ROUNDING if name == "energy_distance" else 1e-12
        near = compare.last_bits().get(name, near)
        np.testing.assert_allclose(
            table[name], values, rtol=compare.CONTINUOUS, atol=near, err_msg=name
        )


@pytest.mark.parametrize("name", [name for name in GOLDEN if ":" not in name])
def test_calibrated_equals_the_oracle_on_simulated_screens(name: str) -> None:
    agrees(cases.SIMULATED[name](), GOLDEN[name])


@pytest.mark.parametrize("name", ["other-half", "means-of-other-half"])
def test_calibrated_equals_the_oracle_on_a_real_screen(
    name: str, data_file: Callable[[str], Path]
) -> None:
    screen = compare.read_screen(data_file("papalexi21.h5ad"))
    agrees(cases.screens(screen)[name], GOLDEN[f"papalexi21:{name}"])


@pytest.mark.parametrize(
    "option", [{"threads": 2}, {"memory": "100KiB"}], ids=["threads", "memory"]
)
def test_threads_and_memory_change_no_score(option: dict[str, Any]) -> None:
    case = cases.SIMULATED["plain"]()
    sides = [compare.annotated(side) for side in (case.truth, case.prediction)]
    expected = score(*sides, suite="calibrated").frame["value"]
    found = score(*sides, suite="calibrated", **option).frame["value"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_copy_of_the_truth_has_no_better_rival() -> None:
    truth = cases.SIMULATED["plain"]().truth
    found = score(*[compare.annotated(truth)] * 2, suite="calibrated").results("calibrated")
    assert (found[["energy_distance", "mmd2"]] < 0).all().all()
    noisy = replace(truth, X=np.abs(truth.X + cases.uniforms(4, *truth.X.shape) - 0.5).astype("f4"))
    other = score(compare.annotated(truth), compare.annotated(noisy), suite="calibrated")
    for name in ("energy_distance", "mmd2", "wmse"):
        assert (other.results("calibrated")[name] > found[name]).all()
