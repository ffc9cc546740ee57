"""Score files, trials of a run, and what may be joined."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from harness.analysis.results import SCHEMA, Results, read_scores, write_scores
from harness.analysis.trials import read_trials
from harness.errors import DataError
from harness.storage import paths

if TYPE_CHECKING:
    from pathlib import Path

SPEC = {
    "dataset": "toy",
    "dataset_version": 1,
    "fingerprint": "aa",
    "split": "halves",
    "split_spec": "{}",
    "fold": 0,
    "model": "linear",
    "parameters": {"rank": 4},
    "cells": None,
    "seed": 0,
    "controls": "divided",
}


def score_rows(trial: str, **changes: Any) -> pd.DataFrame:
    row = {
        "trial": trial,
        "suite": "vcc2025",
        "metric": ["mae", "overlap_at_N"],
        "version": 1,
        "context": "A549",
        "perturbation": "STAT1",
        "value": [0.25, np.nan],
        "reason": ["", "constant prediction"],
    }
    return pd.DataFrame(row | changes)


def add_trial(run: str, trial: str, rows: pd.DataFrame | None = None, **spec: Any) -> None:
    """Write a finished trial, or one without a manifest where there are no rows."""
    folder = paths.join(run, "trials", trial)
    paths.write_atomic(paths.join(folder, "spec.json"), json.dumps(SPEC | spec))
    if rows is not None:
        write_scores(paths.join(run, "results", f"{trial}.parquet"), rows)
        manifest = {"ceiling": False, "seconds": {"fit": 2.5}, "scored": {"vcc2025": {"mae": 1}}}
        paths.write_atomic(paths.join(folder, "manifest.json"), json.dumps(manifest))


@pytest.fixture(params=["local", "object-store"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "run")
    return f"memory://{tmp_path.name}"


def test_scores_come_back_with_nan_and_reason(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"))
    found = read_scores(run)
    assert list(found) == SCHEMA.names
    np.testing.assert_array_equal(found["value"], [0.25, np.nan])
    assert found["reason"].tolist() == ["", "constant prediction"]
    assert found["metric"].tolist() == ["mae", "overlap_at_N"]


def test_texts_come_back_as_sorted_categories(run: str) -> None:
    add_trial(run, "t2", score_rows("t2", perturbation="ZEB1"))
    add_trial(run, "t3", score_rows("t3", perturbation="ATF2"))
    assert list(read_scores(run)["perturbation"].cat.categories) == ["ATF2", "ZEB1"]


def test_scores_do_not_depend_on_how_many_files_are_read_at_once(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"t{number:03}" for number in range(140)]  # more than codes of one byte can tell apart
    for name in names:
        add_trial(run, name, score_rows(name, perturbation=[f"Z{name}", f"A{name}"]))
    whole = read_scores(run)
    assert whole["trial"].tolist() == np.repeat(names, 2).tolist()
    assert whole["perturbation"].tolist() == [f"{x}{name}" for name in names for x in "ZA"]
    monkeypatch.setattr("harness.analysis.results._AT_ONCE", 3)
    pd.testing.assert_frame_equal(read_scores(run), whole)


def test_a_text_that_is_not_there_belongs_to_no_category() -> None:
    scores = pd.concat([score_rows("t1"), score_rows("t1", context=None, perturbation="ATF2")])
    found = Results.of(scores, pd.DataFrame({"trial": ["t1"], "model": "linear"})).rows["context"]
    assert found.cat.codes.tolist() == [0, 0, -1, -1]
    assert found.cat.categories.tolist() == ["A549"]


def test_scores_of_an_unknown_trial_are_refused() -> None:
    trials = pd.DataFrame({"trial": ["t1"], "model": "linear"})
    with pytest.raises(ValueError, match="scores of 't2', which is not among the 1 trials given"):
        Results.of(score_rows("t2"), trials)


def test_a_trial_without_a_manifest_is_not_read(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"))
    add_trial(run, "t2", score_rows("t2"))
    paths.remove(paths.join(run, "trials", "t2", "manifest.json"))
    assert read_scores(run)["trial"].unique().tolist() == ["t1"]
    assert Results(run).rows["trial"].unique().tolist() == ["t1"]


def test_a_run_without_trials_has_no_scores(run: str) -> None:
    assert read_scores(run).empty
    assert list(read_trials(run)[["trial", "state"]]) == ["trial", "state"]
    paths.write_atomic(paths.join(run, "run.json"), '{"job": {}}')
    assert Results(run).scores.empty


def test_a_folder_that_no_run_wrote_is_no_run(run: str) -> None:
    with pytest.raises(DataError, match=r"no run folder: it has neither run\.json nor trials"):
        Results(run)


def test_scores_without_a_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scores lack the columns 'reason'\. Found 'trial'"):
        write_scores(str(tmp_path / "t.parquet"), score_rows("t").drop(columns="reason"))


def test_a_pair_that_is_scored_twice_is_refused(tmp_path: Path) -> None:
    twice = pd.concat([score_rows("t"), score_rows("t")])
    with pytest.raises(
        ValueError, match=r"2 scores are given twice, the first for t, vcc2025, mae"
    ):
        write_scores(str(tmp_path / "t.parquet"), twice)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_of_scores_is_named(tmp_path: Path) -> None:
    add_trial(str(tmp_path), "t1", score_rows("t1"))
    (tmp_path / "results" / "t1.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"t1\.parquet.*Remove that file"):
        read_scores(str(tmp_path))


def test_trials_have_their_factors_and_what_they_took(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"))
    add_trial(run, "t2", score_rows("t2"), model="control-mean", parameters={})
    trials = read_trials(run).set_index("trial")
    assert trials.loc["t1", "param.rank"] == 4
    assert isinstance(trials.loc["t1", "param.rank"], int)
    assert trials.loc["t2", "param.rank"] is None
    assert trials["seconds.fit"].tolist() == [2.5, 2.5]
    assert not [name for name in trials if str(name).startswith("scored")]


def test_a_parameter_that_is_a_list_becomes_text(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"), parameters={"layers": [64, 32]})
    assert read_trials(run)["param.layers"].tolist() == ["[64, 32]"]


def test_a_trial_is_done_failed_or_missing(run: str) -> None:
    for name, rows in {"done": score_rows("done"), "failed": None, "begun": None}.items():
        add_trial(run, name, rows)
    failure = {"error": "ValueError: no", "traceback": "…", "log": "log.txt", "attempts": 2}
    paths.write_atomic(paths.join(run, "trials", "failed", "failure.json"), json.dumps(failure))
    planned = dict.fromkeys(("done", "failed", "begun", "planned"), SPEC)
    paths.write_atomic(paths.join(run, "run.json"), json.dumps({"trials": planned}))
    trials = read_trials(run).set_index("trial")
    assert trials["state"].to_dict() == {
        "begun": "missing",
        "done": "done",
        "failed": "failed",
        "planned": "missing",
    }
    assert trials.loc["failed", "error"] == "ValueError: no"
    assert trials.loc["failed", "attempts"] == 2


def test_a_folder_that_says_nothing_is_no_trial(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"))
    paths.write_atomic(paths.join(run, "trials", "t2", "log.txt"), "killed at once")
    assert read_trials(run)["trial"].tolist() == ["t1"]


def test_a_trial_of_two_runs_counts_once(run: str) -> None:
    other = run + "-2"
    add_trial(run, "t1")
    add_trial(other, "t1", score_rows("t1"))
    add_trial(other, "t2", score_rows("t2"))
    results = Results([run, other, other])
    assert results.trials["state"].tolist() == ["done", "done"]
    assert len(results.rows) == 4
    assert len(read_scores([run, other])) == 4


def test_trials_that_the_job_no_longer_has_are_left_out(run: str) -> None:
    add_trial(run, "old", score_rows("old"), fingerprint="before")
    add_trial(run, "new", score_rows("new"))
    paths.write_atomic(paths.join(run, "run.json"), json.dumps({"trials": {"new": SPEC}}))
    results = Results(run)
    assert results.rows["trial"].unique().tolist() == ["new"]
    assert results.n_unplanned == 1


@pytest.mark.parametrize(
    ("column", "message"),
    [
        pytest.param("fingerprint", "dataset toy: results of different fingerprint", id="content"),
        pytest.param("dataset_version", r"'1' in '.*/a', '9' in '.*/b', expected one", id="card"),
        pytest.param("split_spec", "dataset split toy halves: .* different split_spec", id="split"),
    ],
)
def test_results_of_different_data_do_not_mix(tmp_path: Path, column: str, message: str) -> None:
    add_trial(str(tmp_path / "a"), "t1", score_rows("t1"))
    add_trial(str(tmp_path / "b"), "t2", score_rows("t2"), **{column: 9})
    with pytest.raises(DataError, match=message):
        Results([tmp_path / "a", tmp_path / "b"])


def test_versions_of_a_metric_do_not_mix(tmp_path: Path) -> None:
    add_trial(str(tmp_path), "t1", score_rows("t1"))
    add_trial(str(tmp_path), "t2", score_rows("t2", version=2))
    with pytest.raises(DataError, match=r"vcc2025 mae: .* version .*'1' in '.*', '2' in '.*'"):
        _ = Results(tmp_path).rows


def test_scores_carry_the_factors_of_their_trial(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"))
    add_trial(run, "t2", score_rows("t2"), model="control-mean", parameters={}, seed=3)
    scores = Results(run).scores
    seen = scores[["trial", "model", "seed"]].astype(str).drop_duplicates().to_numpy().tolist()
    assert seen == [["t1", "linear", "0"], ["t2", "control-mean", "3"]]
    assert scores["param.rank"].isna().tolist() == [False, False, True, True]


def test_score_options_are_what_all_jobs_agree_on(tmp_path: Path) -> None:
    for name, floors in (("a", {"mae": 0.1}), ("b", None)):
        score = {"suite": "vcc2025", "baseline": "perturbation-mean", "floors": floors}
        path = str(tmp_path / name / "run.json")
        paths.write_atomic(path, json.dumps({"job": {"score": score}, "trials": {}}))
    agreed = Results([tmp_path / "a", tmp_path / "b"]).score_options
    assert agreed == {"suite": "vcc2025", "baseline": "perturbation-mean"}


# --- the cube -----------------------------------------------------------------------------------


def test_the_cube_holds_every_score(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"))
    add_trial(run, "t2", score_rows("t2", perturbation="JAK1", value=[1.0, 2.0], reason=""))
    cube = Results(run).to_xarray()
    assert cube["score"].dims == ("trial", "perturbation", "metric")
    for row in Results(run).rows.itertuples():
        place = {"trial": row.trial, "perturbation": row.perturbation, "metric": row.metric}
        np.testing.assert_equal(cube["score"].sel(place).item(), row.value)


def test_the_cube_tells_undefined_from_not_scored(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"))
    add_trial(run, "t2", score_rows("t2", perturbation="JAK1"))
    cube = Results(run).to_xarray()
    reason = cube["reason"].sel(trial="t1", metric="overlap_at_N")
    assert (
        cube["reason"].attrs["reasons"][int(reason.sel(perturbation="STAT1"))]
        == "constant prediction"
    )
    assert reason.sel(perturbation="JAK1") == -1
    assert cube["reason"].sel(trial="t1", metric="mae", perturbation="STAT1") == 0


def test_factors_are_coordinates_of_the_cube(run: str) -> None:
    add_trial(run, "t1", score_rows("t1"))
    add_trial(run, "t2", score_rows("t2"), model="control-mean", parameters={})
    cube = Results(run).to_xarray()
    assert cube["model"].values.tolist() == ["linear", "control-mean"]
    np.testing.assert_array_equal(cube["param.rank"], [4, np.nan])
    assert cube["version"].values.tolist() == [1, 1]


def test_with_several_contexts_a_pair_names_both(run: str) -> None:
    rows = [score_rows("t1", context=context) for context in ("A549", "K562")]
    add_trial(run, "t1", pd.concat(rows))
    cube = Results(run).to_xarray()
    assert cube["perturbation"].values.tolist() == ["STAT1|A549", "STAT1|K562"]
    assert cube["context"].values.tolist() == ["A549", "K562"]
    assert cube["perturbation_name"].values.tolist() == ["STAT1", "STAT1"]


def test_with_several_suites_a_metric_names_both(run: str) -> None:
    rows = [score_rows("t1", suite=suite) for suite in ("vcc2025", "cell-eval")]
    add_trial(run, "t1", pd.concat(rows))
    names = Results(run).to_xarray()["metric"].values.tolist()
    assert names[:2] == ["cell-eval:mae", "cell-eval:overlap_at_N"]
