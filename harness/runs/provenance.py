"""What a run says of itself: its job as expanded, the code, the versions and the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.jobs import described
from harness.models import parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.jobs import Job, TrialSpec

VERSION = version("virtual-cell-harness")

PACKAGES = ("anndata", "numba", "numpy", "pandas", "ray", "scipy", "xarray", "zarr")
"""Whose versions a run writes down."""


def described_run(
    job: Job, file: str, trials: Sequence[TrialSpec], stores: Mapping[str, str], on: str
) -> dict[str, Any]:
    """Return what a reader needs to know of a run, a year later; nothing secret."""
    return {
        "job": job.model_dump(mode="json"),
        "job_file": file,
        "trials": {trial.id: json.loads(trial.to_json()) for trial in trials},
        **described(job, trials, parameters_of),
        "stores": dict(stores),
        "on": on,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "harness": VERSION,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
        },
    }


def _commit() -> str | None:
    """Return the commit of the checkout that runs, with ``+changes`` where it was changed."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    commit = _git(checkout, "rev-parse", "HEAD")
    changed = _git(checkout, "status", "--porcelain")
    return f"{commit}+changes" if commit and changed else commit


def _git(checkout: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(checkout), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
