"""Comparisons: means, intervals, combined scores, ranks, footers, and how they are shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.analysis.results import Results
from harness.analysis.statistics import percentile_interval, resample
from harness.analysis.tables import Bootstrap, compare, compare_suites
from harness.analysis.tables.estimates import metric_ranks
from harness.analysis.tables.scale import Scale
from harness.errors import UnknownNameError
from tests.tabled import FEW, HAND, MAE, OVERLAP, PDS, footer_of, results_of, row_of

if TYPE_CHECKING:
    from pathlib import Path

# --- numbers ------------------------------------------------------------------------------------


def test_means_combined_score_and_ranks_are_those_computed_by_hand() -> None:
    row = row_of(compare(results_of(*HAND), baseline="mean", bootstrap=FEW), "linear")
    assert row[OVERLAP] == pytest.approx(0.5)
    assert row[MAE] == pytest.approx(0.15)
    scaled = [(0.5 - 0.2) / (1 - 0.2), 1 - 0.15 / 0.3, 0.0]  # it discriminates worse: 0
    assert row["combined"] == pytest.approx(np.mean(scaled))
    assert [row[f"{name}_rank"] for name in (OVERLAP, MAE, PDS)] == [1, 1, 2]
    assert row["mean_rank"] == pytest.approx(4 / 3)
    assert row["floors_missed"] == PDS


def test_the_baseline_scores_zero_and_misses_no_floor() -> None:
    row = row_of(compare(results_of(*HAND), baseline="mean", bootstrap=FEW), "mean")
    assert (row["combined"], row["floors_missed"], row["role"]) == (0.0, "", "baseline")


def test_repeated_seeds_do_not_narrow_an_interval() -> None:
    one = compare(results_of(*HAND), bootstrap=FEW)
    repeated = [{**trial, "seed": seed} for trial in HAND for seed in range(5)]
    five = compare(results_of(*repeated), bootstrap=FEW)
    for suffix in ("", "_low", "_high"):
        np.testing.assert_allclose(five.frame[MAE + suffix], one.frame[MAE + suffix])
    assert five.frame["n_trials"].tolist() == [5, 5]


def test_a_pair_is_averaged_over_seeds_before_pairs_are() -> None:
    trials = (
        {"model": "m", "seed": 0, "pairs": ["A", "B"], "scores": {MAE: [0.0, 1.0]}},
        {"model": "m", "seed": 1, "pairs": ["A"], "scores": {MAE: [0.5]}},
    )
    assert row_of(compare(results_of(*trials)), "m")[MAE] == pytest.approx((0.25 + 1.0) / 2)


def test_the_order_of_rows_does_not_matter(rng: np.random.Generator) -> None:
    trials = [
        {"model": model, "seed": seed, "scores": {MAE: rng.random(9), OVERLAP: rng.random(9)}}
        for model in ("a", "b", "c")
        for seed in (0, 1)
    ]
    results = results_of(*trials, contexts=[*"xxxxyyyyz"])
    shuffled = Results.of(
        results.rows.sample(frac=1, random_state=1), results.trials.sample(frac=1, random_state=1)
    )
    first, second = (compare(one, baseline="a", bootstrap=FEW) for one in (results, shuffled))
    pd.testing.assert_frame_equal(first.frame, second.frame, rtol=1e-12)
    assert first.notes == second.notes


def test_ties_share_the_better_rank_despite_rounding() -> None:
    scales = [Scale("mae", 1, higher_is_better=False)]
    means = np.array([[0.1 + 0.2], [0.3], [0.4], [np.nan]])
    assert metric_ranks(means, scales, np.ones(4, dtype=bool)).ravel().tolist() == [1, 1, 3, 4]


def test_floors_of_the_job_replace_the_baselines() -> None:
    table = compare(results_of(*HAND), baseline="mean", floors={OVERLAP: 0.9, MAE: 1.0})
    assert row_of(table, "linear")["floors_missed"] == f"{OVERLAP} {PDS}"
    assert row_of(table, "mean")["floors_missed"] == OVERLAP


def test_a_floor_of_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"metric with a floor 'maes'\. Did you mean 'mae'"):
        compare(results_of(*HAND), floors={"maes": 0.1})


def test_each_dataset_is_ranked_and_scaled_by_itself() -> None:
    trials = [{**trial, "dataset": name} for name in ("one", "two") for trial in HAND]
    frame = compare(results_of(*trials), baseline="mean", bootstrap=FEW).frame
    assert frame["dataset"].tolist() == ["one", "one", "two", "two"]
    assert frame[f"{MAE}_rank"].tolist() == [1, 2, 1, 2]
    assert frame["combined"].iloc[:2].tolist() == frame["combined"].iloc[2:].tolist()


def test_a_setting_is_named_by_what_varies_in_its_model() -> None:
    scores = {MAE: [0.1, 0.2]}
    trials = [
        {"model": "linear", "param.rank": rank, "param.ridge": 0.1, "scores": scores}
        for rank in (4, 16)
    ]
    trials.append({"model": "mean", "param.rank": None, "param.ridge": None, "scores": scores})
    frame = compare(results_of(*trials), bootstrap=FEW).frame
    named = sorted(zip(frame["model"], frame["setting"], strict=True))
    assert named == [("linear", "rank=16"), ("linear", "rank=4"), ("mean", "")]
    assert 4 in frame["param.rank"].tolist()


# --- intervals ----------------------------------------------------------------------------------


def test_an_interval_is_that_of_scipy(rng: np.random.Generator) -> None:
    values = rng.gamma(2.0, size=40)
    table = compare(results_of({"model": "m", "scores": {MAE: values}}), bootstrap=Bootstrap(8000))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=1, n_resamples=8000)
    ends = theirs.confidence_interval
    error = 0.05 * (ends.high - ends.low)  # two sets of 8,000 resamples
    np.testing.assert_allclose(table.frame[f"{MAE}_low"], ends.low, atol=error)
    np.testing.assert_allclose(table.frame[f"{MAE}_high"], ends.high, atol=error)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say(rng: np.random.Generator) -> None:
    values = rng.normal(size=(60, 300))  # 300 repetitions of 60 pairs in two contexts
    values[30:] += 5
    draws = resample(["a"] * 30 + ["b"] * 30, FEW).means(values)
    low, high = percentile_interval(draws, 0.95)
    assert 0.89 < np.mean((low < 2.5) & (high > 2.5)) < 0.99


def test_contexts_that_differ_do_not_widen_an_interval() -> None:
    scores = {MAE: [0.1, 0.1, 0.1, 0.9, 0.9]}
    table = compare(results_of({"model": "m", "contexts": [*"aaabb"], "scores": scores}))
    assert table.frame[f"{MAE}_low"].item() == pytest.approx(0.42)
    assert table.frame[f"{MAE}_high"].item() == pytest.approx(0.42)


def test_contexts_of_one_pair_are_resampled_together() -> None:
    scores = {MAE: [0.1, 0.5, 0.9]}
    row = compare(results_of({"model": "m", "contexts": [*"abc"], "scores": scores})).frame.iloc[0]
    assert row[f"{MAE}_low"] < 0.4 < 0.6 < row[f"{MAE}_high"]


def test_model_and_baseline_share_their_resamples(rng: np.random.Generator) -> None:
    values = rng.random(20)
    trials = (
        {"model": "mean", "scores": {MAE: values}},
        {"model": "half", "scores": {MAE: values / 2}},  # half the error for every pair
    )
    row = row_of(compare(results_of(*trials), baseline="mean", bootstrap=FEW), "half")
    ends = [row[name] for name in ("combined", "combined_low", "combined_high")]
    np.testing.assert_allclose(ends, 0.5)


def test_one_pair_has_no_interval() -> None:
    trials = [{**trial, "scores": {MAE: trial["scores"][MAE][:1]}} for trial in HAND]
    table = compare(results_of(*trials), baseline="mean")
    assert table.frame[[f"{MAE}_low", "combined_low"]].isna().all(axis=None)
    assert "No interval for a metric with one defined pair: linear, mean." in footer_of(table)


def test_few_pairs_are_warned_of() -> None:
    assert "Only 2 pairs in toy, halves" in footer_of(compare(results_of(*HAND), bootstrap=FEW))


def test_many_settings_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    results = results_of(*HAND)
    whole = compare(results, baseline="mean", bootstrap=FEW)
    monkeypatch.setattr("harness.analysis.tables.resampling._DRAWN_AT_ONCE", 1)
    pd.testing.assert_frame_equal(
        compare(results, baseline="mean", bootstrap=FEW).frame, whole.frame
    )


@pytest.mark.parametrize(
    "given", [pytest.param({"draws": 0}, id="draws"), pytest.param({"level": 95}, id="level")]
)
def test_an_impossible_bootstrap_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1 draw and a level between 0 and 1"):
        Bootstrap(**given)


def test_seeds_are_a_second_level_of_the_interval() -> None:
    same = [{"model": "m", "seed": seed, "scores": {MAE: [0.2] * 9}} for seed in range(3)]
    other = [{"model": "m", "seed": s, "scores": {MAE: [0.1 * s + 0.1] * 9}} for s in range(3)]
    for trials, spread in ((same, 0.0), (other, 0.2)):
        row = row_of(compare(results_of(*trials), bootstrap=FEW), "m")
        assert row[MAE] == pytest.approx(0.2)
        assert row[f"{MAE}_high"] - row[f"{MAE}_low"] == pytest.approx(spread)


def test_folds_that_test_the_same_pairs_are_repeats() -> None:
    trials = [{"model": "m", "fold": f, "scores": {MAE: [0.1 * f + 0.1] * 9}} for f in range(3)]
    row = row_of(compare(results_of(*trials), bootstrap=FEW), "m")
    assert (row[f"{MAE}_low"], row[f"{MAE}_high"]) == (pytest.approx(0.1), pytest.approx(0.3))


def test_a_repeat_that_failed_does_not_narrow_an_interval() -> None:
    seeds = [{"model": "m", "seed": s, "scores": {MAE: [0.1 * s + 0.1] * 9}} for s in range(2)]
    lost = {"model": "m", "seed": 2, "state": "failed", "scores": {}}
    frames = [
        compare(results_of(*trials, state="done"), bootstrap=FEW).frame
        for trials in (seeds, [*seeds, lost])
    ]
    for suffix in ("", "_low", "_high"):
        assert frames[0][MAE + suffix].tolist() == frames[1][MAE + suffix].tolist()


def test_what_is_not_told_from_the_best_is_marked_by_the_paired_difference(
    rng: np.random.Generator,
) -> None:
    pair = rng.normal(size=30)  # far larger than the differences: unpaired, nothing is told apart
    noise = 0.05 * rng.normal(size=30)
    scores = {"best": pair, "near": pair + noise - noise.mean() + 0.001, "far": pair + 0.1 + noise}
    table = compare(
        results_of(*({"model": name, "scores": {MAE: v}} for name, v in scores.items())),
        bootstrap=FEW,
    )
    assert [bool(row_of(table, name)[f"{MAE}_tie"]) for name in scores] == [False, True, False]
    assert "#2 ≈" in table.to_markdown()
    assert "≈ not told from the best" in footer_of(table)


def test_a_tie_is_over_the_pairs_that_both_have() -> None:
    trials = (
        {"model": "best", "scores": {MAE: [0.1, 0.2, 0.3, np.nan]}},
        {"model": "other", "scores": {MAE: [0.1, 0.2, 0.3, 9.0]}},
    )
    assert row_of(compare(results_of(*trials), bootstrap=FEW), "other")[f"{MAE}_tie"]


# --- what is missing ----------------------------------------------------------------------------


def test_without_a_baseline_there_is_no_combined_score_and_the_footer_says_so() -> None:
    table = compare(results_of(*HAND), bootstrap=FEW)
    assert table.frame["combined"].isna().all()
    assert "combined" not in table.to_markdown().split("\n")[2]
    assert "No combined score: no baseline is named" in footer_of(table)


def test_a_baseline_without_scores_is_named() -> None:
    table = compare(results_of(*HAND), baseline="median", bootstrap=FEW)
    assert "No combined score: the baseline median has no scores" in footer_of(table)


def test_a_baseline_with_several_settings_has_to_be_chosen() -> None:
    trials = [{**HAND[0], "cells": cells} for cells in ("shift-controls", "tile-profile")]
    table = compare(results_of(*trials), baseline="mean", bootstrap=FEW)
    assert "may be any of mean cells=shift-controls, mean cells=tile-profile" in footer_of(table)
    chosen = compare(results_of(*trials), baseline="mean cells=tile-profile", bootstrap=FEW)
    assert chosen.frame["combined"].tolist() == [0, 0]


def test_an_undefined_metric_shows_a_dash_counts_nan_and_ranks_last() -> None:
    undefined = {"model": "flat", "scores": {OVERLAP: [0.2, 0.2], MAE: [np.nan, np.nan]}}
    table = compare(results_of(*HAND, undefined), baseline="mean", bootstrap=FEW)
    row = row_of(table, "flat")
    assert row[f"{MAE}_rank"] == 3
    assert row["floors_missed"] == f"{MAE} {PDS}"
    assert "| — |" in table.to_markdown()
    assert "NaN in mae: 2 scores of flat (constant prediction: 2)." in footer_of(table)


def test_a_mean_is_over_the_pairs_that_are_defined() -> None:
    table = compare(results_of({"model": "m", "scores": {MAE: [0.1, np.nan, 0.3]}}), bootstrap=FEW)
    row = row_of(table, "m")
    assert row[MAE] == pytest.approx(0.2)
    assert (row[f"{MAE}_pairs"], row["n_pairs"]) == (2, 3)


def test_a_model_that_lacks_pairs_is_compared_on_those_it_has() -> None:
    trials = (
        {"model": "mean", "fold": 0, "pairs": ["A", "B"], "scores": {MAE: [0.2, 0.2]}},
        {"model": "mean", "fold": 1, "pairs": ["C", "D"], "scores": {MAE: [0.8, 0.8]}},
        {"model": "m", "fold": 0, "pairs": ["A", "B"], "scores": {MAE: [0.1, 0.1]}},
        {"model": "m", "fold": 1, "state": "failed", "scores": {}},
    )
    table = compare(results_of(*trials, state="done"), baseline="mean", bootstrap=FEW)
    assert row_of(table, "m")["combined"] == pytest.approx(0.5)  # not 1 − 0.1/0.5
    assert "not all pairs have scores of m (2 of 4)" in footer_of(table)
    assert "1 trial failed: t3 (m, fold 1, seed 0)." in footer_of(table)
    assert "m (2 of 4 pairs)" in table.to_markdown()


def test_a_model_without_any_score_has_a_row_and_no_rank() -> None:
    lost = {"model": "lost", "state": "missing", "scores": {}}
    table = compare(results_of(*HAND, lost, state="done"), baseline="mean", bootstrap=FEW)
    row = row_of(table, "lost")
    assert np.isnan([row["combined"], row["mean_rank"]]).all()
    assert row["floors_missed"] == ""
    assert "1 trial missing: t2 (lost" in footer_of(table)


def test_a_trial_that_the_suite_did_not_score_is_named() -> None:
    table = compare(results_of(*HAND, {"model": "new", "scores": {}}), bootstrap=FEW)
    assert "1 trial done, without vcc2025 scores: t2 (new" in footer_of(table)


def test_a_ceiling_leads_and_is_not_ranked() -> None:
    best = {"model": "replicate", "ceiling": True, "scores": {OVERLAP: [1, 1], MAE: [0, 0]}}
    table = compare(results_of(*HAND, best, ceiling=False), baseline="mean", bootstrap=FEW)
    assert table.frame["model"].tolist() == ["replicate", "linear", "mean"]
    assert pd.isna(row_of(table, "replicate")[f"{MAE}_rank"])
    assert row_of(table, "linear")[f"{MAE}_rank"] == 1
    assert "† ceiling" in footer_of(table)


def test_a_ceiling_is_not_the_best_in_bold() -> None:
    best = {"model": "replicate", "ceiling": True, "scores": {OVERLAP: [1, 1], MAE: [0, 0]}}
    section = compare(
        results_of(*HAND, best, ceiling=False), baseline="mean", bootstrap=FEW
    ).sections[0]
    assert [cell.best for cell in section.rows[0]] == [False] * 6
    assert section.rows[1][1].best


def test_a_ceiling_can_be_named() -> None:
    table = compare(results_of(*HAND), ceilings=["linear"], bootstrap=FEW)
    assert row_of(table, "linear")["role"] == "ceiling"


def test_one_of_several_suites_has_to_be_named() -> None:
    results = results_of(*HAND)
    rows = pd.concat([results.rows.astype({"suite": str}).assign(suite=s) for s in ("a", "b")])
    both = Results.of(rows, results.trials)
    with pytest.raises(ValueError, match="suites 'a', 'b': say which"):
        compare(both)
    assert "suite a defines none" in footer_of(compare(both, suite="a", bootstrap=FEW))


def test_no_results_give_an_empty_table_that_says_so() -> None:
    empty = results_of(*HAND).rows.iloc[:0]
    results = Results.of(empty, pd.DataFrame({"trial": [], "model": []}))
    table = compare(results)
    assert table.frame.empty
    assert "no scores" in footer_of(table)
    assert table.to_markdown()


def test_a_table_before_any_score_is_of_the_suite_that_the_job_names(tmp_path: Path) -> None:
    job = {"job": {"score": {"suite": "cell-eval:anndata"}}}
    (tmp_path / "run.json").write_text(json.dumps(job), encoding="utf-8")
    (tmp_path / "trials").mkdir()
    results = Results(str(tmp_path))
    assert compare(results).suite == "cell-eval:anndata"
    assert [table.suite for table in compare_suites(results)] == ["cell-eval:anndata"]
