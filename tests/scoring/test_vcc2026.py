"""The suite vcc2026 and its anchors against the oracle, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from harness.errors import DataError
from harness.metrics.anchored_score import scaled
from harness.scoring.anchors import Anchors, aggregate_table, anchors, mean_response, split_groups
from harness.scoring.count_statistics import CellCounts
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import prepare, score
from tests.golden import cases, cases2026, compare
from tests.suite2026 import (
    GOLDEN,
    RATIO,
    REFUSED,
    SCALED,
    SUITE,
    assert_close,
    assert_equals_the_oracle,
    cells,
    counted,
    scale_of,
    scored,
    without_controls,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.scoring.scores import Scores


@pytest.mark.parametrize("name", [name for name in cases2026.SIMULATED if name not in REFUSED])
def test_every_pair_and_aggregate_equals_the_oracle(name: str) -> None:
    assert_equals_the_oracle(scored(name), name)


@pytest.mark.parametrize("prediction", ["other-half", "next-perturbation"])
@pytest.mark.parametrize("screen", ["papalexi21", "datlinger21"])
def test_real_screens_score_as_by_the_oracle(
    screen: str, prediction: str, data_file: Callable[[str], Path]
) -> None:
    case = cases2026.screens(compare.read_screen(data_file(f"{screen}.h5ad")))[prediction]
    sides = compare.annotated(case.truth), compare.annotated(case.prediction)
    name, options = f"{screen}:{prediction}", {"no_target_genes": screen == "papalexi21"}
    if name in REFUSED:  # its cells are nearly empty: what has a meaning still agrees
        with pytest.raises(DataError, match="cannot be told from noise"):
            score(*sides, suite="vcc2026", **options)
        options["metrics"] = [metric for metric in SUITE if metric != RATIO]
    assert_equals_the_oracle(score(*sides, suite="vcc2026", **options), name)


def test_a_real_screen_is_scaled_as_by_the_oracle(data_file: Callable[[str], Path]) -> None:
    screen = compare.read_screen(data_file("papalexi21.h5ad"))
    case = cases2026.screens(screen)["other-half"]
    truth = counted(case.truth, no_target_genes=True)
    predicted = truth.comparisons(truth.predicted(cells(case.prediction), "prediction"))
    found = anchors(truth, SUITE).score(aggregate_table(predicted, SUITE))
    expected = GOLDEN["papalexi21:other-half"]["score"]
    assert found.score == pytest.approx(expected["from_replicate"][-1], rel=1e-5)
    members = found.members.set_index("metric")["scaled"]
    for metric, value in zip(expected["metric"], expected["from_replicate"], strict=True):
        assert metric == "avg_score" or members[metric] == pytest.approx(value, rel=1e-5), metric


def test_a_truth_without_measurable_effects_is_refused_as_by_the_oracle() -> None:
    assert "no-effect-in-truth" in REFUSED
    with pytest.raises(DataError, match=r"cannot be told from noise.*-0\.0672.*more cells"):
        scored("no-effect-in-truth")


def test_counts_and_set_overlaps_equal_the_oracle_exactly() -> None:
    for name in ("plain", "ties", "genes-near-the-gate", "tiny-groups"):
        values = scored(name).frame.set_index(["metric", "perturbation"])["value"]
        for metric in SUITE:
            if metric == "pds_cosine" or metric.endswith(("_raw", "jaccard")):
                for perturbation, value in GOLDEN[name]["results"][metric].items():
                    assert values[metric, perturbation] == pytest.approx(
                        compare.number(value), rel=1e-15, nan_ok=True
                    )


@pytest.mark.parametrize("name", SCALED)
def test_the_baseline_equals_the_oracle(name: str) -> None:
    expected = GOLDEN[name]["baseline"]["aggregate"]
    for row in scale_of(name).baseline.itertuples():
        assert_close(row.value, expected[row.metric], row.metric)


@pytest.mark.parametrize("name", SCALED)
def test_every_split_of_the_replicate_equals_the_oracle(name: str) -> None:
    expected = pd.DataFrame(GOLDEN[name]["splits"]).set_index(["split_index", "metric"])
    splits = scale_of(name).splits
    assert len(splits) == len(expected)
    for row in splits.itertuples():
        other = expected.loc[(row.split, row.metric)]
        assert row.seed == other["seed"]
        if row.metric != RATIO:
            assert row.n_pairs == other["n_perturbations"]
        assert_close(row.value, other["value"], row.metric)


@pytest.mark.parametrize("name", SCALED)
def test_the_score_between_the_anchors_equals_the_oracle(name: str) -> None:
    found = scale_of(name).score(scored(name).by_context("vcc2026"))
    expected = GOLDEN[name]["score"]
    members = found.members.set_index("metric")["scaled"]
    for metric, value in zip(expected["metric"], expected["from_replicate"], strict=True):
        ours = found.score if metric == "avg_score" else members[metric]
        assert ours == pytest.approx(value, rel=1e-5), metric


def test_the_score_from_the_baseline_alone_equals_the_oracle() -> None:
    base = scale_of("plain").baseline.set_index("metric")["value"]
    user = scored("plain").means("vcc2026")
    expected = GOLDEN["plain"]["score"]
    for metric, value in zip(expected["metric"], expected["from_baseline"], strict=True):
        if metric != "avg_score":
            assert scaled(metric, user[metric], base[metric]) == pytest.approx(value, rel=1e-6)


def in_contexts(side: str, *, controls: bool = True) -> Any:
    """Two golden cases as two contexts of one screen, cells of both mixed."""
    parts = []
    for context, name in (("A", "plain"), ("B", "all-zero-genes")):
        matrix = getattr(cases2026.SIMULATED[name](), side)
        matrix = matrix if controls else without_controls(matrix)
        annotated = compare.annotated(matrix)
        annotated.obs["line"] = context
        annotated.obs_names = [f"{context}{cell}" for cell in annotated.obs_names]
        parts.append(annotated)
    import anndata

    joined = anndata.concat(parts)
    return joined[np.argsort(cases.uniforms(3, joined.n_obs), kind="stable")].copy()


@cache
def contexts() -> Scores:
    sides = in_contexts("truth"), in_contexts("prediction", controls=False)
    return score(*sides, suite="vcc2026", context_column="line")


def test_each_context_is_scored_by_itself_and_means_go_over_contexts() -> None:
    table = contexts().by_context("vcc2026").set_index(["context", "metric"])["value"]
    for context, name in (("A", "plain"), ("B", "all-zero-genes")):
        expected = GOLDEN[name]["aggregate"]
        mean = expected["statistic"].index("mean")
        for metric in SUITE:
            assert_close(table[context, metric], expected[metric][mean], metric)
    for metric, value in contexts().means("vcc2026").items():
        assert value == pytest.approx((table["A", metric] + table["B", metric]) / 2)


def test_contexts_keep_their_anchors_and_the_score_is_their_mean() -> None:
    # In the order in which the oracle had the cells, for draws and splits depend on it.
    truth = in_contexts("truth")
    truth = truth[np.argsort([int(name[2:]) for name in truth.obs_names], kind="stable")]
    reading = ScoringOptions(context_column="line")
    ends = anchors(prepare(truth, reading, suite="vcc2026").counted, SUITE)
    found = ends.score(contexts().by_context("vcc2026"))
    expected = {"A": GOLDEN["plain"]["score"], "B": GOLDEN["all-zero-genes"]["score"]}
    for context, value in found.contexts.items():
        assert value == pytest.approx(expected[context]["from_replicate"][-1], rel=1e-5)
    assert found.score == pytest.approx(np.mean(list(found.contexts.values())))


def test_written_files_have_the_oracles_shape(tmp_path: Path) -> None:
    folder = scored("little-significant").write(tmp_path)
    results = pd.read_csv(f"{folder}/vcc2026/results.csv")
    assert results.columns.tolist() == ["perturbation", "metric", "value"]
    assert not {RATIO, "de_wilcoxon_lfc_nmae"} & set(results["metric"])
    statistics = pd.read_csv(f"{folder}/vcc2026/agg_results.csv", index_col="statistic")
    assert statistics.columns.tolist() == sorted(SUITE)
    assert statistics.index.tolist() == list(GOLDEN["plain"]["aggregate"]["statistic"])
    assert statistics.loc["count", "de_wilcoxon_lfc_nmae"] == 0
    written = contexts().write(tmp_path)
    assert pd.read_csv(f"{written}/vcc2026/results.csv").columns[0] == "context"
    assert (
        pd.read_csv(f"{written}/vcc2026/agg_results.csv")["context"].tolist()
        == ["A"] * 7 + ["B"] * 7
    )


def test_controls_in_a_prediction_play_no_part() -> None:
    case = cases2026.SIMULATED["plain"]()
    X = case.prediction.X.copy()
    X[case.prediction.labels == cases.CONTROL] *= 7
    other = compare.annotated(replace(case.prediction, X=X))
    found = score(compare.annotated(case.truth), other, suite="vcc2026")
    pd.testing.assert_frame_equal(found.frame, scored("plain").frame)


@pytest.mark.parametrize("memory", ["1B", "20MiB"], ids=["sixteen-genes", "all-genes"])
def test_the_result_does_not_depend_on_blocks_and_threads(memory: str) -> None:
    case = cases2026.SIMULATED["sparse"]()
    sides = compare.annotated(case.truth), compare.annotated(case.prediction)
    found = score(*sides, suite="vcc2026", memory=memory, threads=1)
    np.testing.assert_allclose(
        found.frame["value"], scored("sparse").frame["value"], rtol=1e-10, atol=1e-13
    )


def test_several_suites_are_scored_together() -> None:
    case = cases2026.SIMULATED["plain"]()
    sides = compare.annotated(case.truth), compare.annotated(case.prediction)
    found = score(*sides, suite="vcc2025,vcc2026")
    assert found.suites == ("vcc2025", "vcc2026")
    assert found.means("vcc2026") == scored("plain").means("vcc2026")
    assert found.means("vcc2025") == score(*sides).means("vcc2025")


def test_values_of_the_ratio_have_it_as_their_mean() -> None:
    frame = scored("plain").frame
    mean = frame.loc[frame["metric"] == RATIO, "value"].mean()
    assert mean == pytest.approx(scored("plain").means("vcc2026")[RATIO])


def test_aggregates_pass_over_what_is_undefined() -> None:
    truth = counted(cases2026.SIMULATED["genes-near-the-gate"]().truth)
    table = aggregate_table(truth.comparisons(truth.sides), SUITE).set_index("metric")
    assert table.loc["de_wilcoxon_lfc_nmae", "n_pairs"] == 3
    assert table.loc["de_wilcoxon_lfc_nmae", "value"] == 0


def test_counts_are_checked_as_they_are_read() -> None:
    read = CellCounts(cells(cases2026.SIMULATED["integers"]().truth), "truth")
    assert read.block(0, 4).dtype == np.int64
    assert len(read.sizes) == read.cells.n_cells


# --- anchors ---------------------------------------------------------------------------------


def test_halves_are_disjoint_equal_and_leave_the_odd_cell_out() -> None:
    truth = counted(cases2026.SIMULATED["plain"]().truth)
    halves = split_groups(truth, 5)
    n = len(truth.labels)
    sizes = halves.sizes()
    np.testing.assert_array_equal(sizes[:n], truth.groups.sizes() // 2)
    np.testing.assert_array_equal(sizes[n:], sizes[:n])
    used = halves.codes >= 0
    np.testing.assert_array_equal(halves.codes[used] % n, truth.groups.codes[used])
    assert (halves.codes != split_groups(truth, 6).codes).any()


def test_a_group_of_one_cell_allows_no_replicate() -> None:
    with pytest.raises(DataError, match=r"1 groups have one cell: 'G1'\. Expected at least two"):
        anchors(counted(cases2026.SIMULATED["tiny-groups"]().truth), SUITE)


def test_a_single_perturbation_has_no_mean_response() -> None:
    truth = counted(cases2026.SIMULATED["one-perturbation"]().truth)
    with pytest.raises(DataError, match="a mean response needs two perturbations"):
        mean_response(truth)


def test_a_truth_whose_halves_find_nothing_allows_no_replicate() -> None:
    with pytest.raises(DataError, match=r"halves of the truth .* give no value of"):
        anchors(counted(cases2026.SIMULATED["little-significant"]().truth), SUITE)


def test_a_replicate_no_better_than_the_baseline_scales_nothing() -> None:
    table = scale_of("plain")
    swapped = Anchors(table.replicate[["context", "metric", "value"]], table.splits)
    with pytest.raises(DataError, match=r"cannot be scaled: the reference .* is no better"):
        swapped.score(scored("plain").by_context("vcc2026"))


def test_a_score_needs_every_member() -> None:
    some = scored("plain").by_context("vcc2026")
    with pytest.raises(DataError, match="pds_cosine was not scored"):
        scale_of("plain").score(some[some["metric"] != "pds_cosine"])
