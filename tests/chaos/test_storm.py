"""A sweep in a storm ends as it does in peace, and what ended badly by itself says how."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.storm import CAUSES, RETRIES, check


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_survives_lost_workers_and_nodes_and_tells_five_bad_ends_apart(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.chaos.storm", str(tmp_path)]
    options = ["--trials", "32", "--kills", "2", "--patience", "20"]
    done = subprocess.run(
        [*command, *options], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

    ends = check(tmp_path)  # the other trials are done, their scores those of the run inline
    assert {model: cause for model, (cause, _) in ends.items()} == CAUSES
    assert ends["storm-raises"] == ("raised", 1)
    assert ends["storm-dies"] == ("lost", RETRIES + 1)

    account = json.loads((tmp_path / "storm.json").read_text(encoding="utf-8"))
    assert len(account["killed"]) == 2
    assert account["node_added_after"] > 0
    assert account["status"] == 1  # something failed, and the command says so
