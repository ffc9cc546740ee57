"""Stages of a trial as calls of their own: the same numbers, and nothing done twice."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from harness.analysis.results import Results
from harness.errors import ModelError
from harness.executors import attempt
from harness.executors.resources import Resources, StageResources
from harness.models.base import _MODELS, ModelInfo, make_model
from harness.models.linear import Linear
from harness.runs.plan import plan_job
from harness.runs.request import record_failure
from harness.runs.runner import Report, missing_calls, retry, run_job
from harness.runs.stages import load_model, save_model
from harness.runs.trial import run_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.tasks.task import Prediction, Query, TrainView


APART = {"fit": {"cpus": 2}, "predict": {"cpus": 1}, "score": {"cpus": 1, "memory": "1MiB"}}
JOB: dict[str, Any] = {
    "dataset": "sim:tiny?contexts=1&genes=60",
    "split": "unseen-perturbation",
    "folds": [0],
    "models": [{"model": "linear", "rank": 4}, {"model": "random-pair"}, {"model": "replicate"}],
    "resources": APART,
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all tests of the session, so that the screen is drawn once."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Path]:
    """Write the job with some of its keys changed."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({**JOB, **changes}), encoding="utf-8")
        return path

    return write


def run(job: Path, folder: str = "run", on: str = "inline") -> Report:
    report = run_job(str(job), str(job.parent / folder), on)
    assert not report.failures, report.failures[0][1].error
    return report


class FitsOnce(Linear):
    """A linear model that counts its fits, and that raises in its prediction if told to."""

    fits = 0
    broken = False

    def fit(self, train: TrainView) -> Self:
        type(self).fits += 1
        super().fit(train)
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        if self.broken:
            raise ArithmeticError("no answer")
        return super().predict(queries)


class KeepsItself(Linear):
    """A linear model with ways of its own, and with something that cannot be pickled."""

    def fit(self, train: TrainView) -> Self:
        super().fit(train)
        self.function_ = lambda: None
        return self

    def save(self, folder: str) -> None:
        Path(folder, "rank.txt").write_text(str(self.rank), encoding="utf-8")

    def restore(self, folder: str, train: TrainView) -> None:
        assert Path(folder, "rank.txt").read_text(encoding="utf-8") == str(self.rank)
        self.fit(train)


class CannotBeKept(Linear):
    """A linear model that holds what nobody can pickle."""

    def fit(self, train: TrainView) -> Self:
        super().fit(train)
        self.function_ = lambda: None
        return self


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, model in (
        ("fits-once", FitsOnce),
        ("keeps-itself", KeepsItself),
        ("cannot-be-kept", CannotBeKept),
    ):
        info = ModelInfo(name, model, ceiling=False, cells="match-controls")
        monkeypatch.setitem(_MODELS, name, info)
    monkeypatch.setattr(FitsOnce, "fits", 0)


# --- what goes together -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "parts"),
    [
        pytest.param({}, [("fit", "predict", "score")], id="all_alike"),
        pytest.param({"fit": {"gpus": 1}}, [("fit",), ("predict", "score")], id="a_fit_on_a_gpu"),
        pytest.param(
            {"fit": {"gpus": 1}, "predict": {"gpus": 1}},
            [("fit", "predict"), ("score",)],
            id="scores_on_the_cpu",
        ),
        pytest.param(APART, [("fit",), ("predict",), ("score",)], id="none_alike"),
    ],
)
def test_stages_that_need_the_same_are_one_call(
    needs: dict[str, Any], parts: list[tuple[str, ...]]
) -> None:
    declared = StageResources.model_validate(needs)
    assert [part.stages for part in declared.parts] == parts


