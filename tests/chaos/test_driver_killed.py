"""A driver that is killed with -9 loses at most the trials in flight, and the next one goes on.

It is killed at random moments: in the middle of a fit, of a file, of an upload.
``CHAOS_MOMENTS=10`` in the environment makes it ten times for each place, ``CHAOS_SEED=1`` others.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from harness.analysis.results import Results
from harness.runs.folder import RunFolder
from harness.runs.status import read_ledger
from harness.storage import paths

if TYPE_CHECKING:
    from pathlib import Path

    from tests.s3_server import ObjectStore

MOMENTS = int(os.environ.get("CHAOS_MOMENTS", "2"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))

JOB = """
dataset: sim:tiny?contexts=1&genes=60
split: unseen-perturbation
seeds: [0]
repeat: 4
folds: [0]
models:
  - {model: control-mean}
  - {model: random-pair}
  - {model: linear, rank: [2, 4]}
score: {suite: vcc2025}
"""
TRIALS = 16


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A run that nobody killed: its scores, its table, and how long the driver had the folder."""

    scores: dict[str, list[tuple[object, ...]]]
    table: bytes
    seconds: float


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("killed") / "killed.yaml"
    path.write_text(JOB, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def undisturbed(job: Path) -> Undisturbed:
    run = str(job.parent / "undisturbed")
    driver = start(job, run, "inline")
    began = wait_until_it_drives(driver, run)
    assert driver.wait(timeout=240) == 0
    return Undisturbed(scores(run), table(run), time.monotonic() - began)


def start(job: Path, run: str, on: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness", "run", str(job), "-o", run, "--on", on]
    environment = os.environ | {"HARNESS_CACHE": str(job.parent / "cache")}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)


def wait_until_it_drives(driver: subprocess.Popen[bytes], run: str) -> float:
    """Wait until a driver has claimed the run, and return when that was."""
    deadline = time.monotonic() + 120
    while (RunFolder(run).driver() or {}).get("pid") != driver.pid and driver.poll() is None:
        assert time.monotonic() < deadline, "the driver did not begin in two minutes"
        time.sleep(0.02)
    return time.monotonic()


def scores(run: str) -> dict[str, list[tuple[object, ...]]]:
    """Return the scores of each finished trial."""
    rows = Results(run).scores.astype({"value": float, "trial": str})
    columns = ["metric", "context", "perturbation", "value"]
    return {
        trial: sorted(part[columns].itertuples(index=False, name=None))
        for trial, part in rows.groupby("trial")
    }


def table(run: str) -> bytes:
    return paths.read_bytes(paths.join(run, "tables", "comparison.csv"))


def kill_at_a_moment(job: Path, run: str, on: str, seconds: float) -> None:
    """Start a driver, and kill -9 it so many seconds after it claimed the run."""
    driver = start(job, run, on)
    wait_until_it_drives(driver, run)
    time.sleep(seconds)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    if on != "inline":
        time.sleep(2)  # Ray's workers notice that their driver is gone


def what_is_done_is_whole(run: str, undisturbed: Undisturbed) -> dict[str, bytes]:
    """Check that all that can be read of a run is true, and return the manifests."""
    if not paths.exists(RunFolder(run).description):
        return {}  # it had claimed the folder, and no more
    ledger = read_ledger(run)
    assert len(ledger.entries) == TRIALS
    assert ledger.counts["failed"] == 0
    done = [entry.trial for entry in ledger.in_state("done")]
    assert scores(run) == {trial: undisturbed.scores[trial] for trial in done}
    return {
        trial: paths.read_bytes(RunFolder(run).of_trial(trial, "manifest.json")) for trial in done
    }


def torment(job: Path, run: str, on: str, undisturbed: Undisturbed, n_moments: int) -> None:
    """Kill drivers of a run at random moments, look at it each time, and let the last one finish.

    A manifest says when its trial was finished and how long it took: one that stays the same to the
    last byte is of a trial that was not carried out again.
    """
    rng = random.Random(f"{SEED} {on} {paths.is_remote(run)}")
    before: dict[str, bytes] = {}
    for _ in range(n_moments):
        seconds = rng.uniform(0.0, 2 * undisturbed.seconds / (n_moments + 1))
        kill_at_a_moment(job, run, on, seconds)
        found = what_is_done_is_whole(run, undisturbed)
        assert before.items() <= found.items()
        before = found
    assert start(job, run, on).wait(timeout=240) == 0
    after = what_is_done_is_whole(run, undisturbed)
    assert len(after) == TRIALS
    assert before.items() <= after.items()
    assert table(run) == undisturbed.table


@pytest.mark.slow
@pytest.mark.parametrize("on", ["inline", pytest.param("local", marks=pytest.mark.ray)])
def test_a_driver_killed_at_any_moment_is_resumed(
    job: Path, undisturbed: Undisturbed, on: str
) -> None:
    torment(job, str(job.parent / f"disturbed-{on}"), on, undisturbed, MOMENTS)


@pytest.mark.slow
def test_the_same_with_the_run_on_an_object_store(
    job: Path, undisturbed: Undisturbed, object_store: ObjectStore
) -> None:
    run = f"s3://{object_store.bucket}/{job.parent.name}"
    torment(job, run, "inline", undisturbed, MOMENTS)
    written = Counter(
        request.removeprefix("PUT ")
        for request in object_store.server.requests()
        if request.startswith("PUT ") and job.parent.name in request
    )
    manifests = {
        key: n for key, n in written.items() if "/trials/" in key and key.endswith("/manifest.json")
    }
    assert set(manifests.values()) == {1}
    assert len(manifests) == TRIALS
