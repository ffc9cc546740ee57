"""Measure by hand what a job of 10,000 trials asks of its driver.

Run as ``python -m tests.benchmarks.plan [TRIALS]``. Each step has a process of its own, so that the
peak of its memory is its own:

``plan``     from the job's file to its trials, into an empty run folder
``resume``   the same, once all but a hundred of them have manifests
``status``   what `harness status` reads of that folder
``drive``    the driver of the whole job on Ray, with calls that do nothing: what it holds and does
             itself, from the first call to the last
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

import harness.runs.runner
from harness.executors import Call
from harness.metrics import suite_named
from harness.runs.plan import Plan, plan_job
from harness.runs.provenance import described_run
from harness.runs.runner import run_job
from harness.runs.status import read_ledger

if TYPE_CHECKING:
    from collections.abc import Callable

LEFT = 100
CLUSTER = "{kind: local, num_cpus: 2, object_store_memory: 100MiB}"


def write_job(folder: Path, trials: int) -> None:
    """Write a job of so many trials: settings of the linear model, by five seeds."""
    settings = trials // 5
    ridge = [round(0.001 * (n + 1), 3) for n in range(settings // 10)]
    job = {
        "dataset": "sim:tiny",
        "split": "unseen-perturbation",
        "folds": [0],
        "repeat": 5,
        "models": [{"model": "linear", "rank": list(range(1, 11)), "ridge": ridge}],
    }
    (folder / "large.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    (folder / "on.yaml").write_text(CLUSTER, encoding="utf-8")


def planned(folder: Path) -> Plan:
    """Plan the job."""
    return plan_job(str(folder / "large.yaml"), str(folder / "run"))


def plan(folder: Path) -> str:
    """Plan the job in an empty folder."""
    return f"{len(planned(folder).missing):,} missing"


def finish(folder: Path) -> None:
    """Make a run in which all but some trials are finished, as far as their files say."""
    found = planned(folder)
    found.run.describe(
        described_run(found.job, found.path.name, found.trials, found.stores, "local")
    )
    scored = {
        f"{suite}:{metric.name}": metric.version
        for suite in found.job.score.suites
        for metric in suite_named(suite).members()
    }
    for trial in found.trials[:-LEFT]:
        manifest = {"trial": trial.id, "model": trial.model, "scored": scored, "kept": ["scores"]}
        path = Path(found.run.of_trial(trial.id, "manifest.json"))
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def resume(folder: Path) -> str:
    """Plan the job again."""
    return f"{len(planned(folder).missing):,} missing"


def status(folder: Path) -> str:
    """Read the ledger."""
    return str(read_ledger(str(folder / "run")).counts)


def nothing() -> None:
    """Do what a trial's call does, but for the trial."""


def drive(folder: Path) -> str:
    """Drive the job from an empty folder, with calls that do nothing."""

    def idle(request: object, *_: object) -> Call:
        return Call(request.spec.id, nothing)  # type: ignore[attr-defined]

    harness.runs.runner.chain_calls = idle  # type: ignore[assignment]
    report = run_job(str(folder / "large.yaml"), str(folder / "idle"), str(folder / "on.yaml"))
    assert not report.failed
    return f"{report.ran:,} calls"


def measured(step: Callable[[Path], str], folder: Path) -> None:
    """Print what a step took, and the peak of this process."""
    start, cpu = time.perf_counter(), time.process_time()
    said = step(folder)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    name = step.__name__
    print(f"{name:<8} {seconds:6.1f} s, {cpu:.1f} of the processor; peak {peak:.0f} MiB; {said}")


def main() -> None:
    """Measure each step."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="plan-") as scratch:
        folder = Path(scratch)
        write_job(folder, trials)
        planned(folder)  # draws the screen, which is no part of a plan
        steps = [partial(measured, plan), finish, *(partial(measured, s) for s in (resume, status))]
        for step in (*steps, partial(measured, drive)):
            process = multiprocessing.get_context("spawn").Process(target=step, args=(folder,))
            process.start()
            process.join()
            assert process.exitcode == 0


if __name__ == "__main__":
    # By its name: the workers of Ray have another main module.
    from tests.benchmarks import plan as itself

    itself.main()
