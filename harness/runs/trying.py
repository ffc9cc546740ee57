"""One setting of a search: its trials on the validation side, and the one number they give."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from harness.errors import TrialError
from harness.metrics import metric_named
from harness.runs.folder import RunFolder
from harness.runs.trial import run_trial
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.runs.request import Errand

    Report = Callable[[int, float], bool]


def try_setting(
    errands: tuple[Errand, ...], suite: str, metric: str, report: Report | None = None
) -> float:
    """Carry out the trials of a setting that are not finished, and return its score.

    The score is the mean over validation pairs and seeds of what is defined; `TrialError` where
    nothing is.
    """
    for errand in errands:
        if not _is_scored(errand, suite, metric):
            run_trial(errand, None if report is None else _Told(report, suite, metric))
    files = [RunFolder(errand.run).results(errand.spec.id) for errand in errands]
    frame = pd.concat([pd.read_parquet(io.BytesIO(paths.read_bytes(file))) for file in files])
    value = _mean(frame, suite, metric)
    if pd.isna(value):
        raise TrialError(f"no validation pair has a value of {metric} (suite {suite})")
    return value


@dataclass(frozen=True, slots=True)
class _Told:
    """Turns the scores of a fit in progress into one number, for whoever decides by it."""

    report: Report
    suite: str
    metric: str

    def __call__(self, step: int, frame: pd.DataFrame) -> bool:
        value = _mean(frame, self.suite, self.metric)
        return True if pd.isna(value) else self.report(step, value)


def _is_scored(errand: Errand, suite: str, metric: str) -> bool:
    said = RunFolder(errand.run).manifest(errand.spec.id) or {"scored": {}}
    version: int | None = said["scored"].get(f"{suite}:{metric}")
    return version == metric_named(metric).version


def _mean(frame: pd.DataFrame, suite: str, metric: str) -> float:
    rows = frame[(frame["suite"] == suite) & (frame["metric"] == metric)]
    return float(rows["value"].mean())
