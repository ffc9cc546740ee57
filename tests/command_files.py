"""Declarations of a tiny program, for tests of command models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.commands import Command, read_command

PROGRAM = Path(__file__).parent / "programs" / "stand_in_program.py"

CELLS = ["{model_dir}", "{queries}", "{output}", "{fault}", "{seed}"]
PROFILES = ["{model_dir}", "{query_table}", "{train}", "{output}"]


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
