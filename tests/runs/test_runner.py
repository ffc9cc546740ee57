"""A job from its file to finished trials, in this process: what is run, skipped, and recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.analysis.results import Results
from harness.errors import JobError
from harness.models.base import _MODELS, ModelInfo
from harness.models.means import ControlMean
from harness.runs.estimate import estimates
from harness.runs.plan import Plan, plan_job
from harness.runs.runner import Report, run_job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.executors import Outcome
    from harness.runs.trial import TrialRequest
    from harness.tasks.task import Prediction, Query

JOB = """
dataset: sim:tiny?contexts=1&genes=60
split: unseen-perturbation
folds: [0]
models:
  - {model: control-mean}
score: {suite: vcc2025}
"""


class RaisesInPredict(ControlMean):
    """A model that fits and then raises, saying something on the way."""

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        print("the model was here")  # noqa: T201 - a model may; the log has it
        raise RuntimeError(f"no answer to {queries[0].perturbation}")


class Seen:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.missing: list[int] = []
        self.ended: list[str] = []

    def preparing(self, dataset: str, done: int, total: int) -> None: ...

    def planned(self, plan: Plan) -> None:
        self.missing.append(len(plan.missing))

    def finished(self, request: TrialRequest, outcome: Outcome) -> None:
        self.ended.append(request.spec.model)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all tests of the session, so that the screen is drawn once."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))


@pytest.fixture(autouse=True)
def bad_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a bad model for these tests alone: the contract suite must not meet it."""
    name = "raises-in-predict"
    info = ModelInfo(name, RaisesInPredict, ceiling=False, cells="shift-controls")
    monkeypatch.setitem(_MODELS, name, info)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(JOB, encoding="utf-8")
    return path


def run(job: Path, *models: str, **changes: str) -> tuple[Report, Seen]:
    """Run a job inline, with models added and lines changed."""
    text = JOB
    for old, new in changes.items():
        text = text.replace(f"{old}:", f"{new}\n#", 1)
    lines = "".join(f"  - {{model: {model}}}\n" for model in models)
    job.write_text(text.replace("score:", f"{lines}score:"), encoding="utf-8")
    seen = Seen()
    return run_job(str(job), str(job.parent / "run"), "inline", seen), seen


def test_a_job_that_grew_by_one_model_runs_one_model(job: Path) -> None:
    first, _ = run(job)
    assert (first.ran, first.failed) == (1, False)
    grown, seen = run(job, "perturbation-mean")
    assert (grown.ran, seen.ended) == (1, ["perturbation-mean"])
    again, seen = run(job, "perturbation-mean")
    assert (again.ran, seen.missing) == (0, [0])


def test_a_trial_that_raises_fails_alone_and_says_where(job: Path) -> None:
    report, _ = run(job, "raises-in-predict", "perturbation-mean")
    assert report.ran == 3
    [(request, outcome)] = report.failures
    assert outcome.error.startswith("RuntimeError: no answer to")
    assert "in predict" in outcome.traceback
    log = Path(report.plan.run.log(request.spec.id)).read_text(encoding="utf-8")
    assert "the model was here" in log
    assert "RuntimeError" in log
    states = Results(report.plan.run.path).trials.set_index("model")["state"]
    assert states["raises-in-predict"] == "failed"
    assert states["perturbation-mean"] == "done"


def test_a_failed_trial_runs_again_and_no_other(job: Path) -> None:
    run(job, "raises-in-predict")
    again, seen = run(job, "raises-in-predict")
    assert (again.ran, seen.ended) == (1, ["raises-in-predict"])


def test_a_trial_without_its_manifest_is_not_done(job: Path) -> None:
    first, _ = run(job)
    folder = Path(first.plan.run.of_trial(first.plan.trials[0].id))
    (folder / "manifest.json").unlink()
    (folder / "scratch").mkdir()
    again, _ = run(job)
    assert again.ran == 1
    assert not (folder / "scratch").exists()


def test_scores_of_another_metric_version_are_made_anew(job: Path) -> None:
    first, _ = run(job)
    manifest = Path(first.plan.run.of_trial(first.plan.trials[0].id, "manifest.json"))
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["scored"] = dict.fromkeys(content["scored"], 0)
    manifest.write_text(json.dumps(content), encoding="utf-8")
    again, _ = run(job)
    assert again.ran == 1


