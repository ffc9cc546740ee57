"""What models must not do: the trial fails, says which query and what, and the sweep lives."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from harness.analysis.results import Results
from harness.data.store import open_store
from harness.models.base import _MODELS, ModelInfo
from harness.models.means import ControlMean
from harness.runs.runner import run_job
from harness.tasks import parse_split
from harness.tasks.task import Prediction, Task

if TYPE_CHECKING:
    from harness.runs.runner import Report


class Bad(ControlMean):
    """Answers two queries as it should, and then does what each of those below does."""

    def predict(self, queries):
        good = list(super().predict(queries))
        yield from good[:2]
        yield from self.rest(good[2:])


class NaN(Bad):
    def rest(self, answers):
        for answer in answers:
            answer.profile[7] = np.nan
            yield answer


class Negative(Bad):
    def rest(self, answers):
        for answer in answers:
            cells = np.ones((answer.query.n_cells, len(answer.profile)), dtype="f4")
            cells[0, :3] = -0.5
            yield Prediction(answer.query, cells=cells)


class FewerGenes(Bad):
    def rest(self, answers):
        for answer in answers:
            yield Prediction(answer.query, profile=answer.profile[:-1])


class SparseCells(Bad):
    def rest(self, answers):
        for answer in answers:
            cells = csr_matrix(np.ones((answer.query.n_cells, len(answer.profile)), dtype="f4"))
            yield Prediction(answer.query, cells=cells)


class FewerCells(Bad):
    def rest(self, answers):
        for answer in answers:
            cells = np.ones((answer.query.n_cells - 1, len(answer.profile)), dtype="f4")
            yield Prediction(answer.query, cells=cells)


class LeavesOut(Bad):
    def rest(self, answers):
        yield from answers[:-1]


class AnswersTwice(Bad):
    def rest(self, answers):
        yield answers[0]
        yield answers[0]


class AnswersAnother(Bad):
    def rest(self, answers):
        query = type(answers[0].query)("nobody", "nowhere", (), 3)
        yield Prediction(query, profile=answers[0].profile)


class Raises(Bad):
    def rest(self, answers):
        raise KeyError("weights of layer 3")
        yield


class Exits(Bad):
    def rest(self, answers):
        sys.exit("no licence")
        yield


class RunsOutOfMemory(Bad):
    def rest(self, answers):
        yield Prediction(answers[0].query, cells=np.empty((2**50, 2**10), dtype="f4"))


class Hangs(Bad):
    def rest(self, answers):
        time.sleep(300)
        yield


class YieldsArrays(Bad):
    def rest(self, answers):
        for answer in answers:
            yield answer.profile


class ReturnsNothing(ControlMean):
    def predict(self, queries):
        return None


class Peeks(Bad):
    def rest(self, answers):
        for answer in answers:
            self.train_.cells(answer.query.perturbation, answer.query.context)
            yield answer


class RaisesInFit(ControlMean):
    def fit(self, train):
        raise ValueError("matrix is singular")


# By the name of the model: the cause, and what its failure says of the third query.
CASES = {
    "nan": (NaN, "raised", "ModelError: nan, prediction for THIRD: found .* values that are NaN"),
    "negative": (Negative, "raised", "THIRD: found 3 values that are negative in '.*', '.*', '"),
    "genes": (FewerGenes, "raised", r"THIRD: found \(59,\), expected a profile of shape \(60,\)"),
    "cells": (
        FewerCells,
        "raised",
        r"THIRD: found an array of shape \(\d+, 60\), expected \(\d+, 60\)",
    ),
    "sparse": (SparseCells, "raised", "THIRD: found cells as a csr_matrix, expected an array of"),
    "leaves-out": (LeavesOut, "raised", "leaves-out left 1 of 5 queries unanswered: .*LAST"),
    "twice": (AnswersTwice, "raised", "THIRD: the query was answered before"),
    "another": (AnswersAnother, "raised", "'nobody' in 'nowhere': nobody asked for it"),
    "raises": (Raises, "raised", "KeyError: .*raises was to answer query 3 of 5: THIRD"),
    "exits": (Exits, "raised", "SystemExit: no licence\nexits was to answer query 3 of 5: THIRD"),
    "memory": (
        RunsOutOfMemory,
        "memory",
        "MemoryError: .*memory was to answer query 3 of 5: THIRD",
    ),
    "hangs": (Hangs, "time", "longer than its limit of 8 s\nhangs was to answer query 3 of 5"),
    "arrays": (
        YieldsArrays,
        "raised",
        "ModelError: YieldsArrays.predict yielded ndarray, expected",
    ),
    "nothing": (ReturnsNothing, "raised", "ReturnsNothing.predict returned NoneType, expected"),
    "peeks": (Peeks, "raised", "HeldOutError: .* is on the test side .*training pairs"),
    "fit": (RaisesInFit, "raised", "ValueError: matrix is singular"),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One sweep over all of them, a good model first and another last."""
    folder = tmp_path_factory.mktemp("bad")
    names = ["control-mean", *CASES, "perturbation-mean"]
    models = "".join(f"  - {{model: {name}}}\n" for name in names)
    (folder / "bad.yaml").write_text(
        "dataset: sim:tiny?contexts=1&genes=60\nsplit: unseen-perturbation\nfolds: [0]\n"
        f"limits: {{seconds: 8}}\nmodels:\n{models}",
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for name, (model, _, _) in CASES.items():
            info = ModelInfo(name, model, ceiling=False, cells="shift-controls")
            patch.setitem(_MODELS, name, info)
        return run_job(str(folder / "bad.yaml"), str(folder / "run"), "inline")


def folder_of(report: Report, name: str) -> Path:
    """The folder of a model's trial."""
    trial = next(trial for trial in report.plan.trials if trial.model == name)
    return Path(report.plan.run.of_trial(trial.id, ""))


def asked(report: Report) -> list[str]:
    """What the models were asked, as messages have it."""
    trial = report.plan.trials[0]
    split = parse_split(json.loads(trial.split_spec), trial.split)
    task = Task(open_store(report.plan.stores[trial.dataset]), split, trial.fold)
    return [f"{q.perturbation!r} in {q.context!r}" for q in task.queries()]


@pytest.mark.parametrize("name", CASES)
def test_a_bad_model_is_told_with_its_query(report: Report, name: str) -> None:
    _, cause, said = CASES[name]
    outcome = next(outcome for request, outcome in report.failures if request.spec.model == name)
    queries = asked(report)
    said = said.replace("THIRD", queries[2]).replace("LAST", queries[-1].partition(" in ")[0])
    assert re.search(said, outcome.traceback, flags=re.DOTALL), outcome.traceback
    assert outcome.cause == cause
    failure = json.loads((folder_of(report, name) / "failure.json").read_text(encoding="utf-8"))
    assert failure["error"] == outcome.error
    assert re.search(said, failure["traceback"], flags=re.DOTALL)


def test_the_sweep_is_alive_and_good_models_have_their_rows(report: Report) -> None:
    assert report.ran == len(CASES) + 2
    assert len(report.failures) == len(CASES)
    trials = Results(report.plan.run.path).trials.set_index("model")
    assert trials.loc[["control-mean", "perturbation-mean"], "state"].tolist() == ["done", "done"]
    assert (trials.loc[list(CASES), "state"] == "failed").all()


def test_nothing_half_written_is_left(report: Report) -> None:
    for name in CASES:
        left = {path.name for path in folder_of(report, name).iterdir()}
        assert not left & {"scratch", "predictions.zarr", "profiles.zarr", "manifest.json"}, left
