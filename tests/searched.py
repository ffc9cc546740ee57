"""A small search, for tests to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from harness.runs.runner import Report, run_job

if TYPE_CHECKING:
    from pathlib import Path

JOB: dict[str, Any] = {
    "kind": "search",
    "dataset": "sim:tiny?contexts=1&genes=60",
    "split": "listed",
    "model": "linear",
    "space": {"rank": {"choice": [2, 4, 8]}, "ridge": {"log": [0.001, 10.0]}},
    "budget": {"trials": 4},
    "models": [{"model": "control-mean"}],
}


def run_search(path: Path, on: str = "inline", folder: str = "run", **changes: Any) -> Report:
    """Run the job in a folder of `path`, with some of its keys changed."""
    job = path / "find.yaml"
    job.write_text(yaml.safe_dump({**JOB, **changes}), encoding="utf-8")
    return run_job(str(job), str(path / folder), on)


def table(report: Report) -> pd.DataFrame:
    """Return the settings that a search tried, without their seconds."""
    return pd.read_csv(f"{report.plan.run.tables}/search.csv").drop(columns="seconds")
