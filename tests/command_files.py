"""Declarations of a tiny program, for tests of command models."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml

from harness.models.external.spec import Command, read_command

if TYPE_CHECKING:
    import pytest

PROGRAM = Path(__file__).parent / "programs" / "stand_in_program.py"

CELLS = ["{model_dir}", "{queries}", "{output}", "{fault}", "{seed}"]
PROFILES = ["{model_dir}", "{query_table}", "{train}", "{output}"]


def stand_apart(folder: Path, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Stand in an empty folder; one cache for all tests, so that a screen is drawn once."""
    patch.chdir(folder)
    patch.setenv("HARNESS_CACHE", str(cache / "cache"))


def declaration(**changes: Any) -> dict[str, Any]:
    """Return a declaration that is right, with some keys replaced; None removes one."""
    keys: dict[str, Any] = {
        "title": "The mean effect of training, by a program",
        "version": 1,
        "files": {"program": str(PROGRAM)},
        "parameters": {
            "strength": {"type": "float", "default": 1.0},
            "fault": {"type": "str", "default": "none"},
        },
        "train": ["python", "{program}", "fit", "{train}", "{model_dir}", "{fault}", "{strength}"],
        "predict": ["python", "{program}", "predict", *CELLS],
    }
    return {key: value for key, value in (keys | changes).items() if value is not None}


def declare(folder: Path, name: str = "mine", **changes: Any) -> Path:
    """Write a declaration where it is found by name from `folder`."""
    path = folder / "jobs" / "commands" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(declaration(**changes)), encoding="utf-8")
    return path


def command(folder: Path, **changes: Any) -> Command:
    """Return a declared program."""
    return read_command(str(declare(folder, **changes)))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def child_in(log: Path, seconds: float = 60) -> int:
    """Wait until a program has said what its child's number is."""
    for _ in range(int(seconds * 20)):
        if log.exists() and "child " in (text := log.read_text(encoding="utf-8")):
            return int(text.rpartition("child ")[2].split()[0])
        time.sleep(0.05)
    raise AssertionError(f"{log} names no child")


def wait_for_the_end(pid: int, seconds: float = 60) -> None:
    for _ in range(int(seconds * 20)):
        if not lives(pid):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"process {pid} outlived its program")
