"""The kinds of tables beside the comparison, each by hand on a small run, in every form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from harness.analysis.results import Results
from harness.analysis.statistics import holm
from harness.analysis.tables import Bootstrap, tables_of, write_tables
from harness.errors import DataError, UnknownNameError
from harness.storage import paths
from tests.toy_run import MAE, OVERLAP, add_trial, write_run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.analysis.tables import Kind, Table

FEW = Bootstrap(draws=200)
KINDS: tuple[Kind, ...] = (
    "comparison",
    "sweep",
    "perturbations",
    "strata",
    "cost",
    "pairs",
    "ranks",
    "drift",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two suites, two seeds, a ceiling, and a model with six settings."""
    folder = tmp_path_factory.mktemp("kinds")
    write_run(folder)
    return folder


def table(run: Path, kind: Kind, suite: str = "vcc2025", **given: Any) -> Table:
    return tables_of(Results(run), kind, suites=[suite], bootstrap=FEW, **given)[0]


# --- all kinds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_shown_in_every_form_with_what_must_be_said(run: Path, kind: Kind) -> None:
    for found in tables_of(Results(run), kind, bootstrap=FEW):
        for text in (found.to_markdown(), found.to_latex(), found.to_html()):
            for must in ("toy v1", "12 pairs", "cell-eval 0."):
                assert must in text
        assert found.to_latex().isascii()
        assert found.to_csv().count("\n") == len(found.frame) + 1
        assert found.kind == kind


def test_numbers_in_tables_are_those_of_the_parquet(run: Path, tmp_path: Path) -> None:
    results = Results(run)
    written, *_ = write_tables(results, str(tmp_path), suites=["vcc2025"], bootstrap=FEW)
    files = sorted((run / "results").glob("*.parquet"))
    rows = pd.concat([pq.read_table(file).to_pandas().astype({"trial": str}) for file in files])
    rows = rows[rows["suite"] == "vcc2025"]
    specs = {
        file.stem: json.loads(paths.read_text(str(run / f"trials/{file.stem}/spec.json")))
        for file in files
    }
    rows["model"] = [specs[trial]["model"] for trial in rows["trial"]]
    rows["rank"] = [specs[trial]["parameters"].get("rank", -1) for trial in rows["trial"]]
    rows["ridge"] = [specs[trial]["parameters"].get("ridge", -1) for trial in rows["trial"]]
    keys = ["model", "rank", "ridge"]
    shown = pd.read_csv(tmp_path / "comparison.csv", float_precision="round_trip")
    shown = shown.rename(columns={"param.rank": "rank", "param.ridge": "ridge"}).fillna(
        {"rank": -1, "ridge": -1}
    )
    (section,) = written.sections
    for metric in (MAE, OVERLAP):
        part = rows[rows["metric"] == metric]
        means = part.groupby(keys)["value"].mean()
        found = shown.set_index(keys)[metric]
        pd.testing.assert_series_equal(
            found.sort_index(), means, check_names=False, check_index_type=False
        )
        column = next(at for at, name in enumerate(section.columns) if name.startswith(metric))
        texts = [row[column].text.split()[0] for row in section.rows]
        in_order = means.loc[[*shown[keys].itertuples(index=False, name=None)]]
        told = [f"{value:.{len(text) - 2}f}" for text, value in zip(texts, in_order, strict=True)]
        assert texts == told
    pairs = pd.read_csv(tmp_path / "per_perturbation.csv", float_precision="round_trip")
    pairs = pairs[(pairs["suite"] == "vcc2025") & (pairs["model"] == "far")]
    far = rows[(rows["model"] == "far") & (rows["metric"] == MAE)]
    of_pair = far.groupby("perturbation", observed=True)["value"].mean()
    np.testing.assert_allclose(pairs.set_index("perturbation")[MAE], of_pair, rtol=1e-12)


def test_a_run_writes_few_tables(run: Path, tmp_path: Path) -> None:
    write_tables(Results(run), str(tmp_path), bootstrap=FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "comparison.csv",
        "comparison.md",
        "comparison.tex",
        "per_perturbation.csv",
        "ranks.csv",
        "ranks.md",
        "ranks.tex",
    ]
    assert set(pd.read_csv(tmp_path / "ranks.csv")["suite"]) == {"vcc2025", "cell-eval"}


