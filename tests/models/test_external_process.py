"""Programs that run beside the harness: whether they live is told by what they do."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from harness.cli.status import shown
from harness.models.external import process as processes
from harness.models.external.process import ProgramError, idle_seconds, run_program
from harness.runs.folder import RunFolder
from harness.runs.heartbeat import Heartbeat
from harness.runs.status import Entry, Ledger
from tests.command_files import lives

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = """
import pathlib, subprocess, sys, time
def wait(until):
    while not pathlib.Path(until).exists(): time.sleep(0.05)
print("begun", flush=True)
wait("speak")
print("still here", flush=True)
wait("work")
code = "import pathlib\\nwhile not pathlib.Path('end').exists(): pass"
subprocess.run([sys.executable, "-c", code])
"""


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_program_is_silent_while_it_neither_writes_nor_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "IDLE_SHARE", 0.2)  # looks are many a second, not one in ten
    said: list[str] = []
    assert idle_seconds() == 0
    arguments = {"folder": str(tmp_path), "environment": dict(os.environ), "say": said.append}
    program = threading.Thread(
        target=run_program, args=([sys.executable, "-c", STEPS],), kwargs=arguments
    )
    program.start()
    try:
        wait_for(lambda: "begun" in said and idle_seconds() > 0.8)
        (tmp_path / "speak").touch()
        wait_for(lambda: "still here" in said)
        assert idle_seconds() < 0.8
        wait_for(lambda: idle_seconds() > 0.8)
        (tmp_path / "work").touch()
        wait_for(lambda: idle_seconds() < 0.3)
        most = 0.0
        for _ in range(10):
            time.sleep(0.2)
            most = max(most, idle_seconds())
        assert most < 1.5  # its child computes, and writes nothing
    finally:
        for name in ("speak", "work", "end"):
            (tmp_path / name).touch()
        program.join()
    assert idle_seconds() == 0


def test_what_runs_in_a_daemon_is_never_silent(tmp_path: Path) -> None:
    seen: list[float] = []

    def look(line: str) -> None:
        time.sleep(0.2)
        seen.append(idle_seconds())

    run_program(
        ["echo", "hello"],
        folder=str(tmp_path),
        environment=dict(os.environ),
        say=look,
        cleanup=["true"],
    )
    assert seen == [0.0]


LEAVES_A_CHILD = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(os.getppid(), child.pid, flush=True)
time.sleep(600)
"""


def test_nothing_is_left_once_a_program_has_ended_whose_supervisor_was_killed(
    tmp_path: Path,
) -> None:
    children: list[int] = []

    def kill(line: str) -> None:
        supervisor, child = map(int, line.split())
        children.append(child)
        os.kill(supervisor, signal.SIGKILL)

    with pytest.raises(ProgramError, match="was killed by SIGKILL"):
        run_program(
            [sys.executable, "-c", LEAVES_A_CHILD],
            folder=str(tmp_path),
            environment=dict(os.environ),
            say=kill,
        )
    (child,) = children
    try:
        assert not lives(child)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_trial_is_as_silent_as_the_program_that_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(str(tmp_path / "run"))
    monkeypatch.setattr("harness.runs.heartbeat.idle_seconds", lambda: 120.0)
    with Heartbeat(run, "abc", "fit", lambda: None) as heartbeat:
        heartbeat.write("fit")
        assert 120 <= run.silence("abc") < 150
        (state, said) = run.standings(["abc"])["abc"]
    assert state == "running"  # the worker lives, and goes on saying so
    table = shown(Ledger(run, (Entry("abc", "mine", state, said),), None))
    (where,) = [cell for cell in table.columns[-1].cells if "fit on" in str(cell)]
    assert "its program last did something 2 min ago" in str(where)
