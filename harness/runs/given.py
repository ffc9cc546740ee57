"""Score a prediction that was made elsewhere, as the trial that it is: nothing is fitted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.data import open_store
from harness.scoring import SUITE, Reading, Scores, by_scale, prepare, score
from harness.tasks import Task, parse_split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.data import Scale
    from harness.jobs import TrialSpec
    from harness.scoring import PreparedTruth

_TRUTHS: dict[Scale, tuple[Any, PreparedTruth]] = {}
"""The last truth of each scale that this process scored against: each can be large."""


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
    place = (truth, spec.fingerprint, spec.split_spec, spec.fold, spec.side, spec.controls)
    held_out = bool(spec.split_spec)
    scored: list[tuple[Scale, list[str]]] = (
        by_scale(suites) if held_out else [("log1p", list(suites))]  # a file is on the scale it is
    )
    parts, scales = [], {}
    for scale, names in scored:
        key = (*place, reading, scale, tuple(names))
        if scale not in _TRUTHS or _TRUTHS[scale][0] != key:
            _TRUTHS.pop(scale, None)  # before the next one is read
            cells = _held_out(spec, truth, scale) if held_out else truth
            found = prepare(cells, reading, suite=names, reference=reference)
            _TRUTHS[scale] = key, found
        prepared = _TRUTHS[scale][1]
        parts.append(score(prepared, prediction, suite=names, strict=False))
        if SUITE in names:
            scales[SUITE] = prepared.ends
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    return Scores(frame, name=parts[0].name, scales=scales)


def _held_out(spec: TrialSpec, store: str, scale: Scale) -> Any:
    split = parse_split(json.loads(spec.split_spec), spec.split)
    task = Task(open_store(store), split, spec.fold, controls=spec.controls)
    return task.truth(spec.side, scale=scale)
