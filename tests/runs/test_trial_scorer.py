"""Trials that are scored by suites of log1p values, of raw counts, and by both at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from harness.analysis.results import Results
from harness.data.predictions import open_predictions
from harness.data.store import open_store
from harness.errors import JobError
from harness.runs.runner import run_job
from harness.scoring.scorer import Scorer, prepare, score
from harness.scoring.to_counts import CountedCells
from harness.tasks import parse_split
from harness.tasks.task import Task
from tests.synthetic import make_screen, write_store

if TYPE_CHECKING:
    from pathlib import Path

    from harness.data.store import Store

KEYS = ["suite", "metric", "context", "perturbation"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    screen = make_screen(n_genes=60, n_perturbations=8, n_cells=30, n_controls=60)
    return write_store(screen, tmp_path_factory.mktemp("judge") / "screen.zarr")


def ran(store: Store, folder: Path, suites: str, models: str = "perturbation-mean") -> Results:
    job = folder / "job.yaml"
    job.write_text(
        f"dataset: {store.path}\nsplit: unseen-perturbation\nfolds: [0]\n"
        f"models: [{{model: {models}}}]\nscore: {{suite: [{suites}]}}\n"
        "keep: [scores, predictions]\n",
        encoding="utf-8",
    )
    report = run_job(str(job), str(folder / "run"), "inline")
    assert not report.failures, report.failures[0][1].traceback
    return Results(str(folder / "run"))


def values(results: Results) -> pd.Series[float]:
    rows = results.rows.astype(dict.fromkeys(KEYS, str))
    return rows.set_index(KEYS)["value"].sort_index()


def test_suites_are_parted_by_what_they_score() -> None:
    scorer = Scorer(lambda scale: scale, ["vcc2026", "vcc2025", "calibrated"])
    assert scorer.scales == {"log1p": ["vcc2025", "calibrated"], "counts": ["vcc2026"]}


def test_suites_of_both_scales_score_as_each_does_alone(store: Store, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("both", "plain", "counts")]
    for folder in folders:
        folder.mkdir()
    both, plain, counts = (
        values(ran(store, folder, suites))
        for folder, suites in zip(folders, ("vcc2026, vcc2025", "vcc2025", "vcc2026"), strict=True)
    )
    pd.testing.assert_series_equal(both.loc[["vcc2025"]], plain)
    pd.testing.assert_series_equal(both.loc[["vcc2026"]], counts)


def test_counts_are_scored_against_the_counts_of_the_held_out_cells(
    store: Store, tmp_path: Path
) -> None:
    results = ran(store, tmp_path, "vcc2026")
    trial = results.trials["trial"].iloc[0]
    predicted = open_predictions(str(tmp_path / "run" / "trials" / trial / "predictions.zarr"))
    split = parse_split({"kind": "unseen-perturbation", "folds": 2}, "split")
    truth = Task(open_store(store.path), split, 0).truth(scale="counts")
    expected = score(prepare(truth, suite="vcc2026"), CountedCells(predicted, 0), suite="vcc2026")
    frame = expected.frame.set_index(KEYS)["value"].sort_index()
    found = values(results)
    np.testing.assert_allclose(found.to_numpy(), frame.loc[found.index].to_numpy(), rtol=1e-12)


def test_a_replicate_leads_by_the_rules_of_2026(store: Store, tmp_path: Path) -> None:
    results = ran(store, tmp_path, "vcc2026", "control-mean}, {model: replicate")
    scores = results.scores.query("metric == 'pds_cosine'")
    means = scores.astype({"model": str}).groupby("model")["value"].mean()
    assert means["replicate"] > means["control-mean"] + 0.2


def test_a_screen_of_log1p_values_is_refused_before_anything_runs(tmp_path: Path) -> None:
    logged = write_store(make_screen(), tmp_path / "logged.zarr", scale="log1p")
    with pytest.raises(JobError, match=r"'vcc2026' scores raw counts, but dataset .* holds log1p"):
        ran(logged, tmp_path, "vcc2025, vcc2026")
    assert not (tmp_path / "run" / "trials").exists()
