"""A driver that is killed with -9 loses at most the trials in flight, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from harness.results import Results

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
dataset: sim:tiny
split: unseen-perturbation
seeds: [0, 1]
folds: [0]
models:
  - {model: control-mean}
  - {model: random-pair}
  - {model: linear, rank: [2, 4]}
score: {suite: vcc2025}
"""
TRIALS = 8


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("killed") / "killed.yaml"
    path.write_text(JOB, encoding="utf-8")
    return path


def start(job: Path, run: Path, on: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness", "run", str(job), "-o", str(run), "--on", on]
    environment = os.environ | {"HARNESS_CACHE": str(job.parent / "cache")}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)


def finished(run: Path) -> dict[str, int]:
    """The finished trials, and when each manifest was written."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in run.glob("trials/*/manifest.json")
    }


def wait_for(run: Path, n_trials: int) -> None:
    deadline = time.monotonic() + 120
    while len(finished(run)) < n_trials:
        assert time.monotonic() < deadline, "no trial finished in two minutes"
        time.sleep(0.02)


def scores(run: Path) -> list[tuple[object, ...]]:
    rows = Results(str(run)).scores.astype({"value": float})
    columns = ["trial", "metric", "context", "perturbation", "value"]
    return sorted(rows[columns].itertuples(index=False, name=None))


@pytest.mark.slow
@pytest.mark.parametrize("on", ["inline", pytest.param("local", marks=pytest.mark.ray)])
def test_a_killed_driver_is_resumed_without_running_anything_twice(job: Path, on: str) -> None:
    undisturbed, disturbed = job.parent / "undisturbed", job.parent / f"disturbed-{on}"
    if not undisturbed.exists():
        assert start(job, undisturbed, "inline").wait(timeout=240) == 0
    for target in (1, 4):
        driver = start(job, disturbed, on)
        wait_for(disturbed, target)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    time.sleep(2)  # Ray's workers notice that their driver is gone
    before = finished(disturbed)
    assert 4 <= len(before) < TRIALS
    assert start(job, disturbed, on).wait(timeout=240) == 0
    after = finished(disturbed)
    assert len(after) == TRIALS
    assert {trial: after[trial] for trial in before} == before
    assert scores(disturbed) == scores(undisturbed)
    table = "tables/comparison.csv"
    assert (disturbed / table).read_bytes() == (undisturbed / table).read_bytes()
