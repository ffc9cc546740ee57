"""An ablation from its file to the table of changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.analysis.results import Results
from harness.analysis.tables import ablation, write_tables
from harness.runs.runner import run_job

JOB = """
kind: ablation
dataset: sim:tiny?contexts=1&genes=60
split: unseen-perturbation
folds: [0]
repeat: 2
base: {model: linear, rank: 4}
vary:
  rank: [1, 4]
  cells_per_perturbation: [5]
  umi_depth: [0.3]
models: [{model: perturbation-mean, repeat: 1}]
score: {suite: vcc2025, baseline: perturbation-mean}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run the ablation once for all tests; return its folder."""
    folder = tmp_path_factory.mktemp("ablation")
    job = folder / "job.yaml"
    job.write_text(JOB, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        report = run_job(str(job), str(folder / "run"), "inline")
    assert (report.ran, report.failures) == (9, [])
    return report.plan.run.path


def test_a_run_says_which_factors_each_trial_varies(run: str) -> None:
    said = json.loads(Path(run, "run.json").read_text(encoding="utf-8"))["ablation"]
    assert said["base"]["rank"] == 4
    assert sorted(map(json.dumps, said["varies"].values())) == sorted(
        ["{}", '{"rank": 1}', '{"cells_per_perturbation": 5}', '{"umi_depth": 0.3}'] * 2
    )


def test_a_change_is_the_mean_over_pairs_of_level_less_base(run: str) -> None:
    results = Results(run)
    table = ablation(results, suite="vcc2025")
    assert table is not None
    frame = table.frame.set_index("change")
    assert list(frame.index) == [
        "base: linear",
        "cells_per_perturbation: all → 5",
        "rank: 4 → 1",
        "umi_depth: all → 0.3",
    ]
    scores = results.scores
    scores = scores[(scores["metric"] == "mae") & (scores["model"] == "linear")]
    by_rank = scores[scores["data.umi_depth"].isna() & scores["data.cells_per_perturbation"].isna()]
    means = by_rank.groupby("param.rank", observed=True)["value"].mean()
    row = frame.loc["rank: 4 → 1"]
    np.testing.assert_allclose(row["mae_change"], means[1] - means[4])
    assert row["mae_change_low"] <= row["mae_change"] <= row["mae_change_high"]
    assert (frame["n_trials"] == 2).all()
    assert (frame["seconds"] > 0).all()


def test_what_a_factor_costs_stands_beside_what_it_scores(run: str) -> None:
    results = Results(run)
    table = ablation(results, suite="vcc2025")
    assert table is not None
    frame = table.frame.set_index("change")
    trials = results.trials[results.trials["model"] == "linear"]
    factors = trials[["data.umi_depth", "data.cells_per_perturbation"]].isna().all(axis=1)
    for name in ("wall_seconds", "cpu_seconds", "peak_memory"):
        means = trials[factors].groupby("param.rank")[name].mean()
        found = frame.loc["rank: 4 → 1", f"{name.replace('wall_', '')}_change"]
        np.testing.assert_allclose(found, means[1] - means[4], rtol=1e-3, atol=2e-3)
    assert (frame.loc["base: linear", ["seconds_change", "peak_memory_change"]] == 0).all()
    [_, costs] = table.to_markdown().split("### ")[1:]
    assert ": cost\n" in costs
    assert "| factor | combined ↑ | seconds | cpu s | memory GiB |" in costs  # no GPU was used
    [row] = [line for line in costs.splitlines() if line.startswith("| rank: 4 → 1")]
    costing = ("seconds_change", "cpu_seconds_change", "peak_memory_change")
    changed = [name for name in costing if frame.loc["rank: 4 → 1", name]]
    assert row.count("%") == len(changed) >= 2  # the peak of one process can stay what it was


def test_base_and_level_are_resampled_together(run: str) -> None:
    table = ablation(Results(run), suite="vcc2025")
    assert table is not None
    row = table.frame.set_index("change").loc["rank: 4 → 1"]
    assert row["mae_change_high"] - row["mae_change_low"] < row["mae"]
    base = table.frame.iloc[0]
    assert (base["mae_change"], base["mae_change_low"], base["mae_change_high"]) == (0, 0, 0)


def test_the_tables_of_an_ablation_are_written_beside_the_comparison(run: str) -> None:
    folder = Path(run, "tables")
    *_, last = write_tables(Results(run), str(folder))
    text = (folder / "ablation.md").read_text(encoding="utf-8")
    assert "| rank: 4 → 1 |" in text
    assert "umi_depth: a model that saw shallow cells" in text
    assert last.to_csv() == (folder / "ablation.csv").read_text(encoding="utf-8")
    assert "setting" in pd.read_csv(folder / "comparison.csv")
    assert "umi_depth=0.3" in (folder / "comparison.md").read_text(encoding="utf-8")


def test_a_sweep_has_no_table_of_changes(run: str, tmp_path: Path) -> None:
    said = json.loads(Path(run, "run.json").read_text(encoding="utf-8"))
    del said["ablation"]
    (tmp_path / "run.json").write_text(json.dumps(said), encoding="utf-8")
    assert ablation(Results(str(tmp_path)), suite="vcc2025") is None


def test_an_ablation_whose_base_has_no_scores_says_so(run: str, tmp_path: Path) -> None:
    said = json.loads(Path(run, "run.json").read_text(encoding="utf-8"))
    said["ablation"]["varies"] = {t: v for t, v in said["ablation"]["varies"].items() if v}
    (tmp_path / "run.json").write_text(json.dumps(said), encoding="utf-8")
    for name in ("trials", "results"):
        (tmp_path / name).symlink_to(Path(run, name))
    table = ablation(Results(str(tmp_path)), suite="vcc2025")
    assert table is not None
    assert table.frame.empty
    assert "the base has no scores" in table.to_markdown()
