"""A search chooses on validation pairs, the same settings each time, and scores one on test."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

import harness.runs.runner
import harness.scoring.scorer
from harness.analysis.results import Results
from harness.analysis.tables import write_tables
from harness.cli import run_command as command
from harness.data.store import Store
from harness.errors import ClusterError, TrialError
from harness.executors import InlineExecutor, Outcome
from harness.models.base import _MODELS, ModelInfo
from harness.models.linear import Linear
from harness.runs.folder import RunFolder
from harness.runs.plan import plan_job
from harness.runs.runner import Report, retry
from harness.runs.search import Reports, try_setting
from tests.searched import JOB, run_search, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.tasks.task import TrainView


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all tests of the session, so that the screen is drawn once."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Report]:
    """Run the job with some of its keys changed."""
    return partial(run_search, tmp_path)


@pytest.mark.parametrize(
    ("budget", "n"), [({}, 3), ({"trials": 2}, 2), ({"trials": 50}, 3)], ids=["all", "less", "more"]
)
def test_a_grid_is_tried_as_far_as_the_budget_goes(
    search: Callable[..., Report], budget: dict[str, Any], n: int
) -> None:
    report = search(sampler={"kind": "grid"}, space={"rank": {"choice": [2, 4, 8]}}, budget=budget)
    tried = table(report)
    assert tried["rank"].nunique() == len(tried) == n
    assert set(tried["state"]) == {"done"}


# --- the whole ----------------------------------------------------------------------------------


def test_the_best_on_validation_is_scored_on_test(search: Callable[..., Report]) -> None:
    report = search(budget={"trials": 5}, seeds=[0, 1])
    tried = table(report)
    assert tried["state"].tolist() == ["done"] * 5
    [best] = tried[tried["chosen"]].to_dict("records")
    assert best["validation_mae"] == tried["validation_mae"].min()
    results = Results(report.plan.run.path)
    assert sorted(results.trials["model"]) == ["control-mean"] * 2 + ["linear"] * 2
    linear = results.trials[results.trials["model"] == "linear"]
    assert set(linear["param.ridge"]) == {best["ridge"]}
    assert not set(linear["trial"]) & set(best["trials"].split())
    assert results.n_unplanned == 0
    [compared, *_] = write_tables(results, report.plan.run.tables)
    assert sorted(compared.frame["model"]) == ["control-mean", "linear"]


def test_a_search_does_not_see_test_pairs_before_it_has_chosen(
    search: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every value of a test pair is NaN until then, and nothing comes out otherwise.

    That is more than a list of what is read: rows between two that are wanted are read with them,
    and dropped.
    """
    plain = search(folder="plain")
    held = {p["perturbation"] for p in json.loads(plain.plan.trials[0].split_spec)["test"]}
    hidden = {"rows": 0}
    rows, gene_block, choose = Store.rows, Store.gene_block, harness.runs.runner.choose

    def hide(store: Store, block: np.ndarray, first: int) -> np.ndarray:
        block = block.astype(np.float32)
        for pair in store.ranges if choosing else ():
            part = block[max(0, pair.start - first) : max(0, pair.stop - first)]
            if pair.perturbation in held:
                part[:] = np.nan
                hidden["rows"] += len(part)
        return block

    def watched_choice(*args: Any) -> Any:
        trials = choose(*args)
        choosing.clear()
        return trials

    choosing = [True]
    monkeypatch.setattr(Store, "rows", lambda s, a, b: hide(s, rows(s, a, b), a))
    monkeypatch.setattr(
        Store, "gene_block", lambda s, a, b, c=0, d=None: hide(s, gene_block(s, a, b, c, d), c)
    )
    monkeypatch.setattr(harness.runs.runner, "choose", watched_choice)
    monkeypatch.setattr(harness.scoring.scorer, "_LAST_TRUTH", {})
    blind = search(folder="blind")
    assert hidden["rows"] > 0
    assert not choosing
    pd.testing.assert_frame_equal(table(blind), table(plain))
    assert blind.plan.trials == plain.plan.trials
    before, after = (Results(report.plan.run.path).scores for report in (plain, blind))
    pd.testing.assert_frame_equal(after, before)


def test_a_search_given_more_trials_keeps_those_it_has(search: Callable[..., Report]) -> None:
    first = search()
    manifests = RunFolder(first.plan.run.path).manifests
    kept = table(first).drop(columns="chosen")
    before = manifests(" ".join(kept["trials"]).split())
    longer = search(budget={"trials": 6, "concurrent": 3})
    assert len(table(longer)) == 6
    pd.testing.assert_frame_equal(table(longer)[:4].drop(columns="chosen"), kept)
    assert manifests(before) == before


