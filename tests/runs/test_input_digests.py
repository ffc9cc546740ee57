"""A file that a model reads is part of its trial by content: planned, run, shown, searched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.analysis.results import Results
from harness.errors import JobError
from harness.jobs.trial_spec import TrialSpec
from harness.runs.plan import plan_job
from harness.runs.runner import run_job
from harness.storage.hashing import content_digest
from harness.storage.paths import join, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def genes(tmp_path: Path) -> Callable[..., str]:
    """Write a table with a row for each target of the simulated screen; return its path."""
    plan = plan_job(job_of(tmp_path, "principal-components"), str(tmp_path / "none"))
    from harness.data.store import open_store

    names = open_store(plan.stores["sim:tiny?contexts=1"]).perturbations

    def write(path: str, slope: float = 1.0) -> str:
        rows = [f"{name},{slope * i},{i % 3}" for i, name in enumerate(sorted(names))]
        write_atomic(path, "\n".join(["gene,a,b", *rows]) + "\n")
        return path

    return write


def job_of(folder: Path, *features: str) -> str:
    path = folder / "job.yaml"
    listed = ", ".join(features)
    path.write_text(
        "dataset: sim:tiny?contexts=1\nsplit: unseen-perturbation\nfolds: [0]\n"
        f"models:\n  - {{model: ridge, features: [{listed}]}}\n  - {{model: control-mean}}\n",
        encoding="utf-8",
    )
    return str(path)


def test_a_trial_is_known_by_what_is_in_its_file_not_by_where_it_lies(tmp_path, genes):
    def ids(path):
        plan = plan_job(job_of(tmp_path, path), str(tmp_path / "run"))
        return {trial.model: trial.id for trial in plan.trials}

    first = ids(genes(str(tmp_path / "genes.csv")))
    moved = ids(genes(str(tmp_path / "elsewhere/moved.csv")))
    changed = ids(genes(str(tmp_path / "genes.csv"), slope=2.0))
    assert moved == first
    assert changed["ridge"] != first["ridge"]
    assert changed["control-mean"] == first["control-mean"]


def test_a_trial_keeps_its_file_in_its_json(tmp_path, genes):
    path = genes(str(tmp_path / "genes.csv"))
    plan = plan_job(job_of(tmp_path, path), str(tmp_path / "run"))
    trial = next(trial for trial in plan.trials if trial.model == "ridge")
    assert dict(trial.parameters)["features"] == path
    assert trial.inputs == (("features", content_digest(path)),)
    assert TrialSpec.from_json(trial.to_json()) == trial
    assert replace(trial, inputs=()).id != trial.id


def test_a_worker_in_another_folder_finds_the_file(tmp_path, genes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    genes("genes.csv")
    plan = plan_job(job_of(tmp_path, "genes.csv"), "run")
    trial = next(trial for trial in plan.trials if trial.model == "ridge")
    request = plan.request(trial)
    assert dict(trial.parameters)["features"] == "genes.csv"
    assert dict(request.spec.parameters)["features"] == str(tmp_path / "genes.csv")
    assert request.spec.id == trial.id


def test_a_moved_table_fits_nothing_anew_and_a_changed_one_is_another_row(tmp_path, genes):
    run = str(tmp_path / "run")
    job = job_of(tmp_path, genes(str(tmp_path / "genes.csv")), "co-expression")
    assert not run_job(job, run, "inline").failed
    shown = set(Results(run).trials["param.features"].dropna())
    assert shown == {
        "co-expression",
        f"genes.csv@{content_digest(str(tmp_path / 'genes.csv'))[:8]}",
    }
    moved = job_of(tmp_path, genes(str(tmp_path / "new/genes.csv")), "co-expression")
    assert run_job(moved, run, "inline").ran == 0
    job = job_of(tmp_path, genes(str(tmp_path / "genes.csv"), slope=2.0), "co-expression")
    report = run_job(job, run, "inline")
    assert (report.ran, report.failed) == (1, False)


def test_two_tables_that_hold_the_same_are_one_too_many(tmp_path, genes):
    paths = [genes(str(tmp_path / name)) for name in ("a.csv", "b.csv")]
    with pytest.raises(JobError, match=r"features '.*a\.csv' and '.*b\.csv' hold the same"):
        plan_job(job_of(tmp_path, *paths), str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        pytest.param("none.csv", "there is no file 'none.csv'.", id="no_file"),
        pytest.param("co-expresion", "Did you mean 'co-expression'?", id="near_choice"),
        pytest.param("3", "expected 'principal-components' or 'co-expression' or", id="number"),
    ],
)
def test_a_file_that_is_not_there_is_found_before_the_run(tmp_path, named, said):
    with pytest.raises(JobError) as caught:
        plan_job(job_of(tmp_path, named), str(tmp_path / "run"))
    assert f"models[0].features[0]: {'' if named == '3' else 'there is no file'}" in str(
        caught.value
    )
    assert said in str(caught.value)


def test_a_table_that_changes_under_a_run_fails_its_trial(tmp_path, genes, monkeypatch):
    path = genes(str(tmp_path / "genes.csv"))
    real = plan_job

    def plan_then_change(*arguments, **options):
        plan = real(*arguments, **options)
        genes(path, slope=3.0)
        return plan

    monkeypatch.setattr("harness.runs.runner.plan_job", plan_then_change)
    report = run_job(job_of(tmp_path, path), str(tmp_path / "run"), "inline")
    assert [request.spec.model for request, _ in report.failures] == ["ridge"]
    assert "other content than when the job was planned" in report.failures[0][1].error


def test_a_table_on_an_object_store_is_the_same_as_one_here(tmp_path, genes, bucket):
    here = genes(str(tmp_path / "genes.csv"))
    there = genes(join(bucket, "genes.csv"))
    assert content_digest(there) == content_digest(here)
    run = str(tmp_path / "run")
    assert not run_job(job_of(tmp_path, there), run, "inline").failed
    assert run_job(job_of(tmp_path, here), run, "inline").ran == 0


def test_a_search_whose_table_changed_is_another_search(tmp_path, genes):
    pytest.importorskip("optuna")
    path = genes(str(tmp_path / "genes.csv"))
    job = tmp_path / "search.yaml"
    job.write_text(
        "kind: search\ndataset: sim:tiny?contexts=1\nsplit: listed\nmodel: ridge\n"
        f"space: {{features: {{choice: [{path}, co-expression]}}}}\n"
        "metric: {suite: vcc2025, name: mae}\nbudget: {trials: 2}\n",
        encoding="utf-8",
    )
    first = plan_job(str(job), str(tmp_path / "run")).search.folder
    assert plan_job(str(job), str(tmp_path / "run")).search.folder == first
    genes(path, slope=2.0)
    assert plan_job(str(job), str(tmp_path / "run")).search.folder != first
