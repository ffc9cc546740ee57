"""Results as data: SQL over them, and files for other tools."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from harness.analysis.export import Form, export_results
from harness.analysis.query import query_results
from harness.analysis.results import Results
from harness.cli import run_command as command
from harness.errors import DataError, HarnessError
from tests.analysis.test_results import add_trial, score_rows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["local", "object-store"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two trials, of which one parameter is a number and one model has none, in two contexts."""
    folder = str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}"
    both = [score_rows("t1", context=context) for context in ("A549", "K562")]
    add_trial(folder, "t1", pd.concat(both))
    add_trial(folder, "t2", score_rows("t2", value=[1.0, 2.0], reason=""), model="m", parameters={})
    add_trial(folder, "t3")  # has begun, and is not done
    return folder


def test_scores_carry_the_factors_of_their_trials(run: str) -> None:
    found = query_results(
        Results(run),
        'select model, "param.rank" as rank, metric, avg(value) as mean, count(*) as n from scores '
        "where metric = 'mae' group by all order by model",
    )
    assert found["model"].tolist() == ["linear", "m"]
    assert found["mean"].tolist() == [0.25, 1.0]
    assert found["n"].tolist() == [2, 1]
    assert found["rank"].isna().tolist() == [False, True]


def test_what_sql_gives_is_what_the_frame_has(run: str) -> None:
    results = Results(run)
    found = query_results(results, "select * from scores order by trial, metric, context")
    frame = results.scores.sort_values(["trial", "metric", "context"], ignore_index=True)
    assert list(found) == list(frame)
    np.testing.assert_array_equal(found["value"], frame["value"])
    for name in ("trial", "reason", "model", "seed"):
        assert found[name].astype(str).tolist() == frame[name].astype(str).tolist()


def test_trials_that_are_not_done_are_in_trials_alone(run: str) -> None:
    states = query_results(
        Results(run), "select state, count(*) n from trials group by 1 order by 1"
    )
    assert states.to_numpy().tolist() == [["done", 2], ["missing", 1]]
    names = query_results(Results(run), "select distinct trial from scores order by 1")
    assert names["trial"].tolist() == ["t1", "t2"]


def test_a_run_without_scores_has_empty_views(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / "trials" / "t").mkdir(parents=True)
    assert query_results(Results(tmp_path), "select count(*) n from scores")["n"].tolist() == [0]


def test_a_query_that_cannot_be_meant_is_told_the_columns(run: str) -> None:
    with pytest.raises(DataError, match=r"modl.*The view scores has the columns .*'param\.rank'"):
        query_results(Results(run), "select modl from scores")


def test_versions_of_a_metric_do_not_mix_in_sql(tmp_path: Path) -> None:
    add_trial(str(tmp_path), "t1", score_rows("t1"))
    add_trial(str(tmp_path), "t2", score_rows("t2", version=2))
    with pytest.raises(DataError, match="different version cannot be compared"):
        query_results(Results(tmp_path), "select 1 from scores")


def test_without_duckdb_the_extra_is_named(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(HarnessError, match=r"pip install 'virtual-cell-harness\[results\]'"):
        query_results(Results(run), "select 1")


# --- files --------------------------------------------------------------------------------------


def read(path: Path, form: Form) -> xr.Dataset:
    if form == "zarr":
        return xr.open_zarr(path, consolidated=False).load()
    return xr.load_dataset(path, engine="h5netcdf")


@pytest.mark.parametrize("form", ["zarr", "netcdf"])
def test_the_cube_of_a_file_has_contexts_as_a_dimension(
    run: str, form: Form, tmp_path: Path
) -> None:
    results = Results(run)
    export_results(results, str(tmp_path / "cube"), form)
    cube = read(tmp_path / "cube", form)
    assert cube["score"].dims == ("trial", "context", "perturbation", "metric")
    for row in results.rows.itertuples():
        place: dict[str, Any] = {n: getattr(row, n) for n in cube["score"].dims}
        np.testing.assert_equal(cube["score"].sel(place).item(), row.value)
    assert set(results.factors) <= set(cube.coords)
    assert cube["model"].values.tolist() == ["linear", "m"]
    absent = cube["reason"].sel(trial="t2", context="K562", metric="mae").item()
    assert absent == -1
    assert "constant prediction" in list(cube["reason"].attrs["reasons"])


def test_the_two_shapes_of_the_cube_hold_the_same(run: str) -> None:
    flat, deep = Results(run).to_xarray(), Results(run).to_xarray(by_context=True)
    assert flat["score"].dims == ("trial", "perturbation", "metric")
    for pair in flat["perturbation"].values.tolist():
        perturbation, context = pair.split("|")
        one = deep["score"].sel(context=context, perturbation=perturbation)
        np.testing.assert_array_equal(flat["score"].sel(perturbation=pair), one)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_of_a_file_has_all_scores(run: str, form: Form, tmp_path: Path) -> None:
    path = tmp_path / "scores"
    export_results(Results(run), str(path), form)
    found = pd.read_csv(path) if form == "csv" else pd.read_parquet(path)
    assert list(found) == list(Results(run).scores)
    np.testing.assert_array_equal(found["value"], Results(run).rows["value"])


def test_a_zarr_store_is_not_written_over(run: str, tmp_path: Path) -> None:
    (tmp_path / "cube").mkdir()
    with pytest.raises(FileExistsError, match="Remove it, or give another name"):
        export_results(Results(run), str(tmp_path / "cube"), "zarr")


# --- the command --------------------------------------------------------------------------------


def test_the_command_says_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_trial(str(tmp_path), "t1", score_rows("t1"))
    assert command(["results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "trials: 1 done" in said
    assert "suite vcc2025: mae, overlap_at_N" in said


def test_the_command_prints_and_writes_what_a_query_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_trial(str(tmp_path), "t1", score_rows("t1"))
    words = ["results", str(tmp_path), "--sql", "select metric, value from scores order by 1"]
    assert command(words) == 0
    assert "0.25" in capsys.readouterr().out
    assert command([*words, "--to", "csv"]) == 0
    assert capsys.readouterr().out == "metric,value\nmae,0.25\noverlap_at_N,\n"
    assert command([*words, "--to", "parquet", "-o", str(tmp_path / "q.parquet")]) == 0
    assert pd.read_parquet(tmp_path / "q.parquet")["value"].iloc[0] == 0.25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--to", "parquet"], "Name it with -o", id="no_name"),
        pytest.param(
            ["--sql", "select 1", "--to", "zarr", "-o", "x"], "csv or parquet", id="sql_as_cube"
        ),
        pytest.param(["--sql", "selct 1"], "syntax error", id="no_sql"),
    ],
)
def test_misuse_of_the_command_is_told(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_trial(str(tmp_path), "t1", score_rows("t1"))
    assert command(["results", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err
