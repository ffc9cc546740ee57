"""Score files of predictions against one truth: no job, no trials, what `harness score` does.

The truth is read once. A prediction that cannot be scored is reported and the others go on; what
is written is written whole, and only for predictions that were scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePath
from typing import TYPE_CHECKING

import pandas as pd

from harness import paths
from harness.anchored import SUITE, as_markdown, try_anchored
from harness.errors import DataError, HarnessError, listed
from harness.results import Results
from harness.score import SUFFIXES, Reading, chosen_suites, prepare, score
from harness.tables import compare_suites

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.scores import Scores
    from harness.tables import Table


@dataclass(slots=True)
class Batch:
    """What came of scoring several predictions.

    Attributes
    ----------
    scores
        By prediction, in the order given.
    failures
        Why a prediction could not be scored, by its path.
    tables
        One for each suite, predictions as rows.
    anchored, not_anchored
        The 2026 suite's scores between its anchors, predictions as rows; or why there are none.
    """

    scores: dict[str, Scores] = field(default_factory=dict)
    failures: dict[str, HarnessError] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    anchored: pd.DataFrame = field(default_factory=pd.DataFrame)
    not_anchored: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What to score by, and how to read the files.

    Attributes
    ----------
    suites, metrics
        Suites, and instead of their own metrics these.
    baseline
        A prediction that combined scores are measured from; it is scored too.
    reading
        How files are read.
    reference
        A folder or URL where the truth's part of scores is kept, and looked for.
    de_truth, de_predictions
        Tables of differential expression to take in place of the rank test; of predictions, by path
        as given, those that have one.
    """

    suites: Sequence[str] = ("vcc2025",)
    metrics: Sequence[str] | None = None
    baseline: str | None = None
    reading: Reading = field(default_factory=Reading)
    reference: str | None = None
    de_truth: str | None = None
    de_predictions: Mapping[str, str] = field(default_factory=dict)


def score_files(
    truth: str,
    predictions: Sequence[str],
    out: str,
    request: Request,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Batch:
    """Score predictions, and write ``OUT/scores.parquet``, ``OUT/table.md`` and each one's CSVs.

    Parameters
    ----------
    truth, predictions
        Paths of .h5ad or .zarr files, or stores.
    out
        The folder to write to.
    report
        Called with the number of predictions done, and of all.

    Raises
    ------
    DataError
        The truth cannot be read, or two predictions have one name.
    """
    chosen_suites(list(request.suites), request.metrics)  # an unknown name before any reading
    paths_by_name = _named([*predictions, *([request.baseline] if request.baseline else [])])
    prepared = prepare(
        truth,
        request.reading,
        suite=list(request.suites),
        metrics=request.metrics,
        reference=request.reference,
        de_table=request.de_truth,
    )
    batch = Batch()
    for done, (name, path) in enumerate(paths_by_name.items()):
        report(done, len(paths_by_name))
        try:
            scores = score(
                prepared,
                path,
                suite=list(request.suites),
                metrics=request.metrics,
                de_table=request.de_predictions.get(path),
            )
        except (HarnessError, OSError) as error:
            batch.failures[path] = _as_ours(path, error)
            continue
        scores.write(out)
        batch.scores[name] = scores
    report(len(paths_by_name), len(paths_by_name))
    if SUITE in request.suites and batch.scores and request.metrics is None:
        batch.anchored, batch.not_anchored = try_anchored(prepared, batch.scores, out)
    _write(batch, out, request)
    return batch


def prediction_name(path: str) -> str:
    """Return what a prediction is called: its file's name without the extension."""
    pure = PurePath(path.rstrip("/"))
    return pure.stem if pure.suffix in SUFFIXES else pure.name


def _named(files: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for file in dict.fromkeys(files):
        name = prediction_name(file)
        if name in named:
            raise DataError(
                f"{named[name]} and {file} would both be written as {name!r}. Rename one: a "
                "prediction is called by its file's name."
            )
        named[name] = file
    return named


def _as_ours(path: str, error: Exception) -> HarnessError:
    return error if isinstance(error, HarnessError) else DataError(f"{path}: {error}")


def _write(batch: Batch, out: str, request: Request) -> None:
    if not batch.scores:
        return
    rows = pd.concat(
        [scores.frame.assign(prediction=name) for name, scores in batch.scores.items()],
        ignore_index=True,
    )
    rows.insert(0, "prediction", rows.pop("prediction"))
    buffer = BytesIO()
    rows.to_parquet(buffer, index=False)
    paths.write_atomic(paths.join(out, "scores.parquet"), buffer.getvalue())
    results = Results.of(
        rows.rename(columns={"prediction": "trial"}),
        pd.DataFrame({"trial": list(batch.scores), "model": list(batch.scores)}),
    )
    baseline = prediction_name(request.baseline) if request.baseline else None
    known = baseline if baseline in batch.scores else None
    batch.tables = compare_suites(results, suites=list(request.suites), baseline=known)
    text = [f"## Suite {table.suite}\n\n{table.to_markdown()}" for table in batch.tables]
    if len(batch.anchored):
        text.append(f"\n## Scaled score of {SUITE}\n\n{as_markdown(batch.anchored)}")
    if batch.not_anchored:
        text.append(f"\nNo scaled score of {SUITE}: {batch.not_anchored}\n")
    if batch.failures:
        text.append(f"\nNot scored: {listed(batch.failures)}.\n")
    paths.write_atomic(paths.join(out, "table.md"), "\n".join(text))