def test_a_suite_without_scores_is_named(run: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'vcc2052'\. Did you mean 'vcc2025'"):
        table(run, "ranks", "vcc2052")


# --- pairs --------------------------------------------------------------------------------------


def test_a_difference_is_over_pairs_and_its_tests_are_scipys(run: Path) -> None:
    found = table(run, "pairs")
    row = found.frame[
        (found.frame["setting_a"] == "mean")
        & (found.frame["setting_b"] == "far")
        & (found.frame["metric"] == MAE)
    ].iloc[0]
    per_pair = table(run, "perturbations").frame.set_index(["model", "perturbation"])[MAE]
    differences = (per_pair["mean"] - per_pair["far"]).to_numpy()
    assert row["difference"] == pytest.approx(differences.mean())
    assert row["difference_low"] < row["difference"] < row["difference_high"] < 0
    assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert (row["n_pairs"], row["a_better"]) == (12, 12)
    for name in ("p_permutation", "p_wilcoxon"):
        adjusted = found.frame[f"{name}_holm"]
        np.testing.assert_allclose(adjusted, holm(found.frame[name].to_numpy()))


def test_every_two_settings_are_compared_or_all_with_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = table(run, "pairs").frame
    assert len(every) == 2 * 8 * 7 / 2  # eight settings, not the ceiling, by two metrics
    one = table(run, "pairs", baseline="far").frame
    assert set(one["setting_b"]) == {"far"}
    assert len(one) == 2 * 7
    monkeypatch.setattr("harness.analysis.tables.pairwise.MOST", 3)
    many = table(run, "pairs")
    assert set(many.frame["setting_b"]) == {"mean"}
    assert "8 settings, too many to compare every two" in many.to_markdown()


def test_an_unclear_baseline_of_pairs_is_said(run: Path) -> None:
    found = table(run, "pairs", baseline="linear")
    assert found.frame.empty
    assert "no one setting with scores is meant by 'linear'" in found.to_markdown()


def test_pairs_are_compared_over_what_both_have(tmp_path: Path) -> None:
    add_trial(tmp_path, "a", {MAE: [0.1, 0.2, 0.3, np.nan]})
    add_trial(tmp_path, "b", {MAE: [0.2, 0.2, 0.5, 9.0]})
    found = table(tmp_path, "pairs")
    row = found.frame.iloc[0]
    assert (row["n_pairs"], row["difference"]) == (3, pytest.approx(-0.1))
    assert "NaN in mae: 1 score of a (constant prediction: 1)" in found.to_markdown()


# --- ranks --------------------------------------------------------------------------------------


def test_ranks_have_intervals_and_chances_that_sum_to_one(run: Path) -> None:
    frame = table(run, "ranks").frame
    assert "replicate" not in set(frame["model"])
    assert frame[f"{MAE}_rank"].tolist()[-1] == 8  # far is last by all
    for name in (f"{MAE}_rank", f"{OVERLAP}_rank", "mean_rank_place"):
        assert (frame[f"{name}_low"] <= frame[name]).all()
        assert (frame[name] <= frame[f"{name}_high"]).all()
        assert frame[f"{name}_first"].sum() == pytest.approx(1)


def test_ranks_say_whether_settings_differ_and_how_stable_the_order_is(run: Path) -> None:
    titles = [section.title for section in table(run, "ranks").sections]
    assert [title.removeprefix("toy v1, halves: ") for title in titles] == [
        "ranks",
        "do settings differ?",
        "mean rank within pairs",
        "stability of the order",
    ]
    stability = table(run, "ranks").sections[-1]
    assert stability.columns[:3] == ("order by", "τ, perturbations", "τ, single seeds")
    assert [row[0].text for row in stability.rows] == [OVERLAP, MAE, "mean rank"]


# --- sweep --------------------------------------------------------------------------------------


def test_a_marginal_effect_is_a_mean_over_the_other_parameters(run: Path) -> None:
    found = table(run, "sweep")
    compared = table(run, "comparison").frame
    linear = compared[compared["model"] == "linear"]
    rows = found.frame[(found.frame["metric"] == OVERLAP) & (found.frame["factor"] == "rank")]
    assert rows["level"].tolist() == ["4", "16", "64"]
    for _, row in rows.iterrows():
        own = linear[linear["param.rank"] == int(row["level"])][OVERLAP].mean()
        assert row["mean"] == pytest.approx(own)
        assert row["change"] == pytest.approx(own - linear[OVERLAP].mean())
        assert row["change_low"] <= row["change"] <= row["change_high"]


def test_a_setting_that_was_chosen_on_test_is_marked(run: Path) -> None:
    found = table(run, "sweep")
    best = found.frame[found.frame["factor"] == "best"].set_index("metric")
    assert best.loc[OVERLAP, "level"] == "rank=64, ridge=0.1"
    assert set(best["side"]) == {"test"}
    text = found.to_markdown()
    assert "rank=64, ridge=0.1 \\*" in text
    assert "chosen on test" in text
    assert "not every level" not in text


def test_where_there_are_validation_scores_the_choice_is_made_by_them(tmp_path: Path) -> None:
    for rank, validation, test in ((1, 0.2, 0.9), (2, 0.1, 0.5), (3, 0.3, 0.1)):
        parameters = (("rank", rank),)
        for side, value in (("validation", validation), ("test", test)):
            add_trial(tmp_path, "m", {MAE: [value] * 4}, parameters=parameters, side=side)
    results = Results(tmp_path)
    assert (len(results.trials), len(results.validation.trials)) == (3, 3)
    assert results.n_unplanned == 0
    found = table(tmp_path, "sweep")
    best = found.frame[found.frame["factor"] == "best"].iloc[0]
    assert (best["side"], best["level"]) == ("validation", "rank=2")
    assert (best["chosen_by"], best["mean"]) == (pytest.approx(0.1), pytest.approx(0.5))
    assert "chosen by their mean on validation pairs, scored on test pairs" in found.to_markdown()


def test_many_numbers_of_a_parameter_are_shown_in_thirds(tmp_path: Path) -> None:
    for at in range(7):
        parameters = (("ridge", 0.1234567891 + at),)
        add_trial(tmp_path, "m", {MAE: [0.1 * at, 0.2]}, parameters=parameters)
    frame = table(tmp_path, "sweep").frame
    rows = frame[frame["factor"] == "ridge"]
    assert rows["level"].tolist() == [
        "0.123457 to 2.12346",
        "3.12346 to 4.12346",
        "5.12346 to 6.12346",
    ]
    assert rows["n_settings"].tolist() == [3, 2, 2]
    assert rows["mean"].iloc[0] == pytest.approx((0.1 + 0.2) / 2)


def test_a_choice_that_was_not_scored_on_test_is_said(tmp_path: Path) -> None:
    for rank, value in ((1, 0.2), (2, 0.1)):
        given = {"parameters": (("rank", rank),), "side": "validation"}
        add_trial(tmp_path, "m", {MAE: [value] * 4, OVERLAP: [value] * 4}, **given)
    add_trial(tmp_path, "m", {MAE: [0.3] * 4, OVERLAP: [0.3] * 4}, parameters=(("rank", 2),))
    found = table(tmp_path, "sweep")
    best = found.frame[found.frame["factor"] == "best"].set_index("metric")
    assert best.loc[MAE, "mean"] == pytest.approx(0.3)
    assert np.isnan(best.loc[OVERLAP, "mean"])
    assert set(found.frame["side"]) == {"validation"}
    assert "did not score that setting on test pairs" in found.to_markdown()


def test_a_grid_with_gaps_is_said_to_have_them(tmp_path: Path) -> None:
    for rank, ridge in ((1, 0.1), (1, 1.0), (2, 0.1)):
        add_trial(tmp_path, "m", {MAE: [0.1, 0.2]}, parameters=(("rank", rank), ("ridge", ridge)))
    assert "(3 of 4 settings)" in table(tmp_path, "sweep").to_markdown()


def test_nothing_swept_is_said(tmp_path: Path) -> None:
    add_trial(tmp_path, "m", {MAE: [0.1, 0.2]})
    assert "No model has several settings" in table(tmp_path, "sweep").to_markdown()


# --- perturbations and strata -------------------------------------------------------------------


def test_perturbations_stand_beside_what_the_truth_says_of_them(run: Path) -> None:
    found = table(run, "perturbations")
    rows = found.frame[found.frame["model"] == "mean"].set_index("perturbation")
    assert rows["n_cells"].tolist() == list(range(100, 88, -1))
    np.testing.assert_allclose(rows["effect"], np.arange(1, 13))
    np.testing.assert_allclose(rows["target_expression"], [*np.arange(6) / 10, *[np.nan] * 6])
    section = found.sections[0]
    assert section.rows[0][0].text == "G11"  # the largest effect first
    assert "6 settings more" not in found.to_markdown()
    assert "Shown: the best setting of each model; 5 settings more" in found.to_markdown()


def test_strata_are_thirds_of_the_pairs(run: Path) -> None:
    frame = table(run, "strata").frame
    rows = frame[(frame["model"] == "mean") & (frame["metric"] == MAE)]
    effect = rows[rows["fact"] == "effect"]
    assert effect["stratum"].tolist() == ["low", "middle", "high"]
    assert effect["n_pairs"].tolist() == [4, 4, 4]
    assert effect[["from", "to"]].to_numpy().round().tolist() == [[1, 4], [5, 8], [9, 12]]
    per_pair = table(run, "perturbations").frame
    mine = per_pair[(per_pair["model"] == "mean") & (per_pair["effect"] < 4.5)]
    assert effect["mean"].iloc[0] == pytest.approx(mine[MAE].mean())
    assert effect["mean_low"].iloc[0] < effect["mean"].iloc[0] < effect["mean_high"].iloc[0]
    assert rows[rows["fact"] == "target_expression"]["n_pairs"].tolist() == [2, 2, 2]


def test_without_a_reference_strata_say_what_is_unknown(tmp_path: Path) -> None:
    add_trial(tmp_path, "m", {MAE: [0.1] * 12})
    assert "not by cells, effect size" in table(tmp_path, "strata").to_markdown()


def test_a_damaged_reference_only_leaves_facts_unknown(tmp_path: Path) -> None:
    add_trial(tmp_path, "m", {MAE: [0.1] * 12})
    paths.write_atomic(str(tmp_path / "reference/key/statistics-2.2/manifest.json"), b"torn")
    assert table(tmp_path, "perturbations").frame["n_cells"].isna().all()


# --- cost and drift -----------------------------------------------------------------------------


def test_cost_marks_what_nobody_beats_at_both(tmp_path: Path) -> None:
    for name, seconds, value in (("quick", 1, 0.3), ("best", 9, 0.1), ("worse", 10, 0.2)):
        given = {"fit": seconds, "predict": 0.5, "score": 0.5}
        add_trial(tmp_path, name, {MAE: [value] * 4}, seconds=given)
    found = table(tmp_path, "cost")
    assert found.frame["model"].tolist() == ["quick", "best", "worse"]
    assert found.frame["front"].tolist() == [True, True, False]
    assert found.frame["seconds"].tolist() == [2, 10, 11]
    assert found.frame["cpu_seconds"].isna().all()
    assert "cpu s" not in found.sections[0].columns


def test_cost_is_a_mean_over_trials(run: Path) -> None:
    frame = table(run, "cost").frame
    rows = frame[frame["model"] == "linear"]
    assert sorted(set(rows["seconds_fit"])) == [4, 16, 64]
    assert (rows["n_trials"] == 2).all()


def test_drift_shows_one_trial_under_two_suites(run: Path) -> None:
    (found,) = tables_of(Results(run), "drift", bootstrap=FEW)
    wide = found.frame.pivot(index=["model", "setting"], columns="suite", values=MAE)
    np.testing.assert_allclose(wide["cell-eval"], 2 * wide["vcc2025"])
    assert found.suite == "cell-eval, vcc2025"
    assert [row[0].text for row in found.sections[1].rows] == ["cell-eval", "vcc2025"]


def test_drift_of_one_suite_is_refused(tmp_path: Path) -> None:
    add_trial(tmp_path, "m", {MAE: [0.1, 0.2]})
    with pytest.raises(DataError, match="Found scores of 'vcc2025', expected at least two"):
        tables_of(Results(tmp_path), "drift")


def test_an_ablation_of_a_run_without_one_is_refused(run: Path) -> None:
    with pytest.raises(DataError, match="no job of these runs is an ablation"):
        tables_of(Results(run), "ablation")
