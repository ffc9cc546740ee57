"""A program as a model: it keeps the contract, and what it does wrong is said and ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import psutil
import pytest

from harness.analysis.results import Results
from harness.errors import DataError, HeldOutError, ModelError
from harness.models.external.exchange import write_queries, write_split, write_training
from harness.models.external.model import class_of
from harness.models.external.spec import Labels
from harness.runs.plan import plan_job
from harness.runs.runner import run_job
from harness.tasks import parse_split
from harness.tasks.task import Task
from harness.testing import check_model, tiny_screen
from harness.testing.screen import MemoryScreen
from tests.command_files import (
    PROFILES,
    PROGRAM,
    child_in,
    command,
    declare,
    lives,
    stand_apart,
    wait_for_the_end,
)
from tests.synthetic import make_screen, write_store

PROFILE = {"holds": "profiles"}

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.models import Model


@pytest.fixture(autouse=True)
def elsewhere(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand in an empty folder."""
    stand_apart(tmp_path, tmp_path_factory.getbasetemp(), monkeypatch)


@pytest.fixture
def task() -> Task:
    return Task(tiny_screen(n_cells=8), parse_split({"kind": "few-shot-context"}))


def model(folder: Path, fault: str = "none", **changes: Any) -> Model:
    made_by: Any = class_of(command(folder, **changes))
    made: Model = made_by(fault=fault)
    return made


def answers(model: Model, task: Task) -> list[np.ndarray]:
    fitted = model.fit(task.train_view())
    return [np.asarray(p.cells) for p in fitted.predict(task.queries())]


@pytest.mark.slow
def test_a_program_keeps_the_contract(tmp_path: Path) -> None:
    check_model(class_of(command(tmp_path)), strength=0.5)


def test_the_program_is_shown_training_cells_and_controls_only(tmp_path: Path, task: Task) -> None:
    view, labels = task.train_view(), Labels(context_column="cell_type")
    path = tmp_path / "train.h5ad"
    write_training(path, view, labels)
    seen = anndata.read_h5ad(path)
    pairs = set(zip(seen.obs["target_gene"], seen.obs["cell_type"], strict=True))
    controls = {(labels.control, context) for context in view.contexts}
    assert pairs == {*view.pairs, *controls}
    assert pairs.isdisjoint({(q.perturbation, q.context) for q in task.queries()})
    assert tuple(seen.var_names) == view.genes
    assert set(seen.obs["batch"]) == {"0"}
    pair = view.pairs[0]
    mine = (seen.obs["target_gene"] == pair[0]) & (seen.obs["cell_type"] == pair[1])
    np.testing.assert_array_equal(seen[mine].X.toarray(), view.cells(*pair))
    mine = (seen.obs["target_gene"] == labels.control) & (seen.obs["cell_type"] == pair[1])
    np.testing.assert_array_equal(seen[mine].X.toarray(), view.controls(pair[1]))


def test_a_program_may_be_shown_counts_and_told_how_to_scale_them(
    tmp_path: Path, task: Task
) -> None:
    copied = "cp '{train}' '{model_dir}/seen.h5ad'; echo {library_size} > '{model_dir}/size'"
    given = {"files": None, "parameters": None, "input": {"scale": "counts"}}
    predict = ["cp", "{queries}", "{output}"]
    made_by: Any = class_of(command(tmp_path, **given, train=["sh", "-c", copied], predict=predict))
    view = task.train_view()
    fitted = made_by().fit(view)
    learned = Path(fitted.folder_, "model")
    seen = anndata.read_h5ad(learned / "seen.h5ad")
    size = float((learned / "size").read_text(encoding="utf-8"))
    counts = seen.X.toarray()
    np.testing.assert_array_equal(counts, counts.round())
    for pair in (view.pairs[0], ("non-targeting", view.contexts[0])):
        mine = (seen.obs["target_gene"] == pair[0]) & (seen.obs["context"] == pair[1])
        shown = view.controls(pair[1]) if pair[0] == "non-targeting" else view.cells(*pair)
        of_cells = counts[mine.to_numpy()]
        scaled = np.log1p(of_cells / of_cells.sum(axis=1, keepdims=True) * size)
        np.testing.assert_allclose(scaled, shown, rtol=1e-5)
    answered = [prediction.cells for prediction in fitted.predict(task.queries())]
    whole = np.concatenate(answered)
    np.testing.assert_array_equal(whole, whole.round())
    assert whole.max() > 20


