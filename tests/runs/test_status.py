"""The ledger of a run: who drives it, what became of each trial, retry and cancel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import run_command as command
from harness.errors import DataError, RunBusyError, UnknownNameError
from harness.runs.folder import ALIVE_SECONDS, RunFolder
from harness.runs.status import find_trial, forget, read_ledger

TRIALS = {"aa11": {"model": "linear"}, "aa22": {"model": "linear"}, "bb33": {"model": "additive"}}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(str(tmp_path / "run"))
    folder.describe({"trials": TRIALS, "job_file": "job.yaml"})
    return folder


def at(folder: RunFolder, name: str, **values: object) -> None:
    Path(folder.of_trial(name.partition("/")[0])).mkdir(parents=True, exist_ok=True)
    Path(folder.of_trial(name)).write_text(json.dumps(values), encoding="utf-8")


def test_a_trial_is_what_its_files_say(run: RunFolder) -> None:
    run.write_attempt("aa11", {"stage": "fit", "host": "n1", "began": time.time()})
    at(run, "aa22/attempt.json", stage="fit", host="n1", seen=time.time() - 2 * ALIVE_SECONDS)
    assert read_ledger(run.path).counts == {
        "done": 0,
        "running": 1,
        "failed": 0,
        "lost": 1,
        "missing": 1,
    }
    run.write_failure("aa22", {"cause": "lost", "error": "node gone"})
    run.write_manifest("aa11", {})
    states = {entry.trial: entry.state for entry in read_ledger(run.path).entries}
    assert states == {"aa11": "done", "aa22": "failed", "bb33": "missing"}


def test_a_finished_trial_has_no_failure_left(run: RunFolder) -> None:
    run.write_failure("aa11", {"cause": "lost", "error": "node gone"})
    run.write_manifest("aa11", {})
    assert run.failure("aa11") is None


def test_failures_are_grouped_by_cause(run: RunFolder) -> None:
    for trial in ("aa11", "bb33"):
        run.write_failure(trial, {"cause": "raised", "error": "ValueError: no"})
    run.write_failure("aa22", {"cause": "time", "error": "too long"})
    causes = read_ledger(run.path).causes
    assert {cause: len(entries) for cause, entries in causes.items()} == {
        "raised: ValueError: no": 2,
        "time: too long": 1,
    }


def test_the_second_driver_is_told(run: RunFolder) -> None:
    with run.lock():
        assert run.driver() is not None
        with pytest.raises(RunBusyError, match=f"process {os.getpid()} on .* last seen 0 s ago"):
            run.lock()
    assert run.driver() is None
    with run.lock():
        pass


@pytest.mark.parametrize(
    "left",
    [
        pytest.param({"pid": 2**22 - 1, "seen": time.time()}, id="a_process_that_is_gone"),
        pytest.param({"host": "elsewhere", "pid": 1, "seen": 0.0}, id="unseen_for_long"),
    ],
)
def test_a_dead_driver_does_not_hold_the_run(run: RunFolder, left: dict[str, object]) -> None:
    import platform

    said = {"token": "x", "host": platform.node()} | left
    Path(run.driver_file).write_text(json.dumps(said), encoding="utf-8")
    with run.lock():
        pass


def test_a_terminated_driver_lets_go_of_the_run(run: RunFolder) -> None:
    def be_terminated() -> None:
        with run.lock():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        be_terminated()
    assert run.driver() is None
    assert signal.getsignal(signal.SIGTERM) == before


def test_retry_forgets_what_failed_or_was_named(run: RunFolder) -> None:
    run.write_manifest("aa11", {})
    run.write_failure("bb33", {"cause": "raised", "error": "no"})
    assert forget(run.path, ["aa1"], failed=True) == ("aa11", "bb33")
    assert read_ledger(run.path).counts["missing"] == 3


def test_a_trial_is_found_by_the_beginning_of_its_id(run: RunFolder) -> None:
    ledger = read_ledger(run.path)
    assert find_trial(ledger, "b") == "bb33"
    with pytest.raises(DataError, match="2 trials begin with 'aa'"):
        find_trial(ledger, "aa")
    with pytest.raises(UnknownNameError, match="Unknown trial"):
        find_trial(ledger, "cc")


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no run\.json"):
        read_ledger(str(tmp_path))


def test_a_file_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,b", encoding="utf-8")
    for words in (["status"], ["logs", "aa"], ["cancel"], ["retry", "--failed"]):
        assert command([words[0], str(file), *words[1:]]) == 2
        assert "this is no run folder" in " ".join(capsys.readouterr().err.split())


SLOW = """
import sys, time
from harness.models import register
from harness.models.means import ControlMean

@register("slow")
class Slow(ControlMean):
    def fit(self, train):
        time.sleep(600)

from harness.cli import run_command as run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_is_cancelled_from_another_process_and_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    job, out = tmp_path / "job.yaml", str(tmp_path / "run")
    text = "dataset: sim:tiny?contexts=1&genes=60\nsplit: unseen-perturbation\nfolds: [0]\n"
    models = "models: [{model: control-mean}, {model: slow}]\n"
    job.write_text(text + models, encoding="utf-8")
    words = [sys.executable, "-c", SLOW, "run", str(job), "-o", out, "--on", "inline"]
    driver = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (Path(out) / "trials").exists() or len(list(Path(out).glob("trials/*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert command(["status", out]) == 0
        assert "1 done · 1 running" in capsys.readouterr().out
        assert command(["cancel", out]) == 0
        _, said = driver.communicate(timeout=60)
    finally:
        driver.send_signal(signal.SIGKILL)
    assert driver.returncode == 1
    assert b"Stopped early: cancelled" in said
    assert read_ledger(out).driver is None
    assert read_ledger(out).counts["lost"] == 1  # at once: nobody is to wait for it
    assert command(["cancel", out]) == 1
    done = read_ledger(out).in_state("done")[0].trial
    assert command(["logs", out, done[:6]]) == 0
    assert "begins on" in capsys.readouterr().out
    assert command(["retry", out]) == 2
    assert command(["retry", out, "--trial", done, "--on", "nowhere"]) == 2
    assert done in {entry.trial for entry in read_ledger(out).in_state("done")}
