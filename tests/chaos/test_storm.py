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
@pytest.mark.parametrize(
    ("trials", "kills", "others"),
    [
        pytest.param(18, 2, (), id="small"),
        pytest.param(
            122,
            8,
            ("--gpus",),
            id="large",
            marks=[pytest.mark.long, pytest.mark.timeout(1500)],
        ),
    ],
)
def test_a_sweep_survives_lost_workers_and_nodes_and_tells_five_bad_ends_apart(
    tmp_path: Path, trials: int, kills: int, others: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "tests.chaos.storm", str(tmp_path)]
    options = ["--trials", str(trials), "--kills", str(kills), "--patience", "20", *others]
    done = subprocess.run(
        [*command, *options], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

    ends = check(tmp_path)  # the other trials are done, their scores those of the run inline
    assert {model: cause for model, (cause, _) in ends.items()} == CAUSES
    assert ends["storm-raises"] == ("raised", 1)
    assert ends["storm-dies"] == ("lost", RETRIES + 1)

    account = json.loads((tmp_path / "storm.json").read_text(encoding="utf-8"))
    assert len(account["killed"]) == kills
    assert account["node_added_after"] > 0
    assert account["status"] == 1  # something failed, and the command says so
