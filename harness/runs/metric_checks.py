"""Trust checks of a dataset, or of the datasets of a run, and their files.

::

    trust.md, trust.csv    what each metric is worth; written last
    trust.json             dataset, fingerprint, sampling, what could not be scored
    scores.parquet         one row for each prediction, metric and pair

Of a run they lie in ``RUN/trust/DATASET/``, where comparison tables and reports look for them.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from harness.analysis import FOLDER, read_run, trust_table
from harness.data import open_store
from harness.errors import DataError
from harness.runs.datasets import prepare
from harness.scoring import Sampling, check_trust
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.analysis import Table
    from harness.scoring import ScoringOptions

    Progress = Callable[[str, int, int], None]

_ALL = Sampling()


@dataclass(frozen=True, slots=True)
class Assessed:
    """What was found of one dataset, and the folder that it was written to."""

    dataset: str
    folder: str
    table: Table


def assess(
    subject: str,
    suites: Sequence[str] = (),
    output: str | None = None,
    *,
    sampling: Sampling = _ALL,
    options: ScoringOptions | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> list[Assessed]:
    """Check metrics on a dataset, or on every dataset of a run, and write what was found.

    Parameters
    ----------
    subject
        A card, a store, ``sim:PRESET``; or a run folder.
    suites
        By which suites; by default a run's own, else vcc2025.
    output
        The folder; by default ``runs/trust-NAME``, or ``trust/`` in the run folder.
    sampling, options
        As `harness.scoring.metric_checks.check_trust` takes them.
    progress
        Called with the dataset, predictions scored and in all.
    """
    job = read_run(subject).get("job", {})
    datasets = _datasets(job, subject)
    named = job.get("score", {}).get("suite", "vcc2025")
    chosen = tuple(suites) or (tuple(named) if isinstance(named, list) else (str(named),))
    found = []
    for dataset in datasets:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset.rstrip("/").rpartition("/")[2])
        folder = output or paths.join("runs", f"trust-{name}")
        if job:  # a run may have several datasets
            folder = paths.join(output or paths.join(subject, FOLDER), name)
        paths.check_writable(folder)
        found.append(_assess(dataset, chosen, folder, sampling, options, progress))
    return found


def _assess(
    dataset: str,
    suites: tuple[str, ...],
    folder: str,
    sampling: Sampling,
    options: ScoringOptions | None,
    progress: Progress,
) -> Assessed:
    """Check metrics on one dataset, and write what was found to a folder."""
    store = open_store(prepare(dataset, progress).store)
    trust = check_trust(
        store,
        suites,
        sampling=sampling,
        options=options,
        report=lambda done, total: progress(dataset, done, total),
    )
    table = trust_table(trust.scores, trust.left_out)
    described = {
        "dataset": dataset,
        "dataset_version": int(store.card.get("version", 1)),
        "fingerprint": store.fingerprint,
        "suites": list(suites),
        "sampling": asdict(sampling),
        "n_pairs": trust.n_pairs,
        "n_contexts": trust.n_contexts,
        "left_out": dict(trust.left_out),
    }
    buffer = BytesIO()
    trust.scores.to_parquet(buffer, index=False)
    paths.write_atomic(paths.join(folder, "scores.parquet"), buffer.getvalue())
    paths.write_atomic(paths.join(folder, "trust.json"), json.dumps(described, indent=1) + "\n")
    paths.write_atomic(paths.join(folder, "trust.csv"), table.to_csv())
    paths.write_atomic(paths.join(folder, "trust.md"), table.to_markdown())
    return Assessed(dataset, folder, table)


def _datasets(job: Mapping[str, Any], subject: str) -> tuple[str, ...]:
    """List the datasets of a job, whatever its kind; of no job the subject itself."""
    if not job:
        return (subject,)
    named = job.get("dataset") or job.get("truth")
    if isinstance(named, dict):
        named = named.get("dataset")
    elif job.get("kind") == "score":
        raise DataError(
            f"{subject}: the run scores predictions against the file {named!r}, not a dataset. "
            "Give the truth as a store: harness convert, then harness trust STORE."
        )
    return tuple(named) if isinstance(named, list) else (str(named),)
