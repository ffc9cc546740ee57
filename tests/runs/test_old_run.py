"""A run folder of an earlier version: its finished trials stay finished, and its table the same."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from harness.analysis.results import Results
from harness.cli import run_command as command
from harness.runs.plan import plan_job
from harness.runs.runner import run_job
from harness.runs.status import read_ledger

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "run-0.1.tar.gz"
UNFINISHED = "8805badc36db"


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    # What were the defaults then has to be said now.
    job = tmp_path / "job.yaml"
    new = job.read_text(encoding="utf-8")
    (tmp_path / "new-defaults.yaml").write_text(new, encoding="utf-8")
    old = new.replace("model: linear", "cells: shift-controls, model: linear")
    old = old.replace("{model: control", "{cells: shift-controls, model: control")
    job.write_text(f"{old}split_version: 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return tmp_path


def test_finished_trials_of_an_old_run_stay_finished(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_job("job.yaml", "run")
    assert [trial.id for trial in plan.missing] == [UNFINISHED]
    assert len(plan.done) == 5
    assert plan.other_code == frozenset()
    assert read_ledger("run").counts["done"] == 5
    assert command(["status", "run"]) == 0
    assert "5" in capsys.readouterr().out


def test_an_old_run_is_resumed_to_the_table_that_the_old_version_wrote(folder: Path) -> None:
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "run/results").iterdir()}
    report = run_job("job.yaml", "run", "inline")
    assert (report.ran, report.failures) == (1, [])
    assert {name: (folder / "run/results" / name).stat().st_mtime_ns for name in kept} == kept
    assert command(["table", "run", "--to", "csv"]) == 0
    assert command(["run", "job.yaml", "-o", "run", "--on", "inline"]) == 0
    made = (folder / "run/tables/comparison.csv").read_text(encoding="utf-8")
    assert made == (folder / "comparison.csv").read_text(encoding="utf-8")
    assert set(Results("run").trials["state"]) == {"done"}


def test_a_plan_tells_what_was_finished_under_other_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(["plan", "new-defaults.yaml", "-o", "run"]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert (
        "5 finished trials used cells: shift-controls, now match-controls. "
        "Set `cells: shift-controls` to keep them."
    ) in said
    assert (
        "5 finished trials used version 1 of split unseen-perturbation, now version 2. "
        "Set `split_version: 1` to keep them."
    ) in said
    assert command(["plan", "job.yaml", "-o", "run"]) == 0
    assert "to keep them" not in "".join(capsys.readouterr())
