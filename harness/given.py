"""Score a prediction that was made elsewhere, as the trial that it is: nothing is fitted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.score import PreparedTruth, Reading, prepare, score
from harness.splits import parse_split
from harness.store import open_store
from harness.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.scores import Scores
    from harness.specs import TrialSpec

_TRUTH: dict[str, Any] = {}
"""The last truth that this process scored against: at most one, since each can be large."""


def score_given(
    spec: TrialSpec, truth: str, prediction: str, suites: Sequence[str], **options: Any
) -> Scores:
    """Score a file.

    Parameters
    ----------
    spec
        With what is in the file and how it is read as `prediction`, and the split where the truth
        is one side of a dataset.
    truth
        A store of that dataset, else the file of the truth.
    prediction
        The file.
    options
        ``threads`` and ``memory``, and ``reference`` for the folder of what trials share.
    """
    reference = options.pop("reference")
    reading = Reading(**json.loads(spec.prediction)["reading"], **options)
    key = (truth, spec.fingerprint, spec.split_spec, spec.fold, spec.side, spec.controls, reading)
    if _TRUTH.get("key") != key:
        cells = _held_out(spec, truth) if spec.split_spec else truth
        found = prepare(cells, reading, suite=list(suites), reference=reference)
        _TRUTH.update(key=key, truth=found)
    prepared: PreparedTruth = _TRUTH["truth"]
    return score(prepared, prediction, suite=list(suites))


def _held_out(spec: TrialSpec, store: str) -> Any:
    split = parse_split(json.loads(spec.split_spec), spec.split)
    return Task(open_store(store), split, spec.fold, controls=spec.controls).truth(spec.side)