def test_cells_are_of_their_own_batches_where_these_are_asked_for_and_known(
    tmp_path: Path, task: Task
) -> None:
    screen = write_store(make_screen(), tmp_path / "screen.zarr")
    known = screen.obs()
    known.index = known.index.astype(str)
    of_cells = {
        row.tobytes(): batch
        for row, batch in zip(screen.rows(0, screen.n_cells), known["batch"], strict=True)
    }
    assert len(of_cells) == screen.n_cells
    assert known["batch"].nunique() > 1
    of_batches = Task(screen, parse_split({"kind": "unseen-perturbation"}))
    view, queries = of_batches.train_view().counts(), of_batches.queries()
    write_training(tmp_path / "train.h5ad", view, Labels(), batches=True)
    write_queries(tmp_path / "queries.h5ad", queries, view, Labels(), 0, batches=True)
    for name in ("train", "queries"):
        seen = anndata.read_h5ad(tmp_path / f"{name}.h5ad")
        rows = seen.X.toarray().astype(screen.dtype)
        assert [of_cells[row.tobytes()] for row in rows] == seen.obs["batch"].tolist()
    unknown = task.train_view()
    write_training(tmp_path / "none.h5ad", unknown, Labels(), batches=True)
    assert set(anndata.read_h5ad(tmp_path / "none.h5ad").obs["batch"]) == {"0"}
    with pytest.raises(HeldOutError):
        view.batch_labels(queries[0].perturbation, queries[0].context)


def test_counts_are_refused_where_the_screen_has_none(tmp_path: Path) -> None:
    screen = tiny_screen(n_cells=4)
    logged = MemoryScreen(
        np.log1p(screen.rows(0, screen.ranges[-1].stop)), screen.genes, screen.ranges, "log1p"
    )
    view = Task(logged, parse_split({"kind": "few-shot-context"})).train_view()
    assert view.library_size is None
    with pytest.raises(DataError, match="holds log1p values: found no counts"):
        view.counts()


def test_what_is_asked_is_shown_controls_with_labels(tmp_path: Path, task: Task) -> None:
    view, queries, path = task.train_view(), task.queries(), tmp_path / "queries.h5ad"
    write_queries(path, queries, view, Labels(), seed=0)
    asked = anndata.read_h5ad(path)
    for query in queries:
        mine = (asked.obs["target_gene"] == query.perturbation) & (
            asked.obs["context"] == query.context
        )
        assert mine.sum() == query.n_cells
        shown = {row.tobytes() for row in view.controls(query.context)}
        assert {row.tobytes() for row in asked[mine].X.toarray()} <= shown


def test_the_toml_names_one_file_for_training(tmp_path: Path) -> None:
    tomllib = pytest.importorskip("tomllib")
    write_split(tmp_path / "split.toml", tmp_path / 'a "quoted" folder' / "train.h5ad")
    said = tomllib.loads((tmp_path / "split.toml").read_text(encoding="utf-8"))
    assert said["training"] == {"screen": "train"}
    assert said["datasets"]["screen"] == str(tmp_path / 'a "quoted" folder' / "train.h5ad")


def test_a_perturbation_named_like_the_control_is_refused(tmp_path: Path, task: Task) -> None:
    name = task.train_view().perturbations[0]
    with pytest.raises(ModelError, match=f"mine, '{name}' is a perturbation of this screen"):
        answers(model(tmp_path, labels={"control": name}), task)