def test_custom_resources_are_the_most_that_any_stage_needs() -> None:
    declared = StageResources(
        fit=Resources(custom={"disk": 2, "rack": 1}), score=Resources(custom={"disk": 3})
    )
    assert declared.largest.custom == {"disk": 3, "rack": 1}


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        pytest.param({"gpus": 1.5}, "a share of one GPU, or a whole number", id="gpus"),
        pytest.param({"custom": {"GPU": 1}}, "has a key of its own. Use cpus, gpus", id="built_in"),
        pytest.param({"custom": {"disk": 0}}, "greater than 0", id="none_of_it"),
    ],
)
def test_resources_that_ray_would_refuse_are_refused_at_once(
    needs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Resources.model_validate(needs)


# --- the same numbers ---------------------------------------------------------------------------


def test_apart_or_together_the_numbers_are_the_same(job: Callable[..., Path]) -> None:
    apart = run(job(keep=["scores", "profiles", "predictions"]), "apart")
    together = run(job(resources={}, keep=["scores", "profiles", "predictions"]), "together")
    found, expected = (Results(r.plan.run.path).scores for r in (apart, together))
    assert found.equals(expected)
    assert len(found)
    for trial in (trial.id for trial in apart.plan.trials):
        folder = Path(apart.plan.run.of_trial(trial))
        assert {p.name for p in folder.iterdir()} == {
            p.name for p in Path(together.plan.run.of_trial(trial)).iterdir()
        }
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert set(manifest["seconds"]) == {"fit", "predict", "score"}


def test_each_stage_writes_below_the_earlier_ones_in_one_log(job: Callable[..., Path]) -> None:
    report = run(job(models=[{"model": "linear"}]))
    log = Path(report.plan.run.log(report.plan.trials[0].id)).read_text(encoding="utf-8")
    begun = [line.split()[-2] for line in log.splitlines() if line.endswith(": begins")]
    assert begun == ["fit:", "predict:", "score:"]


def test_notes_on_predictions_reach_the_manifest(job: Callable[..., Path]) -> None:
    many = [{"model": "linear", "rank": 500}]
    apart = run(job(models=many), "apart")
    together = run(job(models=many, resources={}), "together")
    notes = [r.plan.run.manifest(r.plan.trials[0].id)["notes"] for r in (apart, together)]
    assert notes[0] == notes[1]
    assert "lowered" in notes[0][0]


# --- nothing twice ------------------------------------------------------------------------------


def carried_out(job: Path, n_calls: int, folder: str = "run") -> None:
    """Carry out the first calls of the job's one trial, as if the worker was lost in the next."""
    plan = plan_job(str(job), str(job.parent / folder))
    [(request, call)] = missing_calls(plan)
    for _ in range(n_calls):
        assert not attempt(call).failed
        call = call.then
    record_failure(request, "WorkerCrashedError: gone", "", cause="lost")


@pytest.mark.parametrize(("n_calls", "left"), [(1, "predict"), (2, "score")])
def test_a_stage_that_is_done_is_not_done_again(
    job: Callable[..., Path], n_calls: int, left: str
) -> None:
    path = job(models=[{"model": "fits-once"}])
    carried_out(path, n_calls)
    plan = plan_job(str(path), str(path.parent / "run"))
    [(_, call)] = missing_calls(plan)
    assert call.args[0].stages[0] == left
    report = run(path)
    assert FitsOnce.fits == 1
    [manifest] = report.plan.run.manifests([t.id for t in report.plan.trials]).values()
    assert set(manifest["stages"]) == {"fit", "predict", "score"}
    assert Results(report.plan.run.path).scores.equals(
        Results(run(job(models=[{"model": "fits-once"}], resources={}), "b").plan.run.path).scores
    )


@pytest.mark.parametrize("said", ["nothing", "done"])
def test_a_scoring_call_whose_worker_was_lost_after_its_work_can_be_made_again(
    job: Callable[..., Path], said: str
) -> None:
    """It had tidied up what lay between the stages; its manifest may be there, or not yet."""
    path = job(models=[{"model": "linear", "rank": 4}])
    carried_out(path, 3)
    plan = plan_job(str(path), str(path.parent / "run"))
    [trial] = plan.trials
    before = Results(plan.run.path).scores
    if said == "nothing":
        (Path(plan.run.of_trial(trial.id)) / "manifest.json").unlink()
    assert "scored" in run_trial(replace(plan.request(trial), stages=("score",)))
    assert Results(plan.run.path).scores.equals(before)
    assert not Path(plan.run.of_trial(trial.id), "stages").exists()


def test_a_job_that_no_longer_parts_its_stages_goes_on_too(job: Callable[..., Path]) -> None:
    carried_out(job(models=[{"model": "fits-once"}]), 1)
    run(job(models=[{"model": "fits-once"}], resources={}))
    assert FitsOnce.fits == 1


def test_a_fit_by_other_code_is_made_anew(
    job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = job(models=[{"model": "fits-once"}])
    carried_out(path, 1)
    monkeypatch.setattr("harness.runs.stages.VERSION", "0.0.0")
    run(path)
    assert FitsOnce.fits == 2


def test_a_model_that_raised_is_fitted_again(
    job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = job(models=[{"model": "fits-once"}])
    monkeypatch.setattr(FitsOnce, "broken", True)
    failed = run_job(str(path), str(path.parent / "run"), "inline")
    assert [outcome.error for _, outcome in failed.failures] == ["ArithmeticError: no answer"]
    assert not Path(failed.plan.run.of_trial(failed.plan.trials[0].id, "stages")).exists()
    monkeypatch.setattr(FitsOnce, "broken", False)
    run(path)
    assert FitsOnce.fits == 2


def test_a_trial_that_is_retried_begins_with_its_fit(job: Callable[..., Path]) -> None:
    path = job(models=[{"model": "fits-once"}])
    run(path, "whole")
    FitsOnce.fits = 0
    carried_out(path, 2)
    folder = path.parent / "run"
    shutil.copy(path.parent / "whole" / "run.json", folder)
    shutil.copy(path.parent / "whole" / "job.yaml", folder)
    assert not retry(str(folder), failed=True, on="inline").failures
    assert FitsOnce.fits == 2


# --- models on disk -----------------------------------------------------------------------------


def test_a_model_may_keep_itself_in_its_own_way(job: Callable[..., Path]) -> None:
    own = Results(run(job(models=[{"model": "keeps-itself"}]), "own").plan.run.path).scores
    plain = Results(run(job(models=[{"model": "linear"}]), "plain").plan.run.path).scores
    assert own["value"].equals(plain["value"])


def test_a_model_that_cannot_be_kept_is_an_error_that_says_what_to_do(
    job: Callable[..., Path],
) -> None:
    path = job(models=[{"model": "cannot-be-kept"}])
    [(_, outcome)] = run_job(str(path), str(path.parent / "run"), "inline").failures
    assert outcome.error.startswith("ModelError: CannotBeKept cannot be kept between its stages")
    assert "same resources for fit and predict" in outcome.error
    run(job(models=[{"model": "cannot-be-kept"}], resources={}))


def test_views_are_not_pickled_with_a_model(tmp_path: Path, small_view: TrainView) -> None:
    model = make_model("linear", {"rank": 2}).fit(small_view)
    save_model(model, tmp_path / "kept")
    again = load_model(make_model("linear", {"rank": 2}), tmp_path / "kept", small_view)
    assert again.train_ is small_view
    assert (tmp_path / "kept" / "model.pickle").stat().st_size < 200_000


@pytest.fixture
def small_view(tmp_path_factory: pytest.TempPathFactory) -> TrainView:
    from harness.data.store import open_store
    from harness.runs.datasets import prepare
    from harness.tasks import parse_split
    from harness.tasks.task import Task

    found = prepare(JOB["dataset"])
    split = json.loads(found.screen.splits["unseen-perturbation"].spec)
    return Task(open_store(found.store), parse_split(split, "split")).train_view()


def test_saving_twice_into_one_folder_is_refused(tmp_path: Path, small_view: TrainView) -> None:
    model = make_model("control-mean").fit(small_view)
    save_model(model, tmp_path / "kept")
    with pytest.raises(FileExistsError, match="kept"):
        save_model(model, tmp_path / "kept")
    with pytest.raises(ModelError, match="cannot be kept between its stages"):
        save_model(CannotBeKept(rank=2).fit(small_view), tmp_path / "other")


def test_a_run_says_what_each_stage_took(job: Callable[..., Path]) -> None:
    needs = {"fit": {"gpus": 0.5}}
    report = run(job(models=[{"model": "linear"}], resources=needs))
    [row] = Results(report.plan.run.path).trials.to_dict("records")
    assert row["gpu_seconds"] == pytest.approx(row["seconds.fit"] / 2, abs=1e-3)
    assert row["stages.predict.gpu_seconds"] == 0
    assert row["cpu_seconds"] > 0
    assert row["peak_memory"] == max(
        row[f"stages.{stage}.peak_memory"] for stage in ("fit", "predict", "score")
    )
    assert row["wall_seconds"] == pytest.approx(
        sum(row[f"seconds.{stage}"] for stage in ("fit", "predict", "score")), abs=1e-2
    )


# --- attempts -----------------------------------------------------------------------------------


def test_attempts_are_counted_and_a_failure_says_where_and_when(
    job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = job(models=[{"model": "fits-once"}], resources={})
    monkeypatch.setattr(FitsOnce, "broken", True)
    for attempts in (1, 2):
        report = run_job(str(path), str(path.parent / "run"), "inline")
        [trial] = (trial.id for trial in report.plan.trials)
        failure = report.plan.run.failure(trial)
        assert failure is not None
        assert (failure["stage"], failure["attempts"]) == ("predict", attempts)
        assert failure["wall_seconds"] >= 0
        assert failure["peak_memory"] > 0
    monkeypatch.setattr(FitsOnce, "broken", False)
    manifest = run(path).plan.run.manifest(trial)
    assert manifest is not None
    assert manifest["attempts"] == 3


def test_a_lost_trial_is_recorded_where_it_ran(job: Callable[..., Path]) -> None:
    path = job(models=[{"model": "linear"}])
    plan = plan_job(str(path), str(path.parent / "run"))
    [(request, _)] = missing_calls(plan)
    trial = request.spec.id
    said = {"stage": "fit", "host": "n7", "began": time.time() - 60, "peak_memory": 9}
    plan.run.write_attempt(trial, said)
    record_failure(request, "NodeDiedError: gone", "", cause="lost", attempts=3)
    failure = plan.run.failure(trial)
    assert failure is not None
    assert (failure["host"], failure["stage"], failure["attempts"]) == ("n7", "fit", 3)
    assert failure["wall_seconds"] == pytest.approx(60, abs=5)