class FailsAtTwo(Linear):
    """A linear model that has no rank 2."""

    def fit(self, train: TrainView) -> FailsAtTwo:
        if self.rank == 2:
            raise ArithmeticError("rank 2")
        super().fit(train)
        return self


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    info = ModelInfo("picky", FailsAtTwo, ceiling=False, cells="shift-controls")
    monkeypatch.setitem(_MODELS, "picky", info)
    return "picky"


def test_a_setting_that_fails_is_recorded_and_not_chosen(
    search: Callable[..., Report], picky: str
) -> None:
    space = {"rank": {"choice": [2, 4]}}
    report = search(model=picky, space=space, budget={"trials": 6})
    tried = table(report)
    assert tried.groupby("rank")["state"].unique().to_dict() == {2: ["failed"], 4: ["done"]}
    assert set(tried.loc[tried["rank"] == 2, "error"]) == {"ArithmeticError: rank 2"}
    assert tried.loc[tried["chosen"], "rank"].tolist() == [4]
    with pytest.raises(TrialError, match="1 settings failed, the last: ArithmeticError"):
        search(model=picky, space=space, folder="fast", budget={"trials": 6}, fail_fast=True)


def test_a_failed_setting_is_tried_again_when_its_trial_is_retried(
    search: Callable[..., Report], picky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = search(model=picky, space={"rank": {"choice": [2, 4]}}, budget={"trials": 6})
    monkeypatch.setattr(FailsAtTwo, "fit", Linear.fit)
    again = retry(report.plan.run.path, failed=True, on="inline")
    assert set(table(again)["state"]) == {"done"}
    assert table(again)["rank"].tolist() == table(report)["rank"].tolist()


class Stepwise(Linear):
    """A linear model that reports nine steps; its score follows from its ridge."""

    reports = True

    def fit(self, train: TrainView) -> Stepwise:
        super().fit(train)
        for step in range(1, 10):
            report = getattr(self, "report_", None)
            if report is not None:
                report(step)
        return self


@pytest.fixture
def stepwise(monkeypatch: pytest.MonkeyPatch) -> str:
    info = ModelInfo("stepwise", Stepwise, ceiling=False, cells="shift-controls")
    monkeypatch.setitem(_MODELS, "stepwise", info)
    return "stepwise"


ASHA = {"kind": "asha", "grace": 1, "factor": 3}


def test_halving_stops_bad_settings_inline_and_a_search_begun_again_goes_on(
    search: Callable[..., Report], stepwise: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "model": stepwise,
        "space": {"ridge": {"log": [0.001, 1000.0]}},
        "scheduler": ASHA,
        "sampler": {"kind": "random", "seed": 1},
    }
    tried = table(search(folder="whole", **changes, budget={"trials": 8}))
    assert set(tried["state"]) == {"done", "stopped"}
    stopped, done = (tried[tried["state"] == state] for state in ("stopped", "done"))
    assert set(stopped["steps"]) <= {1, 3, 9}
    assert set(done["steps"]) == {9}
    assert tried.loc[tried["chosen"], "validation_mae"].item() == done["validation_mae"].min()
    first = search(folder="parts", **changes, budget={"trials": 4})
    # Versions before kept the reports of a setting with its end alone.
    [reports] = Path(first.plan.run.path).glob("search/*/reports")
    for file in reports.iterdir():
        file.unlink()
    parts = search(folder="parts", **changes, budget={"trials": 8})
    pd.testing.assert_frame_equal(table(parts), tried)
    capsys.readouterr()
    assert command(["status", parts.plan.run.path]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{len(stopped)} stopped early by the search" in said
    assert "failed" not in said
    assert "8 settings tried, of at most 8." in said
    other = {**changes, "space": {"ridge": {"log": [0.01, 10.0]}}}
    again = search(folder="parts", **other, budget={"trials": 4})
    assert command(["status", again.plan.run.path]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 settings tried, of at most 4." in said  # not those of the search before


def test_halving_stops_nothing_of_a_model_that_reports_no_steps(
    search: Callable[..., Report],
) -> None:
    tried = table(search(scheduler=ASHA))
    assert set(tried["state"]) == {"done"}
    assert set(tried["steps"]) == {0}


def test_a_setting_that_no_node_has_place_for_is_left_to_the_next_run(
    search: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = InlineExecutor.run

    def second_has_no_place(executor: InlineExecutor, calls: Any) -> Iterator[Outcome]:
        for outcome in run(executor, calls):
            gone = Outcome("1", cause="lost", error="no node", unplaceable=True)
            yield gone if outcome.key == "1" else outcome

    with monkeypatch.context() as patched:
        patched.setattr(InlineExecutor, "run", second_has_no_place)
        with pytest.raises(ClusterError, match="no node"):
            search(budget={"trials": 3})
    assert table(search(budget={"trials": 3}))["state"].tolist() == ["done"] * 3


NETWORK: dict[str, Any] = {
    "model": "decoder-only",
    "space": {
        "learning_rate": {"log": [0.0001, 10.0]},
        "epochs": {"choice": [9]},
        "validate_every": {"choice": [1]},
        "stop_on": {"choice": ["vcc2025:mae"]},
        "patience": {"choice": [9]},
    },
    "models": [],
}


def test_a_network_reports_epochs_and_leaves_no_checkpoint_where_it_is_stopped(
    search: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="networks need the extra `torch`")
    plan = search(**NETWORK, budget={"trials": 1}).plan
    assert plan.search is not None
    [request] = plan.search.requests({"learning_rate": 0.002, "epochs": 9, "validate_every": 2})
    told: list[int] = []

    def add(reports: Reports, epoch: int, value: float) -> bool:
        assert value > 0
        told.append(epoch)
        return epoch < 4

    monkeypatch.setattr(Reports, "add", add)
    assert try_setting((request,), "vcc2025", "mae", Reports(plan.search.folder, 7)) is None
    assert told == [2, 4]
    folder = Path(plan.run.of_trial(request.spec.id))
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["cause"] == "stopped"
    assert "stopped early at step 4 (ASHA)" in failure["error"]
    assert len(pd.read_parquet(folder / "curve.parquet")) == 3
    assert not (folder / "checkpoint").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "on", [pytest.param("inline"), pytest.param("two.yaml", marks=pytest.mark.ray)]
)
def test_halving_stops_networks_that_learn_badly(
    search: Callable[..., Report], tmp_path: Path, on: str
) -> None:
    pytest.importorskip("torch", reason="networks need the extra `torch`")
    cluster = tmp_path / "two.yaml"
    cluster.write_text("{kind: local, num_cpus: 2, object_store_memory: 80MiB}", encoding="utf-8")
    report = search(
        on=on if on == "inline" else str(cluster),
        sampler={"kind": "random", "seed": 1},
        scheduler={"kind": "asha", "grace": 2, "factor": 2},
        budget={"trials": 8},
        **NETWORK,
    )
    assert report.plan.search is not None
    tried = report.plan.search.tried()
    stopped = [one for one in tried if one.state == "stopped"]
    assert stopped
    for one in stopped:
        last = max(one.steps)
        assert last in {2, 4, 8}  # the rungs, in epochs
        assert one.steps[last] > min(other.steps.get(last, np.inf) for other in tried)
    assert all(max(one.steps) == 9 for one in tried if one.state == "done")
    assert set(table(report)["steps"]) == {max(one.steps) for one in tried}


def test_a_plan_of_a_search_makes_no_trial_of_it(tmp_path: Path) -> None:
    path = tmp_path / "find.yaml"
    path.write_text(yaml.safe_dump(JOB), encoding="utf-8")
    plan = plan_job(str(path), str(tmp_path / "run"))
    assert [trial.model for trial in plan.trials] == ["control-mean"]
    assert plan.search is not None
    assert plan.search.tried() == []


def test_a_plan_says_what_is_searched_and_what_of_it_was_tried(
    search: Callable[..., Report], capsys: pytest.CaptureFixture[str]
) -> None:
    report = search(budget={"trials": 2}, seeds=[0, 1], metric="vcc2025:mae")
    job = str(report.plan.path)
    Path(job).write_text(
        Path(job).read_text(encoding="utf-8").replace("trials: 2", "trials: 5"), encoding="utf-8"
    )
    assert command(["plan", job, "-o", report.plan.run.path]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a search: 5 settings of linear by tpe, 1 at a time, chosen by vcc2025:mae" in said
    assert "over 2 seeds; 2 tried, 3 to try, about" in said
    assert "scored on the test pairs: 2 more trials." in said