@pytest.mark.parametrize("fault", ["one_cell_short", "reversed"])
def test_rows_may_come_in_any_order_but_all_of_them(tmp_path: Path, task: Task, fault: str) -> None:
    first = task.queries()[0]
    if fault == "one_cell_short":
        query = f"mine, prediction for '{first.perturbation}' in '{first.context}'"
        said = f"{query}: found 7 cells expected 8. 1 of {len(task.queries())} queries"
        with pytest.raises(ModelError, match=re.escape(said)):
            answers(model(tmp_path, fault), task)
        return
    mixed, plain = answers(model(tmp_path, fault), task), answers(model(tmp_path), task)
    for one, other in zip(mixed, plain, strict=True):
        np.testing.assert_array_equal(one, other[::-1])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param("one_gene_short", "missing are 'G00'", id="gene_missing"),
        pytest.param("genes_reversed", "the same in another order", id="genes_reversed"),
        pytest.param("unasked", "prediction for 'Nobody' in '.*': nobody asked", id="unasked"),
        pytest.param("no_column", "no column 'target_gene' in obs", id="no_column"),
        pytest.param("garbage", "damaged, cut short or of another kind", id="garbage"),
        pytest.param("silent", r"predict ended well and wrote no prediction\.h5ad", id="silent"),
        pytest.param(
            "fails_in_predict",
            r"predict ended with status 1\. Its last lines:(?s:.*)ValueError: no predict today",
            id="fails",
        ),
        pytest.param("fails_in_train", r"train ended with status 1\.", id="fails_in_train"),
    ],
)
def test_an_output_that_is_not_what_was_asked_is_refused(
    tmp_path: Path, task: Task, fault: str, message: str
) -> None:
    with pytest.raises(ModelError, match=f"^mine, (?s:.*){message}"):
        answers(model(tmp_path, fault), task)


def job(folder: Path, entries: str, more: str = "") -> str:
    path = folder / "job.yaml"
    path.write_text(
        "dataset: sim:tiny?contexts=2\nsplit: few-shot-context\nfolds: [0]\n"
        f"models: [{{model: control-mean}}, {entries}]\nscore: {{baseline: control-mean}}\n{more}",
        encoding="utf-8",
    )
    return str(path)


def learned_already(folder: Path) -> None:
    """Declare the program with what it would learn: starting it takes longer than all else."""
    np.save(folder / "effect.npy", 0.5)
    files = {"program": str(PROGRAM), "effect": str(folder / "effect.npy")}
    words = "cp '{effect}' '{model_dir}/effect.npy'; : '{train}' {strength}"
    declare(folder, files=files, train=["sh", "-c", words])


def test_bad_values_fail_their_trial_and_no_other(tmp_path: Path) -> None:
    learned_already(tmp_path)
    faults = "[none, nan, negative, counts, integers]"
    report = run_job(job(tmp_path, f"{{model: mine, fault: {faults}}}"), "run", "inline")
    said = {
        dict(request.spec.parameters)["fault"]: outcome.error
        for request, outcome in report.failures
    }
    assert report.ran == 6
    assert set(said) == {"nan", "negative", "counts", "integers"}
    assert "1 values that are NaN" in said["nan"]
    assert "1 values that are negative" in said["negative"]
    assert "counts?" in said["counts"]
    assert "values of type int64" in said["integers"]
    assert all("mine, prediction for" in text for text in said.values())
    assert list(Path("run/trials").glob("*/scratch")) == []


def test_a_program_is_a_row_in_the_table_and_runs_once(tmp_path: Path) -> None:
    declare(tmp_path)
    named = job(tmp_path, "{model: mine, strength: [0.5, 1]}")
    assert run_job(named, "run", "inline").ran == 3
    assert run_job(named, "run", "inline").ran == 0
    rows = Results("run").scores
    assert set(rows["model"]) == {"control-mean", "mine"}
    assert rows["value"].notna().any()
    trial = next(t for t in plan_job(named, "run").trials if t.model == "mine")
    log = Path("run/trials", trial.id, "log.txt").read_text(encoding="utf-8")
    assert "fitting with strength 0.5" in log
    assert "harness.program: train: " in log


def test_profiles_are_given_cells_by_the_shared_step(tmp_path: Path) -> None:
    declare(tmp_path, predict=["python", "{program}", "profiles", *PROFILES], output=PROFILE)
    named = job(tmp_path, "{model: mine, cells: [shift-controls, tile-profile]}")
    report = run_job(named, "run", "inline")
    assert report.failures == []
    assert {trial.cells for trial in report.plan.trials if trial.model == "mine"} == {
        "shift-controls",
        "tile-profile",
    }


def test_training_and_predicting_may_be_calls_of_their_own(tmp_path: Path) -> None:
    declare(tmp_path, predict=["python", "{program}", "profiles", *PROFILES], output=PROFILE)
    apart = "resources: {fit: {cpus: 2}, predict: {cpus: 1}, score: {cpus: 1}}\n"
    whole = run_job(job(tmp_path, "{model: mine}"), "whole", "inline")
    parts = run_job(job(tmp_path, "{model: mine}", apart), "parts", "inline")
    assert whole.failures == parts.failures == []
    assert len(parts.plan.parts) > 1
    one, other = (Results(folder).scores for folder in ("whole", "parts"))
    np.testing.assert_array_equal(one["value"], other["value"])


