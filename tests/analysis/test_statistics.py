"""Intervals, tests and ranks: by SciPy, by hand, and on simulated scores whose truth is known."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy import stats

from harness.analysis.statistics import (
    Bootstrap,
    agreement,
    friedman,
    holm,
    mean_ranks_of,
    paired_tests,
    percentile_interval,
    rank,
    ranks_of,
    resample,
    stability,
    tau,
)

REPETITIONS = int(os.environ.get("SIMULATIONS", "200"))
FEW = Bootstrap(draws=1000)


def simulated(
    rng: np.random.Generator, n: int, *, pairs: int = 60, seeds: int = 1, seed_sd: float = 0.0
) -> np.ndarray:
    """Scores (seeds, pairs, n) around a truth of 0.

    They differ by context (which is no chance: both are always there), pair, seed and fit.
    """
    context = np.where(np.arange(pairs) < pairs // 2, 1.0, -1.0)[:, None]
    pair = rng.normal(size=(pairs, n))
    seed = seed_sd * rng.normal(size=(seeds, 1, n))
    noise = 0.5 * rng.normal(size=(seeds, pairs, n))
    return context + pair + seed + noise


def contexts(pairs: int = 60) -> list[str]:
    return ["a"] * (pairs // 2) + ["b"] * (pairs - pairs // 2)


def share_within(low: np.ndarray, high: np.ndarray, truth: float = 0.0) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


def monte_carlo(share: float, n: int = REPETITIONS) -> float:
    """Three standard errors of a share of n repetitions."""
    return 3 * float(np.sqrt(share * (1 - share) / n))


# --- intervals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "seed_sd"),
    [
        pytest.param(1, 0.0, id="one_seed"),
        pytest.param(3, 0.0, id="seeds_that_do_not_matter"),
        pytest.param(10, 0.3, id="seeds_that_matter"),
    ],
)
def test_intervals_cover_the_truth_at_the_nominal_rate(
    rng: np.random.Generator, seeds: int, seed_sd: float
) -> None:
    values = simulated(rng, REPETITIONS, seeds=seeds, seed_sd=seed_sd)
    draws = resample(contexts(), FEW).repeated_means(values, range(seeds))
    low, high = percentile_interval(draws, 0.95)
    assert share_within(low, high) == pytest.approx(0.95, abs=monte_carlo(0.95))


def test_without_the_level_of_seeds_intervals_would_be_too_narrow(
    rng: np.random.Generator,
) -> None:
    values = simulated(rng, REPETITIONS, seeds=3, seed_sd=0.5)
    resamples = resample(contexts(), FEW)
    one = share_within(*percentile_interval(resamples.means(values.mean(axis=0)), 0.95))
    two = share_within(*percentile_interval(resamples.repeated_means(values, range(3)), 0.95))
    assert one < 0.75
    assert two > one + 0.15


def test_intervals_of_differences_cover_the_truth(rng: np.random.Generator) -> None:
    base = simulated(rng, REPETITIONS)[0]
    better = base + 0.2 + 0.5 * rng.normal(size=base.shape)
    low, high = percentile_interval(resample(contexts(), FEW).means(better - base), 0.95)
    assert share_within(low, high, 0.2) == pytest.approx(0.95, abs=monte_carlo(0.95))


def test_equal_repeats_leave_the_resamples_as_they_are(rng: np.random.Generator) -> None:
    values, resamples = rng.random((12, 3)), resample(["a"] * 12, FEW)
    repeated = resamples.repeated_means(np.stack([values] * 4), range(4))
    np.testing.assert_allclose(repeated, resamples.means(values), rtol=1e-12)


@pytest.mark.parametrize("n", [pytest.param(1, id="few"), pytest.param(30, id="many_columns")])
@pytest.mark.parametrize("at_once", [1, 8_000_000])
def test_a_resampled_mean_weighs_repeats_and_pairs_by_how_often_each_is_taken(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, n: int, at_once: int
) -> None:
    monkeypatch.setattr("harness.analysis.statistics.bootstrap._TAKEN_AT_ONCE", at_once)
    values, resamples = rng.random((4, 12, n)), resample(["a"] * 7 + ["b"] * 5, Bootstrap(20))
    found = resamples.repeated_means(values, range(4))
    for draw, weights in enumerate(resamples.weights(range(4))):
        per_pair = sum(weight * one for weight, one in zip(weights, values, strict=True))
        expected = resamples.means(per_pair)[draw]
        np.testing.assert_allclose(found[draw], expected, rtol=1e-12)


def test_a_resample_counts_each_context_for_as_many_pairs_as_it_has() -> None:
    counts = resample(["a"] * 7 + ["b"] * 5, FEW).counts
    np.testing.assert_allclose(counts[:, :7].sum(axis=1), 7)
    np.testing.assert_allclose(counts[:, 7:].sum(axis=1), 5)
    np.testing.assert_allclose(counts[:, :7] * 6 / 7, np.round(counts[:, :7] * 6 / 7), atol=1e-9)


def test_the_spread_over_repeats_is_that_of_their_mean(rng: np.random.Generator) -> None:
    seeds = rng.normal(size=4)
    values = np.broadcast_to(seeds[:, None, None], (4, 20, 1))
    draws = resample(["a"] * 20, Bootstrap(20_000)).repeated_means(values, range(4))
    assert draws.std() == pytest.approx(stats.sem(seeds), rel=0.02)


def test_what_one_repeat_lacks_stands_at_the_mean_of_the_others() -> None:
    values = np.array([[[1.0], [5.0]], [[3.0], [np.nan]], [[np.nan], [np.nan]]])
    draws = resample(["a"] * 2, FEW).repeated_means(values, range(3))
    assert draws.min() >= 1
    assert draws.max() <= 5
    assert np.median(draws) == pytest.approx(3.5, abs=0.5)


def test_a_pair_without_any_score_is_passed_over() -> None:
    values = np.array([[[1.0], [np.nan]], [[1.0], [np.nan]]])
    draws = resample(["a"] * 2, FEW).repeated_means(values, range(2))
    taken = ~np.isnan(draws)
    assert 0.5 < taken.mean() < 1
    np.testing.assert_allclose(draws[taken], 1)


def test_settings_with_the_same_seeds_share_their_draws() -> None:
    resamples = resample(["a"] * 5, FEW)
    np.testing.assert_array_equal(resamples.weights((0, 1, 2)), resamples.weights((0, 1, 2)))
    assert (resamples.weights((0, 1, 2)) != resamples.weights((3, 4, 5))).any()
    np.testing.assert_allclose(resamples.weights((0, 1, 2)).sum(axis=1), 1)


# --- tests --------------------------------------------------------------------------------------


def of_equal_models(rng: np.random.Generator, n: int, pairs: int = 40) -> np.ndarray:
    """Differences of two models alike: skewed noise on scores that depend on the pair."""
    pair = rng.normal(size=(pairs, n))
    first, second = pair + rng.gamma(1.0, size=(2, pairs, n))
    return first - second


def test_equal_models_are_told_apart_in_five_percent_of_cases(rng: np.random.Generator) -> None:
    found = paired_tests(of_equal_models(rng, 600), resamples=999)
    for p in (found.permutation, found.wilcoxon):
        assert np.mean(p < 0.05) == pytest.approx(0.05, abs=monte_carlo(0.05, 600))


def test_holm_keeps_a_whole_table_of_equal_models_below_five_percent(
    rng: np.random.Generator,
) -> None:
    p = paired_tests(of_equal_models(rng, 10 * REPETITIONS), resamples=999).permutation
    tables = p.reshape(REPETITIONS, 10)
    assert np.mean(tables.min(axis=1) < 0.05) > 0.25
    smallest = tables[np.argsort(tables.min(axis=1))[:20]]
    found = np.array([(holm(table) < 0.05).any() for table in smallest])
    any_found = found.sum() / REPETITIONS  # of the 20 tables with the smallest p-values, no other
    assert not found[-1]
    assert any_found <= 0.05 + monte_carlo(0.05)


def test_paired_tests_find_more_than_unpaired_ones(rng: np.random.Generator) -> None:
    base = simulated(rng, REPETITIONS, pairs=40)[0]
    better = base + 0.2 + 0.4 * rng.normal(size=base.shape)
    found = paired_tests(better - base, resamples=999)
    unpaired = (stats.ttest_ind(better, base).pvalue, stats.mannwhitneyu(better, base).pvalue)
    power = [float(np.mean(p < 0.05)) for p in (found.permutation, found.wilcoxon, *unpaired)]
    assert min(power[:2]) > 0.75
    assert max(power[2:]) < 0.25


def test_the_permutation_test_is_that_of_scipy(rng: np.random.Generator) -> None:
    differences = rng.normal(0.4, 1, size=(9, 5))
    theirs = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        axis=0,
    )
    np.testing.assert_allclose(paired_tests(differences).permutation, theirs.pvalue)


def test_a_test_is_over_the_pairs_that_both_have(rng: np.random.Generator) -> None:
    differences = rng.normal(0.5, 1, size=(12, 3))
    gaps = differences.copy()
    gaps[:4, 1] = np.nan
    found, whole = paired_tests(gaps), paired_tests(differences[4:, 1:2])
    assert found.n_pairs.tolist() == [12, 8, 12]
    assert found.mean[1] == pytest.approx(differences[4:, 1].mean())
    assert found.wilcoxon[1] == pytest.approx(whole.wilcoxon[0])
    assert found.permutation[1] == pytest.approx(whole.permutation[0], abs=1e-12)


def test_one_pair_or_none_gives_no_p_value_but_a_reason() -> None:
    found = paired_tests(np.array([[0.3, np.nan, 0.2], [np.nan, np.nan, 0.1]]))
    assert found.reasons == ("one pair in common", "no pair in common", "")
    assert np.isnan(found.permutation[:2]).all()
    assert found.permutation[2] == 0.5
    np.testing.assert_allclose(found.mean, [0.3, np.nan, 0.15])


def test_settings_without_any_difference_have_a_p_value_of_one() -> None:
    found = paired_tests(np.zeros((6, 2)))
    assert found.permutation.tolist() == found.wilcoxon.tolist() == [1, 1]


def test_holm_is_as_by_hand_and_passes_over_what_is_undefined() -> None:
    adjusted = holm(np.array([[0.01, np.nan], [0.04, 0.03]]))
    np.testing.assert_allclose(adjusted, [[0.03, np.nan], [0.06, 0.06]])
    assert np.isnan(holm(np.array([np.nan]))).all()


# --- ranks --------------------------------------------------------------------------------------


def test_ranks_share_the_better_place_despite_rounding_and_nan_is_last() -> None:
    values = np.array([0.1 + 0.2, 0.3, 0.4, np.nan, np.inf])
    assert rank(values, higher_is_better=False).tolist() == [1, 1, 3, 4, 4]
    assert rank(values, higher_is_better=True).tolist() == [3, 3, 2, 5, 1]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_ranks_are_those_of_scipy(rng: np.random.Generator, axis: int) -> None:
    values = rng.integers(0, 4, (7, 5, 3)).astype(float)
    expected = stats.rankdata(values, "min", axis=axis)
    np.testing.assert_array_equal(rank(values, higher_is_better=False, axis=axis), expected)


def test_a_clear_winner_is_always_first_and_equals_share(rng: np.random.Generator) -> None:
    values = rng.random((30, 3)) * 0.1 + [1.0, 0.0, 0.0]
    values[:, 2] = values[:, 1]
    draws = resample(["a"] * 30, FEW).means(values)
    found = ranks_of(values.mean(axis=0), draws, higher_is_better=True, level=0.95)
    assert found.rank.tolist() == [1, 2, 2]
    assert found.best.tolist() == [1, 0, 0]
    assert (found.low.tolist(), found.high.tolist()) == ([1, 2, 2], [1, 2, 2])
    same = ranks_of(values[:, 1:].mean(axis=0), draws[:, 1:], higher_is_better=True, level=0.95)
    assert same.best.tolist() == [0.5, 0.5]


def test_rank_intervals_hold_the_true_rank(rng: np.random.Generator) -> None:
    truth = np.array([0.0, 0.15, 0.3, 0.45])
    held = []
    for _ in range(REPETITIONS):
        values = rng.normal(size=(40, 1)) + truth + 0.5 * rng.normal(size=(40, 4))
        draws = resample(["a"] * 40, Bootstrap(200)).means(values)
        found = ranks_of(values.mean(axis=0), draws, higher_is_better=True, level=0.95)
        held.append((found.low <= [4, 3, 2, 1]) & (found.high >= [4, 3, 2, 1]))
    assert np.mean(held) >= 0.95 - monte_carlo(0.95)


def test_a_generalist_leads_the_mean_rank() -> None:
    one = ranks_of(np.array([3.0, 2, 1]), np.array([[3.0, 2, 1]]), higher_is_better=True, level=0.5)
    two = ranks_of(np.array([1.0, 2, 3]), np.array([[1.0, 3, 2]]), higher_is_better=True, level=0.5)
    mean, by_mean = mean_ranks_of([one, one, two], 0.5)
    np.testing.assert_allclose(mean, [5 / 3, 2, 7 / 3])
    assert by_mean.rank.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("n", "quantile"), [(3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsars_table(
    rng: np.random.Generator, n: int, quantile: float
) -> None:
    found = friedman(rng.random((30, n)), higher_is_better=True)
    assert found.difference == pytest.approx(quantile * np.sqrt(n * (n + 1) / (6 * 30)), rel=2e-3)


def test_friedman_is_that_of_scipy_over_complete_pairs(rng: np.random.Generator) -> None:
    values = rng.random((20, 4))
    gaps = np.vstack([values, [[np.nan, 1, 1, 1]]])
    found = friedman(gaps, higher_is_better=False)
    theirs = stats.friedmanchisquare(*values.T)
    assert (found.n_pairs, found.p) == (20, pytest.approx(theirs.pvalue))
    np.testing.assert_allclose(found.mean_ranks, stats.rankdata(values, axis=1).mean(axis=0))
    apart = np.abs(found.mean_ranks[0] - found.mean_ranks[1])
    assert (found.p_values[0, 1] < 0.05) == (apart > found.difference)


def test_friedman_rejects_equal_models_in_five_percent_of_cases(rng: np.random.Generator) -> None:
    values = rng.normal(size=(REPETITIONS, 30, 1)) + rng.gamma(1.0, size=(REPETITIONS, 30, 5))
    p = [friedman(one, higher_is_better=True).p for one in values]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=monte_carlo(0.05))


def test_groups_are_runs_that_do_not_differ() -> None:
    place = np.arange(40)[:, None]
    values = np.hstack([place % 2, (place + 1) % 2, 3 + place % 2, 3 + (place + 1) % 2])
    found = friedman(values.astype(float), higher_is_better=False)
    assert found.groups() == [[0, 1], [2, 3]]


def test_friedman_says_why_it_is_undefined() -> None:
    two = friedman(np.random.default_rng(0).random((9, 2)), higher_is_better=True)
    assert "needs three" in two.reason
    assert np.isnan(two.p)
    assert "no pair tells" in friedman(np.ones((9, 4)), higher_is_better=True).reason
    assert two.groups() == []


# --- stability ----------------------------------------------------------------------------------


def test_tau_counts_the_comparisons_that_turn() -> None:
    assert tau(np.arange(5.0), np.arange(5.0)) == pytest.approx(1)
    assert tau(np.arange(5.0), np.arange(5.0)[::-1]) == pytest.approx(-1)
    assert tau(np.arange(5.0), np.array([1.0, 0, 2, 4, 3])) == pytest.approx(1 - 2 * 2 / 10)
    assert np.isnan(tau(np.ones(3), np.arange(3.0)))


def test_a_ranking_by_noise_is_less_stable_than_one_by_skill(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(30, 6))
    skilled = noise + np.arange(6) * 2
    taus = []
    for values in (noise, skilled):
        draws = resample(["a"] * 30, FEW).means(values)
        found = ranks_of(values.mean(axis=0), draws, higher_is_better=True, level=0.95)
        taus.append(stability(found.rank, found.draws).mean)
    assert taus[0] < 0.8 < 0.99 < taus[1], taus


def test_agreement_is_a_table_of_taus() -> None:
    found = agreement(np.array([[1.0, 2, 3], [1, 2, 3], [3, 2, 1]]))
    np.testing.assert_allclose(found, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