def test_kept_predictions_are_scored_again_without_fitting(job: Path) -> None:
    text = JOB + "keep: [scores, predictions]\n"
    job.write_text(text, encoding="utf-8")
    folder = str(job.parent / "run")
    first = run_job(str(job), folder, "inline")
    trial = first.plan.trials[0].id
    before = Results(folder).scores
    manifest = Path(first.plan.run.of_trial(trial, "manifest.json"))
    content = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(content | {"scored": {}}), encoding="utf-8")
    plan = plan_job(str(job), folder)
    assert (plan.scoring, plan.done) == ({trial}, frozenset())
    assert run_job(str(job), folder, "inline").ran == 1
    stages = json.loads(manifest.read_text(encoding="utf-8"))["seconds"]
    assert set(stages) == {"fit", "predict", "score"}  # what fitting took then still counts
    log = Path(first.plan.run.log(trial)).read_text(encoding="utf-8")
    assert "score: begins" in log
    assert "fit: begins" not in log
    assert Results(folder).scores.equals(before)


def test_a_job_with_a_mistake_starts_nothing(job: Path) -> None:
    with pytest.raises(JobError, match=r"unknown model 'control-meen'\. Did you mean 'control-m"):
        run(job, "control-meen", "linear")
    assert not (job.parent / "run").exists()


def test_one_impossible_trial_refuses_the_job_before_any_starts(job: Path) -> None:
    entries = (
        "linear, data: {train_perturbations: [2, 999]}",
        "linear, rank: 2, data: {umi_depth: 1000000000}",
        "replicate, data: {control_cells: 1}",
    )
    with pytest.raises(JobError) as refused:
        run(job, *entries)
    said = [str(problem) for problem in refused.value.args]
    assert len(said) == 3
    assert "small.yaml: replicate: found data factors" in said[0]
    assert "train_perturbations: found 999, but there are" in said[1]
    assert "umi_depth: found 1e+09 molecules per cell" in said[2]
    assert not (job.parent / "run").exists()


def test_a_plan_estimates_by_what_ran_before(job: Path) -> None:
    report, _ = run(job)
    job.write_text(JOB + "seeds: [0, 1, 2]\n", encoding="utf-8")
    found = estimates(plan_job(str(job), report.plan.run.path))["control-mean"]
    manifest = report.plan.run.manifest(report.plan.trials[0].id)
    assert manifest is not None
    assert found.seconds == pytest.approx(sum(manifest["seconds"].values()))
    assert (found.n_missing, found.left) == (2, pytest.approx(2 * found.seconds))
    assert found.size is not None
    assert found.size > Path(report.plan.run.results(report.plan.trials[0].id)).stat().st_size


def test_nothing_is_guessed_of_a_model_that_has_not_run(job: Path) -> None:
    report, _ = run(job)
    job.write_text(JOB.replace("control-mean", "perturbation-mean"), encoding="utf-8")
    found = estimates(plan_job(str(job), report.plan.run.path))["perturbation-mean"]
    assert (found.n_missing, found.seconds, found.left, found.size) == (1, None, None, None)


def test_a_worker_in_another_folder_finds_the_run(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", "cache")
    plan = plan_job(job.name, "run")
    request = plan.request(plan.trials[0])
    assert plan.run.path == "run"
    assert request.run == str(tmp_path / "run")
    assert Path(request.store).is_relative_to(tmp_path / "cache")


def test_a_run_describes_itself(job: Path) -> None:
    report, _ = run(job)
    said = json.loads(Path(report.plan.run.description).read_text(encoding="utf-8"))
    assert said["job"]["models"] == [{"model": "control-mean", "cells": None}]
    assert list(said["trials"]) == [report.plan.trials[0].id]
    assert {"commit", "versions", "machine", "started"} <= said.keys()


def test_failures_that_differ_in_numbers_alone_are_shown_once(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.cli.run import explain

    text = JOB.replace("control-mean", "raises-in-predict") + "seeds: [0, 1, 2]\n"
    job.write_text(text, encoding="utf-8")
    report = run_job(str(job), str(job.parent / "run"), "inline")
    report.failures += [(report.failures[0][0], replace(report.failures[0][1], error="OSError: 9"))]
    assert explain(report) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "3 trials of raises-in-predict, raised, the first: Trial" in said
    assert said.count("Traceback") == 2
    assert said.index("RuntimeError: no answer") < said.index("OSError: 9")