def test_a_file_that_a_job_gives_is_part_of_the_trial_by_content(tmp_path: Path) -> None:
    parameters = {"weights": {"type": "file"}, "strength": {"type": "float", "default": 1.0}}
    train = ["sh", "-c", "cp '{weights}' '{model_dir}/effect.npy'; : '{train}' {strength}"]
    words = ["{model_dir}", "{queries}", "{output}", "none", "{seed}"]
    predict = ["python", "{program}", "predict", *words]
    declare(tmp_path, parameters=parameters, train=train, predict=predict)
    np.save(tmp_path / "zeros.npy", 0.0)
    np.save(tmp_path / "ones.npy", 1.0)
    named = job(tmp_path, "{model: mine, weights: [zeros.npy, ones.npy]}")
    report = run_job(named, "run", "inline")
    assert report.failures == []
    assert len({trial.inputs for trial in report.plan.trials if trial.model == "mine"}) == 2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill soon what does not end when it is told to."""
    monkeypatch.setattr("harness.models.external.supervisor.GRACE_SECONDS", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", ["train", "predict"])
def test_a_step_that_takes_too_long_is_ended_with_its_children(
    tmp_path: Path, task: Task, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "harness.program")
    with pytest.raises(ModelError, match=rf"mine, {step} ran longer than its limit of 3 s"):
        answers(model(tmp_path, f"hangs_in_{step}", seconds={step: 3}), task)
    said = next(text for text in caplog.messages if text.startswith("child "))
    assert not lives(int(said.split()[1]))


@pytest.mark.usefixtures("impatient")
def test_the_time_limit_of_a_trial_ends_the_program(tmp_path: Path) -> None:
    declare(tmp_path)
    named = job(tmp_path, "{model: mine, fault: hangs_in_train}", "limits: {seconds: 6}\n")
    report = run_job(named, "run", "inline")
    assert [outcome.cause for _, outcome in report.failures] == ["time"]
    (trial,) = [request.spec.id for request, _ in report.failures]
    wait_for_the_end(child_in(Path("run/trials", trial, "log.txt")))


HARNESS = """
from harness.models.external import supervisor
from harness.cli import run_command as run
supervisor.GRACE_SECONDS = 0.5
run(["run", "job.yaml", "-o", "run", "--on", "inline"])
"""
PROGRAM_ALONE = f"""
import os, sys
from harness.models.external import supervisor
from harness.models.external.process import run_program
supervisor.GRACE_SECONDS = 0.5
words = [sys.executable, {str(PROGRAM)!r}, "fit", "", "", "hangs_in_train", "1"]
say = lambda text: print(text, flush=True)
run_program(words, folder=".", environment=dict(os.environ), say=say)
"""


@contextmanager
def running(code: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process in the middle of a program that hangs, and that program's child."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with Path("said.txt").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=said, stderr=said
        )
    try:
        yield process, child_in(log)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("children_too", [False, True], ids=["alone", "with_its_children"])
def test_no_program_outlives_a_process_that_is_killed(children_too: bool) -> None:
    with running(PROGRAM_ALONE, Path("said.txt")) as (process, child):
        assert lives(child)
        own = psutil.Process(process.pid).children() if children_too else []
        process.kill()
        for one in own:  # as Ray does with a worker that it ends
            one.kill()
        process.wait(60)
        wait_for_the_end(child)


def test_no_program_outlives_a_harness_that_is_interrupted(tmp_path: Path) -> None:
    declare(tmp_path)
    named = job(tmp_path, "{model: mine, fault: hangs_in_train}")
    trial = next(t for t in plan_job(named).trials if t.model == "mine")
    with running(HARNESS, Path("run/trials", trial.id, "log.txt")) as (process, child):
        process.send_signal(signal.SIGINT)
        process.wait(60)
        wait_for_the_end(child)


@pytest.mark.slow
def test_the_example_to_copy_runs_as_it_is_shipped(tmp_path: Path) -> None:
    report = run_job(job(tmp_path, "{model: example-program}"), "run", "inline")
    assert report.failures == []
    (trial,) = [trial.id for trial in report.plan.trials if trial.model == "example-program"]
    assert "learned " in Path("run/trials", trial, "log.txt").read_text(encoding="utf-8")
