"""Programs as models on Ray: the same numbers, and nothing that outlives a worker or a driver."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.analysis.results import Results
from harness.runs.folder import RunFolder
from harness.runs.plan import plan_job
from harness.runs.runner import run_job
from tests.command_files import child_in, declare, stand_apart, wait_for_the_end

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CLUSTER = "kind: local\nnum_cpus: 2\nobject_store_memory: 80MiB\nmax_in_flight: 2\nretries: 1\n"


@pytest.fixture(autouse=True)
def elsewhere(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand in a folder that has a cluster of two cores and nothing else."""
    stand_apart(tmp_path, tmp_path_factory.getbasetemp(), monkeypatch)
    Path("two.yaml").write_text(CLUSTER, encoding="utf-8")


FAULTS = ("none", "hangs_once_in_train", "hangs_in_predict")


def job(name: str, *faults: str) -> str:
    Path(name).write_text(
        "dataset: sim:tiny?contexts=2\nsplit: few-shot-context\nfolds: [0]\n"
        f"models: [{{model: control-mean}}, {{model: mine, fault: [{', '.join(faults)}]}}]\n"
        "score: {baseline: control-mean}\n",
        encoding="utf-8",
    )
    return name


def test_a_sweep_of_programs_survives_a_lost_worker_and_ends_all_when_it_is_cancelled(
    tmp_path: Path,
) -> None:
    declare(tmp_path, environment={"variables": {"MARK": str(tmp_path / "mark")}})
    named, run = job("job.yaml", *FAULTS), RunFolder("swept")
    of_fault = {dict(t.parameters).get("fault"): t.id for t in plan_job(named).trials}
    plain, once, ever = (of_fault[fault] for fault in FAULTS)
    words = [sys.executable, "-m", "harness"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with Path("said.txt").open("wb") as said:
        driver = subprocess.Popen(
            [*words, "run", named, "-o", run.path, "--on", "two.yaml"],
            env=environment,
            stdout=said,
            stderr=said,
        )
    try:
        child = child_in(Path(run.log(once)))
        attempt = run.attempt(once)
        assert attempt is not None
        psutil.Process(attempt["pid"]).kill()
        wait_for_the_end(child)
        child = child_in(Path(run.log(ever)))
        while run.manifest(plain) is None or run.manifest(once) is None:
            assert driver.poll() is None, Path("said.txt").read_text(encoding="utf-8")
            time.sleep(0.1)
        subprocess.run([*words, "cancel", run.path], env=environment, check=True)
        assert driver.wait(60) == 1
        wait_for_the_end(child)
    finally:
        driver.kill()
        driver.wait()
    assert "Stopped early: cancelled" in Path("said.txt").read_text(encoding="utf-8")
    again = run.manifest(once)
    assert again is not None
    assert again["attempts"] == 2
    # The mark is there now, so that nothing hangs.
    assert not run_job(job("calm.yaml", *FAULTS[:2]), "calm", "inline").failures
    order = ["trial", "suite", "metric", "context", "perturbation"]
    one, other = (Results(folder).scores.sort_values(order) for folder in ("swept", "calm"))
    assert one["trial"].tolist() == other["trial"].tolist()
    np.testing.assert_array_equal(one["value"], other["value"])
